//! Bodies of the targets whose crates have none of their own.

use portico_boards::Machine;
use portico_core::image::Image;
use portico_manager::mux::{Action, Focus, Mux};
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

/// The manager's terminal: bytes from guests and from the keyboard, in any mixture. Each byte of the input says by its top
/// bits who sends it; what is shown and kept stays bounded.
pub fn console(bytes: &[u8]) {
    let mut mux = Mux::new(true);
    let guests = [mux.add_source("web"), mux.add_source("db")];
    for (step, &byte) in bytes.iter().enumerate() {
        let now_ns = step as u64 * 10_000_000;
        match byte >> 6 {
            0 | 1 => {
                let action = mux.key(byte & 0x7f, now_ns);
                if let Action::Command(line) = action {
                    let _ = shell::parse(&line);
                }
            }
            2 => mux.guest_output(guests[step % 2], bytes.get(step..).unwrap_or_default(), now_ns),
            _ => {
                mux.guest_output(guests[step % 2], &[byte.wrapping_mul(step as u8)], now_ns);
                mux.tick(now_ns);
            }
        }
        if let Focus::Guest(id) = mux.focus() {
            assert!(guests.contains(&id));
        }
        let pending = mux.pending_output().len();
        mux.consume_output(pending.min(step % 512));
        if step > 300 {
            break;
        }
    }
}
