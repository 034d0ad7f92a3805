//! The handshake of a device when either side dies and begins anew, under loom's memory model: what is taken from the ring was put
//! there for the connection in which it is taken.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test --release -p portico-abi --test loom_handshake`.
#![cfg(loom)]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use portico_abi::device::handshake::{Event, Handshake, Phase, Side, Words};
use portico_abi::device::{BACK, FRONT, refusal};
use portico_abi::ring::{Consumer, Control, Corrupt, Producer, Slots};

/// The window: the words of both sides, a ring of one slot, and what the slot says.
struct Window {
    /// State, epoch and seen of the back-end, then of the front-end.
    words: [AtomicU32; 6],
    refusal: AtomicU32,
    ring: [AtomicU32; 4],
    /// Epoch of the front-end and of the back-end for which a request was made, eight bits each.
    slot: AtomicU32,
    /// Not 0 when the last back-end has what it waited for.
    done: AtomicU32,
}

impl Window {
    fn new() -> Arc<Window> {
        Arc::new(Window {
            words: [0; 6].map(AtomicU32::new),
            refusal: AtomicU32::new(0),
            ring: [0; 4].map(AtomicU32::new),
            slot: AtomicU32::new(0),
            done: AtomicU32::new(0),
        })
    }

    fn words(&self, side: u32) -> Words<'_> {
        let [a, b, c, d, e, f] = &self.words;
        let back = Side { state: a, epoch: b, seen: c };
        let front = Side { state: d, epoch: e, seen: f };
        let (own, peer) = if side == BACK { (back, front) } else { (front, back) };
        Words { own, peer, refusal: &self.refusal }
    }

    fn control(&self) -> Control<'_> {
        let [head, space_event, tail, data_event] = &self.ring;
        Control { head, space_event, tail, data_event }
    }
}

impl Slots for &Window {
    fn put(&self, _: u32, message: &[u8]) {
        self.slot.store(u32::from(message[0]) | u32::from(message[1]) << 8, Ordering::Relaxed);
    }

    fn get(&self, _: u32, message: &mut [u8]) {
        let word = self.slot.load(Ordering::Relaxed);
        (message[0], message[1]) = (word as u8, (word >> 8) as u8);
    }
}

/// A life of the front-end: it connects and makes a request; if it `stays` it does so again for each back-end that it meets, until the last is done.
fn front(window: &Window, stays: bool) {
    let words = window.words(FRONT);
    let mut handshake = Handshake::new(FRONT, &words);
    handshake.begin(&words);
    let mut ring: Option<Producer<'_>> = None;
    loop {
        match handshake.step(&words).0 {
            Event::Peer => {
                ring = Some(Producer::start(window.control(), 1, 0));
                handshake.accept(&words);
                continue;
            }
            Event::Connected => {
                let epochs = [handshake.epoch() as u8, words.peer.epoch.load(Ordering::Relaxed) as u8];
                if let Some(ring) = &mut ring {
                    // The back-end may be another by now; then this is not for it, and nobody may take it.
                    if handshake.is_well(&words) {
                        let _ = ring.push(&window, &epochs);
                        let _ = ring.publish();
                    }
                }
                if !stays {
                    return;
                }
                continue;
            }
            Event::Lost => {
                handshake.begin(&words);
                ring = None;
                continue;
            }
            Event::Nothing => {}
        }
        if stays && window.done.load(Ordering::Acquire) != 0 {
            return;
        }
        thread::yield_now();
    }
}

/// A life of the back-end: it connects, and goes on until it has taken a request of the front-end's life `until` or a later one.
fn back(window: &Window, until: u32, is_last: bool) {
    let words = window.words(BACK);
    let mut handshake = Handshake::new(BACK, &words);
    handshake.begin(&words);
    let mut ring: Option<(Consumer<'_>, u32)> = None;
    loop {
        match handshake.step(&words).0 {
            Event::Peer => {
                let met = words.peer.epoch.load(Ordering::Relaxed);
                ring = Some((Consumer::start(window.control(), 1, 0), met));
                handshake.welcome(&words);
                continue;
            }
            Event::Lost => {
                ring = None;
                handshake.begin(&words);
                continue;
            }
            Event::Connected | Event::Nothing => {}
        }
        if let Some((consumer, met)) = &mut ring {
            let mut request = [0; 2];
            match consumer.pop(&window, &mut request) {
                Ok(true) => {
                    // Nothing is done for another connection than this one, unless the other side has left it in between: then it is lost.
                    if handshake.is_well(&words) {
                        assert_eq!(u32::from(request[1]), handshake.epoch(), "a request to an earlier back-end");
                        assert_eq!(u32::from(request[0]), *met, "a request of another life of the front-end");
                    }
                    let _ = consumer.release();
                    if u32::from(request[0]) >= until {
                        window.done.store(u32::from(is_last), Ordering::Release);
                        return;
                    }
                }
                Ok(false) => {}
                Err(Corrupt) => {
                    ring = None;
                    handshake.refuse(&words, refusal::PROTOCOL);
                    if handshake.phase() == Phase::Unplugged {
                        handshake.begin(&words);
                    }
                }
            }
        }
        thread::yield_now();
    }
}

fn model(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 10_000;
    builder.check(body);
}

#[test]
fn two_sides_meet() {
    model(|| {
        let window = Window::new();
        let other = window.clone();
        let service = thread::spawn(move || back(&other, 1, true));
        front(&window, true);
        service.join().unwrap();
    });
}

#[test]
fn a_front_end_that_begins_anew_is_met_anew() {
    model(|| {
        let window = Window::new();
        let other = window.clone();
        let service = thread::spawn(move || back(&other, 2, true));
        front(&window, false);
        front(&window, true);
        service.join().unwrap();
    });
}

#[test]
fn a_back_end_that_begins_anew_is_met_anew() {
    model(|| {
        let window = Window::new();
        let other = window.clone();
        let guest = thread::spawn(move || front(&other, true));
        back(&window, 1, false);
        back(&window, 1, true);
        guest.join().unwrap();
    });
}
