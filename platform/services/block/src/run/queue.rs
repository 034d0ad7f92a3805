//! The back-end of one queue of a guest's disk.

use crate::disk::{Disk, Tag, Work};
use crate::target::{self, Target};
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;
use portico_abi::device::block::{
    Disk as Details, Request, Response, SECTOR, Segment, Shape, VERSION, flag, op, shape_of_window, status,
};
use portico_abi::device::control::Counters;
use portico_abi::device::{Offer, kind, refusal};
use portico_abi::dt::{self, service as property};
use portico_abi::ring::{Consumer, Corrupt, Producer};
use portico_block::claims::Claims;
use portico_block::request::{Segments, check, check_segments, table_is_inside};
use portico_sdk::device::{DeviceError, Event, Link};
use portico_sdk::doorbell::Doorbell;
use portico_sdk::dtb::DeviceNode;
use portico_service::limit::Limit;

/// Requests taken from one queue in a turn: nobody waits long behind another.
const PER_TURN: usize = 32;

#[derive(Debug)]
struct Rings {
    requests: Consumer<'static>,
    responses: Producer<'static>,
}

/// The limits of a disk, which its queues share.
#[derive(Clone, Copy, Debug)]
struct Rate {
    ops: Limit,
    bytes: Limit,
}

/// What becomes of the request that was taken from the ring last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// It was begun or answered.
    No,
    /// The limits have not let it pass.
    ForRate,
    /// They have, and the disk had no room.
    ForDisk,
}

/// One queue.
#[derive(Debug)]
pub struct GuestQueue {
    link: Link,
    shape: Shape,
    machine: u64,
    target: Option<Target>,
    rings: Option<Rings>,
    /// Counts connections.
    connection: u32,
    /// Requests at the disk, of this connection and of those before.
    in_flight: u32,
    rate: Rc<Cell<Rate>>,
    is_limited: bool,
    /// Not before this time, in nanoseconds: over its rate.
    not_before: u64,
    /// The request that was taken last.
    request: Request,
    waiting: Waiting,
    /// Notified, or not done with its ring.
    is_active: bool,
    /// Requests stand in the ring for whose answers there is no room before the disk's next answer.
    is_full: bool,
    /// Answers that were not published.
    is_unpublished: bool,
    segments: Vec<Segment>,
    /// What it has moved.
    pub counters: Counters,
}

impl GuestQueue {
    /// Takes the queue that the device tree describes, on one of `disks`. One whose disk the guest does not get is there, and refuses;
    /// the second part of the answer says why.
    ///
    /// # Errors
    /// `BadWindow`.
    pub fn new(
        node: &DeviceNode,
        disks: &mut [Disk],
        claims: &mut Claims<'static>,
    ) -> Result<(GuestQueue, Option<String>), DeviceError> {
        // SAFETY: the manager mapped the window for the life of the domain, and nothing else of the service is there.
        let link = unsafe { Link::new(node) }?;
        let shape = shape_of_window(link.window().len()).ok_or(DeviceError::BadWindow)?;
        let (target, why) = match target::find(node, disks, &shape, claims) {
            Ok(target) => (Some(target), None),
            Err(why) => (None, Some(why)),
        };
        let details = Details {
            sectors: target.map_or(0, |target| target.limits.sectors),
            block_bytes: target.map_or(512, |target| target.block_bytes),
            flags: if target.is_some_and(|target| target.limits.is_read_only) { flag::READ_ONLY } else { 0 },
            max_sectors: target.map_or(0, |target| target.limits.max_sectors),
            max_segments: target.map_or(0, |target| target.limits.max_segments),
            max_discard: target.map_or(0, |target| target.limits.max_discard),
            max_zeroes: target.map_or(0, |target| target.limits.max_zeroes),
            queues: node.number(dt::QUEUES).unwrap_or(1) as u32,
            queue: node.number(dt::QUEUE).unwrap_or(0) as u32,
            ..Details::default()
        };
        link.offer(
            &Offer {
                kind: kind::BLOCK,
                version: VERSION,
                features: target.map_or(0, |target| target.limits.features),
                refusal: if target.is_some() { refusal::NONE } else { refusal::ABSENT },
                ..Offer::default()
            },
            &bytes_of(&details),
        );
        let burst = node.number(property::BURST).unwrap_or(0);
        let rate = Rate {
            ops: Limit::new(node.number(property::IOPS).unwrap_or(0), burst),
            bytes: Limit::new(node.number(property::RATE).unwrap_or(0), burst.saturating_mul(4096)),
        };
        let queue = GuestQueue {
            link,
            shape,
            machine: node.number(dt::MACHINE_ADDRESS).unwrap_or(0),
            target,
            rings: None,
            connection: 0,
            in_flight: 0,
            rate: Rc::new(Cell::new(rate)),
            is_limited: !(rate.ops.is_none() && rate.bytes.is_none()),
            not_before: 0,
            request: Request::default(),
            waiting: Waiting::No,
            is_active: true,
            is_full: false,
            is_unpublished: false,
            segments: Vec::new(),
            counters: Counters::default(),
        };
        Ok((queue, why))
    }

