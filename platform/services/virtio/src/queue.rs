//! A split virtqueue. (VIRTIO 1.2, "Split Virtqueues")
//!
//! Descriptors are chained by a private free list: what the device writes (the used ring) is checked before it is followed.

use crate::dma::{Area, Dma};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering, fence};
use portico_sdk::window::Window;

/// Descriptor flags.
const NEXT: u64 = 1;
const WRITE: u64 = 2;
/// `flags` of the available ring: no interrupt, if the device knows no event index.
const NO_INTERRUPT: u32 = 1;

/// A piece of a chain.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Machine address.
    pub machine: u64,
    /// Bytes.
    pub bytes: u32,
    /// The device writes it.
    pub is_written: bool,
}

/// A queue.
#[derive(Debug)]
pub struct Queue {
    size: u16,
    /// 16 bytes for each descriptor.
    descriptors: Area,
    /// `flags`, `idx`, ring, `used_event`.
    available: Area,
    /// `flags`, `idx`, ring of 8 bytes each, `avail_event`.
    used: Area,
    /// For each descriptor the next one of its list: of the free ones, or of its chain.
    links: Vec<u16>,
    /// First free descriptor, and how many are free.
    first_free: u16,
    room: u16,
    /// For each head that is in use, how many descriptors its chain has, and the last; 0 for all others.
    chains: Vec<(u16, u16)>,
    /// Next index of the available ring, and what was published.
    next: u16,
    published: u16,
    /// Next index of the used ring.
    seen: u16,
    has_event_index: bool,
}

