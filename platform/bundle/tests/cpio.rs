//! The archive reader and writer against each other, against handmade archives, and against garbage.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use dtoolkit::fdt::Fdt;
use dtoolkit::{Node, Property};
use portico_bundle::DATA_ALIGN;
use portico_bundle::cpio::{Archive, CpioError, Entry};
use portico_bundle::writer::{WriteError, Writer};
use portico_core::bundle;
use proptest::prelude::*;

fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new();
    for (name, data) in entries {
        writer.add(name, data).unwrap();
    }
    writer.finish()
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
}

/// An Image that needs one page more than it has bytes of.
fn image() -> Vec<u8> {
    let mut image = vec![0; 5000];
    image[16..24].copy_from_slice(&0x2388_u64.to_le_bytes());
    image[56..60].copy_from_slice(b"ARM\x64");
    image
}

#[test]
fn a_bundle_is_what_el2_reads() {
    let mut writer = Writer::with_manager(&image()).unwrap();
    writer.add("system", b"abc").unwrap();
    let bytes = writer.finish();
    let read = |at: u64, to: &mut [u8]| to.copy_from_slice(&bytes[at as usize..][..to.len()]);
    let manager = bundle::Manager::read(bytes.len() as u64, read).unwrap();
    assert_eq!(manager, bundle::Manager { file_bytes: 5000, memory_bytes: 0x3000 + (128 << 10) });
    let all: Vec<Entry> = Archive::new(&bytes).entries().collect::<Result<_, _>>().unwrap();
    assert_eq!(all.iter().map(|e| e.name).collect::<Vec<_>>(), ["manager.dtb", "manager", "system"]);
    assert_eq!((all[0].offset as u64, all[1].offset as u64), (bundle::TREE, bundle::IMAGE));
    let tree_bytes = u32::from_be_bytes(all[0].data[4..8].try_into().unwrap()) as usize;
    let tree = Fdt::new(&all[0].data[..tree_bytes]).unwrap();
    let reg = |path: &str| {
        let node = tree.find_node(path).unwrap();
        node.property("reg").unwrap().value().as_chunks().0.iter().map(|at| u64::from_be_bytes(*at)).collect::<Vec<_>>()
    };
    assert_eq!(reg("/memory@40000000"), [0x4000_0000, manager.memory_bytes]);
    assert_eq!(reg("/hypervisor/bundle"), [bundle::IPA, bytes.len() as u64]);
}

#[test]
fn a_manager_is_an_image_for_the_beginning_of_memory() {
    let refused = |image: &[u8]| Writer::with_manager(image).err() == Some(WriteError::NoImage);
    let with = |at: usize, value: u8| {
        let mut image = image();
        image[at] = value;
        image
    };
    assert!(refused(b"\x7fELF") && refused(&image()[..63]) && refused(&with(56, 0)) && refused(&with(10, 8)));
    // Big-endian, and for larger pages.
    assert!(refused(&with(24, 1)) && refused(&with(24, 4)));
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
            prop_assert!(Archive::new(&bytes).find(name).unwrap().is_some());
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
