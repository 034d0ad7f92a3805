//! The random numbers that guests get by TRNG calls.
//!
//! A generator with fast key erasure over ChaCha20: each answer is cut from a fresh key stream, whose first 32 bytes become the next key, so
//! what was given out cannot be worked out from a later state. It gives nothing until it was fed, and never
//! takes time for entropy. Feeding mixes: it cannot make the state easier to guess for who does not know it.

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};

/// The generator was never fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoEntropy;

/// Length of a key and the most that one feeding needs, in bytes.
pub const KEY_BYTES: usize = 32;

/// The generator.
#[derive(Default)]
pub struct Drbg {
    key: [u8; KEY_BYTES],
    seeded: bool,
}

impl Drbg {
    /// A generator without entropy.
    pub const fn new() -> Self {
        Self { key: [0; KEY_BYTES], seeded: false }
    }

    /// Mixes `seed` in, of any length. It counts as seeded once it was fed 16 bytes or more at a time.
    pub fn feed(&mut self, seed: &[u8]) {
        for chunk in seed.chunks(KEY_BYTES) {
            for (key, byte) in self.key.iter_mut().zip(chunk) {
                *key ^= byte;
            }
            self.advance(&mut []);
        }
        self.seeded |= seed.len() >= 16;
    }

    /// Fills `out` with random bytes.
    ///
    /// # Errors
    /// [`NoEntropy`]; then `out` is as it was.
    pub fn fill(&mut self, out: &mut [u8]) -> Result<(), NoEntropy> {
        if !self.seeded {
            return Err(NoEntropy);
        }
        self.advance(out);
        Ok(())
    }

    /// The three words of a TRNG_RND answer.
    ///
    /// # Errors
    /// [`NoEntropy`].
    pub fn words(&mut self) -> Result<[u64; 3], NoEntropy> {
        let mut bytes = [0; 24];
        self.fill(&mut bytes)?;
        let mut words = [0; 3];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = chunk.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        }
        Ok(words)
    }

    fn advance(&mut self, out: &mut [u8]) {
        let mut stream = ChaCha20Rng::from_seed(self.key);
        stream.fill_bytes(&mut self.key);
        stream.fill_bytes(out);
    }
}

#[cfg(test)]
mod tests {
    use super::{Drbg, NoEntropy};

    #[test]
    fn nothing_before_seed() {
        let mut drbg = Drbg::new();
        let mut out = [7; 8];
        assert_eq!(drbg.fill(&mut out), Err(NoEntropy));
        assert_eq!(out, [7; 8]);
        drbg.feed(&[1; 8]);
        assert_eq!(drbg.words(), Err(NoEntropy));
        drbg.feed(&[1; 16]);
        assert!(drbg.words().is_ok());
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
