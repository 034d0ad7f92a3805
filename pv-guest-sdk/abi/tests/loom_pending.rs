//! All interleavings of notifications with the guest's scan and its unmasking, under loom's memory model.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test --release -p portico-abi --test loom_pending`.
#![cfg(loom)]

use core::mem::offset_of;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU8, Ordering, fence};
use loom::thread;
use portico_abi::page::VcpuPage;
use portico_abi::pending::{GuestSide, HypervisorSide, forget, mark, scan, unmask};
use portico_abi::port::BITS_PER_SELECTOR;

/// The two bits in use, behind different selectors.
const BITS: [usize; 2] = [0, BITS_PER_SELECTOR + 9];

/// The page, the upcall interrupt, and for each bit what its notifications are about.
#[derive(Default)]
struct Vcpu {
    upcall_pending: AtomicU8,
    selectors: [AtomicU8; 2],
    pending: [AtomicU8; 2],
    mask: [AtomicU8; 2],
    interrupt: AtomicBool,
    work: [AtomicU8; 2],
}

fn place(bit: usize) -> usize {
    BITS.iter().position(|&used| used == bit).unwrap()
}

impl Vcpu {
    /// The byte at an offset of the page.
    fn byte(&self, offset: usize) -> &AtomicU8 {
        let (selectors, pending, mask) =
            (offset_of!(VcpuPage, selectors), offset_of!(VcpuPage, pending), offset_of!(VcpuPage, mask));
        match offset {
            0 => &self.upcall_pending,
            at if at < pending => &self.selectors[at - selectors],
            at if at < mask => &self.pending[place(at - pending)],
            at => &self.mask[place(at - mask)],
        }
    }
}

impl HypervisorSide for &Vcpu {
    fn store(self, offset: usize, order: Ordering) {
        self.byte(offset).store(1, order);
    }
    fn is_set(self, offset: usize) -> bool {
        self.byte(offset).load(Ordering::Relaxed) != 0
    }
}

impl GuestSide for &Vcpu {
    fn clear_upcall(self) {
        self.upcall_pending.store(0, Ordering::Relaxed);
    }
    fn selectors(self, word: usize) -> u64 {
        let load = |index: usize| u64::from(self.selectors[index].load(Ordering::Relaxed)) << (8 * index);
        if word == 0 { load(0) | load(1) } else { 0 }
    }
    fn clear_selector(self, selector: usize) {
        self.selectors[selector].store(0, Ordering::Relaxed);
    }
    fn pending(self, word: usize) -> u64 {
        let load = |index: usize| u64::from(self.pending[index].load(Ordering::Relaxed)) << (8 * (BITS[index] % 8));
        (0..2).filter(|&index| BITS[index] / 8 == word).map(load).sum()
    }
    fn clear_pending(self, bit: u16) {
        self.pending[place(bit.into())].store(0, Ordering::Relaxed);
    }
    fn clear_mask(self, bit: u16) {
        self.mask[place(bit.into())].store(0, Ordering::Relaxed);
    }
}

impl Vcpu {
    /// Some work, then `port_notify`. EL2's store to the pending byte is a release, which on Arm, where a store is seen by all others at once, orders
    /// the work before whatever follows that store, be it only overwritten. In the language's model that takes a fence.
    fn notify(&self, index: usize) {
        let done = self.work[index].load(Ordering::Relaxed);
        self.work[index].store(done + 1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if mark(self, BITS[index]) {
            self.interrupt.store(true, Ordering::Release);
        }
    }

    /// Takes the upcall interrupt; loom reports a deadlock if none ever comes.
    fn wait(&self) {
        while !self.interrupt.load(Ordering::Acquire) {
            thread::yield_now();
        }
        self.interrupt.store(false, Ordering::Relaxed);
        // The guest takes an interrupt before it looks at what it is about.
        fence(Ordering::SeqCst);
    }

    fn seen(&self, bit: u16) -> u8 {
        self.work[place(bit.into())].load(Ordering::Relaxed)
    }
}

fn notifier(vcpu: &Arc<Vcpu>, index: usize, times: u8) -> thread::JoinHandle<()> {
    let vcpu = Arc::clone(vcpu);
    thread::spawn(move || (0..times).for_each(|_| vcpu.notify(index)))
}

/// Handles upcalls until the work of both bits was seen.
fn handle_until(vcpu: &Vcpu, want: [u8; 2]) {
    let mut seen = [0; 2];
    while seen != want {
        vcpu.wait();
        scan(vcpu, |bit| {
            forget(vcpu, bit);
            seen[place(bit.into())] = vcpu.seen(bit);
        });
    }
}

fn model(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.max_branches = 10_000;
    builder.check(test);
}

#[test]
fn one_bit_notified_twice() {
    model(|| {
        let vcpu = Arc::new(Vcpu::default());
        let other = notifier(&vcpu, 0, 2);
        handle_until(&vcpu, [2, 0]);
        other.join().unwrap();
    });
}

#[test]
fn two_processors_and_two_selectors() {
    model(|| {
        let vcpu = Arc::new(Vcpu::default());
        let others = [notifier(&vcpu, 0, 1), notifier(&vcpu, 1, 1)];
        handle_until(&vcpu, [1, 1]);
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

#[test]
fn unmasking_beside_a_notification() {
    model(|| {
        let vcpu = Arc::new(Vcpu::default());
        vcpu.mask[0].store(1, Ordering::Relaxed);
        let other = notifier(&vcpu, 0, 1);
        unmask(&*vcpu, BITS[0] as u16);
        if (&*vcpu).pending(0) != 0 {
            forget(&*vcpu, BITS[0] as u16);
        }
        // Either that look found it, or the upcall comes.
        if vcpu.seen(BITS[0] as u16) == 0 {
            handle_until(&vcpu, [1, 0]);
        }
        other.join().unwrap();
    });
}
