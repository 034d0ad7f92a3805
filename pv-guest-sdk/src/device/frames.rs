//! Rings of frames: by these both ends of a network interface move them.
//!
//! A frame lies in slots one behind the other, round the end of the ring where that comes: a [`Span`] hides the seam. The receiver
//! copies the first slot, a [`Head`], checks that copy and works on it; a peer that changes the slot afterwards changes nothing.
//! What is behind the head is copied once, to where it belongs, and nobody looks at it on the way.

use crate::window::{Window, copy_private};
use portico_abi::device::net::{FrameHeader, HEADER, SLOT, slots_of};
use portico_abi::ring::{Consumer, Corrupt, Layout, Producer};

/// Bytes of a frame that its first slot holds.
pub const HEAD: usize = SLOT - HEADER;

/// Where the bytes of a frame are.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    window: Window,
    /// Offset of the frame's first byte.
    first: usize,
    /// Offset behind the last byte before the seam.
    end: usize,
    /// Offset at which it goes on behind the seam.
    wrap: usize,
    bytes: u32,
}

impl Span {
    /// Bytes of a window that are one behind the other. `None` if they are not inside.
    pub fn flat(window: Window, first: usize, bytes: u32) -> Option<Span> {
        let end = first.checked_add(bytes as usize)?;
        (end <= window.len()).then_some(Span { window, first, end, wrap: first, bytes })
    }

    /// A frame of `bytes` bytes in the slots from `index` on.
    #[inline]
    fn in_ring(window: Window, layout: &Layout, index: u32, bytes: u32) -> Span {
        Span { window, first: layout.slot(index) + HEADER, end: layout.end(), wrap: layout.payload, bytes }
    }

    /// Length of the frame.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes as usize
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Whether it has no seam, as nearly all frames: then its bytes are one behind the other.
    #[inline]
    fn is_straight(&self) -> bool {
        self.first + self.len() <= self.end
    }

    /// Offset in the window of the byte `at`, and how many are one behind the other from there on.
    #[inline]
    fn place(&self, at: usize) -> (usize, usize) {
        let (offset, left) = (self.first + at, self.len() - at);
        if offset < self.end { (offset, left.min(self.end - offset)) } else { (offset - self.end + self.wrap, left) }
    }

    /// Whether the frame has `bytes` bytes from `at` on.
    #[inline]
    fn has(&self, at: usize, bytes: usize) -> Option<()> {
        (at.checked_add(bytes)? <= self.len()).then_some(())
    }

    /// Copies bytes out. `None` if the frame does not have so many.
    #[inline]
    pub fn read(&self, at: usize, to: &mut [u8]) -> Option<()> {
        self.has(at, to.len())?;
        if self.is_straight() {
            return self.window.read(self.first + at, to);
        }
        let (offset, run) = self.place(at);
        match to.split_at_mut_checked(run) {
            Some((to, behind)) if !behind.is_empty() => {
                self.window.read(offset, to)?;
                self.window.read(self.wrap, behind)
            }
            _ => self.window.read(offset, to),
        }
    }

    /// Copies bytes in. `None` if the frame does not have so many.
    #[inline]
    pub fn write(&self, at: usize, from: &[u8]) -> Option<()> {
        self.has(at, from.len())?;
        if self.is_straight() {
            return self.window.write(self.first + at, from);
        }
        let (offset, run) = self.place(at);
        match from.split_at_checked(run) {
            Some((from, behind)) if !behind.is_empty() => {
                self.window.write(offset, from)?;
                self.window.write(self.wrap, behind)
            }
            _ => self.window.write(offset, from),
        }
    }

    /// Copies everything from `at` on to the same place of another frame of the same length. `None` if it has another.
    #[inline]
    pub fn copy_to(&self, at: usize, to: &Span) -> Option<()> {
        if to.bytes != self.bytes {
            return None;
        }
        if self.is_straight() && to.is_straight() {
            let left = self.len().saturating_sub(at);
            return self.window.copy_to(self.first + at, &to.window, to.first + at, left);
        }
        let mut at = at;
        // Each has one seam: at most three pieces.
        while at < self.len() {
            let ((from_offset, from_run), (to_offset, to_run)) = (self.place(at), to.place(at));
            let run = from_run.min(to_run);
            self.window.copy_to(from_offset, &to.window, to_offset, run)?;
            at += run;
        }
        Some(())
    }

