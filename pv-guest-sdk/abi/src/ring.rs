//! Rings: single producer, single consumer, over one shared window.
//!
//! A ring is a power of two of *slots* of one size, and two control lines. Indices are free-running 32-bit counts of
//! slots: the fill is `head.wrapping_sub(tail)`, computed in [`fill`] and nowhere else.
//!
//! | word | offset | written by | read by | its release pairs with |
//! | --- | --- | --- | --- | --- |
//! | `head` | 0 | producer, after the payload | consumer | the acquire in [`Consumer::available`] |
//! | `space_event` | 4 | producer | consumer | (full barriers, see below) |
//! | `tail` | 64 | consumer, after its copy | producer | the acquire in [`Producer::room`] |
//! | `data_event` | 68 | consumer | producer | (full barriers, see below) |
//! | slots | 128 | producer | consumer | with `head` and `tail` |
//!
//! # Notifications, in three phases
//!
//! The consumer:
//!
//! 1. **Process** until [`Consumer::available`] says 0.
//! 2. **Arm**: [`Consumer::arm`] stores `data_event = tail`, "notify me when slot `tail` is filled"; full barrier.
//! 3. **Re-check**: `arm` looks at `head` again and says whether it may sleep.
//!
//! The producer stores `head` ([`Producer::publish`]); full barrier; loads `data_event`, and notifies if `head` moved past it
//! with this publication.
//!
//! The lost-wake-up window lies between phase 1 and phase 2: a slot published there is not notified, as the producer saw an
//! old `data_event`. Phase 3 closes it. By the two full barriers either the producer sees the new
//! `data_event`, and notifies, or the consumer sees the new `head`, and does not sleep. Both may happen: then there is one
//! spurious notification, which is legal. The same holds, with the roles exchanged, for `space_event` and `tail`.
//! While nobody is armed, the event indices lie behind and no notification is sent.
//!
//! # A peer that lies
//!
//! Each end acts on private copies of both indices. What it loads from the peer must lie between what it loaded last and
//! what is possible: running ahead by more than the ring, or backwards, is [`Corrupt`]. Nothing is
//! copied then, and nothing is followed: the owner closes the channel. A wild event index only costs or saves notifications.
//!
//! Payload is moved by the [`Slots`] that the owner gives, which this crate does not know: it holds no unsafe code.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, Ordering, fence};

#[cfg(not(loom))]
use core::sync::atomic::{AtomicU32, Ordering, fence};

/// Offset of `head` in a ring.
pub const HEAD: usize = 0;
/// Offset of `space_event`.
pub const SPACE_EVENT: usize = 4;
/// Offset of `tail`.
pub const TAIL: usize = 64;
/// Offset of `data_event`.
pub const DATA_EVENT: usize = 68;
/// Offset of the first slot.
pub const SLOTS: usize = 128;
/// Largest number of slots.
pub const MAX_SLOTS: u32 = 1 << 31;

/// The peer's index makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;

/// Slots between two free-running indices. `None` if that is more than there are: one of them is a lie.
pub const fn fill(head: u32, tail: u32, slots: u32) -> Option<u32> {
    let filled = head.wrapping_sub(tail);
    if filled > slots { None } else { Some(filled) }
}

/// Whether an index that moved from `old` to `new` went past `event`.
pub const fn passed(event: u32, old: u32, new: u32) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// Where a ring is in its window, and its shape.
///
/// Both ends take it from what they know beforehand (their protocol, the size of the window), never from the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Offset in the window, a multiple of 64.
    pub offset: usize,
    /// Slots: a power of two.
    pub slots: u32,
    /// Bytes of a slot, a multiple of 8.
    pub slot_bytes: usize,
    /// Offset of slot 0: behind the control words, or apart from them.
    pub payload: usize,
}

impl Layout {
    /// Checks a shape. `None` if it is not one, or its size overflows.
    pub const fn new(offset: usize, slots: u32, slot_bytes: usize) -> Option<Layout> {
        let Some(payload) = offset.checked_add(SLOTS) else { return None };
        Self::apart(offset, payload, slots, slot_bytes)
    }

