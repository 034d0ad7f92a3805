//! A window: memory shared with a peer that may be hostile.
//!
//! No reference is ever made to its bytes: they are copied by volatile accesses, once, and the copy is checked and used. Words
//! on which both sides agree by protocol (indices, states) are reached as atomics.

use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicU32;
use portico_abi::ring::{self, Control, Layout};

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

impl Default for Window {
    /// A window of no bytes.
    fn default() -> Self {
        Window { base: NonNull::<u64>::dangling().cast(), len: 0 }
    }
}

impl Window {
    /// Takes a range as a window. `None` if it is not 8-byte aligned or starts at 0.
    ///
    /// # Safety
    /// The range must be mapped as Normal memory for as long as the window, a part of it or the words of a ring in it are used, and hold no
    /// Rust object.
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

    /// The control words of a ring. `None` if the ring is not inside.
    pub fn control(&self, layout: &Layout) -> Option<Control<'static>> {
        if layout.end() > self.len {
            return None;
        }
        Some(Control {
            head: self.static_word(layout.offset + ring::HEAD)?,
            space_event: self.static_word(layout.offset + ring::SPACE_EVENT)?,
            tail: self.static_word(layout.offset + ring::TAIL)?,
            data_event: self.static_word(layout.offset + ring::DATA_EVENT)?,
        })
    }

    /// As [`Window::word`], for as long as the maker of the window promised.
    pub(crate) fn static_word(&self, offset: usize) -> Option<&'static AtomicU32> {
        self.word(offset)?;
        // SAFETY: inside and aligned, as just checked; whoever made the window promised that its words stay as long as they are used.
        Some(unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(offset).cast()) })
    }

    /// Stores a number of 8 bytes. `None`, and nothing stored, if `offset` is not inside or not a multiple of 8.
    #[inline]
    pub fn store(&self, offset: usize, value: u64) -> Option<()> {
        if !offset.is_multiple_of(8) || offset.checked_add(8)? > self.len {
            return None;
        }
        // SAFETY: inside and aligned, as just checked: the base is aligned to 8.
        unsafe { ptr::write_volatile(self.base.as_ptr().add(offset).cast::<u64>(), value) };
        Some(())
    }

    /// Loads a number of 8 bytes. `None` if `offset` is not inside or not a multiple of 8.
    #[inline]
    pub fn load(&self, offset: usize) -> Option<u64> {
        if !offset.is_multiple_of(8) || offset.checked_add(8)? > self.len {
            return None;
        }
        // SAFETY: as in `store`.
        Some(unsafe { ptr::read_volatile(self.base.as_ptr().add(offset).cast::<u64>()) })
    }

    /// Stores `N` numbers of 8 bytes, as [`Window::store`]: a message is made in registers, and its bounds are checked once.
    #[inline]
    pub fn store_words<const N: usize>(&self, offset: usize, words: [u64; N]) -> Option<()> {
        let to = self.words::<N>(offset)?;
        for (index, word) in words.iter().enumerate() {
            // SAFETY: inside and aligned, as `words` checked.
            unsafe { ptr::write_volatile(to.add(index), *word) };
        }
        Some(())
    }

    /// Loads `N` numbers of 8 bytes, each once, as [`Window::load`].
    #[inline]
    pub fn load_words<const N: usize>(&self, offset: usize) -> Option<[u64; N]> {
        let from = self.words::<N>(offset)?;
        // SAFETY: inside and aligned, as `words` checked.
        Some(core::array::from_fn(|index| unsafe { ptr::read_volatile(from.add(index)) }))
    }

    /// The place of `N` numbers of 8 bytes. `None` if that is not inside or not aligned.
    #[inline]
    fn words<const N: usize>(&self, offset: usize) -> Option<*mut u64> {
        if !offset.is_multiple_of(8) || offset.checked_add(8 * N)? > self.len {
            return None;
        }
        // SAFETY: inside, as just checked.
        Some(unsafe { self.base.as_ptr().add(offset) }.cast())
    }

    /// Copies bytes to another window. `None`, and nothing copied, if either range is not inside.
    #[must_use]
    pub fn copy_to(&self, offset: usize, to: &Window, at: usize, bytes: usize) -> Option<()> {
        if offset.checked_add(bytes)? > self.len || at.checked_add(bytes)? > to.len {
            return None;
        }
        // SAFETY: both inside, as just checked.
        let (from, to) = unsafe { (self.base.as_ptr().add(offset), to.base.as_ptr().add(at)) };
        // SAFETY: both ranges are inside their windows, which are mapped.
        unsafe { copy(from, to, bytes) };
        Some(())
    }

    /// The one's complement sum of bytes, each read once, as 16-bit words in memory's order; an odd one at the end counts as if a 0 followed. `None` if
    /// the range is not inside. (RFC 1071)
    #[must_use]
    pub fn sum(&self, offset: usize, bytes: usize) -> Option<u16> {
        if offset.checked_add(bytes)? > self.len {
            return None;
        }
        // SAFETY: inside, as just checked.
        let from = unsafe { self.base.as_ptr().add(offset) };
        // SAFETY: inside, as just checked.
        Some(unsafe { sum(from, bytes) })
    }

    /// Copies bytes out. `None`, and nothing copied, if the range is not inside.
    #[must_use]
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Option<()> {
        if offset.checked_add(to.len())? > self.len {
            return None;
        }
        // SAFETY: inside, as just checked.
        let from = unsafe { self.base.as_ptr().add(offset) };
        // SAFETY: the source is inside; the target is exclusively the caller's.
        unsafe { copy(from, to.as_mut_ptr(), to.len()) };
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
        // SAFETY: the target is inside; the source is a slice.
        unsafe { copy(from.as_ptr(), to, from.len()) };
        Some(())
    }

    /// Address of the first byte.
    pub fn address(&self) -> u64 {
        self.base.as_ptr().expose_provenance() as u64
    }
}

