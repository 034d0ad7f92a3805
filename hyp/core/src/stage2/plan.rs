//! Changing stage-2 tables, in bounded pieces.
//!
//! [`map`] and [`unmap`] do some entries of one table (and the tables above it) and say how many pages that was; the caller
//! goes on with the rest of the range. Between pieces the tables are whole. The caller holds the domain's stage-2 lock.
//!
//! Invalidation: an entry that was invalid needs none when it becomes valid. [`unmap`] only breaks: **the caller
//! invalidates the range it has unmapped before the pages get another use**. Where a table is freed, `plan` itself calls
//! [`Tables::sync_break`].
//!
//! No block is ever split: a mapping goes away whole, from its end by [`tail`]. So unmapping needs no page, and cannot fail whatever budget the
//! domain has left.

use super::descriptor::{
    Attrs, ENTRIES, Entry, LAST_LEVEL, START_LEVEL, encode_leaf, encode_table, index, is_table, is_valid, level_pages,
};
use super::walk::{Tables, descend, lookup};
use crate::addr::{Ipa, IpaRange, Pa, PaRange};
use crate::extent::PA_BITS;
use portico_abi::{PAGE_SHIFT, Status};

/// IPAs end here: one root table at level 1.
const IPA_END: u64 = 1 << 39;

/// A piece of work within one table: `count` entries of one level from `ipa` on.
#[derive(Clone, Copy)]
struct Run {
    ipa: u64,
    level: u8,
    count: u64,
}

impl Run {
    const fn pages(self) -> u64 {
        self.count * level_pages(self.level)
    }
}

/// Maps the beginning of `range` to the physical pages from `pa` on, with blocks where both addresses allow.
///
/// Returns the pages done, at least 1. Nothing of a piece is changed if any of it is mapped. `max_entries` is at least 1; a piece
/// ends at the end of a table.
///
/// # Errors
/// `NoBudget` if there is no page for a table, `Exists` if a part of the piece is mapped already, `Invalid` if the range is beyond 39 bits or the
/// physical one is not page-aligned or beyond 48. Then no mapping was changed, and no table is left that was made for it.
pub fn map<T: Tables + ?Sized>(
    tables: &mut T,
    root: Pa,
    range: IpaRange,
    pa: Pa,
    attrs: Attrs,
    max_entries: usize,
) -> Result<u64, Status> {
    if range.end().raw() > IPA_END || PaRange::new(pa.raw(), range.pages(), PA_BITS).is_none() {
        return Err(Status::Invalid);
    }
    let run = map_run(range, pa, max_entries.max(1) as u64);
    let first = index(run.ipa, run.level);
    let (mut table, mut level, found) = descend(tables, root, run.ipa, run.level);
    // Nothing is changed before the whole run is known to be free. Tables are freed as soon as they are empty, so an entry that is not invalid
    // means something is mapped below it.
    let is_free = if level == run.level {
        (first..first + run.count as usize).all(|slot| !is_valid(tables.read(table, slot)))
    } else {
        found == Entry::Invalid
    };
    if !is_free {
        return Err(Status::Exists);
    }
    while level < run.level {
        let Some(next) = tables.alloc() else {
            prune(tables, root, run.ipa);
            return Err(Status::NoBudget);
        };
        tables.write(table, index(run.ipa, level), encode_table(next));
        (table, level) = (next, level + 1);
    }
    let step = level_pages(run.level) << PAGE_SHIFT;
    // The address stands in the descriptor as it is.
    let mut leaf = encode_leaf(pa, attrs, run.level);
    for slot in first..first + run.count as usize {
        tables.write(table, slot, leaf);
        leaf += step;
    }
    Ok(run.pages())
}

/// Unmaps the beginning of `range`. What is not mapped counts as done.
///
/// Returns the pages done, at least 1. See the module about invalidation. A piece ends at the end of a table.
///
/// # Errors
/// `Invalid` if the range is beyond 39 bits, or begins with a part of a block: nothing was changed.
pub fn unmap<T: Tables + ?Sized>(tables: &mut T, root: Pa, range: IpaRange) -> Result<u64, Status> {
    if range.end().raw() > IPA_END {
        return Err(Status::Invalid);
    }
    let start = range.first().raw();
    let (table, level, found) = descend(tables, root, start, LAST_LEVEL);
    if matches!(found, Entry::Leaf(..)) && !covers(range, level) {
        return Err(Status::Invalid);
    }
    let done = clear_run(tables, table, level, range);
    prune(tables, root, start);
    Ok(done)
}

