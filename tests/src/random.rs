//! Moments by chance that are the same in every run.

/// A sequence of numbers, by its seed, which is not 0.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`. (Marsaglia, "Xorshift RNGs")
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
