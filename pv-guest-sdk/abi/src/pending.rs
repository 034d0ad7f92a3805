//! Making a port bit pending and finding it: the protocol of [`crate::port`] for both sides, in one place.
//!
//! Each side brings its accesses to the vCPU page, single bytes that it loads and stores, as a trait; the order of them, and the
//! barriers between, are here: EL2's below, the guest's in `pending/guest.rs`. Whatever a guest does to the bytes can mislead EL2 about no one but that guest.
//!
//! A notification that finds `upcall_pending` set relies on a scan to come; one that finds the bit masked, on the guest's look at
//! `pending` after it unmasks. `tests/loom_pending.rs` goes through all interleavings.

mod guest;

use core::mem::offset_of;

pub use guest::{GuestSide, disarm, forget, scan, unmask};

#[cfg(loom)]
use loom::sync::atomic::{Ordering, fence};

#[cfg(not(loom))]
use core::sync::atomic::{Ordering, fence};

use crate::page::VcpuPage;
use crate::port::{BITS_PER_SELECTOR, PORT_BITS, SELECTORS};

/// A vCPU page as EL2 uses it.
pub trait HypervisorSide: Copy {
    /// Stores 1 to the byte at an offset.
    fn store(self, offset: usize, order: Ordering);
    /// Whether the byte at an offset is non-zero.
    fn is_set(self, offset: usize) -> bool;
}

/// EL2: makes `bit` pending; says whether the upcall must be raised.
#[inline(always)]
pub fn mark(page: impl HypervisorSide, bit: usize) -> bool {
    let (bit, selector) = (bit % PORT_BITS, bit / BITS_PER_SELECTOR % SELECTORS);
    // After every earlier store (release): who finds it finds what the notification is about.
    page.store(offset_of!(VcpuPage, pending) + bit, Ordering::Release);
    // After every earlier store: a guest that saw and cleared the selector, but not yet the pending byte behind it, would never look at that
    // byte again.
    page.store(offset_of!(VcpuPage, selectors) + selector, Ordering::Release);
    // The guest unmasks, then looks at `pending`; it clears `upcall_pending`, then looks at the selectors. With this full
    // barrier on our side and one on its side, one of the two sees the other's store.
    fence(Ordering::SeqCst);
    if page.is_set(offset_of!(VcpuPage, mask) + bit) || page.is_set(offset_of!(VcpuPage, upcall_pending)) {
        return false;
    }
    page.store(offset_of!(VcpuPage, upcall_pending), Ordering::Relaxed);
    true
}
