//! The guest's side of the protocol of [`crate::pending`].

use super::{Ordering, fence};
use crate::port::{BITS_PER_SELECTOR, SELECTORS};

/// A vCPU page as its guest uses it.
pub trait GuestSide: Copy {
    /// Stores 0 to `upcall_pending`.
    fn clear_upcall(self);
    /// Loads eight selector bytes, the first in the low byte.
    fn selectors(self, word: usize) -> u64;
    /// Stores 0 to a selector byte.
    fn clear_selector(self, selector: usize);
    /// Loads eight pending bytes.
    fn pending(self, word: usize) -> u64;
    /// Stores 0 to a pending byte.
    fn clear_pending(self, bit: u16);
    /// Stores 0 to a mask byte.
    fn clear_mask(self, bit: u16);
}

/// Guest: calls `found` with every bit that is pending, masked or not. It decides, and [`forget`]s what it handles, before it handles it.
#[inline(always)]
pub fn scan(page: impl GuestSide, mut found: impl FnMut(u16)) {
    // Phase 1.
    disarm(page);
    // Phase 2: collect.
    for word in 0..SELECTORS / 8 {
        each(page.selectors(word), word, |selector| {
            page.clear_selector(selector);
            fence(Ordering::SeqCst);
            let first = selector * (BITS_PER_SELECTOR / 8);
            for word in first..first + BITS_PER_SELECTOR / 8 {
                each(page.pending(word), word, |bit| found(bit as u16));
            }
        });
    }
}

/// Guest: lets notifications raise the upcall again, for one who looks at its bits itself. They are looked at only after this.
#[inline(always)]
pub fn disarm(page: impl GuestSide) {
    page.clear_upcall();
    fence(Ordering::SeqCst);
}

/// Guest: takes a pending bit. What it is about is looked at only after this.
#[inline(always)]
pub fn forget(page: impl GuestSide, bit: u16) {
    page.clear_pending(bit);
    fence(Ordering::SeqCst);
}

/// Guest: lets a bit raise the upcall again. Whether it is pending must be looked at after this: EL2 may have seen it masked.
#[inline(always)]
pub fn unmask(page: impl GuestSide, bit: u16) {
    page.clear_mask(bit);
    fence(Ordering::SeqCst);
}

/// Calls `take` with the number of each byte of `bytes` that is not zero.
#[inline(always)]
fn each(mut bytes: u64, word: usize, mut take: impl FnMut(usize)) {
    while bytes != 0 {
        let byte = bytes.trailing_zeros() as usize / 8;
        bytes &= !(0xff << (byte * 8));
        take(word * 8 + byte);
    }
}
