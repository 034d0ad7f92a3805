//! The random numbers that guests get by TRNG calls.
//!
//! A generator with fast key erasure over ChaCha20 (RFC 8439): of each block, half becomes the next key and half is the answer, so
//! what was given out cannot be worked out from a later state. It gives nothing until it was fed, and never
//! takes time for entropy. Feeding mixes: it cannot make the state easier to guess for who does not know it.
//!
//! The block function is written out here, in loops: the crate that has it (tests compare with it) is made for throughput,
//! and three times the code.

/// The generator was never fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoEntropy;

/// Bytes of a key.
const KEY_BYTES: usize = 32;

/// The generator.
#[derive(Default)]
pub struct Drbg {
    key: [u32; 8],
    seeded: bool,
}

impl Drbg {
    /// A generator without entropy.
    pub const fn new() -> Self {
        Self { key: [0; 8], seeded: false }
    }

    /// Mixes `seed` in, of any length. It counts as seeded once it was fed 16 bytes or more at a time.
    pub fn feed(&mut self, seed: &[u8]) {
        for chunk in seed.chunks(KEY_BYTES) {
            for (at, byte) in chunk.iter().enumerate() {
                self.key[at / 4 % 8] ^= u32::from(*byte) << (at % 4 * 8);
            }
            self.advance();
        }
        self.seeded |= seed.len() >= 16;
    }

    /// The three words of a TRNG_RND answer.
    ///
    /// # Errors
    /// [`NoEntropy`].
    pub fn words(&mut self) -> Result<[u64; 3], NoEntropy> {
        if !self.seeded {
            return Err(NoEntropy);
        }
        let [.., a, b, c, d, e, f] = self.advance();
        Ok([(a, b), (c, d), (e, f)].map(|(low, high)| u64::from(high) << 32 | u64::from(low)))
    }

    /// Makes a block: its first half is the next key.
    fn advance(&mut self) -> [u32; 16] {
        let block = chacha20(&self.key);
        self.key.iter_mut().zip(block).for_each(|(key, word)| *key = word);
        block
    }
}

/// The first block of a key's stream, nonce 0. (RFC 8439, "The ChaCha20 Block Function")
fn chacha20(key: &[u32; 8]) -> [u32; 16] {
    let [k0, k1, k2, k3, k4, k5, k6, k7] = *key;
    let first = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574, k0, k1, k2, k3, k4, k5, k6, k7, 0, 0, 0, 0];
    let mut state = first;
    for round in 0..20 {
        for column in 0..4 {
            // Odd rounds go along the diagonals.
            let step = round % 2;
            let [a, b, c, d] = [0, 1, 2, 3].map(|row| row * 4 + (column + row * step) % 4);
            for (to, from, changed, left) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
                state[to] = u32::wrapping_add(state[to], state[from]);
                state[changed] = (state[changed] ^ state[to]).rotate_left(left);
            }
        }
    }
    state.iter_mut().zip(first).for_each(|(word, first)| *word = word.wrapping_add(first));
    state
}

#[cfg(test)]
mod tests {
    use super::{Drbg, NoEntropy, chacha20};
    use chacha20::ChaCha20Rng;
    use chacha20::rand_core::{Rng, SeedableRng};
    use proptest::prelude::*;

    #[test]
    fn nothing_before_seed() {
        let mut drbg = Drbg::new();
        assert_eq!(drbg.words(), Err(NoEntropy));
        drbg.feed(&[1; 8]);
        assert_eq!(drbg.words(), Err(NoEntropy));
        drbg.feed(&[1; 16]);
        assert!(drbg.words().is_ok());
    }

    #[test]
    fn block_of_the_rfc() {
        // RFC 8439, "Test Vectors", "The ChaCha20 Block Functions", vector 1.
        assert_eq!(chacha20(&[0; 8])[..4], [0xade0_b876, 0x903d_f1a0, 0xe56a_5d40, 0x28bd_8653]);
    }

    proptest! {
        #[test]
        fn block_of_the_crate(key: [u32; 8]) {
            let mut seed = [0; 32];
            seed.chunks_mut(4).zip(key).for_each(|(bytes, word)| bytes.copy_from_slice(&word.to_le_bytes()));
            let mut stream = ChaCha20Rng::from_seed(seed);
            for word in chacha20(&key) {
                prop_assert_eq!(word, stream.next_u32());
            }
        }
    }

    #[test]
    fn deterministic_and_never_the_same() {
        let (mut a, mut b) = (Drbg::new(), Drbg::new());
        a.feed(&[3; 64]);
        b.feed(&[3; 64]);
        assert_eq!(a.words(), b.words());
        assert_ne!(a.words(), b.words().and_then(|_| b.words()));
        let before = a.words();
        a.feed(&[0; 32]);
        assert_ne!(a.words(), before);
        // A seed equal to the last one does not cancel it.
        let mut once = Drbg::new();
        once.feed(&[3; 32]);
        let mut twice = Drbg::new();
        twice.feed(&[3; 32]);
        twice.feed(&[3; 32]);
        assert_ne!(once.words(), twice.words());
    }
}
