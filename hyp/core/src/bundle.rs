//! The beginning of the bundle, which is all that EL2 reads of it. The archive's first two files are the manager's device tree and the manager, and
//! their data begins at a page:
//!
//! ```text
//! page 0   header of `manager.dtb`
//! page 1   the tree, of one page
//! page 2   header of `manager`
//! page 3   the manager, an arm64 Image to be run at the beginning of its RAM
//! ```
//! (Linux, Documentation/driver-api/early-userspace/buffer-format.rst, and Documentation/arch/arm64/booting.rst, "Call the kernel image")

use portico_abi::PAGE_SIZE;

/// IPA at which the manager has the bundle.
pub const IPA: u64 = 0x20_0000_0000;
/// Where the manager's tree is, in bytes from the bundle's start.
pub const TREE: u64 = PAGE_SIZE;
/// Where the header of the manager's file is, in bytes from the bundle's start.
pub const HEADER: u64 = 2 * PAGE_SIZE;
/// Where the manager's Image is, in bytes from the bundle's start.
pub const IMAGE: u64 = 3 * PAGE_SIZE;

/// Bytes of a file's header without the name. Its mode, owner and time say nothing here.
const FIELDS_BYTES: usize = 110;
/// The manager's name, as it stands behind that.
const NAME: &[u8] = b"manager\0";

/// What there is to know of the manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manager {
    /// Bytes of its Image.
    pub file_bytes: u64,
    /// Bytes of memory that it begins with, its Image included.
    pub memory_bytes: u64,
}

impl Manager {
    /// Reads a bundle of `bundle_bytes`; `read` fills a buffer from an offset on, all of it inside the bundle.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the bundle.
    pub fn read(bundle_bytes: u64, mut read: impl FnMut(u64, &mut [u8])) -> Result<Manager, &'static str> {
        let (mut header, mut image) = ([0; FIELDS_BYTES + NAME.len()], [0; 64]);
        if bundle_bytes < IMAGE + image.len() as u64 {
            return Err("the bundle is too short");
        }
        read(HEADER, &mut header);
        read(IMAGE, &mut image);
        let field = |at: usize| number(header.get(at..at + 8)?, 16);
        if !header.starts_with(b"070701") || field(94) != Some(PAGE_SIZE - FIELDS_BYTES as u64) {
            return Err("the bundle is damaged, or not made by `portico bundle`");
        }
        if !header.ends_with(NAME) {
            return Err("the bundle's second file is not the manager");
        }
        let fits = |&bytes: &u64| IMAGE + bytes <= bundle_bytes;
        let file_bytes = field(54).filter(fits).ok_or("the bundle is truncated")?;
        let word = |at: usize| image.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        // The fields `image_size` and `magic`.
        match (word(16), image.get(56..60)) {
            (Some(memory_bytes), Some(b"ARM\x64")) if (file_bytes..1 << 40).contains(&memory_bytes) => {
                Ok(Manager { file_bytes, memory_bytes })
            }
            _ => Err("the bundle's manager is not an arm64 Image"),
        }
    }
}

/// Reads a number of ASCII digits; `None` for anything else, and what is too large.
pub fn number(digits: &[u8], radix: u32) -> Option<u64> {
    digits.iter().try_fold(0_u64, |number, &digit| {
        number.checked_mul(radix.into())?.checked_add(char::from(digit).to_digit(radix)?.into())
    })
}

#[cfg(test)]
mod tests {
    use super::{HEADER, IMAGE, Manager};
    use proptest::prelude::*;

    /// A bundle with a manager of 0x1ab bytes.
    fn bundle(memory_bytes: u64) -> Vec<u8> {
        let mut bundle = vec![0; IMAGE as usize + 0x1ab];
        put(&mut bundle, HEADER, format!("070701{:048}000001AB{:032}00000f92{:08}manager", 0, 0, 0).as_bytes());
        put(&mut bundle, IMAGE + 16, &memory_bytes.to_le_bytes());
        put(&mut bundle, IMAGE + 56, b"ARM\x64");
        bundle
    }

    fn put(bundle: &mut [u8], at: u64, bytes: &[u8]) {
        bundle[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    fn read(bundle: &[u8]) -> Result<Manager, &'static str> {
        Manager::read(bundle.len() as u64, |at, to| to.copy_from_slice(&bundle[at as usize..][..to.len()]))
    }

    #[test]
    fn accepts_and_refuses() {
        assert_eq!(read(&bundle(0x1ab)), Ok(Manager { file_bytes: 0x1ab, memory_bytes: 0x1ab }));
        let says = |at: u64, bytes: &[u8]| {
            let mut bundle = bundle(0x1000);
            put(&mut bundle, at, bytes);
            read(&bundle).unwrap_err()
        };
        assert!(says(HEADER, b"070702").contains("damaged"));
        assert!(says(HEADER + 94, b"00000008").contains("damaged"));
        assert!(says(HEADER + 110, b"managers").contains("second file"));
        assert!(says(HEADER + 54, b"000001AC").contains("truncated"));
        assert!(says(HEADER + 54, b"FFFFFFFF").contains("truncated"));
        assert!(says(HEADER + 54, b"000001Ag").contains("truncated"));
        assert!(says(IMAGE + 16, &0x1aa_u64.to_le_bytes()).contains("Image"));
        assert!(says(IMAGE + 16, &u64::MAX.to_le_bytes()).contains("Image"));
        assert!(says(IMAGE + 56, b"x").contains("Image"));
        assert!(read(&bundle(0x1000)[..IMAGE as usize + 63]).unwrap_err().contains("short"));
        assert!(read(&bundle(0x1000)[..IMAGE as usize + 64]).unwrap_err().contains("truncated"));
    }

    proptest! {
        #[test]
        fn never_panics(hits in prop::collection::vec((0..118_u64, any::<u8>()), 1..8), size: [u8; 8], cut in 0..0x1ab_u64) {
            let mut bundle = bundle(u64::from_le_bytes(size));
            for (at, value) in hits {
                put(&mut bundle, HEADER + at, &[value]);
            }
            bundle.truncate((IMAGE + cut) as usize);
            let _ = read(&bundle);
        }
    }
}
