//! Reader of cpio archives in the "newc" format.
//!
//! Two ways in: [`Archive`] borrows an archive that is in memory as a whole; [`locate`] finds one entry through
//! a callback, for a caller (EL2) that sees memory only through a small window. Both refuse anything malformed
//! and never panic, whatever the bytes are.
//!
//! Names may be padded with NULs inside the name field; the writer aligns data in this way. Checksummed
//! archives (magic `070702`) and the old binary forms are refused.

#[cfg(any(feature = "write", feature = "description"))]
mod archive;

#[cfg(any(feature = "write", feature = "description"))]
pub use archive::{Archive, Entries, Entry};

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
    /// The caller's callback could not read.
    Unreadable,
}

/// The decoded fixed part of an entry's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// File type and permissions, as in Unix.
    pub mode: u32,
    /// Size of the data, in bytes.
    pub data_bytes: u32,
    /// Size of the name field, in bytes, all NULs included.
    pub name_bytes: u32,
}

impl Header {
    /// Decodes the fixed part of a header.
    ///
    /// # Errors
    /// `BadMagic`, `BadField`, or `BadName` for a name field of a size that cannot be.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Header, CpioError> {
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
    pub fn data_offset(&self, offset: u64) -> Option<u64> {
        align4(offset.checked_add(HEADER_BYTES as u64)?.checked_add(u64::from(self.name_bytes))?)
    }

    /// Offset of the entry that follows the one whose header is at `offset`; `None` if it wraps.
    pub fn next_offset(&self, offset: u64) -> Option<u64> {
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

/// Finds an entry of an archive of `len` bytes that the caller reads piecewise: `read(offset, buffer)` fills the
/// buffer with the bytes from `offset` on and says whether it could; it is only asked for bytes below `len`.
/// Returns the offset and size of the data, or `None` if there is no such entry. `name` has at most
/// 63 bytes; a longer one is never found.
///
/// # Errors
/// Those of the entries before it, and `Unreadable` if `read` failed.
pub fn locate(
    len: u64,
    name: &str,
    read: &mut dyn FnMut(u64, &mut [u8]) -> bool,
) -> Result<Option<(u64, u64)>, CpioError> {
    let mut offset = 0;
    loop {
        let mut fixed = [0; HEADER_BYTES];
        fetch(len, offset, &mut fixed, read)?;
        let header = Header::parse(&fixed)?;
        // Enough of the name field to tell it from any name that is looked for.
        let mut field = [0; 64];
        let known = field.get_mut(..64.min(header.name_bytes as usize)).ok_or(CpioError::BadName)?;
        let at = offset.checked_add(HEADER_BYTES as u64).ok_or(CpioError::Truncated)?;
        fetch(len, at, known, read)?;
        let end = known.iter().position(|&b| b == 0).unwrap_or(known.len());
        let found = known.get(..end).unwrap_or_default();
        let data = header.data_offset(offset).ok_or(CpioError::Truncated)?;
        let data_end = data.checked_add(u64::from(header.data_bytes)).ok_or(CpioError::Truncated)?;
        if end == 0 {
            return Err(CpioError::BadName);
        }
        if end < 64 && found == TRAILER.as_bytes() {
            return Ok(None);
        }
        if data_end > len {
            return Err(CpioError::Truncated);
        }
        if end < 64 && found == name.as_bytes() {
            return Ok(Some((data, u64::from(header.data_bytes))));
        }
        offset = header.next_offset(offset).ok_or(CpioError::Truncated)?;
    }
}

fn fetch(
    len: u64,
    offset: u64,
    buffer: &mut [u8],
    read: &mut dyn FnMut(u64, &mut [u8]) -> bool,
) -> Result<(), CpioError> {
    let end = offset.checked_add(buffer.len() as u64).ok_or(CpioError::Truncated)?;
    if end > len {
        return Err(CpioError::Truncated);
    }
    if read(offset, buffer) { Ok(()) } else { Err(CpioError::Unreadable) }
}
