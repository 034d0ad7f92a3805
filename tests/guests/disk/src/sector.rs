//! Sectors that say themselves what they are: which sector, of which generation, and whether they are whole.

use portico_sdk::window::Window;

/// Bytes of a sector.
pub const BYTES: usize = 512;
const WORDS: usize = BYTES / 8;
const MAGIC: u64 = 0x7261_6d73_6563_0001;

/// Word `index` of a sector; the last makes the sum of all 0.
fn word(sector: u64, generation: u64, index: u64) -> u64 {
    match index {
        0 => MAGIC,
        1 => sector,
        2 => generation,
        _ => (sector ^ generation << 40).wrapping_add(index).wrapping_mul(0x9e37_79b9_7f4a_7c15),
    }
}

/// Fills a sector at `offset` of a window.
pub fn fill(window: &Window, offset: usize, sector: u64, generation: u64) {
    let mut sum = 0_u64;
    for index in 0..WORDS - 1 {
        let word = word(sector, generation, index as u64);
        sum = sum.wrapping_add(word);
        let _ = window.store(offset + index * 8, word);
    }
    let _ = window.store(offset + (WORDS - 1) * 8, sum.wrapping_neg());
}

/// Checks a sector; what is wrong, as the index of a word, what it is and what it must be.
pub fn check(window: &Window, offset: usize, sector: u64, generation: u64) -> Result<(), (usize, u64, u64)> {
    let mut sum = 0_u64;
    for index in 0..WORDS {
        let got = window.load(offset + index * 8).unwrap_or(0);
        let wanted = if index == WORDS - 1 { sum.wrapping_neg() } else { word(sector, generation, index as u64) };
        sum = sum.wrapping_add(wanted);
        if got != wanted {
            return Err((index, got, wanted));
        }
    }
    Ok(())
}

/// Checks that a sector is all zero.
pub fn check_zero(window: &Window, offset: usize) -> Result<(), (usize, u64, u64)> {
    for index in 0..WORDS {
        match window.load(offset + index * 8).unwrap_or(0) {
            0 => {}
            got => return Err((index, got, 0)),
        }
    }
    Ok(())
}