/// Copies as many bytes as both have. A plain copy is a call: the compiler makes no unaligned accesses, and does not know what is aligned.
#[inline]
pub fn copy_private(from: &[u8], to: &mut [u8]) {
    // SAFETY: both are slices, of which one is exclusively the caller's.
    unsafe { copy(from.as_ptr(), to.as_mut_ptr(), from.len().min(to.len())) };
}

/// Copies bytes of which one side, or both, may change meanwhile: each is read once.
///
/// # Safety
/// `from` must be readable and `to` writable for `bytes` bytes, both Normal memory; they must not overlap.
#[inline]
unsafe fn copy(from: *const u8, to: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise.
    let mut at = unsafe { copy_pieces(from, to, bytes) };
    while at < bytes {
        // SAFETY: `at < bytes`.
        unsafe { ptr::write_volatile(to.add(at), ptr::read_volatile(from.add(at))) };
        at += 1;
    }
}

/// Copies pieces of 128 bytes and what is left; returns how many bytes that were: all. In assembly, since the compiler makes no unaligned accesses, which
/// Normal memory allows while the MMU is on, and cannot pair volatile ones.
///
/// # Safety
/// As [`copy`].
#[cfg(target_arch = "aarch64")]
#[inline]
unsafe fn copy_pieces(from: *const u8, to: *mut u8, bytes: usize) -> usize {
    if bytes > 0 {
        // SAFETY: reads and writes `bytes` bytes, as the caller allows.
        unsafe {
            core::arch::asm!(
                "subs {left}, {left}, #128",
                "b.lo 1f",
                "2: .rept 4",
                "ldp {a}, {b}, [{from}], #16",
                "ldp {c}, {d}, [{from}], #16",
                "stp {a}, {b}, [{to}], #16",
                "stp {c}, {d}, [{to}], #16",
                ".endr",
                "subs {left}, {left}, #128",
                "b.hs 2b",
                // What is left is less than 128, whose bits say of which pieces it is made.
                "1: tbz {left}, #6, 3f",
                ".rept 2",
                "ldp {a}, {b}, [{from}], #16",
                "ldp {c}, {d}, [{from}], #16",
                "stp {a}, {b}, [{to}], #16",
                "stp {c}, {d}, [{to}], #16",
                ".endr",
                "3: ands {left}, {left}, #63",
                "b.eq 9f",
                "tbz {left}, #5, 4f",
                "ldp {a}, {b}, [{from}], #16",
                "ldp {c}, {d}, [{from}], #16",
                "stp {a}, {b}, [{to}], #16",
                "stp {c}, {d}, [{to}], #16",
                "4: tbz {left}, #4, 5f",
                "ldp {a}, {b}, [{from}], #16",
                "stp {a}, {b}, [{to}], #16",
                "5: tbz {left}, #3, 6f",
                "ldr {a}, [{from}], #8",
                "str {a}, [{to}], #8",
                "6: tst {left}, #7",
                "b.eq 9f",
                "tbz {left}, #2, 7f",
                "ldr {a:w}, [{from}], #4",
                "str {a:w}, [{to}], #4",
                "7: tbz {left}, #1, 8f",
                "ldrh {a:w}, [{from}], #2",
                "strh {a:w}, [{to}], #2",
                "8: tbz {left}, #0, 9f",
                "ldrb {a:w}, [{from}]",
                "strb {a:w}, [{to}]",
                "9:",
                a = out(reg) _, b = out(reg) _, c = out(reg) _, d = out(reg) _,
                from = inout(reg) from => _,
                to = inout(reg) to => _,
                left = inout(reg) bytes => _,
                options(nostack),
            );
        }
    }
    bytes
}

