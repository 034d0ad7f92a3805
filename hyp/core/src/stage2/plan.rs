//! Changing stage-2 tables, in bounded pieces.
//!
//! [`map`] and [`unmap`] do at most `max_entries` entries (and the tables above them) and say how many pages that was; the caller
//! goes on with the rest of the range. Between pieces the tables are whole. The caller holds the domain's stage-2 lock.
//!
//! Invalidation: an entry that was invalid needs none when it becomes valid. [`unmap`] only breaks: **the caller
//! invalidates the range it has unmapped before the pages get another use**. Where a table is freed, or a
//! block is split, `plan` itself calls [`Tables::sync_break`].

use super::walk::Tables;
use crate::addr::{IpaRange, Pa};
use crate::stage2::Attrs;

/// Why nothing was mapped or unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// No page for a table.
    NoTable,
    /// A part of the piece is mapped already.
    Exists,
    /// The range is beyond 39 bits, or the physical range is not page-aligned or wraps.
    Range,
}

/// Maps the beginning of `range` to the physical pages from `pa` on, with blocks where both addresses allow.
///
/// Returns the pages done, at least 1. Nothing of a piece is changed if any of it is mapped.
///
/// # Errors
/// [`MapError`]; then no mapping was changed.
pub fn map<T: Tables + ?Sized>(
    tables: &mut T,
    root: Pa,
    range: IpaRange,
    pa: Pa,
    attrs: Attrs,
    max_entries: usize,
) -> Result<u64, MapError> {
    let _ = (tables, root, range, pa, attrs, max_entries);
    Err(MapError::NoTable)
}

/// Unmaps the beginning of `range`. What is not mapped counts as done.
///
/// Returns the pages done, at least 1. See the module about invalidation.
///
/// # Errors
/// [`MapError::NoTable`] if a block must be split and there is no page for that: nothing was changed.
pub fn unmap<T: Tables + ?Sized>(
    tables: &mut T,
    root: Pa,
    range: IpaRange,
    max_entries: usize,
) -> Result<u64, MapError> {
    let _ = (tables, root, range, max_entries);
    Err(MapError::NoTable)
}
