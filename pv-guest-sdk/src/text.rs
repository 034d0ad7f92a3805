//! Text by words of eight bytes: looking at it, and copying it.

pub use crate::window::copy_private as copy;

/// One in each byte of a word.
const ONES: u64 = u64::from_ne_bytes([1; 8]);

/// How many of the bytes, from the first on, are printable ASCII characters: 0x20 to 0x7e.
pub fn printable(bytes: &[u8]) -> usize {
    let mut whole = 0;
    // As far as all is printable, four words at a time.
    for [a, b, c, d] in bytes.as_chunks::<8>().0.as_chunks::<4>().0 {
        if unprintable(load(a)) | unprintable(load(b)) | unprintable(load(c)) | unprintable(load(d)) != 0 {
            break;
        }
        whole += 32;
    }
    let (words, rest) = bytes.get(whole..).unwrap_or_default().as_chunks::<8>();
    for word in words {
        let odd = unprintable(load(word));
        if odd != 0 {
            return whole + odd.trailing_zeros() as usize / 8;
        }
        whole += 8;
    }
    whole + rest.iter().take_while(|byte| matches!(byte, 0x20..=0x7e)).count()
}

/// Sets the top bit of the first byte that is not printable, and perhaps of later ones. A byte that is one borrows from later ones only, and
/// one that is 0xff carries into later ones only.
const fn unprintable(word: u64) -> u64 {
    (word | word.wrapping_sub(0x20 * ONES) | word.wrapping_add(ONES)) & (0x80 * ONES)
}

/// Loads a word, its first byte lowest. In assembly, since the compiler makes no unaligned accesses, which Normal memory allows while the MMU is on.
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
#[inline(always)]
fn load(word: &[u8; 8]) -> u64 {
    let value: u64;
    // SAFETY: reads the eight bytes.
    unsafe {
        core::arch::asm!("ldr {}, [{}]", out(reg) value, in(reg) word.as_ptr(), options(pure, readonly, nostack, preserves_flags));
    }
    value
}

/// As above, in a program of a host.
#[cfg(not(all(target_arch = "aarch64", target_os = "none")))]
fn load(word: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*word)
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn any_byte_at_any_place_is_seen() {
        for byte in 0..=255_u8 {
            for length in [0, 1, 7, 8, 9, 19, 31, 32, 33, 47, 64, 75] {
                for at in 0..length {
                    for filler in [b' ', b'~'] {
                        let mut text = vec![filler; length];
                        text[at] = byte;
                        let wanted = if matches!(byte, 0x20..=0x7e) { length } else { at };
                        assert_eq!(printable(&text), wanted, "{byte:#x} at {at} of {length}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_first_one_counts() {
        for (text, count) in [(&b"\xff\x1fabcdefg"[..], 0), (b"a\xff\x7fbcdefg\n", 1), (b"0123456\n\xff", 7), (b"", 0)]
        {
            assert_eq!(printable(text), count);
        }
    }
}