    /// The one's complement sum of `bytes` bytes from `at` on, in memory's order. `None` if the frame does not have so many.
    pub fn sum(&self, at: usize, bytes: usize) -> Option<u16> {
        self.has(at, bytes)?;
        let (offset, run) = self.place(at);
        if run >= bytes {
            return self.window.sum(offset, bytes);
        }
        let (first, second) = (self.window.sum(offset, run)?, self.window.sum(self.wrap, bytes - run)?);
        // Behind an odd number of bytes the others are high where they were low.
        let second = if run.is_multiple_of(2) { second } else { second.swap_bytes() };
        let (sum, carry) = first.overflowing_add(second);
        Some(sum + u16::from(carry))
    }

    /// Copies `bytes` bytes from `at` on to `to_at` of another frame. `None`, and perhaps a part copied, if one of them does not have so many.
    pub fn copy_part(&self, at: usize, to: &Span, to_at: usize, bytes: usize) -> Option<()> {
        self.has(at, bytes)?;
        to.has(to_at, bytes)?;
        let mut done = 0;
        while done < bytes {
            let ((from_offset, from_run), (to_offset, to_run)) = (self.place(at + done), to.place(to_at + done));
            let run = from_run.min(to_run).min(bytes - done);
            self.window.copy_to(from_offset, &to.window, to_offset, run)?;
            done += run;
        }
        Some(())
    }

    /// Its bytes as one window or two, to fill or read them in place. The first begins at a multiple of 8.
    pub fn pieces(&self) -> (Option<Window>, Option<Window>) {
        let (offset, run) = self.place(0);
        let behind = self.len() - run;
        let second = if behind > 0 { self.window.part(self.wrap, behind) } else { None };
        (self.window.part(offset, run), second)
    }
}

/// A private copy of a frame's first slot.
#[derive(Clone, Debug)]
#[repr(align(8))]
pub struct Head {
    slot: [u8; SLOT],
}

impl Head {
    /// The head of a frame that begins with `bytes`, of any length from there on.
    pub fn from_bytes(bytes: &[u8; HEAD]) -> Head {
        let mut slot = [0; SLOT];
        if let Some(to) = slot.last_chunk_mut() {
            *to = *bytes;
        }
        Head { slot }
    }

    /// The head of a frame that is not in a ring.
    pub fn of(span: &Span) -> Option<Head> {
        let mut head = Head { slot: [0; SLOT] };
        head.set(span)?;
        Some(head)
    }

    fn set(&mut self, span: &Span) -> Option<()> {
        let header = FrameHeader { bytes: span.bytes, ..FrameHeader::default() };
        *self.slot.first_chunk_mut()? = header.to_bytes();
        span.read(0, self.slot.get_mut(HEADER..)?.get_mut(..span.len().min(HEAD))?)
    }

    /// Copies a frame, of which this is the head, to `at` of a window. `None` if it is not inside.
    pub fn write_to(&self, window: &Window, at: usize, frame: &Span) -> Option<()> {
        let to = Span::flat(*window, at, frame.bytes)?;
        to.write(0, self.bytes().get(..frame.len().min(HEAD))?)?;
        if frame.len() > HEAD { frame.copy_to(HEAD, &to) } else { Some(()) }
    }

    /// The header that was before it in the ring.
    #[inline]
    pub fn header(&self) -> FrameHeader {
        FrameHeader::from_words([self.slot_word::<0>(), self.slot_word::<1>()])
    }

