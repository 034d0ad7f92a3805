//! Bodies of the targets whose crates have none of their own.

use portico_boards::Machine;
use portico_core::image::Image;
use portico_manager::{loader, shell};

/// A system description in TOML: see [`portico_ctl::fuzz::description`].
pub fn toml(bytes: &[u8]) {
    portico_ctl::fuzz::description(&String::from_utf8_lossy(bytes));
}

/// A guest's kernel, ELF or `Image`: what is planned lies in the guest's memory and nothing overlaps.
pub fn kernel(bytes: &[u8]) {
    const BASE: u64 = 0x4000_0000;
    const MEMORY: u64 = 16 << 20;
    for ramdisk in [None, Some([0x55u8; 5000].as_slice())] {
        let Ok(plan) = loader::plan(bytes, ramdisk, BASE, MEMORY) else {
            continue;
        };
        let mut parts: Vec<(u64, u64)> = plan.segments.iter().map(|segment| (segment.offset, segment.end())).collect();
        parts.push((plan.dtb - BASE, plan.dtb - BASE + loader::DTB_BYTES));
        parts.sort_unstable();
        assert!(parts.iter().all(|(start, end)| start <= end && *end <= MEMORY), "{parts:?}");
        assert!(parts.is_sorted_by(|a, b| a.1 <= b.0), "{parts:?}");
        assert!((BASE..BASE + MEMORY).contains(&plan.entry), "{:#x}", plan.entry);
        assert_eq!(plan.ramdisk.is_some(), ramdisk.is_some());
    }
}

/// The device tree that EL2 is given.
pub fn machine_dtb(bytes: &[u8]) {
    if let Ok(machine) = Machine::from_dtb(bytes) {
        // A machine that was accepted has something to boot on.
        assert!(machine.cpus.iter().next().is_some());
    }
}

/// The header of the manager's image, as EL2 reads it.
pub fn image_header(bytes: &[u8]) {
    let _ = Image::parse(bytes);
}

/// A line typed at the manager's prompt.
pub fn shell(bytes: &[u8]) {
    let line = String::from_utf8_lossy(bytes);
    if let Err(text) = shell::parse(&line) {
        assert!(!text.is_empty());
    }
    let _ = shell::help(Some(&line));
}
