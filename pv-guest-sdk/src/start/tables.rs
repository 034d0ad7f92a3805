//! Stage-1 tables: an identity map that is linked in, and the little that changes in it.

use crate::sync::Lock;
use alloc_crate::boxed::Box;
use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use portico_abi::Status;

/// Block descriptor: valid, AF, inner-shareable, attribute 1 (Normal). (Arm ARM, "Translation table level 1 descriptor formats")
const NORMAL: u64 = 1 | 1 << 10 | 3 << 8 | 1 << 2;
/// Never executable.
const XN: u64 = 1 << 54 | 1 << 53;
/// Block descriptor: valid, AF, attribute 0 (Device), never executable.
const DEVICE: u64 = 1 | 1 << 10 | XN;
/// Table descriptor.
const TABLE: u64 = 3;
const ADDRESS: u64 = 0xff_ffff_f000;

const GIB: u64 = 1 << 30;
const BLOCK: u64 = 2 << 20;

// Entry 0 of level 1 is a table for the first GiB (see `mem`); RAM and all above are blocks.
global_asm!(
    ".section .tables, \"aw\"",
    ".balign 4096",
    ".global portico_l1",
    "portico_l1:",
    ".quad portico_l2 + 3",
    ".set n, 1",
    ".rept 511",
    ".quad (n << 30) + {normal}",
    ".set n, n + 1",
    ".endr",
    "portico_l2:",
    ".fill 64, 8, 0",
    ".quad (64 << 21) + {normal_xn}",
    ".set n, 65",
    ".rept 7",
    ".quad (n << 21) + {device}",
    ".set n, n + 1",
    ".endr",
    ".rept 440",
    ".quad (n << 21) + {normal_xn}",
    ".set n, n + 1",
    ".endr",
    normal = const NORMAL,
    normal_xn = const NORMAL | XN,
    device = const DEVICE,
);

#[repr(C, align(4096))]
struct Table(UnsafeCell<[u64; 512]>);
// SAFETY: entries are changed only under `CHANGE`, by single stores of 64 bits.
unsafe impl Sync for Table {}

unsafe extern "C" {
    safe static portico_l1: Table;
}

/// Held while tables change.
static CHANGE: Lock<()> = Lock::new(());

/// What a range is to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Normal write-back, not executable.
    Normal,
    /// Device-nGnRE.
    Device,
}

/// Maps a range, by whole blocks of 2 MiB. The first GiB of RAM holds the image and stays as it is.
pub fn map(ipa: u64, len: u64, kind: Kind) -> Result<(), Status> {
    let end = ipa.checked_add(len).filter(|&end| end <= crate::mem::IPA_LIMIT && len > 0).ok_or(Status::Invalid)?;
    if ipa < 2 * GIB && end > GIB {
        return Err(Status::Invalid);
    }
    let _lock = CHANGE.lock();
    let attributes = if kind == Kind::Device { DEVICE } else { NORMAL | XN };
    let mut at = ipa & !(BLOCK - 1);
    while at < end {
        set_block(at, at | attributes)?;
        at += BLOCK;
    }
    Ok(())
}

/// Sets the level-2 entry of `at`, splitting its level-1 block if need be.
fn set_block(at: u64, block: u64) -> Result<(), Status> {
    let root = portico_l1.0.get().cast::<u64>();
    let slot = root.wrapping_add((at / GIB) as usize % 512);
    // SAFETY: an entry of the root table.
    let entry = unsafe { slot.read_volatile() };
    let table = if entry & 3 == TABLE {
        core::ptr::with_exposed_provenance_mut::<u64>((entry & ADDRESS) as usize)
    } else {
        let mut fresh = Box::new(Table(UnsafeCell::new([0; 512])));
        for (index, new) in fresh.0.get_mut().iter_mut().enumerate() {
            *new = entry + index as u64 * BLOCK;
        }
        let fresh = Box::leak(fresh).0.get().cast::<u64>();
        replace(slot, fresh.expose_provenance() as u64 | TABLE);
        fresh
    };
    replace(table.wrapping_add((at / BLOCK) as usize % 512), block);
    Ok(())
}

/// Changes a live entry: break, invalidate on all vCPUs, make. (Arm ARM, "Break-before-make sequence")
fn replace(slot: *mut u64, to: u64) {
    // SAFETY: an entry of one of our tables; the image, this stack and the tables lie in the first GiB of RAM, whose
    // entry `map` refuses to touch, so nothing in use is unmapped in between.
    unsafe {
        slot.write_volatile(0);
        asm!("dsb ishst", "tlbi vmalle1is", "dsb ish", "isb", options(nostack, preserves_flags));
        slot.write_volatile(to);
        asm!("dsb ishst", "isb", options(nostack, preserves_flags));
    }
}
