//! The queues, and how a running vCPU leaves its pCPU.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering, fence};

use super::fast;
use crate::graph::Ref;
use crate::lock::{Guard, Lock};
use crate::notify;
use crate::object::vcpu::{NOT_LOADED, Place, SchedState, Vcpu};
use crate::percpu::{self, Pcpu};
use crate::trap::{Next, STAY};
use portico_abi::Status;
use portico_abi::port::{BIT_TIMER, DEADLINE_NEVER};
use portico_arch::context::{HCR_GUEST, VcpuContext};
use portico_arch::pcpu::MAX_PCPUS;
use portico_arch::registers::{HCR_EL2, Writeable};
use portico_arch::vectors::IDLE;
use portico_arch::{gic, timer};
use portico_core::runq::{Admission, RunQueue, Why};

/// vCPUs on one machine.
pub const MAX_VCPUS: usize = 512;

/// What the lock of a pCPU's queue protects.
pub struct Queue {
    /// READY vCPUs, and the times that BLOCKED and throttled ones wait for.
    pub run: RunQueue<MAX_VCPUS>,
    /// Reservations.
    pub admission: Admission,
}

/// Deadlines that are seen to in one decision. If more have passed the timer fires again at once.
const PER_DECISION: usize = 16;

/// By pCPU.
pub static QUEUES: [Lock<Queue>; MAX_PCPUS] =
    [const { Lock::new(Queue { run: RunQueue::new(1_000_000), admission: Admission::new() }) }; MAX_PCPUS];

static VCPUS: [AtomicPtr<Vcpu>; MAX_VCPUS] = [const { AtomicPtr::new(null_mut()) }; MAX_VCPUS];

/// A bit for each pCPU that idles.
pub static IDLE_MASK: AtomicU64 = AtomicU64::new(0);

/// A bit for each pCPU on which vCPUs were ready as of its last decision: a hint for those that idle.
pub static WAITING_MASK: AtomicU64 = AtomicU64::new(0);

/// Boot option: WFI always traps, as if others waited on every pCPU.
pub static ALWAYS_TRAP_WFI: AtomicBool = AtomicBool::new(false);

/// The queue of a pCPU.
pub fn of(index: usize) -> &'static Lock<Queue> {
    // `pcpu` fields are only ever set to numbers of pCPUs that are online.
    &QUEUES[index & (MAX_PCPUS - 1)]
}

/// Locks the queue that a vCPU belongs to.
pub fn lock_home(vcpu: Ref<Vcpu>) -> (Guard<'static, Queue>, usize) {
    loop {
        let index = usize::from(vcpu.pcpu.load(Ordering::Acquire));
        let queue = of(index).lock();
        if usize::from(vcpu.pcpu.load(Ordering::Relaxed)) == index {
            return (queue, index);
        }
    }
}

/// Makes a vCPU findable by number, or (with null) no longer.
pub fn register(id: u16, vcpu: *mut Vcpu) {
    if let Some(entry) = VCPUS.get(usize::from(id)) {
        entry.store(vcpu, Ordering::Release);
    }
}

/// A vCPU by number.
pub fn by_id(id: u16) -> Option<Ref<Vcpu>> {
    let pointer = VCPUS.get(usize::from(id))?.load(Ordering::Acquire);
    // SAFETY: made by `as_ptr`; taken out of the table before the vCPU is freed.
    unsafe { Ref::from_ptr(pointer) }
}

/// Blocks the running vCPU until an upcall or `deadline` (a value of its CNTVCT_EL0), for a call that returns a status.
pub fn block(vcpu: Ref<Vcpu>, deadline: u64) -> Next {
    // SAFETY: the vCPU is current here.
    let context = unsafe { vcpu.context() };
    context.set_reg(0, Status::Ok.raw() as u64);
    block_until(vcpu, physical(context, deadline), true)
}

/// The value of the physical counter at a guest's deadline. One far ahead must not wrap into the past.
#[inline(always)]
pub fn physical(context: &VcpuContext, deadline: u64) -> u64 {
    if deadline == DEADLINE_NEVER { u64::MAX } else { deadline.saturating_add(context.el2.cntvoff_el2) }
}

/// The value of the physical counter at which the stored virtual timer fires; `u64::MAX` if it does not.
#[inline(always)]
pub fn timer_due(context: &VcpuContext) -> u64 {
    if timer::runs(context.el1.cntv_ctl_el0) { physical(context, context.el1.cntv_cval_el0) } else { u64::MAX }
}

