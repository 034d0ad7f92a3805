//! Calls on extents and grants.

use super::{Progress, call, call_piece, h, handle, unit};
use portico_abi::{Call, Handle, Status};

/// Cuts an extent at `offset` pages; the result is the upper part.
///
/// # Errors
/// `BadState` if it is mapped or lent, `Invalid` for an offset outside.
pub fn extent_split(extent: Handle, offset_pages: u64) -> Result<Handle, Status> {
    handle(Call::ExtentSplit, [h(extent), offset_pages, 0, 0, 0, 0])
}

/// Joins two adjacent extents; `second` is closed.
///
/// # Errors
/// `BadState`, `Invalid` if they are not adjacent.
pub fn extent_merge(first: Handle, second: Handle) -> Result<(), Status> {
    unit(Call::ExtentMerge, [h(first), h(second), 0, 0, 0, 0])
}

/// Hands an extent over for good; the result is a handle in `domain`'s table.
///
/// # Errors
/// `BadState`, `Dirty`, `NoBudget`.
pub fn extent_donate(extent: Handle, domain: Handle) -> Result<Handle, Status> {
    handle(Call::ExtentDonate, [h(extent), h(domain), 0, 0, 0, 0])
}

/// Lends a part of an extent; the result is a grant in `domain`'s table.
///
/// # Errors
/// `Dirty`, `NoBudget`, `Invalid`.
pub fn extent_lend(extent: Handle, domain: Handle, offset: u64, pages: u64, attrs: u64) -> Result<Handle, Status> {
    handle(Call::ExtentLend, [h(extent), h(domain), offset, pages, attrs, 0])
}

/// Does a piece of mapping `extent` at `ipa` in `domain`.
///
/// # Errors
/// `Exists` if the range is taken, `NoBudget`, `BadState`.
pub fn extent_map(extent: Handle, domain: Handle, ipa: u64, attrs: u64) -> Result<Progress, Status> {
    call_piece(Call::ExtentMap, [h(extent), h(domain), ipa, attrs, 0, 0])
}

/// Does a piece of mapping the grant `theirs`, of `domain`'s table, at `ipa` in `domain`.
///
/// # Errors
/// As [`extent_map`].
pub fn grant_map(theirs: Handle, domain: Handle, ipa: u64, attrs: u64) -> Result<Progress, Status> {
    call_piece(Call::ExtentMap, [0, h(domain), ipa, attrs, h(theirs), 0])
}

/// Does a piece of taking the mapping of `extent` away.
///
/// # Errors
/// `BadState` if it is not mapped.
pub fn extent_unmap(extent: Handle, domain: Handle) -> Result<Progress, Status> {
    call_piece(Call::ExtentUnmap, [h(extent), h(domain), 0, 0, 0, 0])
}

/// Does a piece of taking the mapping of the grant `theirs`, of `domain`'s table, away.
///
/// # Errors
/// As [`extent_unmap`].
pub fn grant_unmap(theirs: Handle, domain: Handle) -> Result<Progress, Status> {
    call_piece(Call::ExtentUnmap, [0, h(domain), h(theirs), 0, 0, 0])
}

/// Does a piece of taking all grants of an extent back.
///
/// # Errors
/// `BadHandle`, `NoRights`.
pub fn extent_revoke(extent: Handle) -> Result<Progress, Status> {
    call_piece(Call::ExtentRevoke, [h(extent), 0, 0, 0, 0, 0])
}

/// Does a piece of zeroing an extent.
///
/// # Errors
/// `BadState` if it is mapped or lent.
pub fn extent_scrub(extent: Handle) -> Result<Progress, Status> {
    call_piece(Call::ExtentScrub, [h(extent), 0, 0, 0, 0, 0])
}

/// What [`extent_info`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentInfo {
    /// Length in pages.
    pub pages: u64,
    /// Bits of [`portico_abi::call::extent_flags`].
    pub flags: u64,
    /// IPA of the mapping, if there is one.
    pub ipa: Option<u64>,
}

/// Length, flags and mapping of an extent or grant.
///
/// # Errors
/// `BadHandle`, `WrongType`, `NoRights`.
pub fn extent_info(extent: Handle) -> Result<ExtentInfo, Status> {
    call(Call::ExtentInfo, [h(extent), 0, 0, 0, 0, 0]).map(|[pages, flags, ipa]| ExtentInfo {
        pages,
        flags,
        ipa: (ipa != u64::MAX).then_some(ipa),
    })
}
