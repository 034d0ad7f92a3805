//! The binary trace: a ring of 16-byte records on each pCPU, read from outside by a debugger and decoded on the host.
//!
//! Only the owner writes its ring, so recording is a few plain stores. The events are those that already cost hundreds of instructions
//! (switches, wakes, faults, interrupts in EL2); the hot calls are not recorded.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::percpu;
use portico_arch::pcpu::MAX_PCPUS;
use portico_arch::timer;
use portico_core::trace::{self, Event};

const _: () = assert!(RING_RECORDS.is_power_of_two());

/// Records of one ring: a power of two.
pub const RING_RECORDS: usize = 256;

/// The ring of one pCPU. The layout is the decoder's: `head` counts records ever written.
#[repr(C, align(64))]
pub struct Ring {
    head: AtomicU64,
    _reserved: [u64; 7],
    records: [[AtomicU64; 2]; RING_RECORDS],
}

impl Ring {
    const fn new() -> Self {
        Self {
            head: AtomicU64::new(0),
            _reserved: [0; 7],
            records: [const { [AtomicU64::new(0), AtomicU64::new(0)] }; RING_RECORDS],
        }
    }
}

/// All rings, under a name that the decoder looks up in the image's symbols.
#[unsafe(no_mangle)]
pub static PORTICO_TRACE: [Ring; MAX_PCPUS] = [const { Ring::new() }; MAX_PCPUS];

/// Records an event of this pCPU.
#[inline]
pub fn record(event: Event, a: u16, b: u16) {
    record_wide(event, a, u64::from(b));
}

/// Records an event with a long second argument.
#[inline(always)]
pub fn record_wide(event: Event, a: u16, b: u64) {
    let pcpu = percpu::this();
    let ring = pcpu.ring;
    let head = ring.head.load(Ordering::Relaxed);
    let [first, second] = trace::encode(timer::now(), event, pcpu.index() as u8, a, b);
    let slot = &ring.records[head as usize & (RING_RECORDS - 1)];
    slot[0].store(first, Ordering::Relaxed);
    slot[1].store(second, Ordering::Relaxed);
    ring.head.store(head.wrapping_add(1), Ordering::Release);
}

/// Calls `visit` with the newest records of a pCPU, oldest first, at most `count`.
pub fn newest(index: usize, count: usize, mut visit: impl FnMut([u64; 2])) {
    let Some(ring) = PORTICO_TRACE.get(index) else { return };
    let head = ring.head.load(Ordering::Acquire);
    let count = (count as u64).min(head).min(RING_RECORDS as u64);
    for n in head - count..head {
        if let Some(slot) = ring.records.get(n as usize & (RING_RECORDS - 1)) {
            visit([slot[0].load(Ordering::Relaxed), slot[1].load(Ordering::Relaxed)]);
        }
    }
}
