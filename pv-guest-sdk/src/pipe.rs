//! A byte pipe in a window: one producer, one consumer, free-running 32-bit indices.
//!
//! The console channel has two ([`portico_abi::channel::console`]). Both ends are here, since the manager uses the other one.
//! An end trusts only its private copy of its own index. What the peer writes is checked at each look:
//! an index that runs ahead of the other by more than the size, or backwards, is [`Corrupt`], and nothing is copied.
//!
//! | word | written by | release pairs with |
//! | --- | --- | --- |
//! | `head` | producer, after the bytes | consumer's acquire in [`Consumer::read`] |
//! | `tail` | consumer, after its copy | producer's acquire in [`Producer::write`] |

use crate::window::Window;
use core::sync::atomic::{Ordering, fence};

/// The peer's index makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;

/// Where a pipe is in its window.
#[derive(Clone, Copy, Debug)]
pub struct Pipe {
    window: Window,
    head: usize,
    tail: usize,
    data: usize,
    size: u32,
}

impl Pipe {
    /// Describes a pipe of `size` bytes (a power of two) by the offsets of its parts. `None` if a part is outside the window.
    pub fn new(window: Window, head: usize, tail: usize, data: usize, size: u32) -> Option<Pipe> {
        window.word(head)?;
        window.word(tail)?;
        window.part(data, size as usize)?;
        size.is_power_of_two().then_some(Pipe { window, head, tail, data, size })
    }

    /// The output pipe of a console window.
    pub fn console_out(window: Window) -> Option<Pipe> {
        use portico_abi::channel::console as c;
        Self::new(window, c::OUT_HEAD, c::OUT_TAIL, c::OUT_OFFSET, c::OUT_BYTES as u32)
    }

    /// The input pipe of a console window.
    pub fn console_in(window: Window) -> Option<Pipe> {
        use portico_abi::channel::console as c;
        Self::new(window, c::IN_HEAD, c::IN_TAIL, c::IN_OFFSET, c::IN_BYTES as u32)
    }

    fn load(&self, at: usize) -> u32 {
        self.window.word(at).map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn store(&self, at: usize, value: u32) {
        if let Some(word) = self.window.word(at) {
            word.store(value, Ordering::Release);
        }
    }

    /// Calls `copy` for the one or two straight pieces of `len` bytes at index `index`.
    fn pieces(&self, index: u32, len: usize, mut copy: impl FnMut(usize, core::ops::Range<usize>)) {
        let start = (index & (self.size - 1)) as usize;
        let first = len.min(self.size as usize - start);
        copy(self.data + start, 0..first);
        if first < len {
            copy(self.data, first..len);
        }
    }
}

/// The end that writes.
#[derive(Debug)]
pub struct Producer {
    pipe: Pipe,
    head: u32,
    tail_seen: u32,
}

impl Producer {
    /// Takes the writing end over, where its last holder left it.
    pub fn new(pipe: Pipe) -> Producer {
        let head = pipe.load(pipe.head);
        let tail = pipe.load(pipe.tail);
        // A nonsensical tail shows at the first look.
        Producer { pipe, head, tail_seen: tail }
    }

    /// Bytes that can be written now.
    ///
    /// # Errors
    /// The consumer's index ran ahead or back.
    pub fn room(&mut self) -> Result<u32, Corrupt> {
        let tail = self.pipe.load(self.pipe.tail);
        let used = self.head.wrapping_sub(tail);
        if used > self.pipe.size || used > self.head.wrapping_sub(self.tail_seen) {
            return Err(Corrupt);
        }
        self.tail_seen = tail;
        Ok(self.pipe.size - used)
    }

    /// Writes as many of `bytes` as there is room for; returns how many.
    ///
    /// # Errors
    /// As [`Producer::room`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, Corrupt> {
        let count = bytes.len().min(self.room()? as usize);
        let window = self.pipe.window;
        self.pipe.pieces(self.head, count, |at, range| {
            let _ = bytes.get(range).and_then(|piece| window.write(at, piece));
        });
        self.head = self.head.wrapping_add(count as u32);
        self.pipe.store(self.pipe.head, self.head);
        Ok(count)
    }

    /// Forgets everything unread and takes the consumer's index as it is: after [`Corrupt`].
    pub fn resynchronize(&mut self) {
        self.tail_seen = self.pipe.load(self.pipe.tail);
        self.head = self.tail_seen;
        self.pipe.store(self.pipe.head, self.head);
    }
}

/// The end that reads.
#[derive(Debug)]
pub struct Consumer {
    pipe: Pipe,
    tail: u32,
    head_seen: u32,
}

impl Consumer {
    /// Takes the reading end over, where its last holder left it.
    pub fn new(pipe: Pipe) -> Consumer {
        let tail = pipe.load(pipe.tail);
        Consumer { pipe, tail, head_seen: tail }
    }

    /// Bytes that can be read now.
    ///
    /// # Errors
    /// The producer's index ran ahead or back.
    pub fn available(&mut self) -> Result<u32, Corrupt> {
        let head = self.pipe.load(self.pipe.head);
        let filled = head.wrapping_sub(self.tail);
        if filled > self.pipe.size || filled < self.head_seen.wrapping_sub(self.tail) {
            return Err(Corrupt);
        }
        self.head_seen = head;
        Ok(filled)
    }

    /// Reads up to `to.len()` bytes; returns how many.
    ///
    /// # Errors
    /// As [`Consumer::available`].
    pub fn read(&mut self, to: &mut [u8]) -> Result<usize, Corrupt> {
        let count = to.len().min(self.available()? as usize);
        let window = self.pipe.window;
        self.pipe.pieces(self.tail, count, |at, range| {
            let _ = to.get_mut(range).and_then(|piece| window.read(at, piece));
        });
        self.tail = self.tail.wrapping_add(count as u32);
        self.pipe.store(self.pipe.tail, self.tail);
        Ok(count)
    }

    /// Drops everything and takes the producer's index as it is: after [`Corrupt`].
    pub fn resynchronize(&mut self) {
        self.head_seen = self.pipe.load(self.pipe.head);
        self.tail = self.head_seen;
        self.pipe.store(self.pipe.tail, self.tail);
    }
}

/// A flag by which one side asks the other for notifications.
///
/// Armed and re-checked in three phases. The waiter: *process* until there is nothing; *arm* ([`Want::set`], which
/// ends in a full barrier); *re-check*, and sleep only if there is still nothing. The other side: publish, full barrier, look
/// at the flag ([`Want::is_set`]). Of the two, at least one sees the other's store.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    window: Window,
    at: usize,
}

impl Want {
    /// The flag at offset `at` of `window`.
    pub const fn new(window: Window, at: usize) -> Want {
        Want { window, at }
    }

    /// Asks for notifications. Look again for work afterwards.
    pub fn set(&self) {
        if let Some(word) = self.window.word(self.at) {
            word.store(1, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
    }

    /// Asks for none.
    pub fn clear(&self) {
        if let Some(word) = self.window.word(self.at) {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Whether the other side asks. To be called after the work was published.
    pub fn is_set(&self) -> bool {
        self.value() != 0
    }

    /// What the other side asks for, 0 for nothing. To be called after the work was published.
    pub fn value(&self) -> u32 {
        fence(Ordering::SeqCst);
        self.window.word(self.at).map_or(0, |word| word.load(Ordering::Relaxed))
    }
}
