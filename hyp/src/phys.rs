//! Which physical addresses are whose: what may be handed out as device memory.

use crate::lock::Lock;
use portico_core::addr::PaRange;
use portico_core::extent::PA_BITS;

/// Ranges that are remembered: RAM, the GIC.
const MAX_RANGES: usize = 40;

struct Taken {
    ranges: [Option<PaRange>; MAX_RANGES],
    count: usize,
    /// More were claimed than fit: nothing is handed out.
    overflow: bool,
}

static TAKEN: Lock<Taken> = Lock::new(Taken { ranges: [None; MAX_RANGES], count: 0, overflow: false });

/// Says that a range, widened to whole pages, is never device memory for a domain: RAM, or what EL2 drives itself. At boot.
pub fn claim(start: u64, bytes: u64) {
    let first = start & !(portico_abi::PAGE_SIZE - 1);
    let end = start.saturating_add(bytes).next_multiple_of(portico_abi::PAGE_SIZE);
    let mut taken = TAKEN.lock();
    let range = PaRange::new(first, (end - first) >> portico_abi::PAGE_SHIFT, PA_BITS);
    let count = taken.count;
    match (range, taken.ranges.get_mut(count)) {
        (Some(range), Some(slot)) => {
            *slot = Some(range);
            taken.count += 1;
        }
        (Some(_), None) => taken.overflow = true,
        (None, _) => {}
    }
}

/// Whether a range is neither RAM nor EL2's.
pub fn is_free_device(range: PaRange) -> bool {
    let taken = TAKEN.lock();
    !taken.overflow && !taken.ranges.iter().flatten().any(|other| other.overlaps(range))
}
