//! Marks in the stream of instructions, for what the guest cannot count itself: everything that the whole machine executes meanwhile.
//!
//! Time does not tell it: while all processors wait for a device, virtual time jumps. So QEMU counts (`xtask/data/count.c`) and
//! writes down its count at each mark: a hint instruction without a meaning, which no compiler makes.

use core::arch::asm;
use portico_sdk::println;

/// Marks the beginning of figure number `INDEX` (0 to 15).
#[inline(always)]
pub fn begin() {
    // SAFETY: an unallocated hint does nothing. (Arm DDI 0487, "HINT")
    unsafe { asm!("hint #96", options(nostack, preserves_flags)) };
}

/// Marks its end, and says what it was: `count` operations.
pub fn end(name: &str, count: u64) {
    // SAFETY: as above.
    unsafe { asm!("hint #97", options(nostack, preserves_flags)) };
    println!("COUNT {name} {count}");
}
