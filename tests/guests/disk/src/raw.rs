//! `mode=raw`: a front-end that keeps to nothing: it writes what it likes into its window and its rings. Each attempt must be answered as the
//! protocol says, or cost this guest its connection, which it must get again.

use crate::PATIENCE;
use alloc::format;
use alloc::vec::Vec;
use core::mem::{offset_of, size_of};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use core::time::Duration;
use portico_sdk::abi::channel::{ChannelHeader, ChannelState};
use portico_sdk::abi::device::block::{
    INLINE_SEGMENTS, Request, Response, SECTOR, Segment, Shape, VERSION, op, shape_of_window, status,
};
use portico_sdk::abi::device::{ACCEPT, Accept, OFFER, Offer, refusal};
use portico_sdk::abi::{dt, ring};
use portico_sdk::device::{Event, Link};
use portico_sdk::window::Window;
use portico_sdk::{dtb, println, smp, time};
use test_kit::{Random, Tap};

/// How long a storm lasts.
const STORM: Duration = Duration::from_millis(1500);

/// The disk, without the SDK's front-end.
struct Raw {
    link: Link,
    window: Window,
    shape: Shape,
    /// Private indices: next request, next response.
    head: u32,
    tail: u32,
}

/// Prints a report.
pub fn run() -> u64 {
    let mut tap = Tap::new();
    let Some(mut raw) = open() else {
        tap.holds("there is a disk", false);
        return tap.finish();
    };
    tap.holds("a proper front-end is served", raw.connect() && raw.is_served());
    senseless(&mut tap, &mut raw);
    tables(&mut tap, &mut raw);
    indices(&mut tap, &mut raw);
    handshakes(&mut tap, &mut raw);
    never_reaps(&mut tap, &mut raw);
    storm(&mut tap, &mut raw);
    flips(&mut tap, &mut raw);
    scribbles(&mut tap, &mut raw);
    tap.holds("it is served at the end", raw.recovers());
    tap.finish()
}

fn open() -> Option<Raw> {
    let node = dtb::devices(dt::BLOCK).next()?;
    // SAFETY: the manager mapped the window for the life of the domain, and nothing else of the guest is there.
    let link = unsafe { Link::new(&node) }.ok()?;
    let window = link.window();
    Some(Raw { link, window, shape: shape_of_window(window.len())?, head: 0, tail: 0 })
}

