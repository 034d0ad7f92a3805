//! Damages seeds, in the same way in each run.

/// Bytes and words at which parsers break.
const WORDS: [u32; 10] = [0, 1, 3, 0x7f, 0xff, 0x1000, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, u32::MAX];

/// A source of damaged input.
pub(crate) struct Mutator {
    state: u64,
}

impl Mutator {
    /// Begins the sequence that belongs to `name`.
    pub(crate) fn new(name: &str) -> Self {
        let mix = |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Mutator { state: name.bytes().fold(0xcbf2_9ce4_8422_2325, mix) | 1 }
    }

    /// A number below `limit`, or 0. (Marsaglia, "Xorshift RNGs")
    fn below(&mut self, limit: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state % limit.max(1) as u64) as usize
    }

    /// A position, more often near the beginning, where headers are.
    fn position(&mut self, length: usize) -> usize {
        match self.below(3) {
            0 => self.below(length),
            1 => self.below(length.min(128)),
            _ => self.below(length.min(16)),
        }
    }

    /// One damaged seed.
    pub(crate) fn next(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds.get(self.below(seeds.len())).cloned().unwrap_or_default();
        for _ in 0..=self.below(5) {
            self.damage(&mut bytes, seeds);
        }
        bytes
    }

    fn damage(&mut self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.position(bytes.len());
        let end = (at + 1 + self.below(32)).min(bytes.len());
        match self.below(8) {
            0 => {
                let bit = 1 << self.below(8);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= bit;
                }
            }
            1 => {
                let value = self.below(256) as u8;
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            2 | 3 => {
                let word = WORDS.get(self.below(WORDS.len())).copied().unwrap_or(0);
                let word = if self.below(2) == 0 { word.to_be_bytes() } else { word.to_le_bytes() };
                let at = if self.below(4) == 0 { at } else { at & !3 };
                if let Some(target) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>()) {
                    *target = word;
                }
            }
            4 => bytes.truncate(at),
            5 => drop(bytes.drain(at.min(end)..end)),
            6 => {
                let copy = bytes.get(at..end).unwrap_or_default().to_vec();
                bytes.splice(at.min(bytes.len())..at.min(bytes.len()), copy);
            }
            _ => {
                let other = seeds.get(self.below(seeds.len())).map(Vec::as_slice).unwrap_or_default();
                let from = self.below(other.len());
                let piece = other.get(from..(from + 32).min(other.len())).unwrap_or_default().to_vec();
                bytes.splice(at.min(bytes.len())..end, piece);
            }
        }
    }
}