impl Queue {
    /// Lays a queue of `size` descriptors, a power of two, out in memory for devices. `None` if there is not so much.
    pub fn new(dma: &mut Dma, size: u16, has_event_index: bool) -> Option<Queue> {
        let count = usize::from(size);
        let queue = Queue {
            size,
            descriptors: dma.take(16 * count, 16)?,
            available: dma.take(6 + 2 * count + 2, 8)?,
            used: dma.take(6 + 8 * count + 2, 8)?,
            links: (1..=size).collect(),
            first_free: 0,
            room: size,
            chains: (0..size).map(|_| (0, 0)).collect(),
            next: 0,
            published: 0,
            seen: 0,
            has_event_index,
        };
        Some(queue)
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Machine addresses of descriptors, available ring and used ring.
    pub fn addresses(&self) -> [u64; 3] {
        [self.descriptors.machine, self.available.machine, self.used.machine]
    }

    /// Free descriptors.
    #[inline]
    pub fn room(&self) -> usize {
        usize::from(self.room)
    }

    /// The head of the next chain that is added. `None` if there is no room.
    #[inline]
    pub fn next_head(&self) -> Option<u16> {
        (self.room > 0).then_some(self.first_free)
    }

    /// Adds a chain of `count` parts without telling the device. Its head, which [`Queue::pop`] answers; `None`, and nothing added, if there is
    /// no room or `parts` has fewer.
    #[inline]
    pub fn add(&mut self, count: usize, parts: impl Iterator<Item = Part>) -> Option<u16> {
        if count == 0 || count > self.room() {
            return None;
        }
        let head = self.first_free;
        let (mut index, mut last, mut left) = (head, head, count);
        let Queue { links, descriptors, .. } = self;
        parts.take(count).try_for_each(|part| {
            let next = links.get(usize::from(index)).copied()?;
            left -= 1;
            let flags = if left > 0 { NEXT } else { 0 } | if part.is_written { WRITE } else { 0 };
            let follower = if left > 0 { next } else { 0 };
            let rest = u64::from(part.bytes) | flags << 32 | u64::from(follower) << 48;
            last = index;
            index = next;
            descriptors.window.store_words(16 * usize::from(last), [part.machine, rest])
        })?;
        if left > 0 {
            return None;
        }
        *self.chains.get_mut(usize::from(head))? = (count as u16, last);
        self.first_free = index;
        self.room -= count as u16;
        put_half(&self.available.window, 4 + 2 * usize::from(self.next & (self.size - 1)), head);
        self.next = self.next.wrapping_add(1);
        Some(head)
    }

    /// Publishes what was added. `true`: the device wants to be notified.
    #[must_use]
    pub fn publish(&mut self) -> bool {
        let old = core::mem::replace(&mut self.published, self.next);
        if old == self.next {
            return false;
        }
        // Orders the descriptors before the index.
        fence(Ordering::Release);
        put_half(&self.available.window, 2, self.next);
        // Orders the index before the look at what the device wants; it does the reverse. (VIRTIO 1.2, "Available Buffer Notification Suppression")
        fence(Ordering::SeqCst);
        if self.has_event_index {
            let event = half(&self.used.window, 4 + 8 * usize::from(self.size));
            self.next.wrapping_sub(event).wrapping_sub(1) < self.next.wrapping_sub(old)
        } else {
            half(&self.used.window, 0) & 1 == 0
        }
    }

    /// Takes a chain that the device is done with: its head, and how many bytes it wrote.
    pub fn pop(&mut self) -> Option<(u16, u32)> {
        loop {
            if half(&self.used.window, 2) == self.seen {
                return None;
            }
            // Orders the look at the index before that at the entry.
            fence(Ordering::Acquire);
            let entry = self.used.window.word(4 + 8 * usize::from(self.seen & (self.size - 1)));
            let length = self.used.window.word(8 + 8 * usize::from(self.seen & (self.size - 1)));
            let head = entry.map_or(u32::MAX, |word| word.load(Ordering::Relaxed));
            let bytes = length.map_or(0, |word| word.load(Ordering::Relaxed));
            self.seen = self.seen.wrapping_add(1);
            let head = u16::try_from(head).unwrap_or(u16::MAX);
            if let Some(chain) = self.chains.get_mut(usize::from(head)).filter(|chain| chain.0 > 0)
                && let (count, last) = core::mem::take(chain)
                && let Some(link) = self.links.get_mut(usize::from(last))
            {
                *link = core::mem::replace(&mut self.first_free, head);
                self.room += count;
                return Some((head, bytes));
            }
            // No chain of ours: a broken device is not followed.
        }
    }

    /// Asks for an interrupt when `count` chains are done. `true`: so many are not, and the caller may sleep. At least so many must be in flight.
    pub fn arm(&mut self, count: u16) -> bool {
        let count = count.max(1);
        if self.has_event_index {
            put_half(&self.available.window, 4 + 2 * usize::from(self.size), self.seen.wrapping_add(count - 1));
        } else {
            put_half(&self.available.window, 0, 0);
        }
        // Orders the wish before the look; the device does the reverse.
        fence(Ordering::SeqCst);
        let done = half(&self.used.window, 2).wrapping_sub(self.seen);
        if self.has_event_index { done < count } else { done == 0 }
    }

    /// Asks for no interrupt: the queue is looked at anyway.
    pub fn disarm(&mut self) {
        if self.has_event_index {
            put_half(&self.available.window, 4 + 2 * usize::from(self.size), self.seen.wrapping_sub(1));
        } else {
            put_half(&self.available.window, 0, NO_INTERRUPT as u16);
        }
    }
}

/// The word that holds a number of 2 bytes, and the place in it.
fn place(window: &Window, offset: usize) -> Option<(&AtomicU32, u32)> {
    Some((window.word(offset & !3)?, (offset as u32 & 2) * 8))
}

fn half(window: &Window, offset: usize) -> u16 {
    place(window, offset).map_or(0, |(word, shift)| (word.load(Ordering::Relaxed) >> shift) as u16)
}

/// Stores a number of 2 bytes. Its neighbour in the word is ours too: the device writes no part of the available ring.
fn put_half(window: &Window, offset: usize, value: u16) {
    if let Some((word, shift)) = place(window, offset) {
        let rest = word.load(Ordering::Relaxed) & !(0xffff << shift);
        word.store(rest | u32::from(value) << shift, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{Part, Queue, half, put_half};
    use crate::dma::{Area, Dma};
    use portico_sdk::window::Window;

    fn queue(memory: &mut [u64], has_event_index: bool) -> Queue {
        // SAFETY: `memory` outlives the window in these tests and is not touched otherwise meanwhile.
        let window = unsafe { Window::new(memory.as_mut_ptr().expose_provenance() as u64, memory.len() * 8) }.unwrap();
        Queue::new(&mut Dma::new(Area { window, machine: 0x8000_0000 }), 8, has_event_index).unwrap()
    }

    fn finish(queue: &Queue, index: u16, head: u32, bytes: u32) {
        let used = &queue.used.window;
        used.store(8, 0).unwrap();
        let at = 4 + 8 * usize::from(index & 7);
        used.word(at).unwrap().store(head, std::sync::atomic::Ordering::Relaxed);
        used.word(at + 4).unwrap().store(bytes, std::sync::atomic::Ordering::Relaxed);
        put_half(used, 2, index.wrapping_add(1));
    }

    #[test]
    fn chains_are_linked_and_come_back() {
        let mut memory = vec![0; 128];
        let mut queue = queue(&mut memory, true);
        let part = |machine, is_written| Part { machine, bytes: 512, is_written };
        let head = queue.add(3, [part(1, false), part(2, true), part(3, true)].into_iter()).unwrap();
        assert_eq!((head, queue.room()), (0, 5));
        let word = |at| queue.descriptors.window.load(at).unwrap();
        assert_eq!([word(0), word(8)], [1, 512 | 1 << 32 | 1 << 48]);
        assert_eq!([word(16), word(24)], [2, 512 | 3 << 32 | 2 << 48]);
        assert_eq!([word(32), word(40)], [3, 512 | 2 << 32]);
        assert!(queue.publish(), "the device has asked for the first");
        assert_eq!(half(&queue.available.window, 2), 1);
        assert!(!queue.publish());
        assert!(queue.arm(1));
        finish(&queue, 0, 0, 512);
        assert!(!queue.arm(1) && queue.arm(2));
        assert_eq!(queue.pop(), Some((0, 512)));
        assert_eq!((queue.pop(), queue.room()), (None, 8));
    }

    #[test]
    fn every_descriptor_comes_back_in_whatever_order() {
        let mut memory = vec![0; 128];
        let mut queue = queue(&mut memory, true);
        let part = Part { machine: 1, bytes: 1, is_written: false };
        let mut used = 0;
        for round in 0..200_usize {
            let sizes = [1 + round % 3, 1 + round / 3 % 3, 1 + round / 9 % 2];
            let mut heads: Vec<_> =
                sizes.iter().map(|&size| queue.add(size, core::iter::repeat_n(part, size)).unwrap()).collect();
            assert_eq!(queue.room(), 8 - sizes.iter().sum::<usize>());
            heads.rotate_left(round % 3);
            let _ = queue.publish();
            for head in heads {
                finish(&queue, used, u32::from(head), 0);
                used = used.wrapping_add(1);
                assert_eq!(queue.pop(), Some((head, 0)));
            }
            assert_eq!(queue.room(), 8);
            let mut seen = [false; 8];
            let mut at = queue.next_head().unwrap();
            for _ in 0..8 {
                assert!(!core::mem::replace(&mut seen[usize::from(at)], true), "a descriptor is free twice");
                at = queue.links[usize::from(at)];
            }
        }
    }

    #[test]
    fn what_the_device_makes_up_is_not_followed() {
        let mut memory = vec![0; 128];
        let mut queue = queue(&mut memory, false);
        finish(&queue, 0, 3, 1);
        assert_eq!(queue.pop(), None);
        finish(&queue, 1, u32::MAX, 1);
        assert_eq!((queue.pop(), queue.room()), (None, 8));
        let part = Part { machine: 0, bytes: 1, is_written: false };
        let mut add = |count, parts| queue.add(count, core::iter::repeat_n(part, parts));
        assert_eq!((add(0, 0), add(9, 9), add(3, 2)), (None, None, None));
        assert!(add(8, 8).is_some() && add(1, 1).is_none());
    }
}
