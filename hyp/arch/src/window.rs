//! The per-pCPU copy window: the only way by which EL2 touches memory that it does not own.
//!
//! Each pCPU's root has a private last-level table of a few 4 KiB slots. A page is mapped for the length of a closure
//! and forgotten, with local TLB invalidation only, since no other pCPU has the mapping. EL2 is not preemptible, so
//! slots nest like a stack. A pointer into the window must not outlive its closure, and no reference (`&T`) may be
//! made from it: a guest or a device may change the bytes at any time.

use crate::barrier::{dsb_nshst, isb};
use crate::mmu::{self, WINDOW_BASE};
use crate::{cache, pcpu, tlb};
use core::sync::atomic::Ordering::Relaxed;
use portico_core::addr::Pa;

/// Pages that can be open at once on a pCPU.
const SLOTS: usize = 4;

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// An open slot; closing it on drop keeps the window balanced on every path.
struct Slot(usize);

impl Slot {
    fn open(pa: Pa) -> Self {
        let table = mmu::window_table(pcpu::index());
        let mut slot = 0;
        while slot < SLOTS - 1 && table.entry(slot).load(Relaxed) != 0 {
            slot += 1;
        }
        table.entry(slot).store(mmu::page_rw(pa), Relaxed);
        // The store must be visible to this pCPU's walker before the first access through it.
        dsb_nshst();
        isb();
        Self(slot)
    }

    fn va(&self) -> *mut u8 {
        core::ptr::with_exposed_provenance_mut(WINDOW_BASE + self.0 * PAGE)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        mmu::window_table(pcpu::index()).entry(self.0).store(0, Relaxed);
        tlb::el2_page_local(WINDOW_BASE + self.0 * PAGE);
    }
}

/// Maps the page at `pa` (4 KiB aligned), gives its address to `f`, and unmaps it. Nests up to 4 deep.
#[inline]
pub fn with_page<R>(pa: Pa, f: impl FnOnce(*mut u8) -> R) -> R {
    let slot = Slot::open(pa);
    f(slot.va())
}

/// Zeroes the page at `pa` and cleans it to the point of coherency, so that an owner with caches off sees zeroes.
pub fn zero_page_clean(pa: Pa) {
    with_page(pa, |page| {
        // SAFETY: the page is mapped for the length of the closure.
        unsafe { cache::zero_page_to_poc(page) };
    });
}

/// Opens the pages of `len` bytes from physical address `pa` one after the other, and gives `f` of each the address of the first byte, the number of
/// bytes before it, and that of those in the page.
fn each_page(pa: Pa, len: usize, mut f: impl FnMut(*mut u8, usize, usize)) {
    let mut done = 0;
    while done < len {
        let at = pa.raw() + done as u64;
        let offset = (at & 0xfff) as usize;
        let part = (PAGE - offset).min(len - done);
        with_page(Pa::new(at & !0xfff), |page| f(page.wrapping_add(offset), done, part));
        done += part;
    }
}

/// Copies `bytes` to physical address `to`, page by page, without cache maintenance.
pub fn copy_to_pa(to: Pa, bytes: &[u8]) {
    each_page(to, bytes.len(), |page, done, len| {
        // SAFETY: `len` bytes lie in the page, and in the source, a live slice, behind `done`.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr().add(done), page, len) };
    });
}

/// Copies `bytes.len()` bytes from physical address `from`.
pub fn copy_from_pa(from: Pa, bytes: &mut [u8]) {
    each_page(from, bytes.len(), |page, done, len| {
        // SAFETY: as above; the target is a live exclusive slice.
        unsafe { core::ptr::copy_nonoverlapping(page.cast_const(), bytes.as_mut_ptr().add(done), len) };
    });
}

/// Copies a whole page between physical addresses and cleans the target to the point of coherency, so that an owner
/// with caches off reads it. Follow a batch with [`cache::invalidate_icache_all`] if it may hold code.
pub fn copy_page_clean(to: Pa, from: Pa) {
    with_page(from, |source| {
        with_page(to, |target| {
            // SAFETY: both are whole mapped pages in different slots.
            unsafe { cache::copy_page_to_poc(target, source.cast_const()) };
        });
    });
}