/// The last part of a mapped range that is good to unmap in one go: the block that it ends with, or up to 512 entries of
/// one table.
pub fn tail<T: Tables + ?Sized>(tables: &T, root: Pa, range: IpaRange) -> IpaRange {
    let last = range.end().raw() - (1 << PAGE_SHIFT);
    let in_block = lookup(tables, root, Ipa::new(last)).is_some_and(|found| found.level == START_LEVEL);
    let level = if in_block { START_LEVEL } else { START_LEVEL + 1 };
    let begin = last & !((level_pages(level) << PAGE_SHIFT) - 1);
    let before = begin.saturating_sub(range.first().raw()) >> PAGE_SHIFT;
    range.skip(before).unwrap_or(range)
}

/// The widest entries that the beginning of the range allows, up to the end of their table.
fn map_run(range: IpaRange, pa: Pa, max_entries: u64) -> Run {
    let ipa = range.first().raw();
    let mut level = START_LEVEL;
    while level < LAST_LEVEL {
        let pages = level_pages(level);
        if (ipa | pa.raw()) & ((pages << PAGE_SHIFT) - 1) == 0 && range.pages() >= pages {
            break;
        }
        level += 1;
    }
    let size = level_pages(level);
    let mut pages = range.pages();
    if level > START_LEVEL && ipa.wrapping_sub(pa.raw()) & ((level_pages(level - 1) << PAGE_SHIFT) - 1) == 0 {
        // From the next boundary of the level above on, wider entries will do.
        let wide = level_pages(level - 1);
        let to_boundary = wide - ((ipa >> PAGE_SHIFT) & (wide - 1));
        pages = pages.min(to_boundary);
    }
    let in_table = (ENTRIES - index(ipa, level)) as u64;
    Run { ipa, level, count: (pages / size).min(in_table).min(max_entries) }
}

/// Says whether the range begins at an entry of `level` and has all of it.
fn covers(range: IpaRange, level: u8) -> bool {
    let pages = level_pages(level);
    range.first().raw().is_multiple_of(pages << PAGE_SHIFT) && range.pages() >= pages
}

/// Clears entries of one table from the start of the range on, as long as they are whole leaves or nothing.
/// Returns the pages done.
fn clear_run<T: Tables + ?Sized>(tables: &mut T, table: Pa, level: u8, range: IpaRange) -> u64 {
    let size = level_pages(level);
    let ipa_page = range.first().raw() >> PAGE_SHIFT;
    let first = index(range.first().raw(), level);
    let mut done = 0;
    for slot in first..ENTRIES {
        // The first entry may begin before the range: only the pages from there on count.
        let in_entry = size - ((ipa_page + done) & (size - 1));
        let left = range.pages() - done;
        let entry = tables.read(table, slot);
        if !is_valid(entry) {
            done += in_entry.min(left);
        } else if left >= size && !is_table(entry, level) {
            tables.write(table, slot, 0);
            done += size;
        } else {
            // The next piece goes down there, or is refused.
            break;
        }
        if done == range.pages() {
            break;
        }
    }
    done
}

/// Frees the tables on the way to `ipa` that are empty, the lowest first.
fn prune<T: Tables + ?Sized>(tables: &mut T, root: Pa, ipa: u64) {
    for level in (START_LEVEL..LAST_LEVEL).rev() {
        let (parent, _, Entry::Table(table)) = descend(tables, root, ipa, level) else { continue };
        if (0..ENTRIES).any(|slot| is_valid(tables.read(table, slot))) {
            return;
        }
        tables.write(parent, index(ipa, level), 0);
        // A walker may hold the pointer in its walk cache; after this none does, and the page can be used again.
        tables.sync_break();
        tables.free(table);
    }
}
