//! Cache maintenance by address. QEMU models no caches: review against DDI 0487, "Caches and memory hierarchy".

use crate::barrier::{dsb_ish, isb};
use crate::sysreg::{CTR_EL0, DCZID_EL0};
use core::arch::asm;

/// Data cache line, the smallest of the machine, in bytes.
#[inline]
#[must_use]
pub fn dline_bytes() -> usize {
    4 << ((CTR_EL0::read() >> 16) & 0xf)
}

/// Instruction cache line, the smallest of the machine, in bytes.
#[inline]
#[must_use]
pub fn iline_bytes() -> usize {
    4 << (CTR_EL0::read() & 0xf)
}

macro_rules! by_line {
    ($($(#[$meta:meta])* $name:ident = $asm:literal, $line:ident;)+) => {$(
        $(#[$meta])*
        ///
        /// # Safety
        /// `va..va + len` is mapped at EL2.
        pub unsafe fn $name(va: usize, len: usize) {
            let line = $line();
            let end = va.saturating_add(len);
            let mut at = va & !(line - 1);
            while at < end {
                // SAFETY: maintenance of a mapped line; clean operations lose no data.
                unsafe { asm!(concat!($asm, ", {}"), in(reg) at, options(nostack, preserves_flags)) };
                at += line;
            }
        }
    )+};
}

by_line! {
    /// Cleans to the point of coherency: non-cacheable observers then see what was written. `dsb` follows.
    clean_poc = "dc cvac", dline_bytes;
    /// Cleans and invalidates to the point of coherency. `dsb` follows.
    clean_invalidate_poc = "dc civac", dline_bytes;
    /// Cleans to the point of unification. `dsb` and [`invalidate_icache_all`] follow.
    clean_pou = "dc cvau", dline_bytes;
}

/// Zeroes a page and cleans it to the point of coherency: whoever reads it next with caches off finds zeros. Complete
/// on return.
///
/// # Safety
/// `page` is a page that is mapped writable and that nobody else uses.
pub unsafe fn zero_page_to_poc(page: *mut u8) {
    const PAGE: usize = 4096;
    let dczid = DCZID_EL0::read();
    if dczid & (1 << 4) != 0 {
        // `dc zva` is prohibited (DCZID_EL0.DZP).
        // SAFETY: the caller's contract.
        unsafe { page.write_bytes(0, PAGE) };
    } else {
        let block = 4usize << (dczid & 0xf);
        let end = page as usize + PAGE;
        let mut at = page as usize;
        while at < end {
            // SAFETY: zeroes a naturally aligned block of at most 2 KiB inside the page.
            unsafe { asm!("dc zva, {}", in(reg) at, options(nostack, preserves_flags)) };
            at += block;
        }
    }
    // SAFETY: the page is mapped.
    unsafe { clean_invalidate_poc(page as usize, PAGE) };
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
