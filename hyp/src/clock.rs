//! The counter's scaling, set once at boot.

use core::sync::atomic::{AtomicU32, Ordering};

use portico_core::time::TickRate;
use spin::Once;

static RATE: Once<TickRate> = Once::new();
static HZ: AtomicU32 = AtomicU32::new(1_000_000_000);

/// Tells the frequency. At boot.
pub fn init(hz: u32) {
    HZ.store(hz, Ordering::Relaxed);
    RATE.call_once(|| TickRate::new(hz));
}

/// The scaling.
pub fn rate() -> TickRate {
    *RATE.call_once(|| TickRate::new(HZ.load(Ordering::Relaxed)))
}