    /// As [`Layout::new`], with slot 0 at `payload`, behind the control words.
    pub const fn apart(offset: usize, payload: usize, slots: u32, slot_bytes: usize) -> Option<Layout> {
        let shaped = offset.is_multiple_of(64)
            && payload.is_multiple_of(64)
            && payload >= SLOTS
            && payload - SLOTS >= offset
            && slots.is_power_of_two()
            && slots <= MAX_SLOTS
            && slot_bytes.is_multiple_of(8)
            && slot_bytes > 0;
        let layout = Layout { offset, slots, slot_bytes, payload };
        if shaped && layout.checked_end().is_some() { Some(layout) } else { None }
    }

    /// The largest ring of such slots in `bytes` bytes from `offset` on. `None` if not even one slot fits.
    pub const fn fitting(offset: usize, bytes: usize, slot_bytes: usize) -> Option<Layout> {
        if bytes <= SLOTS || slot_bytes == 0 || (bytes - SLOTS) / slot_bytes == 0 {
            return None;
        }
        let most = (bytes - SLOTS) / slot_bytes;
        let most = if most > MAX_SLOTS as usize { MAX_SLOTS as usize } else { most };
        Self::new(offset, 1 << most.ilog2(), slot_bytes)
    }

    const fn checked_end(&self) -> Option<usize> {
        let Some(bytes) = self.slot_bytes.checked_mul(self.slots as usize) else { return None };
        self.payload.checked_add(bytes)
    }

    /// First offset behind the ring.
    pub const fn end(&self) -> usize {
        // `new` checked that this does not overflow.
        self.payload + self.slot_bytes * self.slots as usize
    }

    /// Offset of the slot of an index.
    pub const fn slot(&self, index: u32) -> usize {
        self.payload + (index & (self.slots - 1)) as usize * self.slot_bytes
    }
}

/// A request and a response ring that divide one window behind the channel header: requests flow from side 0
/// to side 1, responses back. Symmetric protocols use them as one ring for each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePair {
    /// Side 0 produces, side 1 consumes.
    pub requests: Layout,
    /// Side 1 produces, side 0 consumes.
    pub responses: Layout,
}

impl QueuePair {
    /// Divides a window of `window_bytes` in two halves. `None` if it is too small.
    pub const fn fitting(window_bytes: usize, request_bytes: usize, response_bytes: usize) -> Option<QueuePair> {
        const HEADER: usize = core::mem::size_of::<crate::channel::ChannelHeader>();
        if window_bytes <= HEADER {
            return None;
        }
        let half = ((window_bytes - HEADER) / 2) & !63;
        let Some(requests) = Layout::fitting(HEADER, half, request_bytes) else { return None };
        let Some(responses) = Layout::fitting(HEADER + half, half, response_bytes) else { return None };
        Some(QueuePair { requests, responses })
    }
}

/// The four shared words of a ring.
#[derive(Clone, Copy, Debug)]
pub struct Control<'a> {
    /// See the module's table.
    pub head: &'a AtomicU32,
    /// See the module's table.
    pub space_event: &'a AtomicU32,
    /// See the module's table.
    pub tail: &'a AtomicU32,
    /// See the module's table.
    pub data_event: &'a AtomicU32,
}

/// Moves payload between private memory and the window.
pub trait Slots {
    /// Copies a message into the slot of `index`; bytes behind it are left as they are.
    fn put(&self, index: u32, message: &[u8]);
    /// Copies the slot of `index` out, at most `message.len()` bytes.
    fn get(&self, index: u32, message: &mut [u8]);
}

/// The end that writes.
#[derive(Debug)]
pub struct Producer<'a> {
    control: Control<'a>,
    slots: u32,
    /// Slots written, published or not.
    head: u32,
    /// What `head` was at the last publication.
    published: u32,
    /// Last plausible `tail`.
    tail: u32,
}

