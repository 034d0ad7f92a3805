//! The block front-end: a disk.
//!
//! [`Disk`] keeps every request until its answer. When the back-end goes and comes back it shakes hands again and makes what was
//! in flight once more, in the order in which it was made; the caller sees nothing but the delay. Reads, writes, discards and zeroes
//! may be done twice: no other request in flight can tell. A disk that the operator takes away is another matter: what was in flight fails with
//! `Refused(REMOVED)`, and so does all else until a disk is added.
//!
//! Data is in [`Buffer`]s of the window, whole pages. [`Disk::read_at`] and its like copy; who fills buffers itself copies nothing.

mod buffer;
mod submit;
mod whole;

use super::{DeviceError, Event, Link, wait};
use crate::doorbell::Doorbell;
use crate::dtb::{self, DeviceNode};
use alloc_crate::vec::Vec;
use portico_abi::device::block::{
    Disk as Details, MAX_SEGMENTS, Request, Response, SECTOR, Shape, VERSION, flag, shape_of_window, status,
};
use portico_abi::device::{Accept, kind, refusal};
use portico_abi::ring::{Consumer, Producer};
use portico_abi::{PAGE_SIZE, dt};

pub use buffer::Buffer;
pub use portico_abi::device::block::feature;
pub use submit::{Piece, Transfer};

/// Bytes of a page, for sizes in memory.
const PAGE: usize = PAGE_SIZE as usize;

/// There is no disk.
const REMOVED: DeviceError = DeviceError::Refused(refusal::REMOVED);

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

/// One queue of a disk.
#[derive(Debug)]
pub struct Disk {
    link: Link,
    shape: Shape,
    info: Info,
    rings: Option<Rings>,
    /// What was asked last under each number, and who waits for it: two, so that an answer moves little.
    requests: Vec<Request>,
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
            requests: (0..slots).map(|_| Request::default()).collect(),
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
            if self.link.is_removed() && self.in_flight == 0 {
                self.link.leave();
                return Err(REMOVED);
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
        let mut raw = [0_u8; size_of::<Details>()];
        let offer = self.link.read_offer(&mut raw);
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
            raw.get(index * 4..index * 4 + 4)
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
            if let Some(request) = self.requests.get(id).copied() {
                self.put(&request);
            }
        }
        self.publish();
    }

    /// Puts a request into the ring: there is room, since no more are pending than it has slots.
    #[inline]
    fn put(&mut self, request: &Request) {
        if let Some(rings) = &mut self.rings {
            match rings.requests.claim(1) {
                Ok(Some(index)) => {
                    // Inside: the ring's words were taken by `Window::control`, which checked the whole ring.
                    let _ = self.link.window().store_words(self.shape.requests.slot(index), request.to_words());
                    self.is_unpublished = true;
                }
                // The back-end lies about what it took: it is left, and everything is made again for its next life.
                Ok(None) | Err(_) => self.abandon(),
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

    /// Takes a request that has ended, if one has. Also keeps the link alive.
    ///
    /// # Errors
    /// `Incompatible` or `Refused`: the back-end that came back is not what it was, or there is none any more.
    #[inline]
    pub fn reap(&mut self) -> Result<Option<Completion>, DeviceError> {
        self.step()?;
        let Some(rings) = &mut self.rings else { return self.reap_without() };
        let index = rings.responses.next();
        match rings.responses.skip(1) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(_) => {
                self.abandon();
                return Ok(None);
            }
        }
        // Its slot stays ours until the release.
        let words = self.link.window().load_words(self.shape.responses.slot(index));
        if rings.responses.release() {
            // It had no room for more answers.
            self.link.tell();
        }
        let response = Response::from_words(&words.unwrap_or_default());
        let Some(pending) = self.pending.get_mut(response.id as usize).and_then(Option::take) else {
            // An answer to what was not asked.
            self.abandon();
            return Ok(None);
        };
        let result = if response.status == status::OK { Ok(()) } else { Err(BlockError::Status(response.status)) };
        Ok(Some(self.ended(response.id, pending, result)))
    }

    /// A request is no longer in flight.
    #[inline]
    fn ended(&mut self, id: u32, pending: Pending, result: Result<(), BlockError>) -> Completion {
        self.free.push(id);
        self.in_flight -= 1;
        let mut buffers = pending.buffers;
        if self.requests.get(id as usize).is_some_and(|request| request.table != 0)
            && let Some(table) = buffers.pop()
        {
            self.free(table);
        }
        Completion { ticket: Ticket(id), result, buffer: pending.buffer, buffers }
    }

    /// Of a disk that was taken away nothing gets an answer: all fail, the oldest first.
    #[cold]
    fn reap_without(&mut self) -> Result<Option<Completion>, DeviceError> {
        if !self.link.is_removed() {
            return Ok(None);
        }
        let orders = (0_u32..).zip(&self.pending).filter_map(|(id, one)| Some((one.as_ref()?.order, id)));
        let Some((_, id)) = orders.min() else {
            self.link.leave();
            return Err(REMOVED);
        };
        let Some(pending) = self.pending.get_mut(id as usize).and_then(Option::take) else { return Ok(None) };
        Ok(Some(self.ended(id, pending, Err(REMOVED.into()))))
    }

    /// Leaves the disk, with nothing in flight: the manager asks for it. It is met again when its service begins anew.
    pub fn close(&mut self) {
        self.rings = None;
        self.link.refuse(refusal::NONE);
    }

    /// By which the manager names it, if it is the first queue.
    pub fn cookie(&self) -> u64 {
        self.link.cookie()
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
}
