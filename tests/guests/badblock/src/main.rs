//! A block service that lies: each of its connections in another way, the last for ever in none. It stands in place of the block service and reads
//! no disk.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![cfg_attr(not(target_os = "none"), allow(unused, reason = "a service for the target only"))]

use core::mem::size_of;
use core::sync::atomic::Ordering;
use core::time::Duration;
use portico_sdk::abi::device::block::{Disk, Request, Response, Shape, VERSION, shape_of_window, status};
use portico_sdk::abi::device::{Offer, kind};
use portico_sdk::abi::{dt, ring};
use portico_sdk::device::{Event, Link};
use portico_sdk::{dtb, println, time};

portico_sdk::entry!(serve);

/// How long each lie lasts.
const LASTS: Duration = Duration::from_millis(200);

/// What it does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// The offer.
    Kind,
    Version,
    NoSegments,
    NoSectors,
    OddBlocks,
    EveryFeature,
    EndlessDisk,
    /// Answers.
    Never,
    Twice,
    OtherNumber,
    HugeNumber,
    NoSuchStatus,
    Rewritten,
    /// Indices.
    HeadAhead,
    HeadBack,
    TailAhead,
    TailBack,
    /// The connection.
    Closes,
    BeginsAnew,
    Scribbles,
    /// It keeps to everything.
    None,
}

const LIES: [Lie; 21] = [
    Lie::Kind,
    Lie::Version,
    Lie::NoSegments,
    Lie::NoSectors,
    Lie::OddBlocks,
    Lie::EveryFeature,
    Lie::EndlessDisk,
    Lie::Never,
    Lie::Twice,
    Lie::OtherNumber,
    Lie::HugeNumber,
    Lie::NoSuchStatus,
    Lie::Rewritten,
    Lie::HeadAhead,
    Lie::HeadBack,
    Lie::TailAhead,
    Lie::TailBack,
    Lie::Closes,
    Lie::BeginsAnew,
    Lie::Scribbles,
    Lie::None,
];

#[cfg(not(target_os = "none"))]
fn serve() -> u64 {
    0
}

#[cfg(target_os = "none")]
fn serve() -> u64 {
    let Some(mut control) = portico_service::control::Control::open() else { return 1 };
    let Some(node) = dtb::devices(dt::BLOCK).next() else { return 1 };
    // SAFETY: the manager mapped the window for the life of the domain, and nothing else of the service is there.
    let Ok(link) = (unsafe { Link::new(&node) }) else { return 1 };
    let Some(shape) = shape_of_window(link.window().len()) else { return 1 };
    let mut liar = Liar { link, shape, head: 0, tail: 0, answered: 0 };
    control.ready();
    // Not before somebody is there to be lied to.
    while liar.link.is_unplugged() {
        control.beat();
        control.has_changed();
        liar.offer(Lie::Kind);
        let _ = liar.link.step();
        time::sleep(Duration::from_millis(2));
    }
    for lie in LIES {
        println!("lie: {lie:?}");
        liar.offer(lie);
        liar.link.restart();
        let end = time::deadline(LASTS);
        while lie == Lie::None || !time::passed(end) {
            control.beat();
            control.has_changed();
            liar.turn(lie);
            time::sleep(Duration::from_millis(1));
        }
    }
    0
}

struct Liar {
    link: Link,
    shape: Shape,
    head: u32,
    tail: u32,
    answered: u32,
}

impl Liar {
    fn set(&self, at: usize, value: u32) {
        if let Some(word) = self.link.window().word(at) {
            word.store(value, Ordering::Release);
        }
    }

