//! Reading stage-2 tables.

use super::descriptor::{ENTRIES, Entry, LAST_LEVEL, START_LEVEL, decode, index, level_pages};
use crate::addr::{Ipa, Pa};
use crate::stage2::Attrs;
use portico_abi::{PAGE_SHIFT, PAGE_SIZE};

/// Memory that holds tables, and what must be done to them.
///
/// Tables are reached by physical address; the implementation knows where EL2 sees them. A `write` must be visible to the walkers
/// of all pCPUs before a later `sync_break` begins (DSB ISHST).
pub trait Tables {
    /// Reads entry `index` (below 512) of a table.
    fn read(&self, table: Pa, index: usize) -> u64;
    /// Writes entry `index` (below 512) of a table, as one 64-bit store.
    fn write(&mut self, table: Pa, index: usize, desc: u64);
    /// Takes a zeroed page for a table; `None` if the budget has none.
    fn alloc(&mut self) -> Option<Pa>;
    /// Gives a table back. Nothing points to it, and [`Tables::sync_break`] was done since.
    fn free(&mut self, table: Pa);
    /// Completes a "break": an entry was made invalid, and when this returns no pCPU holds a translation or a walk through it. It covers
    /// stage-1 entries that were combined with it too.
    fn sync_break(&mut self);
}

/// What an IPA translates to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Physical address of the very byte.
    pub pa: Pa,
    /// What the mapping allows.
    pub attrs: Attrs,
    /// Level of the entry, 1 to 3.
    pub level: u8,
}

/// Goes down towards `ipa` as far as there are tables, to `last` at most: the table that it ends in, its level, and its entry for `ipa`.
pub(super) fn descend<T: Tables + ?Sized>(tables: &T, root: Pa, ipa: u64, last: u8) -> (Pa, u8, Entry) {
    let (mut table, mut level) = (root, START_LEVEL);
    loop {
        match decode(tables.read(table, index(ipa, level)), level) {
            Entry::Table(next) if level < last => (table, level) = (next, level + 1),
            found => return (table, level, found),
        }
    }
}

/// Translates one IPA; `None` if nothing is mapped or it is beyond 39 bits.
pub fn lookup<T: Tables + ?Sized>(tables: &T, root: Pa, ipa: Ipa) -> Option<Translation> {
    let raw = ipa.raw();
    match descend(tables, root, raw, LAST_LEVEL) {
        (_, level, Entry::Leaf(base, attrs)) if raw >> 39 == 0 => {
            let inside = (level_pages(level) << PAGE_SHIFT) - 1;
            Some(Translation { pa: Pa::new(base.raw() & !inside | raw & inside), attrs, level })
        }
        _ => None,
    }
}

const _: () = assert!(ENTRIES * 8 == PAGE_SIZE as usize);
