//! Reader of cpio archives in the "newc" format.
//!
//! [`Archive`] borrows an archive that is in memory as a whole. It refuses anything malformed and never panics,
//! whatever the bytes are.
//!
//! Names may be padded with NULs inside the name field; the writer aligns data in this way. Checksummed
//! archives (magic `070702`) and the old binary forms are refused.

use core::fmt;

/// Size of the fixed part of an entry's header, in bytes.
pub const HEADER_BYTES: usize = 110;
/// Longest name field that the reader accepts, in bytes, its NUL padding included.
pub const MAX_NAME_FIELD: usize = 3 * 4096;
/// Longest name that the reader accepts, in bytes, without its NULs.
pub const MAX_NAME: usize = 255;
/// Name of the entry that ends an archive.
pub const TRAILER: &str = "TRAILER!!!";

const MAGIC: &[u8; 6] = b"070701";

/// Why an archive was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpioError {
    /// It ends inside an entry, or before the trailer.
    Truncated,
    /// An entry does not begin with the magic of the "newc" format.
    BadMagic,
    /// A header field is not hexadecimal.
    BadField,
    /// A name is empty, too long, not UTF-8, or its field does not end with a NUL.
    BadName,
}

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
        })
    }
}

impl core::error::Error for CpioError {}

/// The decoded fixed part of an entry's header.
struct Header {
    /// File type and permissions, as in Unix.
    mode: u32,
    /// Size of the data, in bytes.
    data_bytes: u32,
    /// Size of the name field, in bytes, all NULs included.
    name_bytes: u32,
}

impl Header {
    /// Decodes the fixed part of a header.
    ///
    /// # Errors
    /// `BadMagic`, `BadField`, or `BadName` for a name field of a size that cannot be.
    fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Header, CpioError> {
        let (magic, fields_of) = bytes.split_first_chunk().ok_or(CpioError::Truncated)?;
        if magic != MAGIC {
            return Err(CpioError::BadMagic);
        }
        // Eight digits each: ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check.
        let mut fields = [0; 13];
        for (field, digits) in fields.iter_mut().zip(fields_of.as_chunks().0) {
            *field = hex(digits)?;
        }
        let [_, mode, _, _, _, _, data_bytes, _, _, _, _, name_bytes, _] = fields;
        let header = Header { mode, data_bytes, name_bytes };
        if header.name_bytes < 2 || header.name_bytes as usize > MAX_NAME_FIELD {
            return Err(CpioError::BadName);
        }
        Ok(header)
    }

    /// Offset of the data of the entry whose header is at `offset`; `None` if it wraps.
    fn data_offset(&self, offset: u64) -> Option<u64> {
        align4(offset.checked_add(HEADER_BYTES as u64)?.checked_add(u64::from(self.name_bytes))?)
    }

    /// Offset of the entry that follows the one whose header is at `offset`; `None` if it wraps.
    fn next_offset(&self, offset: u64) -> Option<u64> {
        align4(self.data_offset(offset)?.checked_add(u64::from(self.data_bytes))?)
    }
}

fn hex(digits: &[u8; 8]) -> Result<u32, CpioError> {
    digits.iter().try_fold(0, |value, &digit| {
        let nibble = char::from(digit).to_digit(16).ok_or(CpioError::BadField)?;
        Ok(value << 4 | nibble)
    })
}

fn align4(value: u64) -> Option<u64> {
    Some(value.checked_add(3)? & !3)
}