    /// Shares the limits of another queue of its disk.
    pub fn share_rate(&mut self, other: &GuestQueue) {
        self.rate = Rc::clone(&other.rate);
    }

    /// The disk of the machine behind it.
    pub fn disk(&self) -> Option<usize> {
        self.target.map(|target| target.disk)
    }

    /// Whether it waits for room at its disk.
    #[inline]
    pub fn is_stuck(&self) -> bool {
        self.waiting == Waiting::ForDisk
    }

    /// Lets it look for a new port in the next turn.
    pub fn ports_have_changed(&mut self) {
        self.is_active = true;
    }

    /// Does what there is to do, a bounded piece. Returns whether there is more to do at once, which no notification will tell.
    #[inline]
    pub fn turn(&mut self, number: u32, disks: &mut [Disk], now_ns: u64) -> bool {
        if self.link.port().is_some_and(|port| port.take()) {
            self.is_active = true;
        }
        if !self.is_active || !self.step() || now_ns < self.not_before {
            return false;
        }
        self.serve(number, disks, now_ns)
    }

    /// Keeps the link alive. Returns whether it is connected.
    #[inline]
    fn step(&mut self) -> bool {
        if self.rings.is_none() && self.in_flight > 0 {
            // What the disk still does with the window ends first; each answer makes it active again.
            self.is_active = false;
            return false;
        }
        match self.link.step() {
            Event::Nothing => {}
            event => self.step_slow(event),
        }
        if self.rings.is_none() {
            self.is_active = false;
        }
        self.rings.is_some()
    }

    #[cold]
    fn step_slow(&mut self, event: Event) {
        match event {
            Event::Nothing | Event::Connected => {}
            Event::Lost => {
                self.leave();
                if self.in_flight == 0 {
                    let event = self.link.step();
                    self.step_slow(event);
                }
            }
            Event::Peer => self.greet(),
        }
    }

    /// Reads what the front-end accepted, and agrees or not.
    fn greet(&mut self) {
        let accept = self.link.read_accept();
        let Some(target) = &mut self.target else { return self.link.refuse(refusal::ABSENT) };
        if accept.version >> 16 != VERSION >> 16 {
            return self.link.refuse(refusal::VERSION);
        }
        if accept.features & !target.limits.features != 0 {
            return self.link.refuse(refusal::FEATURES);
        }
        let window = self.link.window();
        let words = window.control(&self.shape.requests).zip(window.control(&self.shape.responses));
        let Some((requests, responses)) = words else { return self.link.refuse(refusal::PROTOCOL) };
        self.rings = Some(Rings {
            requests: Consumer::start(requests, self.shape.requests.slots, 0),
            responses: Producer::start(responses, self.shape.responses.slots, 0),
        });
        self.connection = self.connection.wrapping_add(1);
        self.link.welcome();
    }

