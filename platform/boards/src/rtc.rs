//! The clock of the day of boards that have a PL031. (ARM PrimeCell Real Time Clock PL031 TRM, "Programmers Model")

use crate::devices;
use crate::machine::Range;
use core::ptr;

/// `compatible` of the clock.
const COMPATIBLE: &[u8] = b"arm,pl031";
/// RTCDR, "Data register": seconds, since 1970 by convention.
const DATA: usize = 0;

/// Finds the clock's registers in a device tree.
#[must_use]
pub fn find(dtb: &[u8]) -> Option<Range> {
    devices::registers_of(dtb, COMPATIBLE, 4)
}

/// Reads the clock whose registers are mapped at `base`: seconds since 1970-01-01 00:00 UTC.
///
/// # Safety
/// What [`find`] found is mapped there, as device memory.
#[must_use]
pub unsafe fn read(base: usize) -> u32 {
    // SAFETY: the caller's promise; the register is a word.
    unsafe { ptr::with_exposed_provenance::<u32>(base + DATA).read_volatile() }
}
