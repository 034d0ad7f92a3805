//! Writer of cpio archives whose data is page-aligned.
//!
//! The data of each entry begins at a multiple of [`DATA_ALIGN`] from the start of the archive, so that the manager
//! can map an image instead of copying it. The space is made by NULs at the end of the name field, which every
//! reader of the format skips. The output depends on nothing but the input: no times, no owners.

use crate::DATA_ALIGN;
use crate::cpio::{HEADER_BYTES, MAX_NAME, TRAILER};
use alloc::format;
use alloc::vec::Vec;
use core::fmt;

/// Regular file, readable by all.
const MODE: u32 = 0o100_644;

/// Why an entry could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// The name is empty, longer than [`MAX_NAME`], holds a NUL, or is that of the trailer.
    BadName,
    /// The data is 4 GiB or larger.
    TooLarge,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WriteError::BadName => "bad name for an archive entry",
            WriteError::TooLarge => "archive entry of 4 GiB or more",
        })
    }
}

impl core::error::Error for WriteError {}

/// An archive being written.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    inode: u32,
}

impl Writer {
    /// Starts an empty archive.
    pub fn new() -> Self {
        Writer::default()
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