    fn word(&self, at: usize) -> u32 {
        self.link.window().word(at).map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn offer(&self, lie: Lie) {
        let is = |other: Lie| lie == other;
        let details = Disk {
            sectors: if is(Lie::EndlessDisk) { u64::MAX } else { 4096 },
            block_bytes: if is(Lie::OddBlocks) { 3 } else { 512 },
            max_sectors: if is(Lie::NoSectors) { 0 } else { u32::MAX },
            max_segments: if is(Lie::NoSegments) { 0 } else { u32::MAX },
            queues: u32::MAX,
            queue: u32::MAX,
            ..Disk::default()
        };
        let words = [
            details.sectors as u32,
            (details.sectors >> 32) as u32,
            details.block_bytes,
            details.flags,
            details.max_sectors,
            details.max_segments,
            u32::MAX,
            u32::MAX,
            details.queues,
            details.queue,
        ];
        let mut bytes = [0; size_of::<Disk>()];
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        let offer = Offer {
            kind: if is(Lie::Kind) { kind::NET } else { kind::BLOCK },
            version: if is(Lie::Version) { 2 << 16 } else { VERSION },
            features: if is(Lie::EveryFeature) { u64::MAX } else { 0 },
            ..Offer::default()
        };
        self.link.offer(&offer, &bytes);
    }

    fn turn(&mut self, lie: Lie) {
        let _ = self.link.port().is_some_and(|port| port.take());
        match self.link.step() {
            Event::Peer => {
                (self.head, self.tail) = (0, 0);
                self.set(self.shape.requests.offset + ring::TAIL, 0);
                self.set(self.shape.requests.offset + ring::DATA_EVENT, u32::MAX);
                self.set(self.shape.responses.offset + ring::HEAD, 0);
                self.set(self.shape.responses.offset + ring::SPACE_EVENT, u32::MAX);
                self.link.welcome();
            }
            Event::Nothing | Event::Connected | Event::Lost => {}
        }
        if !self.link.is_connected() {
            return;
        }
        let head = self.word(self.shape.requests.offset + ring::HEAD);
        // The front-end is no liar here, but it may have begun anew since the step: then its head is no longer of our count.
        if head.wrapping_sub(self.tail) > self.shape.requests.slots {
            return;
        }
        while self.tail != head {
            let mut raw = [0; size_of::<Request>()];
            let _ = self.link.window().read(self.shape.requests.slot(self.tail), &mut raw);
            self.tail = self.tail.wrapping_add(1);
            self.take(lie, &Request::from_bytes(&raw));
        }
    }

    /// Takes a request, and does the wrong thing.
    fn take(&mut self, lie: Lie, request: &Request) {
        let slots = self.shape.requests.slots;
        self.answered += 1;
        let (tail_at, head_at) = (self.shape.requests.offset + ring::TAIL, self.shape.responses.offset + ring::HEAD);
        self.set(tail_at, self.tail);
        let id = request.id;
        match lie {
            Lie::Never => {}
            Lie::Twice => {
                self.answer(id, status::OK);
                self.answer(id, status::OK);
            }
            Lie::OtherNumber => self.answer(id ^ 1, status::OK),
            Lie::HugeNumber => self.answer(u32::MAX, status::OK),
            Lie::NoSuchStatus => self.answer(id, 0x8000_0001),
            Lie::Rewritten => {
                self.answer(id, status::OK);
                for _ in 0..200 {
                    self.rewrite(self.answered.wrapping_mul(0x9e37_79b9), u32::MAX);
                    self.rewrite(id, status::OK);
                }
            }
            Lie::HeadAhead => self.set(head_at, self.head.wrapping_add(slots + 1)),
            Lie::HeadBack => self.set(head_at, self.head.wrapping_sub(1)),
            Lie::TailAhead => {
                self.set(tail_at, self.tail.wrapping_add(1));
                self.answer(id, status::OK);
            }
            Lie::TailBack => {
                self.set(tail_at, self.tail.wrapping_sub(2));
                self.answer(id, status::OK);
            }
            Lie::Closes => self.link.refuse(3),
            Lie::BeginsAnew => self.link.restart(),
            Lie::Scribbles => {
                for at in (64..self.shape.data).step_by(8).filter(|at| !(128..192).contains(at)) {
                    let _ = self.link.window().store(at, 0xdead_beef_0bad_cafe ^ at as u64);
                }
            }
            _ => self.answer(id, status::OK),
        }
        self.link.tell();
    }

    fn answer(&mut self, id: u32, status: u32) {
        let response = Response { id, status, _reserved: 0 };
        let _ = self.link.window().write(self.shape.responses.slot(self.head), &response.to_bytes());
        self.head = self.head.wrapping_add(1);
        self.set(self.shape.responses.offset + ring::HEAD, self.head);
    }

    /// Changes the last answer.
    fn rewrite(&self, id: u32, status: u32) {
        let response = Response { id, status, _reserved: 0 };
        let _ = self.link.window().write(self.shape.responses.slot(self.head.wrapping_sub(1)), &response.to_bytes());
    }
}
