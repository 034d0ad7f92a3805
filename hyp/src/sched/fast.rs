//! The short ways: decisions between two plain weighted vCPUs, without a queue in between.
//!
//! Each gives up, with nothing done, where it would pass over anyone; then [`queue`](super::queue) decides the long way.

use core::sync::atomic::{Ordering, fence};

use super::queue::{self, IDLE_MASK, Queue};
use crate::graph::Ref;
use crate::object::vcpu::{Place, Vcpu};
use crate::percpu::{self, Pcpu};
use crate::trap::Next;
use portico_abi::Status;
use portico_arch::{cpu, timer};

/// `port_notify_wait` on one pCPU: the running vCPU blocks and the blocked one that it has notified runs at once. `None`, and nothing
/// done: the caller raises and blocks the long way.
///
/// Lends no budget and no priority: only plain weighted vCPUs with nobody waiting are handed over to.
#[inline(always)]
pub fn hand_off(vcpu: Ref<Vcpu>, target: Ref<Vcpu>, deadline: u64) -> Option<Next> {
    let pcpu = percpu::this();
    let index = pcpu.index();
    let here = |vcpu: Ref<Vcpu>| usize::from(vcpu.pcpu.load(Ordering::Relaxed)) == index;
    // Without an end of the slice the running one is plain and alone, so slice and WFI trap are right for its successor too.
    if pcpu.slice_end.load(Ordering::Relaxed) != u64::MAX || !here(target) {
        return None;
    }
    let mut guard = pcpu.queue.lock();
    let queue = &mut *guard;
    if !queue::is_blocked_here(pcpu, target) {
        return None;
    }
    // SAFETY: the vCPU is current here.
    let deadline = queue::physical(unsafe { vcpu.context() }, deadline);
    // A deadline that has to be queued goes the long way; the next one will be covered by it.
    if deadline != u64::MAX && !queue.run.timers.covers(vcpu.id, deadline) {
        return None;
    }
    vcpu.set_place(Place::Blocked);
    // As in `block_until`.
    fence(Ordering::SeqCst);
    // SAFETY: both belong to this queue, whose lock is held, and they are two.
    let (from, to) = unsafe { (vcpu.sched(), target.sched()) };
    let now = timer::now();
    let stays = vcpu.page().upcall_pending() || vcpu.upcall_wanted() || vcpu.stop.load(Ordering::Relaxed) != 0;
    let handed =
        if stays || deadline <= now { None } else { queue.run.hand_over(&mut from.entity, &mut to.entity, now) };
    let Some(ran) = handed else {
        queue::stay_running(vcpu);
        return None;
    };
    // SAFETY: it is current here.
    unsafe { vcpu.context() }.set_reg(0, Status::Ok.raw() as u64);
    from.stopped(ran, now);
    from.block_deadline = deadline;
    from.look_at = deadline;
    from.wants_result = true;
    to.woken(now);
    to.switches += 1;
    target.set_upcall_wanted();
    target.set_place(Place::Running);
    pcpu.current.store(target.as_ptr(), Ordering::Relaxed);
    Some(target.context_ptr())
}

/// One vCPU wakes, by a deadline or by another pCPU, and takes the place of the running one. `None` if it is another case; then the woken one,
/// if any, is among the ready. Whoever is due too is seen to next: the timer's deadline is then past.
#[inline(always)]
pub fn swap(pcpu: &Pcpu, queue: &mut Queue, vcpu: Ref<Vcpu>, now: u64) -> Option<Next> {
    let (woken, due) = match queue::take_woken(pcpu) {
        Some(woken) => (woken, false),
        None => (queue.run.timers.due(now).and_then(queue::by_id)?, true),
    };
    if !queue::is_blocked_here(pcpu, woken) {
        return None;
    }
    // SAFETY: both belong to this queue, whose lock is held, and they are two: one runs, one is blocked.
    let (state, to) = unsafe { (vcpu.sched(), woken.sched()) };
    if due {
        // One that is not due any more is seen to the long way.
        if to.look_at > now {
            return None;
        }
        queue.run.timers.cancel(woken.id);
        queue::look_at_deadline(woken, to, now);
    }
    let may_stay = vcpu.stop.load(Ordering::Acquire) == 0 && state.affinity & 1 << pcpu.index() != 0;
    let ran = if may_stay { queue.run.preempt(vcpu.id, &mut state.entity, &mut to.entity, now) } else { None };
    let Some(ran) = ran else {
        queue::unblock(queue, woken, now);
        return None;
    };
    state.stopped(ran, now);
    vcpu.set_place(Place::Ready);
    to.woken(now);
    Some(queue::started(pcpu, queue, woken, to, now))
}