/// The one's complement sum of bytes that may change meanwhile: each is read once.
///
/// # Safety
/// `from` must be readable for `bytes` bytes of Normal memory.
unsafe fn sum(from: *const u8, bytes: usize) -> u16 {
    // SAFETY: the caller's promise.
    let (mut sum, mut at) = unsafe { sum_pieces(from, bytes) };
    while at < bytes {
        // SAFETY: `at < bytes`.
        let low = unsafe { ptr::read_volatile(from.add(at)) };
        // SAFETY: as above.
        let high = if at + 1 < bytes { unsafe { ptr::read_volatile(from.add(at + 1)) } } else { 0 };
        let (next, carry) = sum.overflowing_add(u64::from(u16::from_ne_bytes([low, high])));
        sum = next + u64::from(carry);
        at += 2;
    }
    fold(sum)
}

/// A sum of 64 bits as one of 16: 2^16 is 1.
fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// Sums whole pieces of 16 bytes, as one's complement of 64 bits; returns the sum and how many bytes that were.
///
/// # Safety
/// As [`sum`].
#[cfg(target_arch = "aarch64")]
unsafe fn sum_pieces(from: *const u8, bytes: usize) -> (u64, usize) {
    let whole = bytes & !15;
    let mut sum = 0_u64;
    if whole > 0 {
        // SAFETY: reads `whole` bytes, as the caller allows.
        unsafe {
            core::arch::asm!(
                "adds {sum}, {sum}, xzr",
                "2: ldp {a}, {b}, [{from}], #16",
                "adcs {sum}, {sum}, {a}",
                "adcs {sum}, {sum}, {b}",
                "sub {left}, {left}, #16",
                "cbnz {left}, 2b",
                "adc {sum}, {sum}, xzr",
                a = out(reg) _, b = out(reg) _,
                sum = inout(reg) sum,
                from = inout(reg) from => _,
                left = inout(reg) whole => _,
                options(nostack, readonly),
            );
        }
    }
    (sum, whole)
}

/// Elsewhere nothing is gained by pieces.
///
/// # Safety
/// None.
#[cfg(not(target_arch = "aarch64"))]
unsafe fn sum_pieces(_from: *const u8, _bytes: usize) -> (u64, usize) {
    (0, 0)
}

/// Elsewhere nothing is gained by pieces.
///
/// # Safety
/// None.
#[cfg(not(target_arch = "aarch64"))]
unsafe fn copy_pieces(_from: *const u8, _to: *mut u8, _bytes: usize) -> usize {
    0
}

#[cfg(test)]
mod tests {
    use super::Window;

    /// The sum by its definition.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn sums_are_ones_complement() {
        let mut memory = [u64::MAX; 64];
        // SAFETY: `memory` outlives the window and is not touched otherwise meanwhile.
        let window = unsafe { Window::new(memory.as_mut_ptr().expose_provenance() as u64, 512) }.unwrap();
        assert_eq!((window.sum(0, 512), window.sum(3, 0), window.sum(1, 512)), (Some(0xffff), Some(0), None));
        let text: Vec<u8> = (0..512_u32).map(|byte| (byte * 37 + 5) as u8).collect();
        window.write(0, &text).unwrap();
        for from in 0..20 {
            for bytes in 0..400 {
                assert_eq!(window.sum(from, bytes), Some(naive(&text[from..from + bytes])), "{bytes} from {from}");
            }
        }
    }

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
        assert!(window.store_words(48, [1, 2]).is_some() && window.load_words(48) == Some([1_u64, 2]));
        assert!(window.store_words(56, [1, 2]).is_none() && window.load_words::<1>(60).is_none());
        assert!(window.load_words::<2>(usize::MAX - 7).is_none());
        assert!(window.word(60).is_some() && window.word(61).is_none() && window.word(64).is_none());
        assert!(window.part(8, 56).is_some() && window.part(8, 57).is_none() && window.part(4, 8).is_none());
    }
}