    /// Whether the header has no flags.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.slot_word::<0>() >> 32 == 0
    }

    #[inline]
    fn slot_word<const INDEX: usize>(&self) -> u64 {
        const { assert!(8 * INDEX + 8 <= SLOT) };
        self.slot.get(8 * INDEX..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// The first bytes of the frame: [`HEAD`], of which a shorter frame has set only its own.
    #[inline]
    pub fn bytes(&self) -> &[u8; HEAD] {
        match self.slot.last_chunk() {
            Some(bytes) => bytes,
            None => unreachable!("a slot is longer than the head"),
        }
    }

    /// Eight bytes of the frame as a little-endian number, the first of them number `8 * INDEX`: one load, since the head is aligned.
    #[inline]
    pub fn word<const INDEX: usize>(&self) -> u64 {
        const { assert!(8 * INDEX + 8 <= HEAD) };
        let bytes = self.bytes().get(8 * INDEX..).and_then(|bytes| bytes.first_chunk());
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

/// The end of a ring that frames are put in by.
#[derive(Debug)]
pub struct FrameSender {
    ring: Producer<'static>,
    window: Window,
    layout: Layout,
    is_unpublished: bool,
}

impl FrameSender {
    /// Starts the ring anew: the producer's words are set. `None` if it is not inside the window.
    pub fn start(window: Window, layout: Layout) -> Option<FrameSender> {
        let ring = Producer::start(window.control(&layout)?, layout.slots, 0);
        Some(FrameSender { ring, window, layout, is_unpublished: false })
    }

    /// Longest frame that there can ever be room for.
    pub fn capacity(&self) -> u32 {
        capacity(&self.layout)
    }

    /// Takes the slots of a frame of `bytes` bytes, for the caller to fill. `None` if there is no room.
    ///
    /// # Errors
    /// The other side's index lies.
    #[inline]
    pub fn claim(&mut self, bytes: u32) -> Result<Option<Span>, Corrupt> {
        self.claim_as(&FrameHeader { bytes, ..FrameHeader::default() })
    }

    /// As [`FrameSender::claim`], for a frame with this header.
    ///
    /// # Errors
    /// The other side's index lies.
    #[inline]
    pub fn claim_as(&mut self, header: &FrameHeader) -> Result<Option<Span>, Corrupt> {
        let Some(index) = self.ring.claim(slots_of(header.bytes))? else { return Ok(None) };
        self.is_unpublished = true;
        // Inside: `control` checked the whole ring.
        let _ = self.window.store_words(self.layout.slot(index), header.words());
        Ok(Some(Span::in_ring(self.window, &self.layout, index, header.bytes)))
    }

    /// Puts a frame in that is somewhere else, of which `head` was copied and checked. `false` if there is no room.
    ///
    /// # Errors
    /// The other side's index lies.
    #[inline]
    pub fn forward(&mut self, head: &Head, from: &Span) -> Result<bool, Corrupt> {
        let Some(index) = self.ring.claim(slots_of(from.bytes))? else { return Ok(false) };
        self.is_unpublished = true;
        let _ = self.window.write(self.layout.slot(index), &head.slot);
        if from.len() > HEAD {
            let _ = from.copy_to(HEAD, &Span::in_ring(self.window, &self.layout, index, from.bytes));
        }
        Ok(true)
    }

    /// Whether half of the ring is free.
    ///
    /// # Errors
    /// The other side's index lies.
    pub fn is_half_free(&mut self) -> Result<bool, Corrupt> {
        Ok(self.ring.room()? >= self.layout.slots / 2)
    }

    /// Whether there is room for a frame of `bytes` bytes.
    ///
    /// # Errors
    /// The other side's index lies.
    pub fn has_room(&mut self, bytes: u32) -> Result<bool, Corrupt> {
        Ok(self.ring.room()? >= slots_of(bytes))
    }

    /// Publishes what was put in. `true`: the other side wants to be notified.
    #[must_use]
    #[inline]
    pub fn publish(&mut self) -> bool {
        core::mem::take(&mut self.is_unpublished) && self.ring.publish()
    }

    /// Asks for a notification when a frame of `bytes` bytes has room and, so that there are few notifications, a quarter of the ring is free.
    /// `true`: there is none, and the caller may sleep. What was put in must be published.
    ///
    /// # Errors
    /// The other side's index lies.
    pub fn arm(&mut self, bytes: u32) -> Result<bool, Corrupt> {
        if self.has_room(bytes)? {
            return Ok(false);
        }
        self.ring.arm_for(slots_of(bytes).max(self.layout.slots / 4))
    }
}

/// Longest frame that takes no more than half of a ring.
pub fn half_capacity(layout: &Layout) -> u32 {
    ((layout.slots / 2) as usize * SLOT).saturating_sub(HEADER).min(u32::MAX as usize) as u32
}

/// Longest frame for which a ring has slots.
pub fn capacity(layout: &Layout) -> u32 {
    (layout.slots as usize * SLOT - HEADER).min(u32::MAX as usize) as u32
}

/// A frame at the end of a ring.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Its first bytes, copied.
    pub head: Head,
    /// All its bytes, as they are in the window.
    pub span: Span,
}

impl Default for Incoming {
    /// An empty frame.
    fn default() -> Self {
        let window = Window::default();
        Incoming { head: Head { slot: [0; SLOT] }, span: Span { window, first: 0, end: 0, wrap: 0, bytes: 0 } }
    }
}

impl Incoming {
    /// Sets it to a frame that is not in a ring. `None` if that is not inside its window.
    pub fn set(&mut self, span: Span) -> Option<()> {
        self.span = span;
        self.head.set(&span)
    }

    /// Copies its bytes out, as many as there is place for. What was in the head comes from the copy.
    #[inline]
    pub fn read(&self, to: &mut [u8]) -> usize {
        let wanted = to.len().min(self.span.len());
        let head = self.head.bytes();
        match to.get_mut(..wanted).and_then(|to| to.split_at_mut_checked(HEAD)) {
            Some((to, behind)) => {
                copy_private(head, to);
                let _ = self.span.read(HEAD, behind);
            }
            None => to.iter_mut().zip(head).take(wanted).for_each(|(to, from)| *to = *from),
        }
        wanted
    }
}

/// The end of a ring that frames are taken out by.
#[derive(Debug)]
pub struct FrameReceiver {
    ring: Consumer<'static>,
    window: Window,
    layout: Layout,
    /// Slots that were seen to be filled and were not taken.
    filled: u32,
    /// Slots that were taken and not given back.
    held: u32,
    /// Flags that headers may have.
    flags: u32,
}

impl FrameReceiver {
    /// Starts the ring anew: the consumer's words are set. `None` if it is not inside the window.
    pub fn start(window: Window, layout: Layout) -> Option<FrameReceiver> {
        let ring = Consumer::start(window.control(&layout)?, layout.slots, 0);
        Some(FrameReceiver { ring, window, layout, filled: 0, held: 0, flags: 0 })
    }

    /// Lets headers have these flags. What else they say is the caller's to check.
    pub fn allow(&mut self, flags: u32) {
        self.flags = flags;
    }

    /// Looks at the next frame, if there is one: `frame` is set to it.
    ///
    /// # Errors
    /// The other side's index lies, or its header does.
    #[inline]
    pub fn look_at(&mut self, frame: &mut Incoming) -> Result<bool, Corrupt> {
        if !self.is_filled()? {
            return Ok(false);
        }
        // Inside: `control` checked the whole ring.
        let _ = self.window.read(self.layout.slot(self.ring.next()), &mut frame.head.slot);
        frame.span = self.span_of(frame.head.slot_word::<0>(), frame.head.slot_word::<1>())?;
        Ok(true)
    }

    /// Where the next frame is, if there is one, for a caller that copies it out at once: only its header is looked at.
    ///
    /// # Errors
    /// The other side's index lies, or its header does.
    #[inline]
    pub fn next_span(&mut self) -> Result<Option<Span>, Corrupt> {
        if !self.is_filled()? {
            return Ok(None);
        }
        let at = self.layout.slot(self.ring.next());
        // Inside: `control` checked the whole ring.
        let [first, second] = self.window.load_words(at).unwrap_or([u64::MAX; 2]);
        self.span_of(first, second).map(Some)
    }

    #[inline]
    fn is_filled(&mut self) -> Result<bool, Corrupt> {
        if self.filled == 0 {
            self.filled = self.ring.available()?;
        }
        Ok(self.filled > 0)
    }

    /// The next frame, with this header.
    #[inline]
    fn span_of(&self, first: u64, second: u64) -> Result<Span, Corrupt> {
        // The head moves by whole frames: what is not all there never will be.
        match FrameHeader::length_of_words(first, second, self.flags) {
            Some(bytes) if slots_of(bytes) <= self.filled => {
                Ok(Span::in_ring(self.window, &self.layout, self.ring.next(), bytes))
            }
            _ => Err(Corrupt),
        }
    }

    /// As [`FrameReceiver::look_at`], with a frame of its own.
    ///
    /// # Errors
    /// As [`FrameReceiver::look_at`].
    pub fn look(&mut self) -> Result<Option<Incoming>, Corrupt> {
        let mut frame = Incoming::default();
        Ok(self.look_at(&mut frame)?.then_some(frame))
    }

    /// Takes the frame that [`FrameReceiver::look`] has shown. Its slots are the other side's again after [`FrameReceiver::release`].
    #[inline]
    pub fn take(&mut self, frame: &Span) {
        let count = slots_of(frame.bytes);
        if self.ring.skip(count) == Ok(true) {
            self.filled = self.filled.saturating_sub(count);
            self.held += count;
        }
    }

    /// Gives the slots of what was taken back. `true`: the other side wants to be notified.
    #[must_use]
    #[inline]
    pub fn release(&mut self) -> bool {
        core::mem::take(&mut self.held) > 0 && self.ring.release()
    }

    /// Whether so much was taken that it should be given back though more is there.
    #[inline]
    pub fn wants_release(&self) -> bool {
        self.held > self.layout.slots / 4
    }

    /// Whether it has seen frames that were not taken.
    #[inline]
    pub fn has_more(&self) -> bool {
        self.filled > 0
    }

    /// Asks for a notification of the next frame. `true`: there is none, and the caller may sleep.
    ///
    /// # Errors
    /// The other side's index lies.
    #[inline]
    pub fn arm(&mut self) -> Result<bool, Corrupt> {
        let is_empty = self.ring.arm()?;
        Ok(is_empty && self.filled == 0)
    }
}

#[cfg(test)]
mod tests;
