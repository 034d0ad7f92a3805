//! The block front-end: a disk.
//!
//! [`Disk`] keeps every request until its answer. When the back-end goes and comes back it shakes hands again and makes what was
//! in flight once more, in the order in which it was made; the caller sees nothing but the delay. Reads, writes, discards and zeroes
//! may be done twice: no other request in flight can tell.
//!
//! Data is in [`Buffer`]s of the window, whole pages. [`Disk::read_at`] and its like copy; who fills buffers itself copies nothing.

use super::{DeviceError, Event, Link, wait};
use crate::doorbell::Doorbell;
use crate::dtb::{self, DeviceNode};
use crate::window::Window;
use alloc_crate::vec::Vec;
use core::ops::Range;
use portico_abi::device::block::{
    Disk as Details, INLINE_SEGMENTS, MAX_SEGMENTS, Request, Response, SECTOR, Segment, Shape, VERSION, flag, op,
    shape_of_window, status,
};
use portico_abi::device::{Accept, kind, refusal};
use portico_abi::ring::{Consumer, Layout, Producer, Slots};
use portico_abi::{PAGE_SIZE, dt};

pub use portico_abi::device::block::feature;

/// Bytes of a page, for sizes in memory.
const PAGE: usize = PAGE_SIZE as usize;

/// Most steps of the handshake at once.
const MAX_STEPS: usize = 8;

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockError {
    /// The disk answered with one of [`portico_abi::device::block::status`].
    Status(u32),
    /// The request is longer than the disk takes, not whole sectors, or its buffer is too small.
    Shape,
    /// So many requests are in flight, or so many buffers in use, as there can be: reap first.
    Full,
    /// The device cannot be used.
    Device(DeviceError),
}

impl From<DeviceError> for BlockError {
    fn from(error: DeviceError) -> Self {
        Self::Device(error)
    }
}

/// What a disk is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// Size in sectors of 512 bytes.
    pub sectors: u64,
    /// Bytes of the smallest piece that the device writes at once.
    pub block_bytes: u32,
    /// Writes are refused.
    pub is_read_only: bool,
    /// Bits of [`feature`].
    pub features: u64,
    /// Most sectors of a read or write.
    pub max_sectors: u32,
    /// Most sectors of a discard.
    pub max_discard: u32,
    /// Most sectors of a write-zeroes.
    pub max_zeroes: u32,
    /// Most pieces of a read or write.
    pub max_segments: u32,
}

/// Pages of the window, one behind the other. Given back by [`Disk::free`].
#[derive(Debug)]
pub struct Buffer {
    window: Window,
    page: u16,
    pages: u16,
}

impl Buffer {
    /// Its bytes, as a window of their own: shared with the back-end.
    pub fn window(&self) -> Window {
        self.window
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.window.len()
    }

    /// Whether it has no bytes: never.
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// A part of the data of a request: bytes of one of its buffers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which of the buffers.
    pub buffer: usize,
    /// Its bytes: whole sectors.
    pub range: Range<usize>,
}

/// What a request of several pieces does with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// Fills them from the disk.
    Read,
    /// Writes them to the disk.
    Write,
}

/// Names a request that is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u32);

/// A request that ended.
#[derive(Debug)]
pub struct Completion {
    /// Which.
    pub ticket: Ticket,
    /// How.
    pub result: Result<(), BlockError>,
    /// Its buffer, if it had one.
    pub buffer: Option<Buffer>,
    /// Its buffers, if it had pieces.
    pub buffers: Vec<Buffer>,
}

#[derive(Debug)]
struct Pending {
    request: Request,
    buffer: Option<Buffer>,
    /// Those of pieces, and behind them the one with their table if it needs one.
    buffers: Vec<Buffer>,
    /// Order in which it was made.
    order: u64,
}

#[derive(Debug)]
struct Rings {
    requests: Producer<'static>,
    responses: Consumer<'static>,
}

#[derive(Clone, Copy, Debug)]
struct WindowSlots(Window, Layout);

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

/// Eight bytes of alignment, so that slots are copied by words.
#[repr(align(8))]
struct Aligned<const N: usize>([u8; N]);