    #[inline]
    fn serve(&mut self, number: u32, disks: &mut [Disk], now_ns: u64) -> bool {
        let Some(disk) = self.disk().and_then(|disk| disks.get_mut(disk)) else { return false };
        for _ in 0..PER_TURN {
            let waited = core::mem::replace(&mut self.waiting, Waiting::No);
            if waited == Waiting::No {
                match self.next_request() {
                    Ok(true) => {}
                    Ok(false) => return self.rest(),
                    Err(Corrupt) => return self.give_up(),
                }
            }
            let checked = self.collect();
            if waited != Waiting::ForDisk
                && let Err(at) = self.pass(checked.is_ok(), now_ns)
            {
                (self.waiting, self.not_before) = (Waiting::ForRate, at);
                break;
            }
            match checked {
                Err(status) => self.answer(self.request.id, status),
                Ok(()) if self.begin(disk, number) => {}
                Ok(()) => {
                    // The disk is full: each of its answers makes room.
                    self.waiting = Waiting::ForDisk;
                    break;
                }
            }
        }
        if let Some(rings) = &mut self.rings {
            let _ = rings.requests.release();
        }
        self.waiting == Waiting::No
    }

    /// Takes a request from the ring if there is room for its answer: what is not answered has a slot reserved. `false`: there is none.
    #[inline]
    fn next_request(&mut self) -> Result<bool, Corrupt> {
        let Some(rings) = &mut self.rings else { return Ok(false) };
        if rings.responses.room()? <= self.in_flight {
            return Ok(false);
        }
        let index = rings.requests.next();
        if !rings.requests.skip(1)? {
            return Ok(false);
        }
        // Inside: the ring's words were taken by `Window::control`, which checked the whole ring. Its slot stays ours until the release.
        let words = self.link.window().load_words(self.shape.requests.slot(index));
        self.request = Request::from_words(&words.unwrap_or_default());
        Ok(true)
    }

    /// Nothing can be taken from the ring: gives its slots back and asks for a notification. Returns whether something can be taken meanwhile.
    fn rest(&mut self) -> bool {
        match self.try_rest() {
            Ok(is_active) => {
                self.is_active = is_active;
                is_active
            }
            Err(Corrupt) => self.give_up(),
        }
    }

    fn try_rest(&mut self) -> Result<bool, Corrupt> {
        let Some(rings) = &mut self.rings else { return Ok(false) };
        // Nobody waits for room: a front-end has a slot for each request.
        let _ = rings.requests.release();
        if rings.requests.arm()? {
            return Ok(false);
        }
        if rings.responses.room()? > self.in_flight {
            return Ok(true);
        }
        // A front-end that does not take its answers waits: the next answer of the disk makes this queue active, and else it shall say
        // when it has taken one.
        self.is_full = self.in_flight > 0;
        Ok(!self.is_full && !rings.responses.arm()?)
    }

    /// Whether the disk's limits let a request pass now; when, if not. One that makes no sense counts, without its bytes.
    #[inline]
    fn pass(&mut self, is_sound: bool, now_ns: u64) -> Result<(), u64> {
        if !self.is_limited {
            return Ok(());
        }
        let request = &self.request;
        let mut rate = self.rate.get();
        rate.ops.check(now_ns)?;
        let is_data = is_sound && matches!(request.op, op::READ | op::WRITE);
        rate.bytes.take(if is_data { u64::from(request.sectors) * SECTOR } else { 0 }, now_ns)?;
        rate.ops.take(1, now_ns)?;
        self.rate.set(rate);
        Ok(())
    }

    /// Begins the request, which was collected, at the disk, or answers it at once. `false`: the disk has no room.
    #[inline]
    fn begin(&mut self, disk: &mut Disk, number: u32) -> bool {
        let request = &self.request;
        if request.op == op::FLUSH && !disk.has_flush() {
            self.answer(request.id, status::OK);
            return true;
        }
        let bytes = if matches!(request.op, op::READ | op::WRITE) { request.sectors * SECTOR as u32 } else { 0 };
        let is_read = request.op == op::READ;
        let tag = Tag {
            queue: number,
            connection: self.connection,
            id: request.id,
            bytes_in: if is_read { bytes } else { 0 },
            bytes_out: if is_read { 0 } else { bytes },
        };
        let work = Work {
            op: request.op,
            sector: self.target.as_ref().map_or(0, |target| target.first) + request.sector,
            sectors: request.sectors,
            segments: &self.segments,
            machine: self.machine,
            window: self.link.window(),
        };
        let is_begun = disk.submit(&work, tag);
        self.in_flight += u32::from(is_begun);
        is_begun
    }

