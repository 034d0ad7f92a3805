//! Quiescence: knowing that every pCPU has left EL2 since something was unlinked.
//!
//! EL2 is not preemptible and hot paths take no reference counts, so a pCPU that answers an interrupt (or enters EL2 by one, or
//! idles) holds no pointer from before. Whoever unlinks begins an epoch and pokes the other pCPUs; what it unlinked may be freed
//! once all have seen the epoch. Nobody waits in a loop: callers come back later.

use core::sync::atomic::{AtomicU64, Ordering, fence};

use crate::percpu;
use portico_arch::pcpu::MAX_PCPUS;

/// A point in the order of unlinkings.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Epoch(u64);

impl Epoch {
    /// Passed since ever.
    pub const PAST: Epoch = Epoch(0);
}

static CURRENT: AtomicU64 = AtomicU64::new(0);
static SEEN: [AtomicU64; MAX_PCPUS] = [const { AtomicU64::new(0) }; MAX_PCPUS];

/// Begins an epoch after an unlinking, and asks every other pCPU to look. Call under the graph lock.
pub fn begin() -> Epoch {
    let epoch = CURRENT.fetch_add(1, Ordering::SeqCst) + 1;
    // Pairs with the fence in `note`: of two that run at once, either it sees this epoch, or we see its answer and poke.
    fence(Ordering::SeqCst);
    let own = percpu::index();
    // Whoever begins it stands at a point where it holds no other pointer to the unlinked object than its own argument.
    SEEN[own & (MAX_PCPUS - 1)].store(epoch, Ordering::Release);
    for (index, seen) in SEEN.iter().enumerate().take(percpu::online()) {
        if index != own && seen.load(Ordering::Relaxed) + 1 == epoch {
            // One poke is enough for all epochs that begin before it is answered.
            percpu::poke(index);
        }
    }
    Epoch(epoch)
}

/// Whether every pCPU has seen `epoch`.
pub fn passed(epoch: Epoch) -> bool {
    SEEN.iter().take(percpu::online()).all(|seen| seen.load(Ordering::Acquire) >= epoch.0)
}

/// Notes that this pCPU holds no pointer to anything unlinked before now. Called for each poke and each turn of the idle loop.
#[inline]
pub fn note() {
    let seen = &SEEN[percpu::index() & (MAX_PCPUS - 1)];
    let mut epoch = CURRENT.load(Ordering::Relaxed);
    while seen.load(Ordering::Relaxed) != epoch {
        // All earlier loads through old pointers are done before others may free what they led to.
        fence(Ordering::SeqCst);
        seen.store(epoch, Ordering::Release);
        // Pairs with the fence in `begin`: whoever begins an epoch now either sees ours, and pokes, or we see its epoch here.
        fence(Ordering::SeqCst);
        epoch = CURRENT.load(Ordering::Relaxed);
    }
}
