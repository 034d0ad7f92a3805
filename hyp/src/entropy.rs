//! EL2's generator: seeded from the device tree and by whoever may feed it; silent until then.

use crate::lock::Lock;
use portico_core::entropy::Drbg;

static GENERATOR: Lock<Drbg> = Lock::new(Drbg::new());

/// Mixes a seed in.
pub fn feed(seed: &[u8]) {
    GENERATOR.lock().feed(seed);
}

/// Three random words; `None` until seeded.
pub fn words() -> Option<[u64; 3]> {
    GENERATOR.lock().words().ok()
}
