//! Random bytes: from the hypervisor, and from who built the domain.
//!
//! Whether they are good for keys depends on the machine: EL2 stretches what its boot loader gave it and what services fed it (hyp/README.md), and has
//! nothing to give before that.

use crate::hvc;
use portico_abi::psci::{TRNG_RND_64, ret};

/// Bytes of a seed.
pub const SEED_BYTES: usize = 32;
/// Bits that a call gives at most. (Arm DEN0098, "TRNG_RND")
const CALL_BITS: u64 = 192;

/// Asks the hypervisor for a seed. `None` if it has no entropy.
pub fn seed() -> Option<[u8; SEED_BYTES]> {
    let mut seed = [0; SEED_BYTES];
    for part in seed.chunks_mut(CALL_BITS as usize / 8) {
        let [status, words @ ..] = hvc::raw(u64::from(TRNG_RND_64), [CALL_BITS, 0, 0, 0, 0, 0]);
        if status.cast_signed() != ret::SUCCESS {
            return None;
        }
        let bytes = words.into_iter().flat_map(u64::to_le_bytes);
        part.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
    }
    Some(seed)
}
