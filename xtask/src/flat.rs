//! Turns an ELF file into a flat arm64 `Image`: what a boot loader copies to memory and jumps to.

use anyhow::{Context, Result, bail};
use elf::ElfBytes;
use elf::abi::{EM_AARCH64, PT_LOAD};
use elf::endian::LittleEndian;

/// Offset and value of the magic number in the header of an arm64 `Image`.
const IMAGE_MAGIC: (usize, &[u8; 4]) = (56, b"ARM\x64");
/// Largest image that is believed: a wild physical address would otherwise ask for all memory.
const MAX_SIZE: u64 = 256 << 20;

/// Lays the loadable segments of `file` out by physical address. What only memory holds (bss) is left to the
/// `image_size` of the header at its end.
///
/// # Errors
/// If `file` is no AArch64 ELF file or does not begin with the header of an `Image`.
pub fn image_from_elf(file: &[u8]) -> Result<Vec<u8>> {
    let parsed = ElfBytes::<LittleEndian>::minimal_parse(file).context("not an ELF file")?;
    if parsed.ehdr.e_machine != EM_AARCH64 {
        bail!("not an AArch64 ELF file");
    }
    let segments: Vec<_> = parsed
        .segments()
        .context("an ELF file without segments")?
        .iter()
        .filter(|segment| segment.p_type == PT_LOAD && segment.p_filesz > 0)
        .collect();
    let base = segments.iter().map(|segment| segment.p_paddr).min().context("nothing to load")?;
    let mut image = Vec::new();
    for segment in &segments {
        let start = segment.p_paddr - base;
        let end =
            start.checked_add(segment.p_filesz).filter(|end| *end <= MAX_SIZE).context("segments too far apart")?;
        let (start, end) = (start as usize, end as usize);
        if image.len() < end {
            image.resize(end, 0);
        }
        image[start..end].copy_from_slice(parsed.segment_data(segment)?);
    }
    let (offset, magic) = IMAGE_MAGIC;
    if image.get(offset..offset + magic.len()) != Some(magic) {
        bail!("no arm64 Image header at its lowest address, 0x{base:x}");
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes an ELF file of two segments, 0x1000 apart.
    fn sample(machine: u16, first: &[u8], second: &[u8]) -> Vec<u8> {
        let mut file = vec![0u8; 64 + 2 * 56];
        file[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
        file[16..18].copy_from_slice(&2u16.to_le_bytes());
        file[18..20].copy_from_slice(&machine.to_le_bytes());
        file[20..24].copy_from_slice(&1u32.to_le_bytes());
        file[32..40].copy_from_slice(&64u64.to_le_bytes());
        file[52..54].copy_from_slice(&64u16.to_le_bytes());
        file[54..56].copy_from_slice(&56u16.to_le_bytes());
        file[56..58].copy_from_slice(&2u16.to_le_bytes());
        for (index, (paddr, data)) in [(0x8000u64, first), (0x9000, second)].into_iter().enumerate() {
            let at = 64 + index * 56;
            let offset = file.len() as u64;
            file[at..at + 4].copy_from_slice(&PT_LOAD.to_le_bytes());
            for (field, value) in [(8, offset), (24, paddr), (32, data.len() as u64), (40, 0x1000)] {
                file[at + field..at + field + 8].copy_from_slice(&value.to_le_bytes());
            }
            file.extend_from_slice(data);
        }
        file
    }

    #[test]
    fn lays_segments_out_by_address() {
        let mut header = [0u8; 64];
        header[56..60].copy_from_slice(b"ARM\x64");
        let image = image_from_elf(&sample(EM_AARCH64, &header, b"tail")).unwrap();
        assert_eq!(image.len(), 0x1004);
        assert_eq!(&image[..64], &header);
        assert_eq!(&image[0x1000..], b"tail");
    }

    #[test]
    fn refuses_other_machines_and_missing_headers() {
        assert!(image_from_elf(&sample(62, &[0; 64], b"")).is_err());
        assert!(image_from_elf(&sample(EM_AARCH64, &[0; 64], b"")).is_err());
        assert!(image_from_elf(b"nonsense").is_err());
    }
}
