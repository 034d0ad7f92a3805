//! The archive reader and writer against each other, against handmade archives, and against garbage.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use portico_bundle::DATA_ALIGN;
use portico_bundle::cpio::{Archive, CpioError, Entry, locate};
use portico_bundle::writer::{WriteError, Writer};
use proptest::prelude::*;

fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new();
    for (name, data) in entries {
        writer.add(name, data).unwrap();
    }
    writer.finish()
}

fn locate_in(bytes: &[u8], name: &str) -> Result<Option<(u64, u64)>, CpioError> {
    locate(bytes.len() as u64, name, &mut |offset, buffer| {
        let start = offset as usize;
        buffer.copy_from_slice(&bytes[start..start + buffer.len()]);
        true
    })
}

/// An entry as other programs write it: no padding in the name.
fn plain(name: &[u8], data: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("070701{}{:08x}{}{:08X}{:08x}", "0".repeat(48), data.len(), "0".repeat(32), name.len() + 1, 0);
    assert_eq!(bytes.len(), 110);
    bytes.push_str(core::str::from_utf8(name).unwrap());
    bytes.push('\0');
    let mut bytes = bytes.into_bytes();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[test]
fn data_is_page_aligned_and_found() {
    let bytes = archive(&[("manager", b"abc"), ("image/web", &[7; 5000]), ("empty", b"")]);
    assert_eq!(bytes.len() % DATA_ALIGN, 0);
    let all: Vec<Entry> = Archive::new(&bytes).entries().collect::<Result<_, _>>().unwrap();
    assert_eq!(all.iter().map(|e| e.name).collect::<Vec<_>>(), ["manager", "image/web", "empty"]);
    assert!(all.iter().all(|e| e.offset % DATA_ALIGN == 0 && e.mode == 0o100_644));
    assert_eq!(all[1].data, [7; 5000]);
    assert_eq!(Archive::new(&bytes).find("empty").unwrap().unwrap().data, b"");
    assert_eq!(Archive::new(&bytes).find("absent"), Ok(None));
    assert_eq!(locate_in(&bytes, "image/web"), Ok(Some((all[1].offset as u64, 5000))));
    assert_eq!(locate_in(&bytes, "image/we"), Ok(None));
}

#[test]
fn reads_archives_of_other_programs() {
    let mut bytes = plain(b"a", b"1");
    bytes.extend(plain(b"some/longer.name", b"12345"));
    bytes.extend(plain(b"TRAILER!!!", b""));
    bytes.extend(b"rubbish after the trailer");
    let found = Archive::new(&bytes).find("some/longer.name").unwrap().unwrap();
    assert_eq!(found.data, b"12345");
    assert_eq!(Archive::new(&bytes).entries().count(), 2);
}

#[test]
fn refuses_what_is_malformed() {
    let first = |bytes: &[u8]| Archive::new(bytes).entries().next().map(|e| e.map(|_| ()));
    let good = plain(b"name", b"data");
    assert_eq!(first(&[]), Some(Err(CpioError::Truncated)));
    assert_eq!(first(&good[..109]), Some(Err(CpioError::Truncated)));
    assert_eq!(first(&good[..good.len() - 4]), Some(Err(CpioError::Truncated)));
    // An archive without a trailer is one that was cut short.
    assert_eq!(Archive::new(&good).entries().last(), Some(Err(CpioError::Truncated)));
    let with = |at: usize, text: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + text.len()].copy_from_slice(text);
        bytes
    };
    assert_eq!(first(&with(0, b"070702")), Some(Err(CpioError::BadMagic)));
    assert_eq!(first(&with(54, b"0000000g")), Some(Err(CpioError::BadField)));
    assert_eq!(first(&with(54, b"+0000001")), Some(Err(CpioError::BadField)));
    assert_eq!(first(&with(54, b"ffffffff")), Some(Err(CpioError::Truncated)));
    assert_eq!(first(&with(94, b"ffffffff")), Some(Err(CpioError::BadName)));
    assert_eq!(first(&with(94, b"00000000")), Some(Err(CpioError::BadName)));
    assert_eq!(first(&with(94, b"00000004")), Some(Err(CpioError::BadName)));
    assert_eq!(first(&with(110, b"\0")), Some(Err(CpioError::BadName)));
    assert_eq!(first(&with(110, b"\xff")), Some(Err(CpioError::BadName)));
    assert_eq!(locate_in(&good[..109], "x"), Err(CpioError::Truncated));
    assert_eq!(locate(4096, "x", &mut |_, _| false), Err(CpioError::Unreadable));
}

#[test]
fn writer_refuses_names_that_cannot_be() {
    let long = "x".repeat(256);
    for name in ["", "TRAILER!!!", "nul\0", long.as_str()] {
        assert_eq!(Writer::new().add(name, b""), Err(WriteError::BadName));
    }
}

proptest! {
    #[test]
    fn what_was_written_is_read(
        files in prop::collection::vec(("[a-z/._-]{1,40}", prop::collection::vec(any::<u8>(), 0..9000)), 0..6)
    ) {
        let list: Vec<(&str, &[u8])> = files.iter().map(|(n, d)| (n.as_str(), d.as_slice())).collect();
        let bytes = archive(&list);
        let read: Vec<Entry> = Archive::new(&bytes).entries().collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(read.len(), list.len());
        for (entry, (name, data)) in read.iter().zip(&list) {
            prop_assert_eq!((entry.name, entry.data, entry.offset % DATA_ALIGN), (*name, *data, 0));
        }
        for (name, _) in &list {
            let found = Archive::new(&bytes).find(name).unwrap().unwrap();
            prop_assert_eq!(locate_in(&bytes, name), Ok(Some((found.offset as u64, found.data.len() as u64))));
        }
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        portico_bundle::fuzz::cpio(&bytes);
    }

    #[test]
    fn damage_never_panics(
        hits in prop::collection::vec((0usize..9000, any::<u8>()), 1..8),
        cut in 0usize..12289,
    ) {
        let mut bytes = archive(&[("manager", b"abc"), ("image/web", b"def")]);
        for (at, value) in hits {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        portico_bundle::fuzz::cpio(&bytes);
        bytes.truncate(cut);
        portico_bundle::fuzz::cpio(&bytes);
    }
}
