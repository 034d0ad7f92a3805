//! The scheduler's glue: which vCPU runs where, on top of the pure logic in [`portico_core::runq`].
//!
//! Each pCPU has a queue with its own lock. A vCPU belongs to the queue that its `pcpu` field names; that lock protects its place and
//! its [`SchedState`](crate::object::vcpu::SchedState). Handlers decide who is next here and return it; [`switch`] then changes the
//! registers with all other Rust frames gone.
//!
//! * [`queue`]: the queues and the moves between places.
//! * [`fast`]: the short ways from one vCPU to another.
//! * [`wake`]: waking, and where a woken vCPU runs.
//! * [`control`]: stop, resume, start, parameters.
//! * [`switch`]: contexts, idle.
//!
//! Lock order: a second queue is only ever tried, never waited for.

pub mod control;
pub mod fast;
pub mod queue;
pub mod switch;
pub mod wake;

pub use fast::hand_off;
pub use queue::{MAX_VCPUS, block, leave, reconsider, yield_now};
pub use wake::kick;

use crate::graph::Ref;
use crate::object::vcpu::Vcpu;
use crate::percpu;
use crate::trap::{Next, STAY};
use core::sync::atomic::Ordering;

/// Whether a vCPU is the one that runs on this pCPU.
#[inline(always)]
pub fn is_current(vcpu: Ref<Vcpu>) -> bool {
    percpu::this().current.load(Ordering::Relaxed) == vcpu.as_ptr()
}

/// After a call on behalf of `vcpu`: what it woke or stopped may have to run first.
#[inline]
pub fn after_call(vcpu: Ref<Vcpu>) -> Next {
    if percpu::this().resched.load(Ordering::Relaxed) { reconsider(vcpu) } else { STAY }
}