    /// Checks the request and copies its segments.
    #[inline]
    fn collect(&mut self) -> Result<(), u32> {
        self.segments.clear();
        let GuestQueue { request, segments, shape, link, target: Some(target), .. } = self else {
            return Err(status::INVALID);
        };
        match check(request, &target.limits)? {
            Segments::Inline(count) => segments.extend_from_slice(request.segment.get(..count).unwrap_or_default()),
            Segments::Table(offset, count) => {
                if !table_is_inside(shape, offset, count) {
                    return Err(status::INVALID);
                }
                for index in 0..count {
                    let word = link.window().load(offset + 8 * index).ok_or(status::INVALID)?;
                    segments.push(Segment::from_word(word));
                }
            }
        }
        if segments.is_empty() {
            return Ok(());
        }
        check_segments(segments, request.sectors, shape)
    }

    /// Takes an answer of the disk.
    #[inline]
    pub fn done(&mut self, tag: &Tag, status: u32) {
        self.in_flight = self.in_flight.saturating_sub(1);
        // Else there is nothing to take from the ring, or the guest will tell.
        self.is_active |= self.rings.is_none() | core::mem::take(&mut self.is_full);
        if tag.connection != self.connection || self.rings.is_none() {
            return;
        }
        self.counters.requests += 1;
        self.counters.bytes_in += u64::from(tag.bytes_in);
        self.counters.bytes_out += u64::from(tag.bytes_out);
        self.answer(tag.id, status);
    }

    #[inline]
    fn answer(&mut self, id: u32, status: u32) {
        if status != status::OK {
            self.counters.failed += 1;
        }
        if let Some(rings) = &mut self.rings {
            // There is room: a slot was reserved when the request was taken.
            match rings.responses.claim(1) {
                Ok(Some(index)) => {
                    let words = Response { id, status, _reserved: 0 }.to_words();
                    let _ = self.link.window().store_words(self.shape.responses.slot(index), words);
                    self.is_unpublished = true;
                }
                Ok(None) | Err(_) => {
                    self.give_up();
                }
            }
        }
    }

    /// Publishes answers, and owes the guest a notification if it wants to know.
    #[inline]
    pub fn publish(&mut self, bell: &mut Doorbell) {
        if core::mem::take(&mut self.is_unpublished)
            && let Some(rings) = &mut self.rings
            && rings.responses.publish()
        {
            self.link.tell_later(bell);
            self.counters.notified = self.link.told();
        }
    }

    /// The front-end breaks the protocol: this connection ends.
    #[cold]
    fn give_up(&mut self) -> bool {
        self.leave();
        self.counters.failed += 1;
        self.link.refuse(refusal::PROTOCOL);
        true
    }

    /// Ends this connection. What the disk still does for it is not answered.
    fn leave(&mut self) {
        self.rings = None;
        self.waiting = Waiting::No;
        self.is_full = false;
        self.is_unpublished = false;
    }

    /// How many requests must end before the guest wants to be told; 1 if it does not say, or if it would wait for more than is in flight.
    pub fn patience(&self) -> u32 {
        let wish = self.rings.as_ref().and_then(|rings| rings.responses.until_notified()).unwrap_or(1);
        if wish > self.in_flight { 1 } else { wish }
    }

    /// Whether it has limits of rate: then it needs the time.
    pub fn is_limited(&self) -> bool {
        self.is_limited
    }

    /// Whether the disk does something for it.
    pub fn is_waiting_for_disk(&self) -> bool {
        self.in_flight > 0
    }

    /// When it has to be looked at again though nobody notifies, in nanoseconds.
    pub fn due(&self) -> Option<u64> {
        (self.is_active && self.waiting == Waiting::ForRate && self.not_before > 0).then_some(self.not_before)
    }
}

fn bytes_of(details: &Details) -> [u8; size_of::<Details>()] {
    let mut bytes = [0; size_of::<Details>()];
    let sectors = [details.sectors as u32, (details.sectors >> 32) as u32];
    let words = [
        details.block_bytes,
        details.flags,
        details.max_sectors,
        details.max_segments,
        details.max_discard,
        details.max_zeroes,
        details.queues,
        details.queue,
    ];
    for (to, word) in bytes.chunks_exact_mut(4).zip(sectors.into_iter().chain(words)) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}
