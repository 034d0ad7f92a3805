//! Bodies of the fuzz targets: each takes any bytes and must return.
//!
//! They are functions of the library so that a stable toolchain can run them on random and damaged input
//! (`tests/`), and a coverage-guided fuzzer on what it finds. An assertion in them states what must hold of
//! input that was accepted.

use crate::cpio::{Archive, locate};
use crate::description::System;

/// The archive reader: both ways into an archive agree, and data lies inside of it.
pub fn cpio(bytes: &[u8]) {
    let mut damaged = false;
    for entry in Archive::new(bytes).entries() {
        let Ok(entry) = entry else {
            damaged = true;
            break;
        };
        let end = entry.offset + entry.data.len();
        assert_eq!(bytes.get(entry.offset..end), Some(entry.data));
    }
    let read = &mut |offset: u64, buffer: &mut [u8]| {
        let source = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)?.get(..buffer.len()));
        source.map(|source| buffer.copy_from_slice(source)).is_some()
    };
    let located = locate(bytes.len() as u64, "manager", read);
    if let (false, Ok(located)) = (damaged, located) {
        let found = Archive::new(bytes).find("manager").ok().flatten();
        assert_eq!(located, found.map(|entry| (entry.offset as u64, entry.data.len() as u64)));
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