/// One queue of a disk.
#[derive(Debug)]
pub struct Disk {
    link: Link,
    shape: Shape,
    info: Info,
    rings: Option<Rings>,
    pending: Vec<Option<Pending>>,
    /// Free entries of `pending`.
    free: Vec<u32>,
    in_flight: u32,
    next_order: u64,
    /// A bit for each page of the data area: in use.
    used: Vec<u64>,
    /// Made but not published.
    is_unpublished: bool,
    /// Times that the back-end was lost.
    lost: u64,
    /// Times that the back-end woke it.
    woken: u64,
    bell: Doorbell,
}

impl Disk {
    /// Opens the first queue of the disk `name` and waits for its back-end until `deadline` (a value of CNTVCT_EL0).
    ///
    /// # Errors
    /// Any of [`DeviceError`].
    pub fn open(name: &str, deadline: u64) -> Result<Disk, DeviceError> {
        Self::open_queue(name, 0, deadline)
    }

    /// As [`Disk::open`], for another of its queues: each is for one vCPU.
    ///
    /// # Errors
    /// Any of [`DeviceError`].
    pub fn open_queue(name: &str, queue: u32, deadline: u64) -> Result<Disk, DeviceError> {
        let is_it = |node: &DeviceNode| node.name == name && node.number(dt::QUEUE).unwrap_or(0) == u64::from(queue);
        let node = dtb::devices(dt::BLOCK).find(is_it).ok_or(DeviceError::NotFound)?;
        let mut disk = Self::new(&node)?;
        disk.connect(deadline)?;
        Ok(disk)
    }

    /// Takes a queue that the tree describes, without waiting for its back-end.
    ///
    /// # Errors
    /// `BadWindow`.
    pub fn new(node: &DeviceNode) -> Result<Disk, DeviceError> {
        // SAFETY: the manager mapped the window for the life of the domain, and nothing else of the guest is there.
        let link = unsafe { Link::new(node) }?;
        let shape = shape_of_window(link.window().len()).ok_or(DeviceError::BadWindow)?;
        let slots = shape.requests.slots;
        Ok(Disk {
            link,
            shape,
            info: Info::default(),
            rings: None,
            pending: (0..slots).map(|_| None).collect(),
            free: (0..slots).rev().collect(),
            in_flight: 0,
            next_order: 0,
            used: (0..(shape.data_bytes / PAGE).div_ceil(64)).map(|_| 0).collect(),
            is_unpublished: false,
            lost: 0,
            woken: 0,
            bell: Doorbell::new(),
        })
    }