/// Blocks the running vCPU for a trapped WFI.
pub fn block_wfi(vcpu: Ref<Vcpu>) -> Next {
    block_until(vcpu, u64::MAX, false)
}

#[unsafe(export_name = "portico_block_until")]
fn block_until(vcpu: Ref<Vcpu>, deadline: u64, wants_result: bool) -> Next {
    if vcpu.page().upcall_pending() {
        return STAY;
    }
    let pcpu = percpu::this();
    // The end of the slice says all: there is none while a weighted vCPU without a cap is alone here.
    if deadline == DEADLINE_NEVER
        && pcpu.slice_end.load(Ordering::Relaxed) == u64::MAX
        && fast::wait_in_place(pcpu, vcpu)
    {
        return STAY;
    }
    let mut queue = pcpu.queue.lock();
    vcpu.set_place(Place::Blocked);
    // Pairs with the fences in `notify`: either we see the upcall, or the notifier sees us blocked.
    fence(Ordering::SeqCst);
    if vcpu.page().upcall_pending() || vcpu.upcall_wanted() || vcpu.stop.load(Ordering::Relaxed) != 0 {
        stay_running(vcpu);
        if vcpu.stop.load(Ordering::Relaxed) != 0 {
            pcpu.resched.store(true, Ordering::Relaxed);
            drop(queue);
            return reconsider(vcpu);
        }
        return STAY;
    }
    let now = timer::now();
    if deadline <= now {
        stay_running(vcpu);
        // SAFETY: the vCPU is current here.
        unsafe { vcpu.context() }.set_reg(0, Status::TimedOut.raw() as u64);
        return STAY;
    }
    // SAFETY: the lock of its queue is held.
    let state = unsafe { vcpu.sched() };
    state.block_deadline = deadline;
    state.look_at = deadline;
    state.wants_result = wants_result;
    if deadline != u64::MAX {
        queue.run.timers.set(vcpu.id, deadline);
    }
    if let Some(next) = fast::give_way(pcpu, &mut queue, vcpu, now) {
        return next;
    }
    stop(&mut queue, vcpu, now);
    pick(pcpu, &mut queue, now)
}

/// Takes the running vCPU back from Blocked. A notifier that saw it there relies on [`wake`](super::wake::wake), which finds it running
/// again and does nothing: so the upcall is raised here.
pub fn stay_running(vcpu: Ref<Vcpu>) {
    vcpu.set_place(Place::Running);
    // Pairs with the fence in `notify`: either we see the wish, or the notifier sees us running and pokes.
    fence(Ordering::SeqCst);
    vcpu.raise_wanted();
}

/// The running vCPU leaves its pCPU for `place`, which is none of Running, Ready and Blocked.
pub fn leave(vcpu: Ref<Vcpu>, place: Place) -> Next {
    let pcpu = percpu::this();
    leave_for(pcpu, &mut pcpu.queue.lock(), vcpu, place, timer::now())
}

fn leave_for(pcpu: &Pcpu, queue: &mut Queue, vcpu: Ref<Vcpu>, place: Place, now: u64) -> Next {
    stop(queue, vcpu, now);
    vcpu.set_place(place);
    pcpu.unload.store(true, Ordering::Relaxed);
    pick(pcpu, queue, now)
}

/// Charges the running vCPU and takes it off its pCPU.
fn stop(queue: &mut Queue, vcpu: Ref<Vcpu>, now: u64) {
    // SAFETY: the lock of its queue is held.
    let state = unsafe { vcpu.sched() };
    let ran = queue.run.stop(&mut state.entity, now);
    state.stopped(ran, now);
}

/// The running vCPU gives up its slice.
pub fn yield_now(vcpu: Ref<Vcpu>) -> Next {
    let pcpu = percpu::this();
    let mut queue = pcpu.queue.lock();
    if queue.run.ready_len() == 0 {
        return STAY;
    }
    requeue(pcpu, &mut queue, vcpu, Why::Yield)
}

/// Looks whether the running vCPU should go on: stop reasons, its slice, others that are ready, deadlines that passed.
#[unsafe(export_name = "portico_reconsider")]
pub fn reconsider(vcpu: Ref<Vcpu>) -> Next {
    let pcpu = percpu::this();
    pcpu.resched.store(false, Ordering::Relaxed);
    let mut queue = pcpu.queue.lock();
    let now = timer::now();
    match fast::swap(pcpu, &mut queue, vcpu, now) {
        Some(next) => next,
        None => decide(pcpu, queue, vcpu, now),
    }
}