impl<'a> Producer<'a> {
    /// Starts a ring anew, at index `start` (0 but in tests): the producer's words are set.
    /// To be done before the channel is connected.
    pub fn start(control: Control<'a>, slots: u32, start: u32) -> Producer<'a> {
        control.head.store(start, Ordering::Release);
        // One behind: not armed.
        control.space_event.store(start.wrapping_sub(1), Ordering::Relaxed);
        Producer { control, slots, head: start, published: start, tail: start }
    }

    /// Free slots.
    ///
    /// # Errors
    /// `tail` ran ahead of `head`, or back.
    pub fn room(&mut self) -> Result<u32, Corrupt> {
        let tail = self.control.tail.load(Ordering::Acquire);
        // Of what we last knew to be filled and published, only a part can still be.
        let filled = fill(self.published, tail, self.slots).ok_or(Corrupt)?;
        if filled > self.published.wrapping_sub(self.tail) {
            return Err(Corrupt);
        }
        self.tail = tail;
        Ok(self.slots - self.head.wrapping_sub(tail))
    }

    /// Copies a message into the next free slot, without publishing it. `false` if there is none.
    ///
    /// # Errors
    /// As [`Producer::room`].
    pub fn push(&mut self, slots: &impl Slots, message: &[u8]) -> Result<bool, Corrupt> {
        if self.head.wrapping_sub(self.tail) == self.slots && self.room()? == 0 {
            return Ok(false);
        }
        slots.put(self.head, message);
        self.head = self.head.wrapping_add(1);
        Ok(true)
    }

    /// Takes the next `count` free slots, without publishing them, for a message that is longer than a slot; the caller fills them. The
    /// index of the first, or `None` if so many are not free.
    ///
    /// # Errors
    /// As [`Producer::room`].
    #[inline]
    pub fn claim(&mut self, count: u32) -> Result<Option<u32>, Corrupt> {
        let free = self.slots - self.head.wrapping_sub(self.tail);
        if free < count && self.room()? < count {
            return Ok(None);
        }
        let first = self.head;
        self.head = first.wrapping_add(count);
        Ok(Some(first))
    }

    /// Publishes what was pushed. `true`: the consumer wants to be notified.
    #[must_use]
    pub fn publish(&mut self) -> bool {
        let old = self.published;
        self.control.head.store(self.head, Ordering::Release);
        self.published = self.head;
        // Orders the store of `head` before the load of `data_event`; pairs with the one in `Consumer::arm`.
        fence(Ordering::SeqCst);
        passed(self.control.data_event.load(Ordering::Relaxed), old, self.head)
    }

    /// How many more slots must be published for the consumer to be notified. `None` if it asked for nothing that can come.
    pub fn until_notified(&self) -> Option<u32> {
        let more = self.control.data_event.load(Ordering::Relaxed).wrapping_sub(self.published).wrapping_add(1);
        (1..=self.slots).contains(&more).then_some(more)
    }

    /// Asks for a notification when a slot comes free. `true`: none is free, and the caller may sleep.
    ///
    /// # Errors
    /// As [`Producer::room`].
    pub fn arm(&mut self) -> Result<bool, Corrupt> {
        self.control.space_event.store(self.tail, Ordering::Relaxed);
        // Orders the store of `space_event` before the load of `tail`; pairs with the one in `Consumer::release`.
        fence(Ordering::SeqCst);
        Ok(self.room()? == 0)
    }

    /// Asks for a notification when `count` slots are free, all others being published. `true`: so many are not, and the caller may sleep.
    ///
    /// # Errors
    /// As [`Producer::room`].
    pub fn arm_for(&mut self, count: u32) -> Result<bool, Corrupt> {
        // So many are free as soon as `tail` has passed this.
        let event = self.head.wrapping_add(count).wrapping_sub(self.slots).wrapping_sub(1);
        self.control.space_event.store(event, Ordering::Relaxed);
        // As in `arm`.
        fence(Ordering::SeqCst);
        Ok(self.room()? < count)
    }
}

/// The end that reads.
#[derive(Debug)]
pub struct Consumer<'a> {
    control: Control<'a>,
    slots: u32,
    /// Slots taken, released or not.
    tail: u32,
    /// What `tail` was at the last release.
    released: u32,
    /// Last plausible `head`.
    head: u32,
}

