//! Writer of cpio archives whose data is page-aligned.
//!
//! The data of each entry begins at a multiple of [`DATA_ALIGN`] from the start of the archive, so that the manager
//! can map an image instead of copying it. The space is made by NULs at the end of the name field, which every
//! reader of the format skips. The output depends on nothing but the input: no times, no owners.

pub mod tree;

use crate::cpio::{HEADER_BYTES, MAX_NAME, TRAILER};
use crate::{DATA_ALIGN, names};
use alloc::format;
use alloc::vec::Vec;
use core::fmt;
use portico_core::bundle;

/// Regular file, readable by all.
const MODE: u32 = 0o100_644;

/// Bytes of the manager's memory for its heap, to begin with: it takes more itself when it needs more.
const HEAP_BYTES: u64 = 128 << 10;
/// Why an entry could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// The name is empty, longer than [`MAX_NAME`], holds a NUL, or is that of the trailer.
    BadName,
    /// The data is 4 GiB or larger.
    TooLarge,
    /// The manager is not an arm64 Image to be run at the beginning of its RAM.
    NoImage,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WriteError::BadName => "bad name for an archive entry",
            WriteError::TooLarge => "archive entry of 4 GiB or more",
            WriteError::NoImage => "not an arm64 Image that runs at the beginning of its memory",
        })
    }
}

impl core::error::Error for WriteError {}

/// An archive being written.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    inode: u32,
    /// Bytes of the manager's memory, if this is a bundle: its tree is not written yet.
    manager_bytes: Option<u64>,
}

impl Writer {
    /// Starts an empty archive.
    pub fn new() -> Self {
        Writer::default()
    }

    /// Starts a bundle with what EL2 looks for in it: the manager's device tree and `manager`, its flat Image.
    ///
    /// # Errors
    /// `NoImage` or `TooLarge`.
    pub fn with_manager(manager: &[u8]) -> Result<Self, WriteError> {
        let mut image = manager.to_vec();
        let memory_bytes = add_heap(&mut image).ok_or(WriteError::NoImage)?;
        let mut writer = Writer { manager_bytes: Some(memory_bytes), ..Writer::default() };
        writer.add(names::MANAGER_TREE, &[0; DATA_ALIGN])?;
        writer.add(names::MANAGER, &image)?;
        Ok(writer)
    }

    /// Appends an entry.
    ///
    /// # Errors
    /// `BadName` or `TooLarge`; nothing is written then.
    pub fn add(&mut self, name: &str, data: &[u8]) -> Result<(), WriteError> {
        if name.is_empty() || name.len() > MAX_NAME || name.contains('\0') || name == TRAILER {
            return Err(WriteError::BadName);
        }
        let size = u32::try_from(data.len()).map_err(|_| WriteError::TooLarge)?;
        let name_at = self.bytes.len() + HEADER_BYTES;
        let data_at = (name_at + name.len() + 1).next_multiple_of(DATA_ALIGN);
        self.inode += 1;
        self.header(self.inode, MODE, size, data_at - name_at);
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.resize(data_at, 0);
        self.bytes.extend_from_slice(data);
        self.pad();
        Ok(())
    }

    /// Ends the archive, padded to whole pages, and returns it.
    pub fn finish(mut self) -> Vec<u8> {
        self.header(0, 0, 0, TRAILER.len() + 1);
        self.bytes.extend_from_slice(TRAILER.as_bytes());
        self.bytes.resize((self.bytes.len() + 1).next_multiple_of(DATA_ALIGN), 0);
        if let Some(memory_bytes) = self.manager_bytes {
            let tree = tree::manager(memory_bytes, self.bytes.len() as u64);
            self.bytes.iter_mut().skip(bundle::TREE as usize).zip(tree).for_each(|(to, byte)| *to = byte);
        }
        self.bytes
    }

    fn header(&mut self, inode: u32, mode: u32, size: u32, name_bytes: usize) {
        let fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_bytes as u32, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// Makes the Image's header say how much memory EL2 gives it, heap included, and returns that, in bytes.
/// (Linux, Documentation/arch/arm64/booting.rst, "Call the kernel image")
fn add_heap(image: &mut [u8]) -> Option<u64> {
    let len = image.len() as u64;
    let (header, _) = image.split_first_chunk_mut::<64>()?;
    let (text_offset, rest) = header.get_mut(8..)?.split_first_chunk_mut()?;
    let (image_size, rest) = rest.split_first_chunk_mut()?;
    // Flags: bit 0 for big-endian; bits 2:1 for the size of a page, 0 for unknown, 1 for 4 KiB.
    let [flags, ..] = *rest else { return None };
    if *text_offset != [0; 8] || flags & 1 != 0 || flags >> 1 & 3 > 1 || rest.get(32..36) != Some(b"ARM\x64") {
        return None;
    }
    let memory_bytes = u64::from_le_bytes(*image_size).max(len).checked_add(HEAP_BYTES)?;
    let memory_bytes = memory_bytes.checked_next_multiple_of(DATA_ALIGN as u64)?;
    *image_size = memory_bytes.to_le_bytes();
    Some(memory_bytes)
}
