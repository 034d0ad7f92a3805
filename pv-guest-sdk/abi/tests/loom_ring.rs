//! All interleavings of the ring's notify protocol, under loom's memory model.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test --release -p portico-abi --test loom_ring`.
#![cfg(loom)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use loom::thread;
use portico_abi::ring::{Consumer, Control, Producer, Slots};

/// Slots of the ring under test.
const SLOTS: usize = 2;

/// The window, and the pending bytes that EL2 keeps for each side.
struct Shared {
    words: [AtomicU32; 4],
    payload: [UnsafeCell<u8>; SLOTS],
    consumer_pending: AtomicBool,
    producer_pending: AtomicBool,
}

// SAFETY: the payload cells are what the protocol protects; loom reports any unordered access to them.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Shared {
    fn new(start: u32) -> Arc<Shared> {
        Arc::new(Shared {
            words: [start, start.wrapping_sub(1), start, start.wrapping_sub(1)].map(AtomicU32::new),
            payload: [UnsafeCell::new(0), UnsafeCell::new(0)],
            consumer_pending: AtomicBool::new(false),
            producer_pending: AtomicBool::new(false),
        })
    }

    fn control(&self) -> Control<'_> {
        let [head, space_event, tail, data_event] = &self.words;
        Control { head, space_event, tail, data_event }
    }
}

impl Slots for &Shared {
    fn put(&self, index: u32, message: &[u8]) {
        // SAFETY: loom checks that this is the only access.
        self.payload[index as usize % SLOTS].with_mut(|cell| unsafe { *cell = message[0] });
    }

    fn get(&self, index: u32, message: &mut [u8]) {
        // SAFETY: loom checks that nothing writes meanwhile.
        self.payload[index as usize % SLOTS].with(|cell| message[0] = unsafe { *cell });
    }
}

/// `port_notify`: EL2's part is a store after a full barrier (the trap).
fn notify(pending: &AtomicBool) {
    fence(Ordering::SeqCst);
    pending.store(true, Ordering::Release);
}

/// Blocks until notified; loom reports a deadlock if that never comes.
fn wait(pending: &AtomicBool) {
    while !pending.load(Ordering::Acquire) {
        thread::yield_now();
    }
    pending.store(false, Ordering::Relaxed);
    fence(Ordering::SeqCst);
}

fn produce(shared: &Shared, messages: u8, start: u32, batch: u8) {
    let mut producer = Producer::start(shared.control(), SLOTS as u32, start);
    let mut unpublished = 0;
    for message in 1..=messages {
        while !producer.push(&shared, &[message]).unwrap() {
            if producer.publish() {
                notify(&shared.consumer_pending);
            }
            unpublished = 0;
            if producer.arm().unwrap() {
                wait(&shared.producer_pending);
            }
        }
        unpublished += 1;
        if (unpublished == batch || message == messages) && producer.publish() {
            notify(&shared.consumer_pending);
        }
        unpublished %= batch;
    }
}

fn consume(shared: &Shared, messages: u8, start: u32) {
    let mut consumer = Consumer::start(shared.control(), SLOTS as u32, start);
    for expected in 1..=messages {
        let mut message = [0];
        while !consumer.pop(&shared, &mut message).unwrap() {
            if consumer.arm().unwrap() {
                wait(&shared.consumer_pending);
            }
        }
        assert_eq!(message, [expected]);
        if consumer.release() {
            notify(&shared.producer_pending);
        }
    }
}

fn check(messages: u8, start: u32, batch: u8, preemptions: Option<usize>) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = preemptions;
    model.check(move || {
        let shared = Shared::new(start);
        let other = Arc::clone(&shared);
        let producer = thread::spawn(move || produce(&other, messages, start, batch));
        consume(&shared, messages, start);
        producer.join().unwrap();
    });
}

/// Nothing is lost, doubled or torn, and nobody sleeps for ever: every interleaving.
#[test]
fn one_message() {
    check(1, 0, 1, None);
}

/// The same with more messages than one, across the wrap, with up to 3 preemptions.
#[test]
fn messages_across_the_wrap() {
    check(2, u32::MAX, 1, Some(3));
}

/// The ring fills, so the producer sleeps too.
#[test]
fn a_full_ring() {
    check(4, u32::MAX - 1, 1, Some(2));
}

/// Published in batches.
#[test]
fn batches() {
    check(4, 0, 2, Some(2));
}
