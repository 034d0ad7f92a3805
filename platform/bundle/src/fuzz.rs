//! Bodies of the fuzz targets: each takes any bytes and must return.
//!
//! They are functions of the library so that a stable toolchain can run them on random and damaged input
//! (`tests/`), and a coverage-guided fuzzer on what it finds. An assertion in them states what must hold of
//! input that was accepted.

use crate::cpio::Archive;
use crate::description::System;
use portico_core::bundle::{IMAGE, Manager};

/// The archive reader: data lies inside of the archive.
pub fn cpio(bytes: &[u8]) {
    for entry in Archive::new(bytes).entries().flatten() {
        let end = entry.offset + entry.data.len();
        assert_eq!(bytes.get(entry.offset..end), Some(entry.data));
    }
}

/// What EL2 reads of a bundle: what it accepts lies inside of it.
pub fn manager(bytes: &[u8]) {
    let read = |at: u64, to: &mut [u8]| {
        to.copy_from_slice(bytes.get(at as usize..).unwrap_or_default().get(..to.len()).unwrap_or_default())
    };
    if let Ok(manager) = Manager::read(bytes.len() as u64, read) {
        assert!(IMAGE + manager.file_bytes <= bytes.len() as u64 && manager.file_bytes <= manager.memory_bytes);
    }
}

/// The description decoder: what it accepts passes its checks and encodes to something that decodes to the same.
pub fn description(bytes: &[u8]) {
    if let Ok(system) = System::decode(bytes) {
        assert_eq!(system.check(), Ok(()));
        let again = system.encode().and_then(|bytes| System::decode(&bytes));
        assert_eq!(again.as_ref(), Ok(&system));
    }
}
