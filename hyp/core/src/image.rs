//! The header of an arm64 Image, as the Linux boot protocol defines it.
//! (Linux, Documentation/arch/arm64/booting.rst, "Call the kernel image")

/// Length of the header, in bytes.
pub const HEADER_BYTES: usize = 64;
const MAGIC: u32 = u32::from_le_bytes(*b"ARM\x64");
const MIB_2: u64 = 2 << 20;
/// `text_offset` of images older than the field `image_size`.
const OLD_TEXT_OFFSET: u64 = 0x8_0000;

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// Where the image wants to be, in bytes above a 2 MiB boundary.
    pub text_offset: u64,
    /// Memory that it needs from its start on, in bytes: at least the length of the file.
    pub memory_bytes: u64,
}

impl Image {
    /// Reads the header at the start of `file`, which is the whole image. `None` if it is shorter than the header, has not the magic number, is
    /// big-endian or for pages that are not 4 KiB, or its sizes make no sense.
    pub fn parse(file: &[u8]) -> Option<Image> {
        let header: &[u8; HEADER_BYTES] = file.first_chunk()?;
        if word(header, 56) as u32 != MAGIC {
            return None;
        }
        let (text_offset, image_size, flags) = (word(header, 8), word(header, 16), word(header, 24));
        // Bit 0: big-endian. Bits 2:1: page size, 0 for unknown, 1 for 4 KiB.
        if flags & 1 != 0 || flags >> 1 & 3 > 1 {
            return None;
        }
        let text_offset = if image_size == 0 { OLD_TEXT_OFFSET } else { text_offset };
        let memory_bytes = image_size.max(file.len() as u64);
        if text_offset >= MIB_2 || text_offset % 4096 != 0 || memory_bytes > 1 << 40 {
            return None;
        }
        Some(Image { text_offset, memory_bytes })
    }
}

fn word(header: &[u8; HEADER_BYTES], offset: usize) -> u64 {
    header.get(offset..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::{HEADER_BYTES, Image};
    use proptest::prelude::*;

    fn header(text_offset: u64, image_size: u64, flags: u64) -> Vec<u8> {
        let mut file = vec![0; HEADER_BYTES];
        file[8..16].copy_from_slice(&text_offset.to_le_bytes());
        file[16..24].copy_from_slice(&image_size.to_le_bytes());
        file[24..32].copy_from_slice(&flags.to_le_bytes());
        file[56..60].copy_from_slice(b"ARM\x64");
        file
    }

    #[test]
    fn accepts_and_refuses() {
        assert_eq!(Image::parse(&header(0, 0x20_0000, 0xa)), Some(Image { text_offset: 0, memory_bytes: 0x20_0000 }));
        assert_eq!(Image::parse(&header(0, 0, 0)).map(|i| i.text_offset), Some(0x8_0000));
        assert_eq!(Image::parse(&header(0, 1, 0)).map(|i| i.memory_bytes), Some(64));
        assert_eq!(Image::parse(&header(0, 1, 1)), None);
        assert_eq!(Image::parse(&header(0, 1, 4)), None);
        assert_eq!(Image::parse(&header(0x20_0000, 1, 0)), None);
        assert_eq!(Image::parse(&header(0, u64::MAX, 0)), None);
        assert_eq!(Image::parse(&header(0, 1, 0)[..63]), None);
        assert_eq!(Image::parse(&[0; 64]), None);
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Image::parse(&bytes);
        }
    }
}
