//! Calls on handles of any type.

use super::{call, from_register, h, handle, unit};
use portico_abi::{Call, Handle, Rights, Status};

/// What [`handle_info`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandleInfo {
    /// Type of the object; `None` for one that this version does not know.
    pub object: Option<portico_abi::ObjectType>,
    /// Rights of the handle.
    pub rights: Rights,
    /// The holder's cookie.
    pub cookie: u64,
    /// State, depending on the type.
    pub state: u64,
}

fn kind_of(kind: u64) -> (Option<portico_abi::ObjectType>, Rights) {
    let object = portico_abi::ObjectType::from_raw((kind & 0xff) as u8);
    (object, Rights::from_bits_truncate((kind >> 16 & 0xffff) as u16))
}

/// What a handle names.
///
/// # Errors
/// `BadHandle`.
pub fn handle_info(of: Handle) -> Result<HandleInfo, Status> {
    call(Call::HandleInfo, [h(of), 0, 0, 0, 0, 0]).map(|[kind, cookie, state]| {
        let (object, rights) = kind_of(kind);
        HandleInfo { object, rights, cookie, state }
    })
}

/// The next live handle of `domain` from `cursor` on, and the cursor after it.
///
/// # Errors
/// `NotFound` at the end; see `ABI.md` for the others.
pub fn handle_next(domain: Handle, cursor: u64) -> Result<(Handle, u64), Status> {
    call(Call::HandleNext, [h(domain), cursor, 0, 0, 0, 0]).map(|[next, cursor, _]| (from_register(next), cursor))
}

/// Copies a handle into `domain`'s table; the result is a handle in *that* table.
///
/// # Errors
/// `NoRights` if `rights` is not a subset, `NoBudget` if the table cannot grow.
pub fn handle_copy(of: Handle, domain: Handle, rights: Rights, cookie: u64) -> Result<Handle, Status> {
    handle(Call::HandleCopy, [h(of), h(domain), u64::from(rights.bits()), cookie, 0, 0])
}

/// Closes a handle.
///
/// # Errors
/// `BadHandle`; `BadState` for the last handle of a live object.
pub fn handle_close(of: Handle) -> Result<(), Status> {
    unit(Call::HandleClose, [h(of), 0, 0, 0, 0, 0])
}
