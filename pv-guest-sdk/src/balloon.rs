//! Giving memory back to the machine, and taking it again.
//!
//! A guest whose description has `memory_min` can do with less memory for a time. [`Balloon`] does it for a guest on this crate's heap: it holds blocks of the
//! heap that are not there, and [`Balloon::follow`] lets it hold as many as the manager asks for. A kernel with an allocator of its own uses
//! [`release`] and [`populate`] on what it keeps free.

use crate::control::{self, Control};
use crate::{port, time};
use alloc_crate::alloc::{Layout, alloc, dealloc};
use alloc_crate::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use portico_abi::device::control::{memory_op, memory_result};
use portico_abi::port::DEADLINE_NEVER;
use portico_abi::{BLOCK_SIZE, PAGE_SIZE};

/// Why memory could not be given back or taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The guest's memory is fixed, or the range is not of whole blocks, or not in its memory.
    Invalid,
    /// It would have less than its description's `memory_min`.
    Minimum,
    /// It would have more than the manager wants it to.
    Target,
    /// The machine has no more now.
    Exhausted,
}

impl Refusal {
    fn from_word(word: u32) -> Refusal {
        match word {
            memory_result::MINIMUM => Refusal::Minimum,
            memory_result::TARGET => Refusal::Target,
            memory_result::EXHAUSTED => Refusal::Exhausted,
            _ => Refusal::Invalid,
        }
    }
}

/// Pages that the guest has, and that it should have. `None` if its memory is fixed.
pub fn pages() -> Option<(u32, u32)> {
    control::page()?.memory_pages()
}

/// Gives a range of addresses back: whole blocks, of which nothing is used any more. Waits until that is done.
///
/// # Errors
/// [`Refusal`], and how many bytes of the range, from its beginning, were given back nevertheless.
///
/// # Safety
/// Nobody may use the range, until it was populated again.
pub unsafe fn release(range: Range<u64>) -> Result<(), (Refusal, u64)> {
    request(memory_op::RELEASE, range)
}

/// Takes a range again that was released: it is zero. Waits until that is done; what is there already stays as it is.
///
/// # Errors
/// [`Refusal`], and how many bytes of the range, from its beginning, are there nevertheless.
pub fn populate(range: Range<u64>) -> Result<(), (Refusal, u64)> {
    request(memory_op::POPULATE, range)
}

fn request(op: u32, range: Range<u64>) -> Result<(), (Refusal, u64)> {
    let invalid = (Refusal::Invalid, 0);
    let pages = range.end.checked_sub(range.start).filter(|bytes| bytes.is_multiple_of(PAGE_SIZE)).ok_or(invalid)?;
    let pages = u32::try_from(pages / PAGE_SIZE).map_err(|_| invalid)?;
    let control = control::page().filter(|control| control.memory_pages().is_some()).ok_or(invalid)?;
    let port = control::port().map_err(|_| invalid)?;
    let _turn = Turn::take();
    control.ask_memory(op, range.start, pages);
    port.notify().map_err(|_| invalid)?;
    loop {
        if let Some((result, done)) = control.memory_answer() {
            let done = u64::from(done) * PAGE_SIZE;
            return if result == memory_result::OK { Ok(()) } else { Err((Refusal::from_word(result), done)) };
        }
        let _ = port::wait_until(DEADLINE_NEVER, || control.memory_answer().is_some());
    }
}

/// One request at a time: there is one place for it.
struct Turn;

static IS_TAKEN: AtomicBool = AtomicBool::new(false);

impl Turn {
    fn take() -> Turn {
        // Acquire: the last one's words were read.
        while IS_TAKEN.swap(true, Ordering::Acquire) {
            time::sleep(Duration::from_millis(1));
        }
        Turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        IS_TAKEN.store(false, Ordering::Release);
    }
}

/// Blocks of the heap that the guest does without.
#[derive(Debug, Default)]
pub struct Balloon {
    held: Vec<*mut u8>,
}

const BLOCK: usize = BLOCK_SIZE as usize;
const LAYOUT: Layout = match Layout::from_size_align(BLOCK, BLOCK) {
    Ok(layout) => layout,
    Err(_) => panic!("a block's size is a power of two"),
};

impl Balloon {
    /// One that holds nothing.
    pub const fn new() -> Balloon {
        Balloon { held: Vec::new() }
    }