impl<'a> Consumer<'a> {
    /// Starts a ring anew, at index `start` (0 but in tests): the consumer's words are set.
    /// To be done before the channel is connected.
    pub fn start(control: Control<'a>, slots: u32, start: u32) -> Consumer<'a> {
        control.tail.store(start, Ordering::Release);
        // One behind: not armed.
        control.data_event.store(start.wrapping_sub(1), Ordering::Relaxed);
        Consumer { control, slots, tail: start, released: start, head: start }
    }

    /// Filled slots that were not taken yet.
    ///
    /// # Errors
    /// `head` ran ahead by more than the ring, or back.
    pub fn available(&mut self) -> Result<u32, Corrupt> {
        let head = self.control.head.load(Ordering::Acquire);
        // The producer knows only what was released: beyond that plus the ring it cannot be.
        let ahead = fill(head, self.released, self.slots).ok_or(Corrupt)?;
        if ahead < self.head.wrapping_sub(self.released) {
            return Err(Corrupt);
        }
        self.head = head;
        Ok(head.wrapping_sub(self.tail))
    }

    /// Copies the next message out, without giving its slot back. `false` if there is none.
    ///
    /// # Errors
    /// As [`Consumer::available`].
    pub fn pop(&mut self, slots: &impl Slots, message: &mut [u8]) -> Result<bool, Corrupt> {
        if self.head == self.tail && self.available()? == 0 {
            return Ok(false);
        }
        slots.get(self.tail, message);
        self.tail = self.tail.wrapping_add(1);
        Ok(true)
    }

    /// Index of the next slot, which is filled if [`Consumer::available`] says so.
    pub fn next(&self) -> u32 {
        self.tail
    }

    /// Passes over the next `count` slots, as if popped. `false`, and nothing done, if so many are not filled.
    ///
    /// # Errors
    /// As [`Consumer::available`].
    #[inline]
    pub fn skip(&mut self, count: u32) -> Result<bool, Corrupt> {
        if self.head.wrapping_sub(self.tail) < count && self.available()? < count {
            return Ok(false);
        }
        self.tail = self.tail.wrapping_add(count);
        Ok(true)
    }

    /// Gives the slots of what was popped back. `true`: the producer wants to be notified.
    #[must_use]
    pub fn release(&mut self) -> bool {
        let old = self.released;
        self.control.tail.store(self.tail, Ordering::Release);
        self.released = self.tail;
        // Orders the store of `tail` before the load of `space_event`; pairs with the one in `Producer::arm`.
        fence(Ordering::SeqCst);
        passed(self.control.space_event.load(Ordering::Relaxed), old, self.tail)
    }

    /// Asks for a notification when a slot is filled. `true`: none is, and the caller may sleep.
    ///
    /// # Errors
    /// As [`Consumer::available`].
    pub fn arm(&mut self) -> Result<bool, Corrupt> {
        self.arm_for(1)
    }

    /// Asks for a notification when `count` slots are filled. `true`: so many are not, and the caller may sleep. It must be sure that
    /// so many will come.
    ///
    /// # Errors
    /// As [`Consumer::available`].
    pub fn arm_for(&mut self, count: u32) -> Result<bool, Corrupt> {
        let count = count.clamp(1, self.slots);
        self.control.data_event.store(self.tail.wrapping_add(count - 1), Ordering::Relaxed);
        // Orders the store of `data_event` before the load of `head`; pairs with the one in `Producer::publish`.
        fence(Ordering::SeqCst);
        Ok(self.available()? < count)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{AtomicU32, Consumer, Control, Corrupt, Layout, Ordering, Producer, QueuePair, Slots, fill, passed};
    use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};
    use std::cell::RefCell;
    use std::collections::VecDeque;

    #[derive(Default)]
    struct Words([AtomicU32; 4]);

    impl Words {
        fn control(&self) -> Control<'_> {
            let [head, space_event, tail, data_event] = &self.0;
            Control { head, space_event, tail, data_event }
        }
    }

