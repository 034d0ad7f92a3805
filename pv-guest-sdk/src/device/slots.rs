//! The slots of a ring in a window.

use crate::window::Window;
use portico_abi::ring::{Layout, Slots};

/// A window, and where in it the ring is whose control words [`Window::control`] gave.
#[derive(Clone, Copy, Debug)]
pub struct WindowSlots(pub Window, pub Layout);

impl Slots for WindowSlots {
    #[inline]
    fn put(&self, index: u32, message: &[u8]) {
        // Inside: the ring's words were taken by `Window::control`, which checked the whole ring.
        let _ = self.0.write(self.1.slot(index), message);
    }

    #[inline]
    fn get(&self, index: u32, message: &mut [u8]) {
        let _ = self.0.read(self.1.slot(index), message);
    }
}

/// A message with eight bytes of alignment, so that it is copied by words.
#[derive(Debug)]
#[repr(align(8))]
pub struct Aligned<const N: usize>(pub [u8; N]);