    /// Blocks that it holds.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Takes a block from the heap and gives its memory back.
    ///
    /// # Errors
    /// [`Refusal`]; `Exhausted` if the heap has no free block.
    pub fn inflate(&mut self) -> Result<(), Refusal> {
        // SAFETY: the layout is not empty.
        let block = unsafe { alloc(LAYOUT) };
        if block.is_null() {
            return Err(Refusal::Exhausted);
        }
        // SAFETY: the block is the balloon's alone, and nobody touches it before `deflate` has it again.
        match unsafe { release(range_of(block)) } {
            Ok(()) => {
                self.held.push(block);
                Ok(())
            }
            Err((refusal, _)) => {
                // SAFETY: it came from `alloc` with this layout, and is still there.
                unsafe { dealloc(block, LAYOUT) };
                Err(refusal)
            }
        }
    }

    /// Takes a block's memory again and gives it to the heap. False if it holds none.
    ///
    /// # Errors
    /// [`Refusal`]; the block stays in the balloon.
    pub fn deflate(&mut self) -> Result<bool, Refusal> {
        let Some(&block) = self.held.last() else { return Ok(false) };
        populate(range_of(block)).map_err(|(refusal, _)| refusal)?;
        self.held.pop();
        // SAFETY: it came from `alloc` with this layout, and is there again.
        unsafe { dealloc(block, LAYOUT) };
        Ok(true)
    }

    /// Inflates or deflates until the guest has what it should have. To be called again when the control page's port was notified.
    ///
    /// # Errors
    /// [`Refusal`] of the first block that did not go.
    pub fn follow(&mut self) -> Result<(), Refusal> {
        while let Some((present, target)) = pages() {
            if present > target {
                self.inflate()?;
            } else if present == target || !self.deflate()? {
                break;
            }
        }
        Ok(())
    }
}

fn range_of(block: *mut u8) -> Range<u64> {
    let first = block.expose_provenance() as u64;
    first..first + BLOCK_SIZE
}

// SAFETY: the blocks belong to the balloon alone.
unsafe impl Send for Balloon {}

/// What the control page is used for here.
impl Control {
    /// Pages that the domain has and should have; `None` if its memory is fixed.
    pub fn memory_pages(&self) -> Option<(u32, u32)> {
        let target = self.get(portico_abi::device::control::TARGET_PAGES);
        (target != 0).then(|| (self.get(portico_abi::device::control::PRESENT_PAGES), target))
    }

    /// Asks for something to be done with a range of memory. The domain's port is to be notified afterwards.
    pub fn ask_memory(&self, op: u32, first: u64, pages: u32) {
        use portico_abi::device::control::{FIRST, PAGES, REQUEST};
        let number = (self.get(REQUEST) >> 8).wrapping_add(1);
        let _ = self.window().store(FIRST, first);
        self.set(PAGES, pages);
        self.set(REQUEST, number << 8 | op);
    }

    /// Result and pages of what was asked for last, once it is answered.
    pub fn memory_answer(&self) -> Option<(u32, u32)> {
        use portico_abi::device::control::{ANSWER, DONE_PAGES, REQUEST, RESULT};
        (self.get(ANSWER) == self.get(REQUEST)).then(|| (self.get(RESULT), self.get(DONE_PAGES)))
    }
}

#[cfg(test)]
mod tests {
    use super::Refusal;
    use crate::control::tests::{control, get, set};
    use portico_abi::device::control::{
        ANSWER, DONE_PAGES, FIRST, PAGES, PRESENT_PAGES, REQUEST, RESULT, TARGET_PAGES, memory_op, memory_result,
    };

    #[test]
    fn a_request_is_answered_when_its_number_comes_back() {
        let (page, control) = control();
        assert_eq!(control.memory_pages(), None, "fixed");
        set(page, PRESENT_PAGES, 2048);
        set(page, TARGET_PAGES, 1024);
        assert_eq!(control.memory_pages(), Some((2048, 1024)));
        control.ask_memory(memory_op::RELEASE, 0x4020_0000, 512);
        let request = get(page, REQUEST);
        assert_eq!((request & 0xff, page.load(FIRST), get(page, PAGES)), (memory_op::RELEASE, Some(0x4020_0000), 512));
        assert_eq!(control.memory_answer(), None);
        set(page, RESULT, memory_result::MINIMUM);
        set(page, DONE_PAGES, 0);
        set(page, ANSWER, request);
        assert_eq!(control.memory_answer(), Some((memory_result::MINIMUM, 0)));
        // The same again is another number.
        control.ask_memory(memory_op::RELEASE, 0x4020_0000, 512);
        assert_eq!(control.memory_answer(), None);
    }

    #[test]
    fn every_refusal_has_its_word() {
        let words = [memory_result::INVALID, memory_result::MINIMUM, memory_result::TARGET, memory_result::EXHAUSTED];
        let refusals = [Refusal::Invalid, Refusal::Minimum, Refusal::Target, Refusal::Exhausted];
        assert_eq!(words.map(Refusal::from_word), refusals);
        assert_eq!(Refusal::from_word(77), Refusal::Invalid);
    }
}
