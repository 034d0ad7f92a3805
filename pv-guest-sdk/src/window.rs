//! A window: memory shared with a peer that may be hostile.
//!
//! No reference is ever made to its bytes: they are copied by volatile accesses, once, and the copy is checked and used. Words
//! on which both sides agree by protocol (indices, states) are reached as atomics.

use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicU32;

/// Memory shared with a peer.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: all accesses are volatile or atomic, and races with the peer are part of the type's meaning.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

impl Window {
    /// Takes a range as a window. `None` if it is not 8-byte aligned or starts at 0.
    ///
    /// # Safety
    /// The range must be mapped as Normal memory for as long as the window is used, and hold no Rust object.
    pub unsafe fn new(address: u64, len: usize) -> Option<Window> {
        let base = NonNull::new(ptr::with_exposed_provenance_mut::<u8>(usize::try_from(address).ok()?))?;
        (address.is_multiple_of(8) && address.checked_add(len as u64).is_some()).then_some(Window { base, len })
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A part of it. `None` if that is not inside or not 8-byte aligned.
    pub fn part(&self, offset: usize, len: usize) -> Option<Window> {
        let end = offset.checked_add(len)?;
        if end > self.len || !offset.is_multiple_of(8) {
            return None;
        }
        // SAFETY: `offset` is inside, as just checked.
        let base = unsafe { self.base.add(offset) };
        Some(Window { base, len })
    }

    /// The word at `offset`. `None` if that is not inside or not aligned.
    #[inline]
    pub fn word(&self, offset: usize) -> Option<&AtomicU32> {
        if !offset.is_multiple_of(4) || offset.checked_add(4)? > self.len {
            return None;
        }
        // SAFETY: inside and aligned, as just checked; both sides use atomic accesses for such words.
        Some(unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(offset).cast()) })
    }

    /// Copies bytes out. `None`, and nothing copied, if the range is not inside.
    #[must_use]
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Option<()> {
        if offset.checked_add(to.len())? > self.len {
            return None;
        }
        // SAFETY: inside, as just checked.
        let from = unsafe { self.base.as_ptr().add(offset) };
        let wide = aligned_len(from.addr(), to.as_ptr().addr(), to.len());
        let target = to.as_mut_ptr();
        for at in (0..wide).step_by(8) {
            // SAFETY: both are aligned and `at + 8 <= wide <= len`.
            unsafe { target.add(at).cast::<u64>().write(ptr::read_volatile(from.add(at).cast::<u64>())) };
        }
        for at in wide..to.len() {
            // SAFETY: `at < len`.
            unsafe { target.add(at).write(ptr::read_volatile(from.add(at))) };
        }
        Some(())
    }

    /// Copies bytes in. `None`, and nothing copied, if the range is not inside.
    #[must_use]
    pub fn write(&self, offset: usize, from: &[u8]) -> Option<()> {
        if offset.checked_add(from.len())? > self.len {
            return None;
        }
        // SAFETY: inside, as just checked.
        let to = unsafe { self.base.as_ptr().add(offset) };
        let source = from.as_ptr();
        let wide = aligned_len(to.addr(), source.addr(), from.len());
        for at in (0..wide).step_by(8) {
            // SAFETY: both are aligned and `at + 8 <= wide <= len`.
            unsafe { ptr::write_volatile(to.add(at).cast::<u64>(), source.add(at).cast::<u64>().read()) };
        }
        for at in wide..from.len() {
            // SAFETY: `at < len`.
            unsafe { ptr::write_volatile(to.add(at), source.add(at).read()) };
        }
        Some(())
    }

    /// Address of the first byte.
    pub fn address(&self) -> u64 {
        self.base.as_ptr().expose_provenance() as u64
    }
}

/// How many of `len` bytes can be copied by words of 8: all whole words if both sides are aligned, else none.
const fn aligned_len(a: usize, b: usize, len: usize) -> usize {
    if (a | b) & 7 == 0 { len & !7 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::Window;

    #[test]
    fn copies_stay_inside() {
        let mut memory = [0_u64; 8];
        // SAFETY: `memory` outlives the window and is not touched otherwise meanwhile.
        let window = unsafe { Window::new(memory.as_mut_ptr().expose_provenance() as u64, 64) }.unwrap();
        let text: Vec<u8> = (0..60).collect();
        assert!(window.write(4, &text).is_some());
        assert!(window.write(5, &text).is_none());
        assert!(window.write(usize::MAX, &text).is_none());
        let mut back = [0_u8; 21];
        assert!(window.read(7, &mut back).is_some());
        assert_eq!(back.to_vec(), (3..24).collect::<Vec<u8>>());
        assert!(window.read(44, &mut back).is_none());
        let mut wide = [0_u64; 2];
        // SAFETY: the array's own bytes.
        let bytes = unsafe { core::slice::from_raw_parts_mut(wide.as_mut_ptr().cast::<u8>(), 16) };
        assert!(window.read(8, bytes).is_some());
        assert_eq!(bytes.to_vec(), (4..20).collect::<Vec<u8>>());
        assert!(window.word(60).is_some() && window.word(61).is_none() && window.word(64).is_none());
        assert!(window.part(8, 56).is_some() && window.part(8, 57).is_none() && window.part(4, 8).is_none());
    }
}
