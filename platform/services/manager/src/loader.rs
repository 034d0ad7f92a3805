//! Where the parts of a guest go in its memory.
//!
//! A kernel is an ELF file, loaded by its physical addresses, or an arm64 `Image`, placed by its header. ("The
//! kernel image" in the Linux document `arch/arm64/booting.rst`.) The RAM disk and the device tree stand at the top of RAM, so
//! that a guest has one free range between its image and them. The plan only says what goes where; the
//! binary copies. Files come from the operator, who is trusted with their content, not with its correctness: every
//! number in them is checked.

use alloc::vec::Vec;
use core::fmt;
use elf::ElfBytes;
use elf::abi::{EM_AARCH64, ET_DYN, ET_EXEC, PT_LOAD};
use elf::endian::LittleEndian;
use portico_abi::{BLOCK_SIZE, PAGE_SIZE};

/// Bytes kept for the device tree at the top of a guest's RAM.
pub const DTB_BYTES: u64 = 4 * PAGE_SIZE;

/// One run of bytes to copy and bytes to zero after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Where it goes, as offset from the start of the guest's RAM, in bytes.
    pub offset: u64,
    /// What to copy.
    pub data: &'a [u8],
    /// Bytes to zero after it.
    pub zero_bytes: u64,
}

impl Segment<'_> {
    /// Offset of the first byte after it.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.data.len() as u64).saturating_add(self.zero_bytes)
    }
}

/// What goes where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan<'a> {
    /// IPA of the first instruction.
    pub entry: u64,
    /// Kernel and RAM disk, none overlapping.
    pub segments: Vec<Segment<'a>>,
    /// First and last-plus-one IPA of the RAM disk.
    pub ramdisk: Option<(u64, u64)>,
    /// IPA of the device tree; [`DTB_BYTES`] are free there.
    pub dtb: u64,
}

/// Why a guest cannot be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// Neither ELF nor arm64 `Image`.
    UnknownFormat,
    /// A compressed file.
    Compressed,
    /// An ELF file or `Image` that is damaged or cut short.
    Malformed,
    /// For another processor or byte order.
    WrongMachine,
    /// A part lies outside of the guest's memory.
    Outside {
        /// First IPA of the part.
        start: u64,
        /// IPA after its end.
        end: u64,
    },
    /// Kernel, RAM disk and device tree do not fit together.
    TooSmall {
        /// Bytes that would be enough.
        needed: u64,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownFormat => f.write_str("its kernel is neither an ELF file nor an arm64 Image"),
            Self::Compressed => f.write_str("its kernel is compressed: put the unpacked file into the bundle"),
            Self::Malformed => f.write_str("its kernel file is damaged"),
            Self::WrongMachine => f.write_str("its kernel is not for little-endian AArch64"),
            Self::Outside { start, end } => {
                write!(f, "its kernel wants memory at {start:#x}..{end:#x}, which the guest does not have")
            }
            Self::TooSmall { needed } => {
                write!(f, "its memory is too small: give it at least {} MiB", needed.div_ceil(1 << 20))
            }
        }
    }
}

/// Plans the loading of `kernel` and `ramdisk` into `memory_bytes` of RAM that begin at IPA `base`.
///
/// # Errors
/// [`LoadError`], made to be printed after the guest's name.
pub fn plan<'a>(
    kernel: &'a [u8],
    ramdisk: Option<&'a [u8]>,
    base: u64,
    memory_bytes: u64,
) -> Result<Plan<'a>, LoadError> {
    let (entry, mut segments) = match kernel {
        [0x7f, b'E', b'L', b'F', ..] => plan_elf(kernel, base)?,
        [0x1f, 0x8b, ..] | [0xfd, b'7', b'z', ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => return Err(LoadError::Compressed),
        _ => plan_image(kernel, base)?,
    };
    for segment in &segments {
        if segment.end() > memory_bytes {
            return Err(LoadError::Outside {
                start: base.saturating_add(segment.offset),
                end: base.saturating_add(segment.end()),
            });
        }
    }
    let kernel_end = segments.iter().map(Segment::end).max().unwrap_or(0);
    let disk_bytes = ramdisk.map_or(0, |disk| disk.len() as u64);
    let needed = page_up(kernel_end).saturating_add(page_up(disk_bytes)).saturating_add(DTB_BYTES);
    if needed > memory_bytes {
        return Err(LoadError::TooSmall { needed });
    }
    let dtb = memory_bytes - DTB_BYTES;
    let mut range = None;
    if let Some(data) = ramdisk {
        let offset = dtb - page_up(disk_bytes);
        segments.push(Segment { offset, data, zero_bytes: 0 });
        range = Some((base + offset, base + offset + disk_bytes));
    }
    Ok(Plan { entry, segments, ramdisk: range, dtb: base + dtb })
}