#[inline(never)]
fn decide(pcpu: &Pcpu, mut queue: Guard<'static, Queue>, vcpu: Ref<Vcpu>, now: u64) -> Next {
    expire(pcpu, &mut queue, now);
    if vcpu.stop.load(Ordering::Acquire) != 0 {
        return leave_for(pcpu, &mut queue, vcpu, Place::Stopped, now);
    }
    // SAFETY: the lock of its queue is held.
    if unsafe { vcpu.sched() }.affinity & 1 << pcpu.index() == 0 {
        return leave_for(pcpu, &mut queue, vcpu, Place::Migrating, now);
    }
    if now >= pcpu.slice_end.load(Ordering::Relaxed) || queue.run.should_preempt(now) {
        return requeue(pcpu, &mut queue, vcpu, Why::Preempted);
    }
    // SAFETY: as above.
    let state = unsafe { vcpu.sched() };
    set_slice(pcpu, &queue, queue.run.deadline(&state.entity, now));
    update_wfi_trap(pcpu, &queue);
    STAY
}

/// The vCPU that others have left to this pCPU to wake.
#[inline(always)]
pub fn take_woken(pcpu: &Pcpu) -> Option<Ref<Vcpu>> {
    if pcpu.woken.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let number = pcpu.woken.swap(0, Ordering::AcqRel);
    by_id(number.wrapping_sub(1) as u16)
}

fn requeue(pcpu: &Pcpu, queue: &mut Queue, vcpu: Ref<Vcpu>, why: Why) -> Next {
    let now = timer::now();
    stop(queue, vcpu, now);
    vcpu.set_place(Place::Ready);
    // SAFETY: the lock of its queue is held.
    queue.run.enqueue(vcpu.id, &mut unsafe { vcpu.sched() }.entity, now, why);
    pick(pcpu, queue, now)
}

/// Takes the next vCPU to run here; IDLE if there is none.
pub fn pick(pcpu: &Pcpu, queue: &mut Queue, now: u64) -> Next {
    while let Some(id) = queue.run.pick() {
        let Some(vcpu) = by_id(id) else { continue };
        return run(pcpu, queue, vcpu, now);
    }
    pcpu.current.store(null_mut(), Ordering::Relaxed);
    set_slice(pcpu, queue, u64::MAX);
    IDLE
}

/// [`pick`] for an idle pCPU that was asked to look.
pub fn pick_idle(pcpu: &Pcpu) -> Next {
    let mut queue = pcpu.queue.lock();
    let now = timer::now();
    expire(pcpu, &mut queue, now);
    pick(pcpu, &mut queue, now)
}

/// Makes a vCPU, which is in no queue, the running one of this pCPU.
#[inline(never)]
pub fn run(pcpu: &Pcpu, queue: &mut Queue, vcpu: Ref<Vcpu>, now: u64) -> Next {
    // SAFETY: the lock of its queue is held.
    let state = unsafe { vcpu.sched() };
    queue.run.start(&mut state.entity, now);
    state.ready += now.wrapping_sub(state.since);
    state.since = now;
    state.note_ready();
    started(pcpu, queue, vcpu, state, now)
}

/// The rest of [`run`], for a vCPU that the run queue has started.
#[inline(always)]
pub fn started(pcpu: &Pcpu, queue: &Queue, vcpu: Ref<Vcpu>, state: &mut SchedState, now: u64) -> Next {
    state.switches += 1;
    vcpu.set_place(Place::Running);
    pcpu.current.store(vcpu.as_ptr(), Ordering::Relaxed);
    program(pcpu, queue, queue.run.deadline(&state.entity, now));
    pcpu.hcr.store(hcr(queue), Ordering::Relaxed);
    vcpu.context_ptr()
}

/// HCR_EL2 of the vCPU that runs here. Its WFI traps if someone else could use the time.
#[inline(always)]
fn hcr(queue: &Queue) -> u64 {
    let trap = queue.run.ready_len() != 0 || ALWAYS_TRAP_WFI.load(Ordering::Relaxed);
    if trap { HCR_GUEST | HCR_EL2::TWI::SET.value } else { HCR_GUEST }
}

/// Sets or clears the trap of WFI for the vCPU that runs here.
pub fn update_wfi_trap(pcpu: &Pcpu, queue: &Queue) {
    let want = hcr(queue);
    if pcpu.hcr.load(Ordering::Relaxed) != want {
        pcpu.hcr.store(want, Ordering::Relaxed);
        HCR_EL2.set(want);
    }
}

