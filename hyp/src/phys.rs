//! Which physical addresses are whose: what may be handed out as device memory.

use portico_boards::{List, Machine, Range};
use portico_core::addr::PaRange;
use spin::Once;

/// RAM, and the registers of the interrupt controller.
static TAKEN: Once<(List<Range, 16>, List<Range, 5>)> = Once::new();

/// Says what is never device memory for a domain: RAM, and what EL2 drives itself. At boot.
pub fn claim(machine: &Machine<'_>) {
    TAKEN.call_once(|| (machine.memory, machine.gic_registers));
}

/// Whether a range is neither RAM nor EL2's.
pub fn is_free_device(range: PaRange) -> bool {
    let overlaps = |taken: &Range| taken.start < range.end().raw() && range.first().raw() < taken.end();
    TAKEN.get().is_some_and(|(ram, gic)| !ram.iter().chain(gic.iter()).any(overlaps))
}