    struct Memory(u32, RefCell<Vec<u64>>);

    impl Slots for Memory {
        fn put(&self, index: u32, message: &[u8]) {
            self.1.borrow_mut()[(index & (self.0 - 1)) as usize] =
                message.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        }

        fn get(&self, index: u32, message: &mut [u8]) {
            message.copy_from_slice(&self.1.borrow()[(index & (self.0 - 1)) as usize].to_le_bytes());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Any sequence of pushes, publications, pops and releases behaves as a bounded queue, across the wrap of the indices.
        #[test]
        fn behaves_as_a_queue(start in any::<u32>(), near in any::<bool>(), log in 0_u32..4, ops in proptest::collection::vec(0_u8..6, 0..400)) {
            let start = if near { u32::MAX - start % 8 } else { start };
            let slots = 1 << log;
            let words = Words::default();
            let memory = Memory(slots, RefCell::new(vec![0; slots as usize]));
            let mut producer = Producer::start(words.control(), slots, start);
            let mut consumer = Consumer::start(words.control(), slots, start);
            // Pushed and not published; published and not popped; popped and not released.
            let (mut hidden, mut visible, mut held) = (VecDeque::new(), VecDeque::new(), 0);
            let mut next = 0_u64;
            let (mut data_armed, mut space_armed) = (false, false);
            for op in ops {
                match op {
                    0 => {
                        let room = hidden.len() + visible.len() + held < slots as usize;
                        prop_assert_eq!(producer.push(&memory, &next.to_le_bytes()), Ok(room));
                        if room {
                            hidden.push_back(next);
                            next += 1;
                        }
                    }
                    1 => {
                        let notify = producer.publish();
                        if data_armed && !hidden.is_empty() {
                            prop_assert!(notify, "an armed consumer is notified");
                            data_armed = false;
                        }
                        visible.append(&mut hidden);
                    }
                    2 => {
                        let mut message = [0; 8];
                        let got = consumer.pop(&memory, &mut message);
                        prop_assert_eq!(got, Ok(!visible.is_empty()));
                        if let Some(expected) = visible.pop_front() {
                            prop_assert_eq!(u64::from_le_bytes(message), expected);
                            held += 1;
                        }
                    }
                    3 => {
                        let notify = consumer.release();
                        if space_armed && held > 0 {
                            prop_assert!(notify, "an armed producer is notified");
                            space_armed = false;
                        }
                        held = 0;
                    }
                    4 => {
                        let sleep = consumer.arm();
                        prop_assert_eq!(sleep, Ok(visible.is_empty()));
                        data_armed = sleep == Ok(true);
                    }
                    _ => {
                        let full = hidden.len() + visible.len() + held == slots as usize;
                        prop_assert_eq!(producer.arm(), Ok(full));
                        // Only what is published can be released: otherwise there is nobody to wait for.
                        space_armed = full && hidden.is_empty();
                    }
                }
            }
        }

        /// Whatever a peer writes into its words: an answer or `Corrupt`, never more than the ring.
        #[test]
        fn lies_are_bounded(start in any::<u32>(), lies in proptest::collection::vec((any::<u32>(), any::<bool>()), 1..50)) {
            let words = Words::default();
            let mut producer = Producer::start(words.control(), 8, start);
            let mut consumer = Consumer::start(words.control(), 8, start);
            for (lie, small) in lies {
                let lie = if small { start.wrapping_add(lie % 16) } else { lie };
                for word in &words.0 {
                    word.store(lie, Ordering::Relaxed);
                }
                prop_assert!(producer.room().is_ok_and(|room| room <= 8) || producer.room() == Err(Corrupt));
                prop_assert!(consumer.available().is_ok_and(|count| count <= 8) || consumer.available() == Err(Corrupt));
            }
        }

        #[test]
        fn passing_is_an_interval(event in any::<u32>(), old in any::<u32>(), step in 0_u32..1000) {
            let new = old.wrapping_add(step);
            prop_assert_eq!(passed(event, old, new), event.wrapping_sub(old) < step);
        }
    }

