//! The counter's scaling, set once at boot.

use core::cell::UnsafeCell;

use portico_core::time::TickRate;

struct AtBoot(UnsafeCell<TickRate>);

// SAFETY: written only by `init`, whose contract keeps readers away.
unsafe impl Sync for AtBoot {}

static RATE: AtBoot = AtBoot(UnsafeCell::new(TickRate::new(1_000_000_000)));

/// Tells the frequency.
///
/// # Safety
/// Only one pCPU runs: the one that boots.
pub unsafe fn init(hz: u32) {
    // SAFETY: by the contract nobody reads now; a pCPU that is started later sees what was written before.
    unsafe { *RATE.0.get() = TickRate::new(hz) };
}

/// The scaling.
#[inline(always)]
pub fn rate() -> TickRate {
    // SAFETY: not written any more (see `init`).
    unsafe { *RATE.0.get() }
}