/// The running vCPU, whose place is Blocked by now, makes room for the first that waits.
#[inline(always)]
pub fn give_way(pcpu: &Pcpu, queue: &mut Queue, vcpu: Ref<Vcpu>, now: u64) -> Option<Next> {
    // SAFETY: the lock of its queue is held.
    let state = unsafe { vcpu.sched() };
    let (ran, next) = queue.run.give_way(&mut state.entity, now)?;
    state.stopped(ran, now);
    match queue::by_id(next) {
        Some(next) => Some(queue::run(pcpu, queue, next, now)),
        None => Some(queue::pick(pcpu, queue, now)),
    }
}

/// The way out of idling: the vCPU that is still loaded here wants an upcall. `None` if it does not.
pub fn resume_loaded(pcpu: &Pcpu) -> Option<Next> {
    let vcpu = pcpu.loaded()?;
    if !vcpu.upcall_wanted() || vcpu.place() != Place::Blocked {
        return None;
    }
    let queue = &mut *pcpu.queue.lock();
    if vcpu.place() != Place::Blocked {
        return None;
    }
    let now = timer::now();
    // SAFETY: the lock of its queue is held.
    let state = unsafe { vcpu.sched() };
    if queue.run.may_run(&mut state.entity, now) {
        state.woken(now);
        return Some(queue::run(pcpu, queue, vcpu, now));
    }
    queue::unblock(queue, vcpu, now);
    Some(queue::pick(pcpu, queue, now))
}

/// Waits for an interrupt on behalf of the running vCPU, beside which there is nobody: it stays the running one, as in a WFI of its own, but
/// its pCPU is known to idle and the time is not charged. False if there is something to decide; true if it goes on, maybe for no reason.
///
/// No wake-up is lost: whoever wants something of a running vCPU or of its pCPU stores that first and pokes then, and a poke stays
/// pending, since interrupts are masked here, until the vCPU is entered. So each flag is either seen below or ends the WFI.
#[unsafe(export_name = "portico_wait_in_place")]
pub fn wait_in_place(pcpu: &Pcpu, vcpu: Ref<Vcpu>) -> bool {
    let own = 1 << pcpu.index();
    // Before the flags are looked at, as in `idle`: who finds us idle stores `resched` and pokes.
    IDLE_MASK.fetch_or(own, Ordering::SeqCst);
    let since = timer::now();
    let waits = !pcpu.resched.load(Ordering::Acquire) && !vcpu.upcall_wanted() && super::wake::nobody_waits();
    if waits {
        cpu::wait_for_interrupt();
    }
    IDLE_MASK.fetch_and(!own, Ordering::Relaxed);
    if !waits {
        return false;
    }
    let now = timer::now();
    let ticks = now.wrapping_sub(since);
    Pcpu::count(&pcpu.idle_ticks, ticks);
    let mut queue = pcpu.queue.lock();
    // SAFETY: it runs here, so it belongs to this queue, whose lock is held.
    let state = unsafe { vcpu.sched() };
    queue.run.waited(&mut state.entity, ticks, now);
    state.blocked += ticks;
    // It may have been charged from elsewhere meanwhile.
    state.since = now.min(state.since + ticks);
    drop(queue);
    vcpu.publish_times();
    !pcpu.resched.load(Ordering::Acquire)
}