    /// The names of all disks.
    pub fn names() -> impl Iterator<Item = &'static str> {
        dtb::devices(dt::BLOCK).filter(|node| node.number(dt::QUEUE).unwrap_or(0) == 0).map(|node| node.name)
    }

    /// What the disk is, as the back-end said when it was last met.
    pub fn info(&self) -> Info {
        self.info
    }

    /// Most requests in flight.
    pub fn depth(&self) -> u32 {
        self.shape.requests.slots
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// How often the back-end was notified.
    pub fn told(&self) -> u64 {
        self.link.told()
    }

    /// How often it waited, and the back-end notified it.
    pub fn woken(&self) -> u64 {
        self.woken
    }

    /// How often the back-end was lost.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The port by which the back-end notifies, if it is there.
    pub fn port(&self) -> Option<crate::port::Port> {
        self.link.port()
    }

    /// Waits until the back-end is there.
    ///
    /// # Errors
    /// Any of [`DeviceError`].
    pub fn connect(&mut self, deadline: u64) -> Result<(), DeviceError> {
        loop {
            self.step()?;
            if self.rings.is_some() {
                return Ok(());
            }
            wait(&self.link, &mut self.bell, deadline)?;
        }
    }

    /// Keeps the link alive.
    #[inline]
    fn step(&mut self) -> Result<(), DeviceError> {
        match self.link.step() {
            Event::Nothing => Ok(()),
            event => self.step_slow(event),
        }
    }

    #[cold]
    fn step_slow(&mut self, mut event: Event) -> Result<(), DeviceError> {
        // Each step may lead to the next; a back-end that always has something new is left for later.
        for _ in 0..MAX_STEPS {
            match event {
                Event::Nothing => break,
                Event::Lost => {
                    self.rings = None;
                    self.lost += 1;
                }
                Event::Peer => self.greet()?,
                Event::Connected => self.begin()?,
            }
            event = self.link.step();
        }
        Ok(())
    }

    /// Both sides have seen each other.
    fn begin(&mut self) -> Result<(), DeviceError> {
        let window = self.link.window();
        let (requests, responses) = (self.shape.requests, self.shape.responses);
        let words = window.control(&requests).zip(window.control(&responses)).ok_or(DeviceError::BadWindow)?;
        // `greet` set the words; here only the private indices are made again.
        self.rings = Some(Rings {
            requests: Producer::start(words.0, requests.slots, 0),
            responses: Consumer::start(words.1, responses.slots, 0),
        });
        self.make_again();
        Ok(())
    }

    /// Reads the back-end's offer, and accepts it.
    fn greet(&mut self) -> Result<(), DeviceError> {
        let mut raw = Aligned([0_u8; size_of::<Details>()]);
        let offer = self.link.read_offer(&mut raw.0);
        if offer.refusal != refusal::NONE {
            let why = offer.refusal;
            self.link.refuse(refusal::NONE);
            return Err(DeviceError::Refused(why));
        }
        if offer.kind != kind::BLOCK || offer.version >> 16 != VERSION >> 16 {
            self.link.refuse(refusal::NONE);
            return Err(DeviceError::Incompatible);
        }
        let features = offer.features & (feature::DISCARD | feature::WRITE_ZEROES);
        let word = |index: usize| {
            raw.0
                .get(index * 4..index * 4 + 4)
                .and_then(|word| word.first_chunk())
                .map_or(0, |word| u32::from_le_bytes(*word))
        };
        self.info = Info {
            sectors: u64::from(word(0)) | u64::from(word(1)) << 32,
            block_bytes: word(2),
            is_read_only: word(3) & flag::READ_ONLY != 0,
            features,
            max_sectors: word(4).min((self.shape.data_bytes as u64 / SECTOR) as u32),
            max_discard: word(6),
            max_zeroes: word(7),
            max_segments: word(5).min(MAX_SEGMENTS as u32),
        };
        let is_sound = self.info.max_sectors > 0
            && self.info.max_segments > 0
            && self.info.block_bytes.is_power_of_two()
            && u64::from(self.info.block_bytes) >= SECTOR;
        if !is_sound {
            self.link.refuse(refusal::NONE);
            return Err(DeviceError::Incompatible);
        }
        let window = self.link.window();
        if let Some(words) = window.control(&self.shape.requests) {
            let _ = Producer::start(words, self.shape.requests.slots, 0);
        }
        if let Some(words) = window.control(&self.shape.responses) {
            let _ = Consumer::start(words, self.shape.responses.slots, 0);
        }
        self.link.accept(&Accept { version: VERSION, features, ..Accept::default() });
        Ok(())
    }

    /// Puts everything that has no answer into the new ring.
    fn make_again(&mut self) {
        let mut ids: Vec<(u64, usize)> = Vec::new();
        for (id, pending) in self.pending.iter().enumerate() {
            if let Some(pending) = pending {
                ids.push((pending.order, id));
            }
        }
        ids.sort_unstable();
        for (_, id) in ids {
            if let Some(pending) = self.pending.get(id).and_then(Option::as_ref) {
                let request = pending.request;
                self.put(&request);
            }
        }
        self.publish();
    }

    /// Puts a request into the ring: there is room, since no more are pending than it has slots.
    #[inline]
    fn put(&mut self, request: &Request) {
        let slots = WindowSlots(self.link.window(), self.shape.requests);
        let message = Aligned(request.to_bytes());
        if let Some(rings) = &mut self.rings {
            match rings.requests.push(&slots, &message.0) {
                Ok(true) => self.is_unpublished = true,
                // The back-end lies about what it took: it is left, and everything is made again for its next life.
                Ok(false) | Err(_) => self.abandon(),
            }
        }
    }

    #[cold]
    fn abandon(&mut self) {
        self.rings = None;
        self.lost += 1;
        self.link.restart();
    }

    /// Tells the back-end of what was submitted, if it wants to know.
    #[inline]
    pub fn publish(&mut self) {
        self.publish_later();
        self.bell.ring();
    }

    /// As [`Disk::publish`], with the notification owed.
    #[inline]
    fn publish_later(&mut self) {
        if core::mem::take(&mut self.is_unpublished)
            && let Some(rings) = &mut self.rings
            && rings.requests.publish()
        {
            self.link.tell_later(&mut self.bell);
        }
    }

    /// Takes pages of the window for a transfer of so many bytes.
    ///
    /// # Errors
    /// `Full` if there are none, `Shape` if there can never be.
    pub fn buffer(&mut self, bytes: usize) -> Result<Buffer, BlockError> {
        let pages = bytes.div_ceil(PAGE).max(1);
        let all = self.shape.data_bytes / PAGE;
        if pages > all {
            return Err(BlockError::Shape);
        }
        let page = self.find_run(pages, all).ok_or(BlockError::Full)?;
        self.mark(page, pages, true);
        let window = self.link.window().part(self.shape.data + page * PAGE, pages * PAGE);
        let window = window.ok_or(BlockError::Device(DeviceError::BadWindow))?;
        Ok(Buffer { window, page: page as u16, pages: pages as u16 })
    }

    fn find_run(&self, pages: usize, all: usize) -> Option<usize> {
        if pages == 1 {
            let (index, word) = self.used.iter().enumerate().find(|(_, word)| **word != u64::MAX)?;
            let page = index * 64 + word.trailing_ones() as usize;
            return (page < all).then_some(page);
        }
        let is_used = |page: usize| self.used.get(page / 64).is_none_or(|word| word >> (page % 64) & 1 != 0);
        let mut start = 0;
        while start + pages <= all {
            match (start..start + pages).rev().find(|&page| is_used(page)) {
                Some(page) => start = page + 1,
                None => return Some(start),
            }
        }
        None
    }

    fn mark(&mut self, first: usize, pages: usize, is_used: bool) {
        for page in first..first + pages {
            if let Some(word) = self.used.get_mut(page / 64) {
                let bit = 1_u64 << (page % 64);
                *word = if is_used { *word | bit } else { *word & !bit };
            }
        }
    }

    /// Gives a buffer back.
    pub fn free(&mut self, buffer: Buffer) {
        self.mark(usize::from(buffer.page), usize::from(buffer.pages), false);
    }

    /// Begins to read `bytes` bytes from `sector` on into a buffer. Nothing is told to the back-end before [`Disk::publish`].
    ///
    /// # Errors
    /// `Full` or `Shape`, with the buffer.
    #[inline]
    pub fn submit_read(&mut self, sector: u64, buffer: Buffer, bytes: usize) -> Result<Ticket, (BlockError, Buffer)> {
        self.submit_data(op::READ, sector, buffer, bytes)
    }

    /// Begins to write the first `bytes` bytes of a buffer at `sector`.
    ///
    /// # Errors
    /// `Full` or `Shape`, with the buffer.
    #[inline]
    pub fn submit_write(&mut self, sector: u64, buffer: Buffer, bytes: usize) -> Result<Ticket, (BlockError, Buffer)> {
        self.submit_data(op::WRITE, sector, buffer, bytes)
    }

    #[inline]
    fn submit_data(
        &mut self,
        op: u8,
        sector: u64,
        buffer: Buffer,
        bytes: usize,
    ) -> Result<Ticket, (BlockError, Buffer)> {
        let sectors = (bytes as u64 / SECTOR) as u32;
        if bytes == 0
            || !bytes.is_multiple_of(SECTOR as usize)
            || bytes > buffer.len()
            || sectors > self.info.max_sectors
        {
            return Err((BlockError::Shape, buffer));
        }
        let offset = self.offset_of(&buffer, 0);
        let mut segment = [Segment::default(); INLINE_SEGMENTS];
        if let Some(first) = segment.first_mut() {
            *first = Segment { offset, bytes: bytes as u32 };
        }
        let request = Request { op, segments: 1, sector, sectors, segment, ..Request::default() };
        let Some(id) = self.free.pop() else { return Err((BlockError::Full, buffer)) };
        Ok(self.submit(id, request, Some(buffer), Vec::new()))
    }

    /// Begins a read or write whose data is in several pieces, in the order of `pieces`; together they are at most `max_sectors` long and
    /// there are at most `max_segments`. More than five need a page of the window for themselves while the request is in flight.
    ///
    /// # Errors
    /// `Full` or `Shape`, with the buffers.
    pub fn submit_pieces(
        &mut self,
        transfer: Transfer,
        sector: u64,
        buffers: Vec<Buffer>,
        pieces: &[Piece],
    ) -> Result<Ticket, (BlockError, Vec<Buffer>)> {
        match self.describe(transfer, sector, &buffers, pieces) {
            Ok((id, request, table)) => {
                let mut buffers = buffers;
                buffers.extend(table);
                Ok(self.submit(id, request, None, buffers))
            }
            Err(error) => Err((error, buffers)),
        }
    }

    /// Makes a request of pieces, without changing anything if it cannot be made.
    fn describe(
        &mut self,
        transfer: Transfer,
        sector: u64,
        buffers: &[Buffer],
        pieces: &[Piece],
    ) -> Result<(u32, Request, Option<Buffer>), BlockError> {
        if pieces.is_empty() || pieces.len() > self.info.max_segments as usize {
            return Err(BlockError::Shape);
        }
        let mut segments = [Segment::default(); MAX_SEGMENTS];
        let mut bytes = 0;
        for (segment, piece) in segments.iter_mut().zip(pieces) {
            *segment = self.segment(buffers, piece).ok_or(BlockError::Shape)?;
            bytes += u64::from(segment.bytes);
        }
        let sectors = bytes / SECTOR;
        if sectors > u64::from(self.info.max_sectors) {
            return Err(BlockError::Shape);
        }
        let table = if pieces.len() > INLINE_SEGMENTS { Some(self.buffer(PAGE)?) } else { None };
        let Some(id) = self.free.pop() else {
            table.into_iter().for_each(|table| self.free(table));
            return Err(BlockError::Full);
        };
        let op = match transfer {
            Transfer::Read => op::READ,
            Transfer::Write => op::WRITE,
        };
        let mut request =
            Request { op, segments: pieces.len() as u16, sector, sectors: sectors as u32, ..Request::default() };
        match &table {
            Some(table) => {
                for (offset, segment) in (0..).step_by(8).zip(segments.iter().take(pieces.len())) {
                    let _ = table.window.store(offset, segment.to_word());
                }
                request.table = self.offset_of(table, 0);
            }
            None => {
                if let Some(first) = segments.first_chunk() {
                    request.segment = *first;
                }
            }
        }
        Ok((id, request, table))
    }

    fn segment(&self, buffers: &[Buffer], piece: &Piece) -> Option<Segment> {
        let buffer = buffers.get(piece.buffer)?;
        let Range { start, end } = piece.range;
        let is_whole = start.is_multiple_of(SECTOR as usize) && end.is_multiple_of(SECTOR as usize);
        if !is_whole || start >= end || end > buffer.len() {
            return None;
        }
        Some(Segment { offset: self.offset_of(buffer, start), bytes: (end - start) as u32 })
    }

    /// Offset of a buffer's byte in the window.
    fn offset_of(&self, buffer: &Buffer, at: usize) -> u32 {
        (self.shape.data + usize::from(buffer.page) * PAGE + at) as u32
    }

    /// Begins to make everything durable that was answered before.
    ///
    /// # Errors
    /// `Full`.
    pub fn submit_flush(&mut self) -> Result<Ticket, BlockError> {
        let id = self.free.pop().ok_or(BlockError::Full)?;
        Ok(self.submit(id, Request { op: op::FLUSH, ..Request::default() }, None, Vec::new()))
    }

    /// Begins to discard sectors, or to fill them with zeros.
    ///
    /// # Errors
    /// `Full`; `Shape` if that is not offered or more than the disk takes at once.
    pub fn submit_range(&mut self, zeroes: bool, sector: u64, sectors: u32) -> Result<Ticket, BlockError> {
        let (op, limit) =
            if zeroes { (op::WRITE_ZEROES, self.info.max_zeroes) } else { (op::DISCARD, self.info.max_discard) };
        if sectors == 0 || sectors > limit {
            return Err(BlockError::Shape);
        }
        let id = self.free.pop().ok_or(BlockError::Full)?;
        Ok(self.submit(id, Request { op, sector, sectors, ..Request::default() }, None, Vec::new()))
    }

    /// Begins a request of which everything was checked, under a number from the free ones.
    #[inline]
    fn submit(&mut self, id: u32, mut request: Request, buffer: Option<Buffer>, buffers: Vec<Buffer>) -> Ticket {
        request.id = id;
        let order = self.next_order;
        self.next_order += 1;
        if let Some(pending) = self.pending.get_mut(id as usize) {
            *pending = Some(Pending { request, buffer, buffers, order });
        }
        self.in_flight += 1;
        self.put(&request);
        Ticket(id)
    }

    /// Takes a request that has ended, if one has. Also keeps the link alive.
    ///
    /// # Errors
    /// `Incompatible` or `Refused`: the back-end that came back is not what it was.
    #[inline]
    pub fn reap(&mut self) -> Result<Option<Completion>, DeviceError> {
        self.step()?;
        let slots = WindowSlots(self.link.window(), self.shape.responses);
        let Some(rings) = &mut self.rings else { return Ok(None) };
        let mut raw = Aligned([0_u8; size_of::<Response>()]);
        match rings.responses.pop(&slots, &mut raw.0) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(_) => {
                self.abandon();
                return Ok(None);
            }
        }
        if rings.responses.release() {
            // It had no room for more answers.
            self.link.tell();
        }
        let response = Response::from_bytes(&raw.0);
        let Some(pending) = self.pending.get_mut(response.id as usize).and_then(Option::take) else {
            // An answer to what was not asked.
            self.abandon();
            return Ok(None);
        };
        self.free.push(response.id);
        self.in_flight -= 1;
        let result = if response.status == status::OK { Ok(()) } else { Err(BlockError::Status(response.status)) };
        let mut buffers = pending.buffers;
        if pending.request.table != 0
            && let Some(table) = buffers.pop()
        {
            self.free(table);
        }
        Ok(Some(Completion { ticket: Ticket(response.id), result, buffer: pending.buffer, buffers }))
    }

    /// Publishes, and waits until a request has ended.
    ///
    /// # Errors
    /// As [`Disk::reap`], and `TimedOut` at `deadline`.
    pub fn wait(&mut self, deadline: u64) -> Result<Completion, DeviceError> {
        self.wait_for(1, deadline)
    }

    /// As [`Disk::wait`]; if none has ended yet, it waits until `count` have, or as many as are in flight. The others are there for
    /// [`Disk::reap`]. One who has many requests in flight is woken less often so, and the back-end and its disk work in batches.
    ///
    /// # Errors
    /// As [`Disk::wait`].
    pub fn wait_for(&mut self, count: u32, deadline: u64) -> Result<Completion, DeviceError> {
        self.publish_later();
        let count = count.min(self.in_flight);
        let done = self.wait_for_some(count, deadline);
        self.bell.ring();
        done
    }

    fn wait_for_some(&mut self, count: u32, deadline: u64) -> Result<Completion, DeviceError> {
        loop {
            if let Some(done) = self.reap()? {
                return Ok(done);
            }
            match &mut self.rings {
                Some(rings) => match rings.responses.arm_for(count) {
                    Ok(true) => {
                        wait(&self.link, &mut self.bell, deadline)?;
                        self.woken += 1;
                    }
                    Ok(false) => {}
                    Err(_) => self.abandon(),
                },
                None => wait(&self.link, &mut self.bell, deadline)?,
            }
        }
    }

    /// Waits for one request; others that end meanwhile are dropped, so there should be none.
    fn finish(&mut self, ticket: Ticket) -> Result<Option<Buffer>, (BlockError, Option<Buffer>)> {
        loop {
            match self.wait(portico_abi::port::DEADLINE_NEVER) {
                Ok(done) if done.ticket == ticket => {
                    return match done.result {
                        Ok(()) => Ok(done.buffer),
                        Err(error) => Err((error, done.buffer)),
                    };
                }
                Ok(done) => {
                    if let Some(buffer) = done.buffer {
                        self.free(buffer);
                    }
                }
                Err(error) => return Err((error.into(), None)),
            }
        }
    }

    fn piece(&self, left: usize) -> usize {
        let most = self.info.max_sectors as usize * SECTOR as usize;
        left.min(most).min(self.shape.data_bytes / 2)
    }

    /// Reads whole sectors from `sector` on, and waits for that. To be used with nothing else in flight.
    ///
    /// # Errors
    /// Any of [`BlockError`].
    pub fn read_at(&mut self, sector: u64, to: &mut [u8]) -> Result<(), BlockError> {
        let mut done = 0;
        while done < to.len() {
            let bytes = self.piece(to.len() - done);
            let buffer = self.buffer(bytes)?;
            let ticket = match self.submit_read(sector + done as u64 / SECTOR, buffer, bytes) {
                Ok(ticket) => ticket,
                Err((error, buffer)) => return self.give_back(error, Some(buffer)),
            };
            match self.finish(ticket) {
                Ok(Some(buffer)) => {
                    if let Some(to) = to.get_mut(done..done + bytes) {
                        let _ = buffer.window().read(0, to);
                    }
                    self.free(buffer);
                }
                Ok(None) => {}
                Err((error, buffer)) => return self.give_back(error, buffer),
            }
            done += bytes;
        }
        Ok(())
    }

    /// Writes whole sectors at `sector`, and waits for that. To be used with nothing else in flight.
    ///
    /// # Errors
    /// Any of [`BlockError`].
    pub fn write_at(&mut self, sector: u64, from: &[u8]) -> Result<(), BlockError> {
        let mut done = 0;
        while done < from.len() {
            let bytes = self.piece(from.len() - done);
            let buffer = self.buffer(bytes)?;
            if let Some(from) = from.get(done..done + bytes) {
                let _ = buffer.window().write(0, from);
            }
            let ticket = match self.submit_write(sector + done as u64 / SECTOR, buffer, bytes) {
                Ok(ticket) => ticket,
                Err((error, buffer)) => return self.give_back(error, Some(buffer)),
            };
            match self.finish(ticket) {
                Ok(Some(buffer)) => self.free(buffer),
                Ok(None) => {}
                Err((error, buffer)) => return self.give_back(error, buffer),
            }
            done += bytes;
        }
        Ok(())
    }

    fn give_back(&mut self, error: BlockError, buffer: Option<Buffer>) -> Result<(), BlockError> {
        if let Some(buffer) = buffer {
            self.free(buffer);
        }
        Err(error)
    }

    /// Makes everything durable that was written before, and waits for that.
    ///
    /// # Errors
    /// Any of [`BlockError`].
    pub fn flush(&mut self) -> Result<(), BlockError> {
        let ticket = self.submit_flush()?;
        self.finish(ticket).map(drop).map_err(|(error, _)| error)
    }

    /// Says that sectors are not needed, and waits for that.
    ///
    /// # Errors
    /// Any of [`BlockError`].
    pub fn discard(&mut self, sector: u64, sectors: u32) -> Result<(), BlockError> {
        let ticket = self.submit_range(false, sector, sectors)?;
        self.finish(ticket).map(drop).map_err(|(error, _)| error)
    }

    /// Fills sectors with zeros, and waits for that.
    ///
    /// # Errors
    /// Any of [`BlockError`].
    pub fn write_zeroes(&mut self, sector: u64, sectors: u32) -> Result<(), BlockError> {
        let ticket = self.submit_range(true, sector, sectors)?;
        self.finish(ticket).map(drop).map_err(|(error, _)| error)
    }
}
