//! An archive that is in memory as a whole. EL2, which sees the bundle through a small window, is built without this.

use core::fmt;

use super::{CpioError, HEADER_BYTES, Header, MAX_NAME, TRAILER};

/// One entry of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its name, without padding.
    pub name: &'a str,
    /// File type and permissions, as in Unix.
    pub mode: u32,
    /// Offset of the data from the start of the archive, in bytes.
    pub offset: usize,
    /// Its data.
    pub data: &'a [u8],
}

/// An archive in memory.
#[derive(Clone, Copy, Debug)]
pub struct Archive<'a> {
    bytes: &'a [u8],
}

impl<'a> Archive<'a> {
    /// Wraps the bytes of an archive. Nothing is checked before the entries are read. Bytes after the trailer are
    /// ignored, since an initrd may be rounded up to whole pages.
    pub fn new(bytes: &'a [u8]) -> Self {
        Archive { bytes }
    }

    /// Iterates over the entries up to the trailer. After an error the iterator ends.
    pub fn entries(&self) -> Entries<'a> {
        Entries { bytes: self.bytes, offset: Some(0) }
    }

    /// Finds the first entry with this name.
    ///
    /// # Errors
    /// Those of the entries before it.
    pub fn find(&self, name: &str) -> Result<Option<Entry<'a>>, CpioError> {
        for entry in self.entries() {
            let entry = entry?;
            if entry.name == name {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}

/// Iterator over the entries of an [`Archive`].
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    bytes: &'a [u8],
    /// Offset of the next header; `None` at the end and after an error.
    offset: Option<u64>,
}

impl<'a> Entries<'a> {
    fn read(&mut self, offset: u64) -> Result<Option<Entry<'a>>, CpioError> {
        let tail = self.bytes.get(usize::try_from(offset).map_err(|_| CpioError::Truncated)?..);
        let tail = tail.ok_or(CpioError::Truncated)?;
        let (fixed, rest) = tail.split_first_chunk::<HEADER_BYTES>().ok_or(CpioError::Truncated)?;
        let header = Header::parse(fixed)?;
        let name = name_of(rest.get(..header.name_bytes as usize).ok_or(CpioError::Truncated)?)?;
        if name == TRAILER {
            return Ok(None);
        }
        let start = header.data_offset(offset).ok_or(CpioError::Truncated)?;
        let start = usize::try_from(start).map_err(|_| CpioError::Truncated)?;
        let end = start.checked_add(header.data_bytes as usize).ok_or(CpioError::Truncated)?;
        let data = self.bytes.get(start..end).ok_or(CpioError::Truncated)?;
        self.offset = header.next_offset(offset);
        Ok(Some(Entry { name, mode: header.mode, offset: start, data }))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, CpioError>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.offset.take()?;
        self.read(offset).transpose()
    }
}

/// Takes the name out of a name field: what is before the first NUL.
fn name_of(field: &[u8]) -> Result<&str, CpioError> {
    let length = field.iter().position(|&b| b == 0).ok_or(CpioError::BadName)?;
    if length == 0 || length > MAX_NAME || field.last() != Some(&0) {
        return Err(CpioError::BadName);
    }
    let name = field.get(..length).ok_or(CpioError::BadName)?;
    core::str::from_utf8(name).map_err(|_| CpioError::BadName)
}

impl fmt::Display for CpioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CpioError::Truncated => "archive is truncated",
            CpioError::BadMagic => "not a cpio archive of the newc format",
            CpioError::BadField => "archive header field is not hexadecimal",
            CpioError::BadName => "archive entry has a bad name",
            CpioError::Unreadable => "archive cannot be read",
        })
    }
}

impl core::error::Error for CpioError {}