    #[test]
    fn many_slots_are_waited_for() {
        for start in [0, u32::MAX - 3] {
            let words = Words::default();
            let memory = Memory(8, RefCell::new(vec![0; 8]));
            let mut producer = Producer::start(words.control(), 8, start);
            let mut consumer = Consumer::start(words.control(), 8, start);
            assert_eq!(producer.claim(8), Ok(Some(start)));
            let _ = producer.publish();
            assert_eq!(producer.arm_for(3), Ok(true));
            let mut message = [0; 8];
            for (taken, wanted) in [(1, false), (2, false), (3, true), (4, false)] {
                assert_eq!(consumer.pop(&memory, &mut message), Ok(true));
                assert_eq!(consumer.release(), wanted, "{taken} slots of 3");
            }
            assert_eq!(producer.arm_for(4), Ok(false));
            assert_eq!(consumer.skip(4), Ok(true));
            assert!(!consumer.release(), "there was room when it was armed");
        }
    }

    #[test]
    fn jumps_are_corrupt() {
        let words = Words::default();
        let memory = Memory(4, RefCell::new(vec![0; 4]));
        let mut producer = Producer::start(words.control(), 4, u32::MAX);
        let mut consumer = Consumer::start(words.control(), 4, u32::MAX);
        for number in 0..3_u64 {
            assert_eq!(producer.push(&memory, &number.to_le_bytes()), Ok(true));
        }
        let _ = producer.publish();
        assert_eq!(consumer.available(), Ok(3));
        words.0[0].store(u32::MAX.wrapping_add(5), Ordering::Relaxed);
        assert_eq!(consumer.available(), Err(Corrupt), "ahead by more than the ring");
        words.0[0].store(u32::MAX.wrapping_add(2), Ordering::Relaxed);
        assert_eq!(consumer.available(), Err(Corrupt), "backwards");
        words.0[2].store(u32::MAX.wrapping_add(4), Ordering::Relaxed);
        assert_eq!(producer.room(), Err(Corrupt), "ahead of head");
        words.0[2].store(u32::MAX.wrapping_add(2), Ordering::Relaxed);
        assert_eq!(producer.room(), Ok(3));
        words.0[2].store(u32::MAX.wrapping_add(1), Ordering::Relaxed);
        assert_eq!(producer.room(), Err(Corrupt), "backwards");
        assert_eq!(fill(3, u32::MAX, 4), Some(4));
        assert_eq!(fill(4, u32::MAX, 4), None);
    }

    #[test]
    fn shapes_are_checked() {
        assert_eq!(Layout::new(256, 3, 64), None);
        assert_eq!(Layout::new(250, 4, 64), None);
        assert_eq!(Layout::new(256, 4, 60), None);
        assert_eq!(Layout::new(256, 1 << 31, usize::MAX & !7), None);
        assert_eq!(Layout::new(usize::MAX & !63, 4, 64), None);
        assert_eq!(Layout::fitting(256, 128, 64), None);
        let pair = QueuePair::fitting(8192, 64, 128).unwrap();
        assert_eq!((pair.requests.slots, pair.responses.slots), (32, 16));
        assert!(pair.requests.end() <= pair.responses.offset && pair.responses.end() <= 8192);
        assert_eq!(pair.requests.slot(32), pair.requests.slot(0));
        assert_eq!(QueuePair::fitting(256, 64, 64), None);
    }
}