/// Wakes the blocked vCPUs of this queue whose deadline has passed, and the one that another pCPU left to this one; puts throttled ones
/// whose time has come back among the ready.
pub fn expire(pcpu: &Pcpu, queue: &mut Queue, now: u64) {
    if let Some(vcpu) = take_woken(pcpu)
        && is_blocked_here(pcpu, vcpu)
    {
        unblock(queue, vcpu, now);
    }
    for _ in 0..PER_DECISION {
        let Some(id) = queue.run.timers.pop_due(now) else { break };
        let Some(vcpu) = by_id(id).filter(|vcpu| is_here(pcpu, *vcpu)) else { continue };
        // SAFETY: the lock of its queue is held.
        let state = unsafe { vcpu.sched() };
        match vcpu.place() {
            Place::Blocked if state.look_at <= now => {
                look_at_deadline(vcpu, state, now);
                unblock(queue, vcpu, now);
            }
            Place::Blocked if state.look_at != u64::MAX => queue.run.timers.set(id, state.look_at),
            Place::Ready => {
                queue.run.enqueue(id, &mut state.entity, now, Why::Released);
            }
            _ => {}
        }
    }
    if queue.run.should_preempt(now) {
        pcpu.resched.store(true, Ordering::Relaxed);
    }
}

/// Whether a vCPU is blocked and belongs to this pCPU's queue, whose lock is held: a number that was noted earlier may name one that went on.
#[inline(always)]
pub fn is_blocked_here(pcpu: &Pcpu, vcpu: Ref<Vcpu>) -> bool {
    vcpu.is_at(Place::Blocked) && is_here(pcpu, vcpu)
}

#[inline(always)]
fn is_here(pcpu: &Pcpu, vcpu: Ref<Vcpu>) -> bool {
    usize::from(vcpu.pcpu.load(Ordering::Relaxed)) == pcpu.index()
}

/// What a blocked vCPU finds when it wakes because of a deadline: its timer's port pending, or the result of its call.
#[inline(never)]
pub fn look_at_deadline(vcpu: Ref<Vcpu>, state: &mut SchedState, now: u64) {
    if vcpu.loaded_on.load(Ordering::Acquire) == NOT_LOADED {
        // SAFETY: it neither runs nor is loaded, and its lock is held.
        let context = unsafe { vcpu.context() };
        if timer_due(context) <= now {
            context.el1.cntv_ctl_el0 |= timer::CTL_IMASK;
            if notify::mark(vcpu, BIT_TIMER) {
                context.gic.lr0 = gic::with_upcall_pending(context.gic.lr0);
            }
        }
    }
    if state.block_deadline <= now && state.wants_result && !vcpu.page().upcall_pending() {
        // SAFETY: its general registers were stored when it blocked.
        unsafe { vcpu.context() }.set_reg(0, Status::TimedOut.raw() as u64);
    }
}

/// Moves a blocked vCPU among the ready of its queue.
pub fn unblock(queue: &mut Queue, vcpu: Ref<Vcpu>, now: u64) {
    // SAFETY: the lock of its queue is held.
    let state = unsafe { vcpu.sched() };
    state.woken(now);
    vcpu.set_place(Place::Ready);
    queue.run.enqueue(vcpu.id, &mut state.entity, now, Why::Wake);
}

/// Programs CNTHP for the end of the slice or the next time that a vCPU waits for, whichever is first.
#[inline(never)]
pub fn set_slice(pcpu: &Pcpu, queue: &Queue, slice_end: u64) {
    program(pcpu, queue, slice_end);
}

#[inline(always)]
fn program(pcpu: &Pcpu, queue: &Queue, slice_end: u64) {
    pcpu.slice_end.store(slice_end, Ordering::Relaxed);
    let waiting = queue.run.ready_len() != 0;
    if pcpu.waiting.load(Ordering::Relaxed) != waiting {
        pcpu.waiting.store(waiting, Ordering::Relaxed);
        // Each bit has one writer.
        WAITING_MASK.fetch_xor(1 << pcpu.index(), Ordering::Relaxed);
    }
    let at = slice_end.min(queue.run.timers.first());
    if pcpu.timer.load(Ordering::Relaxed) != at {
        pcpu.timer.store(at, Ordering::Relaxed);
        if at == u64::MAX {
            timer::clear_deadline();
        } else {
            timer::set_deadline(at);
        }
    }
}
