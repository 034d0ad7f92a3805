//! Cache maintenance by address. QEMU models no caches: review against DDI 0487, "Caches and memory hierarchy".

use crate::barrier::{dsb_ish, isb};
use crate::sysreg::{CTR_EL0, DCZID_EL0};
use core::arch::asm;

/// Data cache line, the smallest of the machine, in bytes.
#[inline]
pub fn dline_bytes() -> usize {
    4 << ((CTR_EL0.get() >> 16) & 0xf)
}

/// Cleans and invalidates to the point of coherency: non-cacheable observers then see what was written. `dsb` follows.
///
/// # Safety
/// `va..va + len` is mapped at EL2.
pub unsafe fn clean_invalidate_poc(va: usize, len: usize) {
    let line = dline_bytes();
    for at in (va & !(line - 1)..va.saturating_add(len)).step_by(line) {
        // SAFETY: maintenance of a mapped line; cleaning loses no data.
        unsafe { asm!("dc civac, {}", in(reg) at, options(nostack, preserves_flags)) };
    }
}

/// Bytes of a page.
const PAGE: usize = 4096;

/// Line and `dc zva` block that the fast loops are made for: those of every Armv8 core that we know.
const COMMON_LINE: usize = 64;

/// Zeroes a page and cleans it to the point of coherency: whoever reads it next with caches off finds zeros. Complete
/// on return.
///
/// # Safety
/// `page` is a page that is mapped writable and that nobody else uses.
pub unsafe fn zero_page_to_poc(page: *mut u8) {
    // DCZID_EL0: block size in words as a power of two; bit 4 (DZP) prohibits `dc zva`.
    if DCZID_EL0.get() & 0x1f == 4 && dline_bytes() == COMMON_LINE {
        // SAFETY: 64 aligned blocks inside the page, each zeroed and cleaned.
        unsafe {
            asm!(
                "2:",
                "dc zva, {at}", "dc civac, {at}", "add {at}, {at}, #64",
                "dc zva, {at}", "dc civac, {at}", "add {at}, {at}, #64",
                "dc zva, {at}", "dc civac, {at}", "add {at}, {at}, #64",
                "dc zva, {at}", "dc civac, {at}", "add {at}, {at}, #64",
                "cmp {at}, {end}",
                "b.lo 2b",
                at = inout(reg) page => _, end = in(reg) page as usize + PAGE, options(nostack)
            );
        }
    } else {
        // SAFETY: the caller's contract.
        unsafe { page.write_bytes(0, PAGE) };
        // SAFETY: the page is mapped.
        unsafe { clean_invalidate_poc(page as usize, PAGE) };
    }
    // Complete before anyone else is told that the page is theirs.
    dsb_ish();
}

/// Copies a page and cleans the copy to the point of coherency. Complete on return.
///
/// # Safety
/// Both are mapped pages, `to` is writable, and nobody else uses `to`. Somebody may be writing to `from`: what is
/// copied then is some mixture.
pub unsafe fn copy_page_to_poc(to: *mut u8, from: *const u8) {
    if dline_bytes() >= COMMON_LINE {
        // SAFETY: 64 rounds of 64 bytes inside both pages.
        unsafe {
            asm!(
                "2:",
                "ldp {a}, {b}, [{from}]", "ldp {c}, {d}, [{from}, #16]",
                "stp {a}, {b}, [{to}]", "stp {c}, {d}, [{to}, #16]",
                "ldp {a}, {b}, [{from}, #32]", "ldp {c}, {d}, [{from}, #48]",
                "stp {a}, {b}, [{to}, #32]", "stp {c}, {d}, [{to}, #48]",
                "dc civac, {to}",
                "add {from}, {from}, #64",
                "add {to}, {to}, #64",
                "cmp {to}, {end}",
                "b.lo 2b",
                a = out(reg) _, b = out(reg) _, c = out(reg) _, d = out(reg) _,
                from = inout(reg) from => _, to = inout(reg) to => _, end = in(reg) to as usize + PAGE, options(nostack)
            );
        }
    } else {
        // SAFETY: the caller's contract.
        unsafe { core::ptr::copy_nonoverlapping(from, to, PAGE) };
        // SAFETY: the page is mapped.
        unsafe { clean_invalidate_poc(to as usize, PAGE) };
    }
    // Complete before anyone else is told that the page is theirs.
    dsb_ish();
}

/// Invalidates the instruction caches of all pCPUs: after new code was written through another alias, where
/// by-address invalidation is not enough on a VIPT cache.
pub fn invalidate_icache_all() {
    // The data must have reached the point of unification before any pCPU refetches.
    dsb_ish();
    // SAFETY: drops instruction cache contents, which are refetched.
    unsafe { asm!("ic ialluis", options(nostack, preserves_flags)) };
    dsb_ish();
    isb();
}