fn page_up(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(PAGE_SIZE).unwrap_or(u64::MAX)
}

fn plan_elf(file: &[u8], base: u64) -> Result<(u64, Vec<Segment<'_>>), LoadError> {
    let parsed = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(|_| LoadError::WrongMachine)?;
    let header = parsed.ehdr;
    if header.e_machine != EM_AARCH64 || !matches!(header.e_type, ET_EXEC | ET_DYN) {
        return Err(LoadError::WrongMachine);
    }
    let mut segments: Vec<Segment<'_>> = Vec::new();
    let mut entry = None;
    for program in parsed.segments().ok_or(LoadError::Malformed)?.iter() {
        if program.p_type != PT_LOAD || program.p_memsz == 0 {
            continue;
        }
        let data = parsed.segment_data(&program).map_err(|_| LoadError::Malformed)?;
        let zero_bytes = program.p_memsz.checked_sub(data.len() as u64).ok_or(LoadError::Malformed)?;
        let end = program.p_paddr.checked_add(program.p_memsz).ok_or(LoadError::Malformed)?;
        let outside = LoadError::Outside { start: program.p_paddr, end };
        let offset = program.p_paddr.checked_sub(base).ok_or(outside)?;
        let segment = Segment { offset, data, zero_bytes };
        if segments.iter().any(|other| other.offset < segment.end() && segment.offset < other.end()) {
            return Err(LoadError::Malformed);
        }
        // The entry is a virtual address; the guest begins with its MMU off.
        if let Some(into) = header.e_entry.checked_sub(program.p_vaddr)
            && into < program.p_memsz
        {
            entry = Some(program.p_paddr + into);
        }
        segments.push(segment);
    }
    Ok((entry.ok_or(LoadError::Malformed)?, segments))
}

fn plan_image(file: &[u8], base: u64) -> Result<(u64, Vec<Segment<'_>>), LoadError> {
    let word = |at: usize| -> Option<u64> { Some(u64::from_le_bytes(*file.get(at..)?.first_chunk::<8>()?)) };
    let magic = file.get(56..60).ok_or(LoadError::UnknownFormat)?;
    if magic != b"ARM\x64" {
        return Err(LoadError::UnknownFormat);
    }
    let (text_offset, image_size, flags) = (
        word(8).ok_or(LoadError::Malformed)?,
        word(16).ok_or(LoadError::Malformed)?,
        word(24).ok_or(LoadError::Malformed)?,
    );
    if flags & 1 != 0 {
        return Err(LoadError::WrongMachine);
    }
    // Old kernels say nothing of their size; theirs is the file's, and text_offset is then 0x80000 by convention.
    let (text_offset, size) = if image_size == 0 { (0x8_0000, 0) } else { (text_offset, image_size) };
    if text_offset >= BLOCK_SIZE {
        return Err(LoadError::Malformed);
    }
    // The Image clears its own BSS; this only keeps the room.
    let zero_bytes = size.saturating_sub(file.len() as u64);
    if zero_bytes > 1 << 40 {
        return Err(LoadError::Malformed);
    }
    let segment = Segment { offset: text_offset, data: file, zero_bytes };
    Ok((base + text_offset, [segment].into()))
}

#[cfg(test)]
mod tests {
    use super::{DTB_BYTES, LoadError, plan};
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const BASE: u64 = 0x4000_0000;

    fn image(text_offset: u64, size: u64, bytes: usize) -> Vec<u8> {
        let mut file = vec![0u8; bytes];
        file[8..16].copy_from_slice(&text_offset.to_le_bytes());
        file[16..24].copy_from_slice(&size.to_le_bytes());
        file[56..60].copy_from_slice(b"ARM\x64");
        file
    }

