//! Which memory is free: ranges in, ranges out, whole pages only.

use crate::list::List;
use crate::machine::Range;
use core::iter;

/// Most ranges that are kept.
pub const MAX_RANGES: usize = 64;

const PAGE: u64 = 4096;

/// A set of free page ranges, in no order and without overlap. What would be one more than [`MAX_RANGES`] is lost, never
/// given out twice.
#[derive(Clone, Copy, Debug, Default)]
pub struct FreeRam {
    ranges: List<Range, MAX_RANGES>,
}

impl FreeRam {
    /// The ranges.
    #[must_use]
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// Adds the whole pages in a range; what is free already stays so once.
    pub fn add(&mut self, range: Range) {
        self.remove(range);
        let (Some(start), end) = (range.start.checked_next_multiple_of(PAGE), range.end() & !(PAGE - 1)) else {
            return;
        };
        self.keep(start, end);
    }

    /// Takes out every page that a range touches.
    pub fn remove(&mut self, range: Range) {
        if range.len == 0 {
            return;
        }
        let (start, end) = (range.start & !(PAGE - 1), range.end().checked_next_multiple_of(PAGE).unwrap_or(u64::MAX));
        while let Some(free) = self.ranges.take(|free| free.start < end && start < free.end()) {
            self.keep(free.start, start);
            self.keep(end, free.end());
        }
    }

    /// Takes `len` bytes at a multiple of `align` (a power of two), from the lowest range that has them.
    pub fn take(&mut self, len: u64, align: u64) -> Option<Range> {
        let fits = |free: &Range| {
            let start = free.start.checked_next_multiple_of(align)?;
            (start.checked_add(len)? <= free.end()).then_some(start)
        };
        let start = self.ranges.iter().filter_map(fits).min()?;
        let taken = Range { start, len };
        self.remove(taken);
        Some(taken)
    }

    /// Keeps a range that is not empty, if there is room.
    fn keep(&mut self, start: u64, end: u64) {
        let _ = start < end && self.ranges.push(Range { start, len: end - start });
    }
}

/// Cuts a range so that each piece is a multiple of `block` (a power of two) at a multiple of it, or lies inside one.
pub fn pieces(range: Range, block: u64) -> impl Iterator<Item = Range> {
    let (mut start, last) = (range.start, range.end() & !(block - 1));
    iter::from_fn(move || {
        let next = (start | (block - 1)).saturating_add(1).min(range.end());
        let end = if start.is_multiple_of(block) { last.max(next) } else { next };
        let piece = Range { start, len: end - start };
        start = end;
        (piece.len > 0).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::{FreeRam, MAX_RANGES, pieces};
    use crate::machine::Range;
    use proptest::prelude::*;

    const M: u64 = 1 << 20;

    fn range(start: u64, len: u64) -> Range {
        Range { start, len }
    }

    #[test]
    fn plans_a_small_machine() {
        let mut ram = FreeRam::default();
        ram.add(range(0x4000_0000, 64 * M));
        ram.remove(range(0x4020_0000, M + 1));
        ram.remove(range(0x4300_0000, 1));
        let pool = ram.take(2 * M, 2 * M);
        assert_eq!(pool, Some(range(0x4000_0000, 2 * M)));
        let mut left: Vec<_> = ram.ranges().iter().flat_map(|range| pieces(*range, 2 * M)).collect();
        left.sort_by_key(|range| range.start);
        let expected = [
            range(0x4030_1000, M - 0x1000),
            range(0x4040_0000, 44 * M),
            range(0x4300_1000, 2 * M - 0x1000),
            range(0x4320_0000, 14 * M),
        ];
        assert_eq!(left, expected);
    }

    #[test]
    fn survives_the_top_of_the_space() {
        let mut ram = FreeRam::default();
        ram.add(range(u64::MAX - 8191, u64::MAX));
        ram.remove(range(u64::MAX - 10, 100));
        let left: Vec<_> = ram.ranges().iter().flat_map(|range| pieces(*range, 2 * M)).collect();
        assert_eq!(left, [range(u64::MAX - 8191, 4096)]);
        assert_eq!(ram.take(1, 1 << 63), None);
    }

    proptest! {
        /// Against a model of one flag a page.
        #[test]
        fn agrees_with_a_page_map(steps in prop::collection::vec((0u8..3, 0u64..64 * 4096, 0u64..16 * 4096), 1..40)) {
            let mut ram = FreeRam::default();
            let mut model = [false; 96];
            for (what, start, len) in steps {
                let touched = (start / 4096) as usize..(start + len).div_ceil(4096) as usize;
                let whole = start.div_ceil(4096) as usize..((start + len) / 4096) as usize;
                match what {
                    0 => {
                        ram.add(range(start, len));
                        // A page that is in part free memory and in part something else is not free.
                        if len > 0 { model[touched].fill(false); }
                        if whole.start < whole.end { model[whole].fill(true); }
                    }
                    1 => {
                        ram.remove(range(start, len));
                        if len > 0 { model[touched].fill(false); }
                    }
                    _ => {
                        if let Some(taken) = ram.take(8192, 8192) {
                            let first = (taken.start / 4096) as usize;
                            prop_assert!(model[first] && model[first + 1]);
                            model[first..first + 2].fill(false);
                        }
                    }
                }
                prop_assume!(ram.ranges().len() < MAX_RANGES);
                let mut seen = [false; 96];
                for free in ram.ranges().iter().flat_map(|range| pieces(*range, 4 * 4096)) {
                    let (first, last) = (free.start / 16384, (free.end() - 1) / 16384);
                    prop_assert!(first == last || (free.start % 16384 == 0 && free.end() % 16384 == 0));
                    for page in free.start / 4096..free.end() / 4096 {
                        prop_assert!(!seen[page as usize]);
                        seen[page as usize] = true;
                    }
                }
                prop_assert_eq!(seen, model);
            }
        }
    }
}
