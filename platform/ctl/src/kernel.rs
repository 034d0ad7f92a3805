//! What a kernel file is, and whether it fits its guest.
//!
//! The manager's own loader plans the placement, so what passes here loads there. This module only
//! knows more ways of saying what a refused file is.

use crate::value::format_size;
use elf::ElfBytes;
use elf::endian::LittleEndian;
use portico_abi::dt::RAM_BASE;
use portico_manager::loader::{self, LoadError};

/// Message and help.
type Wrong = (String, String);

/// Why a kernel was refused.
pub(crate) enum Refused {
    /// The file is at fault.
    File(Wrong),
    /// More memory would do.
    Memory(Wrong),
}

const BUILD: &str = "build it for AArch64, little-endian, as an ELF file or an arm64 `Image`";

/// Checks that `kernel` can be loaded, with `ramdisk`, into `memory_bytes` of RAM.
pub(crate) fn check(kernel: &[u8], ramdisk: Option<&[u8]>, memory_bytes: u64) -> Result<(), Refused> {
    identify(kernel).map_err(Refused::File)?;
    let Err(error) = loader::plan(kernel, ramdisk, RAM_BASE, memory_bytes) else {
        return Ok(());
    };
    let more = |needed: u64| format!("write `memory = \"{}M\"` or more", needed.div_ceil(1 << 20));
    Err(match error {
        LoadError::TooSmall { needed } => {
            let memory = format_size(memory_bytes);
            Refused::Memory((format!("kernel, RAM disk and device tree do not fit into {memory}"), more(needed)))
        }
        LoadError::Outside { start, end } => {
            let message = format!("the kernel needs memory at {start:#x}..{end:#x}");
            match end.checked_sub(RAM_BASE) {
                // A segment below RAM cannot be helped by more memory, nor one absurdly far above it.
                Some(needed) if start >= RAM_BASE && needed <= 64 << 30 => {
                    Refused::Memory((message, more(needed + loader::DTB_BYTES)))
                }
                _ => Refused::File((message, format!("link it for RAM that begins at {RAM_BASE:#x}"))),
            }
        }
        error => Refused::File((format!("cannot be loaded: {error}"), String::from(BUILD))),
    })
}

/// Refuses what is not a kernel at all, by name where the format is known.
fn identify(file: &[u8]) -> Result<(), Wrong> {
    let compressed = |tool: &str| {
        Err((
            format!("the kernel is compressed with {tool}"),
            format!("unpack it with {tool} and name the unpacked file"),
        ))
    };
    match file {
        [] => Err((String::from("the kernel file is empty"), String::from(BUILD))),
        [0x1f, 0x8b, ..] => compressed("gzip"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => compressed("xz"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => compressed("zstd"),
        [b'M', b'Z', _, _, b'z', b'i', b'm', b'g', ..] => Err((
            String::from("the kernel is a self-unpacking EFI program"),
            String::from("name the file `Image` of the kernel's build"),
        )),
        [0x27, 0x05, 0x19, 0x56, ..] => Err((
            String::from("the kernel is a U-Boot image"),
            String::from("name the ELF file or `Image` that it was made of"),
        )),
        [0x7f, b'E', b'L', b'F', ..] => identify_elf(file),
        _ if file.get(56..60) == Some(b"ARM\x64") => Ok(()),
        _ => Err((String::from("the kernel is neither an ELF file nor an arm64 `Image`"), String::from(BUILD))),
    }
}

fn identify_elf(file: &[u8]) -> Result<(), Wrong> {
    let wrong = |message: String| Err((message, String::from(BUILD)));
    let damaged = || String::from("the kernel is a damaged ELF file");
    // Class, byte order and processor stand at the same place in every ELF file.
    let (Some(&[class, order]), Some(&[low, high])) = (file.get(4..6), file.get(18..20)) else {
        return wrong(damaged());
    };
    let little = order == elf::abi::ELFDATA2LSB;
    let machine = if little { u16::from_le_bytes([low, high]) } else { u16::from_be_bytes([low, high]) };
    let name = match machine {
        elf::abi::EM_AARCH64 if class == elf::abi::ELFCLASS64 && little => "",
        elf::abi::EM_AARCH64 => "another form of AArch64 (32-bit or big-endian)",
        elf::abi::EM_ARM => "32-bit Arm",
        elf::abi::EM_X86_64 => "x86-64",
        elf::abi::EM_386 => "32-bit x86",
        elf::abi::EM_RISCV => "RISC-V",
        _ => {
            return wrong(format!("the kernel is an ELF file for another processor (machine {machine})"));
        }
    };
    if !name.is_empty() {
        return wrong(format!("the kernel is an ELF file for {name}"));
    }
    let Ok(elf) = ElfBytes::<LittleEndian>::minimal_parse(file) else {
        return wrong(damaged());
    };
    if elf.ehdr.e_type == elf::abi::ET_REL {
        return wrong(String::from("the kernel is an object file, not linked"));
    }
    let interpreter = elf.segments().is_some_and(|segments| segments.iter().any(|s| s.p_type == elf::abi::PT_INTERP));
    if interpreter {
        return Err((
            String::from("the kernel is a program for an operating system (it asks for a dynamic linker)"),
            String::from("name a kernel"),
        ));
    }
    Ok(())
}