    /// An ELF file of one segment whose virtual addresses are 1 GiB above the physical ones.
    fn elf(paddr: u64, data: &[u8], memsz: u64, entry_into: u64) -> Vec<u8> {
        let mut file = vec![0u8; 120];
        file[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        let vaddr = paddr.wrapping_add(1 << 30);
        put(16, &2u16.to_le_bytes());
        put(18, &183u16.to_le_bytes());
        put(20, &1u32.to_le_bytes());
        put(24, &vaddr.wrapping_add(entry_into).to_le_bytes());
        put(32, &64u64.to_le_bytes());
        put(52, &64u16.to_le_bytes());
        put(54, &56u16.to_le_bytes());
        put(56, &1u16.to_le_bytes());
        put(64, &1u32.to_le_bytes());
        put(72, &120u64.to_le_bytes());
        put(80, &vaddr.to_le_bytes());
        put(88, &paddr.to_le_bytes());
        put(96, &(data.len() as u64).to_le_bytes());
        put(104, &memsz.to_le_bytes());
        file.extend_from_slice(data);
        file
    }

    #[test]
    fn places_an_image_its_disk_and_its_tree() {
        let kernel = image(0, 0x3000, 0x1800);
        let disk = [7u8; 5000];
        let plan = plan(&kernel, Some(&disk), BASE, 1 << 20).expect("fits");
        assert_eq!(plan.entry, BASE);
        assert_eq!(plan.dtb, BASE + (1 << 20) - DTB_BYTES);
        assert_eq!(plan.ramdisk, Some((plan.dtb - 8192, plan.dtb - 8192 + 5000)));
        assert_eq!(plan.segments[0].zero_bytes, 0x1800);
        assert_eq!(plan.segments[1].offset, (1 << 20) - DTB_BYTES - 8192);
    }

    #[test]
    fn loads_an_elf_by_its_physical_addresses() {
        let kernel = elf(BASE + 0x1000, b"code", 64, 2);
        let plan = plan(&kernel, None, BASE, 1 << 20).expect("fits");
        assert_eq!(plan.entry, BASE + 0x1002);
        assert_eq!((plan.segments[0].offset, plan.segments[0].data), (0x1000, &b"code"[..]));
        assert_eq!(plan.segments[0].zero_bytes, 60);
    }

    #[test]
    fn refuses_what_cannot_work() {
        let outside = |paddr| plan(&elf(paddr, b"code", 64, 0), None, BASE, 1 << 20).map(|plan| plan.entry);
        assert!(matches!(outside(0x8_0000), Err(LoadError::Outside { .. })));
        assert!(matches!(outside(BASE + (1 << 20)), Err(LoadError::Outside { .. })));
        assert!(plan(&elf(u64::MAX - 3, b"code", 64, 0), None, BASE, 1 << 20).is_err());
        assert!(matches!(plan(&elf(BASE, b"code", 64, 99), None, BASE, 1 << 20), Err(LoadError::Malformed)));
        assert!(matches!(plan(b"hello", None, BASE, 1 << 20), Err(LoadError::UnknownFormat)));
        assert!(matches!(plan(&[0x1f, 0x8b, 8], None, BASE, 1 << 20), Err(LoadError::Compressed)));
        let mut arm = elf(BASE, b"code", 64, 0);
        arm[18] = 40;
        assert!(matches!(plan(&arm, None, BASE, 1 << 20), Err(LoadError::WrongMachine)));
        let kernel = image(0, 0, 100);
        assert!(plan(&kernel, Some(&[0; 4096]), BASE, 600 << 10).is_ok());
        assert!(matches!(plan(&kernel, Some(&vec![0; 1 << 20]), BASE, 1 << 20), Err(LoadError::TooSmall { .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_plan_outside(mut file in prop::collection::vec(any::<u8>(), 0..400), kind in 0..3) {
            match kind {
                0 if file.len() > 8 => file[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]),
                1 if file.len() > 60 => file[56..60].copy_from_slice(b"ARM\x64"),
                _ => {}
            }
            if let Ok(plan) = plan(&file, None, BASE, 1 << 20) {
                for segment in plan.segments {
                    prop_assert!(segment.end() <= 1 << 20);
                }
            }
        }

        #[test]
        fn a_damaged_elf_never_panics(at in 0usize..124, value: u8) {
            let mut file = elf(BASE, b"code", 64, 0);
            file[at] = value;
            let _ = plan(&file, None, BASE, 1 << 20);
        }
    }
}