impl Raw {
    fn word(&self, at: usize) -> u32 {
        self.window.word(at).map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn set(&self, at: usize, value: u32) {
        if let Some(word) = self.window.word(at) {
            word.store(value, Ordering::Release);
        }
    }

    fn requests(&self, word: usize) -> usize {
        self.shape.requests.offset + word
    }

    fn responses(&self, word: usize) -> usize {
        self.shape.responses.offset + word
    }

    /// Shakes hands, as one should.
    fn connect(&mut self) -> bool {
        self.connect_as(&Accept { version: VERSION, ..Accept::default() })
    }

    fn connect_as(&mut self, accept: &Accept) -> bool {
        let deadline = time::deadline(PATIENCE);
        let mut accepted = 0;
        while !time::passed(deadline) {
            match self.link.step() {
                Event::Peer if accepted > 0 && self.refusal() != refusal::NONE => return false,
                Event::Peer => {
                    accepted += 1;
                    (self.head, self.tail) = (0, 0);
                    self.set(self.requests(ring::HEAD), 0);
                    self.set(self.requests(ring::SPACE_EVENT), u32::MAX);
                    self.set(self.responses(ring::TAIL), 0);
                    self.set(self.responses(ring::DATA_EVENT), u32::MAX);
                    self.link.accept(accept);
                }
                Event::Connected => return true,
                Event::Lost | Event::Nothing => {}
            }
            if self.link.is_connected() {
                return true;
            }
            time::sleep(Duration::from_millis(1));
        }
        false
    }

    fn refusal(&self) -> u32 {
        self.word(OFFER + offset_of!(Offer, refusal))
    }

    fn put(&self, index: u32, request: &Request) {
        let _ = self.window.write(self.shape.requests.slot(index), &request.to_bytes());
    }

    fn publish(&mut self, head: u32) {
        self.head = head;
        self.set(self.requests(ring::HEAD), head);
        fence(Ordering::SeqCst);
        self.link.tell();
    }

    /// Waits for an answer, if one comes before the connection is lost.
    fn answer(&mut self, patience: Duration) -> Option<Response> {
        let deadline = time::deadline(patience);
        while self.word(self.responses(ring::HEAD)) == self.tail {
            if time::passed(deadline) || self.link.step() == Event::Lost {
                return None;
            }
            time::sleep(Duration::from_micros(100));
        }
        let mut raw = [0; size_of::<Response>()];
        let _ = self.window.read(self.shape.responses.slot(self.tail), &mut raw);
        self.tail = self.tail.wrapping_add(1);
        self.set(self.responses(ring::TAIL), self.tail);
        self.link.tell();
        Some(Response::from_bytes(&raw))
    }

    /// Makes one request and returns the status of its answer.
    fn ask(&mut self, request: &Request) -> Option<u32> {
        self.put(self.head, request);
        self.publish(self.head.wrapping_add(1));
        let answer = self.answer(PATIENCE)?;
        (answer.id == request.id).then_some(answer.status)
    }

    fn read(&self, sector: u64) -> Request {
        let mut request = Request { id: 7, op: op::READ, segments: 1, sector, sectors: 8, ..Request::default() };
        request.segment[0] = Segment { offset: self.shape.data as u32, bytes: 4096 };
        request
    }

    fn is_served(&mut self) -> bool {
        let request = self.read(0);
        self.ask(&request) == Some(status::OK)
    }

    /// Whether the service closes the connection.
    fn is_lost(&mut self) -> bool {
        let deadline = time::deadline(PATIENCE);
        while !time::passed(deadline) {
            if self.link.step() == Event::Lost {
                return true;
            }
            time::sleep(Duration::from_millis(1));
        }
        false
    }

    /// Begins anew, and is served.
    fn recovers(&mut self) -> bool {
        self.link.restart();
        self.connect() && self.is_served()
    }
}

/// Requests that make no sense: each is answered so, and the next is served.
fn senseless(tap: &mut Tap, raw: &mut Raw) {
    let data = raw.shape.data as u32;
    let end = data + raw.shape.data_bytes as u32;
    let segment = |offset: u32, bytes: u32| Segment { offset, bytes };
    let base = raw.read(0);
    let one = |of: Segment| {
        let mut request = base;
        request.segment[0] = of;
        request.sectors = of.bytes / SECTOR as u32;
        request
    };
    let change = |body: &dyn Fn(&mut Request)| {
        let mut request = base;
        body(&mut request);
        request
    };
    let cases = [
        ("a segment of nothing", one(segment(data, 0)), status::INVALID),
        ("a segment of nothing that counts", change(&|r| r.segment[0].bytes = 0), status::INVALID),
        ("half a sector", change(&|r| r.segment[0].bytes = 4000), status::INVALID),
        ("an odd place", change(&|r| r.segment[0].offset += 8), status::INVALID),
        ("the header as data", one(segment(0, 4096)), status::INVALID),
        ("the rings as data", one(segment(512, 512)), status::INVALID),
        ("one sector before the data", one(segment(data - 512, 512)), status::INVALID),
        ("one sector behind the window", one(segment(end, 512)), status::INVALID),
        ("across the end", one(segment(end - 512, 1024)), status::INVALID),
        ("an offset that overflows", one(segment(0xffff_fe00, 1024)), status::INVALID),
        ("a length that overflows", change(&|r| r.segment[0].bytes = 0xffff_fe00), status::INVALID),
        ("more sectors than the data", change(&|r| r.sectors = 9), status::INVALID),
        ("fewer", change(&|r| r.sectors = 7), status::INVALID),
        ("no sectors", change(&|r| r.sectors = 0), status::INVALID),
        ("all sectors that there can be", change(&|r| r.sectors = u32::MAX), status::INVALID),
        ("no segments", change(&|r| (r.segments, r.segment) = (0, Default::default())), status::INVALID),
        ("a hidden segment", change(&|r| r.segment[4] = segment(data, 512)), status::INVALID),
        ("65535 segments", change(&|r| (r.segments, r.table) = (65535, data)), status::INVALID),
        ("a table for one", change(&|r| r.table = data), status::INVALID),
        ("flags", change(&|r| r.flags = 1), status::INVALID),
        ("no such operation", change(&|r| r.op = 200), status::UNSUPPORTED),
        ("a flush with data", change(&|r| r.op = op::FLUSH), status::INVALID),
        ("a flush of a sector", Request { id: 7, op: op::FLUSH, sector: 1, ..Request::default() }, status::INVALID),
        ("behind the end", change(&|r| r.sector = u64::MAX), status::RANGE),
        ("just behind the end", change(&|r| r.sector = 1 << 40), status::RANGE),
        ("an end that overflows", change(&|r| r.sector = u64::MAX - 7), status::RANGE),
        (
            "a discard of all",
            Request { id: 7, op: op::DISCARD, sectors: u32::MAX, ..Request::default() },
            status::INVALID,
        ),
    ];
    for (what, request, wanted) in cases {
        tap.is(what, raw.ask(&request), Some(wanted));
    }
    tap.holds("what makes sense is served", raw.is_served());
    // The number is the front-end's own affair, and it may give several requests one number and one buffer.
    let slots = raw.shape.requests.slots;
    for index in 0..slots {
        let mut request = raw.read(u64::from(index % 4) * 8);
        request.id = if index % 2 == 0 { u32::MAX } else { 0 };
        raw.put(raw.head.wrapping_add(index), &request);
    }
    let head = raw.head.wrapping_add(slots);
    raw.publish(head);
    let answers = (0..slots).filter(|_| raw.answer(PATIENCE).is_some_and(|answer| answer.status == status::OK)).count();
    tap.is("many of one number, into one buffer", answers, slots as usize);
}

/// Tables of segments.
fn tables(tap: &mut Tap, raw: &mut Raw) {
    let data = raw.shape.data as u32;
    let end = data + raw.shape.data_bytes as u32;
    let table = |raw: &Raw, place: u32, count: u16, segment: &dyn Fn(u32) -> Segment| {
        for index in 0..u32::from(count) {
            let _ = raw.window.store((place + index * 8) as usize, segment(index).to_word());
        }
        Request { id: 9, op: op::READ, segments: count, sectors: u32::from(count), table: place, ..Request::default() }
    };
    let good = |index: u32| Segment { offset: data + 4096 + index % 4 * 512, bytes: 512 };
    let many = INLINE_SEGMENTS as u16 + 1;
    let cases = [
        ("a table", table(raw, data, many, &good), status::OK),
        ("a table at the very end", table(raw, end - 8 * u32::from(many), many, &good), status::OK),
        ("the longest table, all of it one place", table(raw, data, 64, &good), status::OK),
        ("a table across the end", table(raw, end - 8, many, &good), status::INVALID),
        ("a table behind the end", Request { table: end, ..table(raw, data, many, &good) }, status::INVALID),
        ("a table in the rings", Request { table: 512, ..table(raw, data, many, &good) }, status::INVALID),
        ("a table at an odd place", Request { table: data + 4, ..table(raw, data, many, &good) }, status::INVALID),
        ("a table that overflows", Request { table: u32::MAX - 7, ..table(raw, data, many, &good) }, status::INVALID),
        ("a table that reads itself", table(raw, data, many, &|_| Segment { offset: data, bytes: 512 }), status::OK),
    ];
    for (what, request, wanted) in cases {
        // Each case writes its table again: the ones behind it were written over it.
        let request = if wanted == status::OK && request.table == data && what != "a table that reads itself" {
            table(raw, data, request.segments, &good)
        } else {
            request
        };
        tap.is(what, raw.ask(&request), Some(wanted));
    }
    let wild = table(raw, data, many, &|index| Segment { offset: if index == 5 { end } else { data }, bytes: 512 });
    tap.is("a table with one that is outside", raw.ask(&wild), Some(status::INVALID));
}

/// Makes an index of what it was and the number of slots.
type Jump = fn(u32, u32) -> u32;

/// Indices that cannot be: the service closes the connection, and there is another.
fn indices(tap: &mut Tap, raw: &mut Raw) {
    let slots = raw.shape.requests.slots;
    let jumps: [(&str, usize, Jump); 6] = [
        ("a head ahead by more than the ring", raw.requests(ring::HEAD), |head, slots| head.wrapping_add(slots + 1)),
        ("a head that goes back", raw.requests(ring::HEAD), |head, _| head.wrapping_sub(1)),
        ("a head half the world away", raw.requests(ring::HEAD), |head, _| head.wrapping_add(1 << 31)),
        ("a tail ahead of what was answered", raw.responses(ring::TAIL), |_, slots| slots),
        ("a tail that goes back", raw.responses(ring::TAIL), |_, _| u32::MAX),
        ("a tail half the world away", raw.responses(ring::TAIL), |tail, _| tail.wrapping_add(1 << 31)),
    ];
    for (what, at, jump) in jumps {
        let is_ready = raw.recovers();
        let value = jump(raw.word(at), slots);
        raw.set(at, value);
        if at != raw.requests(ring::HEAD) {
            // A request makes the service look.
            raw.put(raw.head, &raw.read(0));
            raw.publish(raw.head.wrapping_add(1));
        } else {
            raw.link.tell();
        }
        tap.is(what, (is_ready, raw.is_lost(), raw.refusal()), (true, true, refusal::PROTOCOL));
        tap.holds("and it is served again", raw.connect() && raw.is_served());
    }
}

/// Accepts that make no sense.
fn handshakes(tap: &mut Tap, raw: &mut Raw) {
    for (what, accept, why) in [
        ("another version", Accept { version: 7 << 16, ..Accept::default() }, refusal::VERSION),
        ("no version", Accept::default(), refusal::VERSION),
        (
            "features that nobody offered",
            Accept { version: VERSION, features: 1 << 63, ..Accept::default() },
            refusal::FEATURES,
        ),
    ] {
        raw.link.restart();
        let is_connected = raw.connect_as(&accept);
        tap.is(what, (is_connected, raw.refusal()), (false, why));
        tap.holds("and it is served again", raw.recovers());
    }
    // Epochs without end.
    for _ in 0..200 {
        raw.link.restart();
        let _ = raw.link.step();
    }
    tap.holds("two hundred epochs", raw.recovers());
}

/// Requests without end, and no answer is taken.
fn never_reaps(tap: &mut Tap, raw: &mut Raw) {
    let slots = raw.shape.requests.slots;
    let end = time::deadline(STORM);
    let mut made = 0_u32;
    let request = raw.read(0);
    while !time::passed(end) {
        // Never more than the ring: that would be a lie, and end it.
        if raw.head.wrapping_sub(raw.word(raw.requests(ring::TAIL))) < slots {
            raw.put(raw.head, &request);
            raw.publish(raw.head.wrapping_add(1));
            made += 1;
        } else {
            raw.link.tell();
        }
    }
    tap.is("a ring and its answers are all that it gets", (made <= 2 * slots, made >= slots), (true, true));
    let answers = (0..made).filter(|_| raw.answer(PATIENCE).is_some()).count();
    tap.is("each is answered when there is room", answers, made as usize);
    tap.holds("and it is served again", raw.is_served());
}

/// Notifications without end.
fn storm(tap: &mut Tap, raw: &mut Raw) {
    let end = time::deadline(STORM);
    let mut told = 0_u64;
    while !time::passed(end) {
        for _ in 0..100 {
            raw.link.tell();
        }
        told += 100;
    }
    println!("{told} notifications");
    tap.holds("a storm of notifications", raw.is_served());
}

/// What the second vCPU flips: an address and two values of 8 bytes; 0 for nothing.
static FLIP: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
static STOP: AtomicBool = AtomicBool::new(false);

fn flip(_: usize) {
    while !STOP.load(Ordering::Acquire) {
        let [at, a, b] = [&FLIP[0], &FLIP[1], &FLIP[2]].map(|word| word.load(Ordering::Acquire));
        if at == 0 {
            portico_sdk::sync::relax();
            continue;
        }
        // SAFETY: 8 bytes of the window, by address; the service may see either value.
        let Some(window) = (unsafe { Window::new(at, 8) }) else { continue };
        for _ in 0..50 {
            let _ = window.store(0, a);
            let _ = window.store(0, b);
        }
    }
}

/// Fields that another vCPU changes all the time between what makes sense and what does not: each request is answered in one of both ways.
fn flips(tap: &mut Tap, raw: &mut Raw) {
    if smp::start(1, flip, 0).is_err() {
        tap.holds("there is a second vCPU", false);
        return;
    }
    let data = raw.shape.data as u32;
    let end = data + raw.shape.data_bytes as u32;
    let good = Segment { offset: data + 4096, bytes: 512 };
    let bad = [
        Segment { offset: end, bytes: 512 },
        Segment { offset: 0, bytes: 512 },
        Segment { offset: data + 4096, bytes: 0xffff_fe00 },
        Segment { offset: 0xffff_fe00, bytes: 512 },
    ];
    for bad in bad {
        for is_table in [false, true] {
            let count = if is_table { 16 } else { 1 };
            let mut request =
                Request { id: 5, op: op::READ, segments: count, sectors: u32::from(count), ..Request::default() };
            if is_table {
                request.table = data;
                for index in 0..16 {
                    let _ = raw.window.store((data + index * 8) as usize, good.to_word());
                }
            } else {
                request.segment[0] = good;
            }
            let mut seen = [0_u32; 2];
            for _ in 0..200 {
                raw.put(raw.head, &request);
                let at = if is_table { data as usize + 8 * 9 } else { raw.shape.requests.slot(raw.head) + 24 };
                FLIP[1].store(good.to_word(), Ordering::Release);
                FLIP[2].store(bad.to_word(), Ordering::Release);
                FLIP[0].store(raw.window.address() + at as u64, Ordering::Release);
                raw.publish(raw.head.wrapping_add(1));
                match raw.answer(PATIENCE).map(|answer| answer.status) {
                    Some(status::OK) => seen[0] += 1,
                    Some(status::INVALID) => seen[1] += 1,
                    other => {
                        tap.is("an answer while it flips", other, Some(status::OK));
                        break;
                    }
                }
                FLIP[0].store(0, Ordering::Release);
            }
            println!("flips: {} were good, {} bad", seen[0], seen[1]);
            tap.is(&format!("{bad:?} in turns with what makes sense"), seen[0] + seen[1], 200);
        }
    }
    STOP.store(true, Ordering::Release);
}

/// Everything that this side can write, with anything.
fn scribbles(tap: &mut Tap, raw: &mut Raw) {
    let mut random = Random::new(11);
    // The back-end writes its offer once in each of its lives: what this guest destroys of it it destroys for itself.
    let mut offer = Vec::new();
    offer.extend((OFFER..ACCEPT).step_by(8).map(|at| (at, raw.window.load(at).unwrap_or(0))));
    let words = [
        offset_of!(ChannelHeader, state1),
        offset_of!(ChannelHeader, epoch1),
        offset_of!(ChannelHeader, seen1),
        raw.requests(ring::HEAD),
        raw.requests(ring::SPACE_EVENT),
        raw.requests(ring::TAIL),
        raw.requests(ring::DATA_EVENT),
        raw.responses(ring::HEAD),
        raw.responses(ring::TAIL),
        raw.responses(ring::DATA_EVENT),
        raw.responses(ring::SPACE_EVENT),
        448,
        456,
        raw.shape.requests.slot(0),
        raw.shape.requests.slot(1) + 24,
    ];
    let values = [0, 1, 2, 3, 0x7fff_ffff, 0x8000_0000, u32::MAX, ChannelState::Connected as u32];
    let mut recovered = 0;
    for round in 0..40 {
        for _ in 0..50 {
            let at = random.pick(&words, 448);
            let value = if random.below(4) == 0 { random.next() as u32 } else { random.pick(&values, 0) };
            raw.set(at, value);
            if random.below(3) == 0 {
                raw.link.tell();
            }
        }
        if round % 10 == 9 {
            for (at, _) in &offer {
                let _ = raw.window.store(*at, random.next());
            }
            raw.link.tell();
            time::sleep(Duration::from_millis(2));
            for (at, value) in &offer {
                let _ = raw.window.store(*at, *value);
            }
        }
        recovered += u32::from(raw.recovers());
    }
    tap.is("forty times scribbled, forty times served again", recovered, 40);
}

/// `mode=victim`: an SDK front-end whose back-end lies. It must notice, or be served; it must not end.
pub fn victim() -> u64 {
    use portico_sdk::device::block::Disk;
    let mut tap = Tap::new();
    let Some(node) = dtb::devices(dt::BLOCK).next() else { return 1 };
    let Ok(mut disk) = Disk::new(&node) else { return 1 };
    let end = time::deadline(PATIENCE * 2);
    let (mut refused, mut served, mut failed) = (0_u32, 0_u32, 0_u32);
    // Until nothing was wrong for as long as several lies last.
    let mut since = (time::now(), (0, 0, 0));
    let quiet = time::deadline(Duration::from_secs(2)) - time::now();
    while !time::passed(end) {
        let wrong = (refused, failed, disk.lost());
        if wrong != since.1 {
            since = (time::now(), wrong);
        }
        if served > 20 && time::now() - since.0 > quiet {
            break;
        }
        if disk.connect(time::deadline(Duration::from_millis(300))).is_err() {
            refused += 1;
            continue;
        }
        let Ok(buffer) = disk.buffer(4096) else { break };
        if let Err((_, buffer)) = disk.submit_read(0, buffer, 4096) {
            disk.free(buffer);
            failed += 1;
            continue;
        }
        while disk.in_flight() > 0 && !time::passed(end) {
            match disk.wait(time::deadline(Duration::from_millis(300))) {
                Ok(done) => {
                    match done.result {
                        Ok(()) => served += 1,
                        Err(_) => failed += 1,
                    }
                    done.buffer.into_iter().for_each(|buffer| disk.free(buffer));
                }
                Err(_) => refused += 1,
            }
        }
    }
    println!("{refused} refused, {failed} failed, {served} served, {} lost", disk.lost());
    tap.holds("it is served in the end", served >= 20);
    tap.holds("it has noticed the lies", disk.lost() >= 8 && refused >= 3 && failed >= 1);
    tap.is("nothing is in flight", disk.in_flight(), 0);
    tap.finish()
}
