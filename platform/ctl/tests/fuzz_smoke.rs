//! The fuzz targets of this crate on damaged descriptions: each fixture with parts cut, doubled and overwritten, by a generator
//! with a fixed seed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;

fn corpus() -> Vec<String> {
    let mut texts = Vec::new();
    for folder in ["tests/fixtures", "../systems"] {
        let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
        files.sort();
        texts.extend(files.iter().map(|file| std::fs::read_to_string(file).unwrap()));
    }
    texts
}

/// A generator of numbers, the same in each run. (Marsaglia, "Xorshift RNGs")
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

const PIECES: &[&str] = &[
    "0",
    "-1",
    "99999999999999999999",
    "\"",
    "[",
    "]",
    "{",
    "}",
    "=",
    "\n",
    "[[guest]]\n",
    "nan",
    "inf",
    "0x8000000000000000",
    "1979-05-27",
    "\"64M\"",
    "true",
    "\u{0}",
    "\u{e9}",
    "name",
    "memory = \"18446744073709551615G\"",
    "'''",
];

fn damage(text: &str, numbers: &mut Numbers) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(characters.len());
        let end = (at + numbers.below(20)).min(characters.len());
        match numbers.below(4) {
            0 => drop(characters.drain(at..end)),
            1 => {
                let copy: Vec<char> = characters.get(at..end).unwrap_or_default().to_vec();
                characters.splice(at..at, copy);
            }
            2 => {
                let piece = PIECES.get(numbers.below(PIECES.len())).unwrap();
                characters.splice(at..at, piece.chars());
            }
            _ => {
                let piece = PIECES.get(numbers.below(PIECES.len())).unwrap();
                characters.splice(at..end, piece.chars());
            }
        }
    }
    characters.into_iter().collect()
}

#[test]
fn damaged_descriptions() {
    let corpus = corpus();
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for _ in 0..20_000 {
        let text = corpus.get(numbers.below(corpus.len())).unwrap();
        portico_ctl::fuzz::description(&damage(text, &mut numbers));
    }
}

proptest! {
    #[test]
    fn any_text(text in any::<String>()) {
        portico_ctl::fuzz::description(&text);
    }
}
