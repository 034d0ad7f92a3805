//! The queues, and how a running vCPU leaves its pCPU.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering, fence};

use crate::graph::Ref;
use crate::lock::{Guard, Lock};
use crate::notify;
use crate::object::vcpu::{NOT_LOADED, Place, SchedState, Vcpu};
use crate::percpu::{self, Pcpu};
use crate::trap::{Next, STAY};
use portico_abi::Status;
use portico_abi::port::{BIT_TIMER, DEADLINE_NEVER};
use portico_arch::pcpu::MAX_PCPUS;
use portico_arch::timer;
use portico_arch::vectors::IDLE;
use portico_arch::{cpu, gic};
use portico_core::runq::{Admission, RunQueue, TimerQueue, Why};

/// vCPUs on one machine.
pub const MAX_VCPUS: usize = 512;

/// What the lock of a pCPU's queue protects.
pub struct Queue {
    /// READY and throttled vCPUs.
    pub run: RunQueue<MAX_VCPUS>,
    /// Deadlines of BLOCKED vCPUs.
    pub timers: TimerQueue<MAX_VCPUS>,
    /// Reservations.
    pub admission: Admission,
}

static QUEUES: [Lock<Queue>; MAX_PCPUS] = [const {
    Lock::new(Queue { run: RunQueue::new(1_000_000), timers: TimerQueue::new(), admission: Admission::new() })
}; MAX_PCPUS];

static VCPUS: [AtomicPtr<Vcpu>; MAX_VCPUS] = [const { AtomicPtr::new(null_mut()) }; MAX_VCPUS];

/// A bit for each pCPU that idles.
pub static IDLE_MASK: AtomicU64 = AtomicU64::new(0);

/// A bit for each pCPU on which vCPUs were ready as of its last decision: a hint for those that idle.
pub static WAITING_MASK: AtomicU64 = AtomicU64::new(0);

/// Boot option: WFI always traps, as if others waited on every pCPU.
pub static ALWAYS_TRAP_WFI: AtomicBool = AtomicBool::new(false);

/// Tells the queues the frequency of the counter. At boot.
pub fn init(counter_hz: u64) {
    for queue in &QUEUES {
        queue.lock().run.set_ticks_per_ms(counter_hz / 1000);
    }
}

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
    unsafe { vcpu.context() }.set_reg(0, Status::Ok.raw() as u64);
    let physical = if deadline == DEADLINE_NEVER {
        u64::MAX
    } else {
        // SAFETY: as above; `cntvoff` never changes while it runs. A deadline far ahead must not wrap into the past.
        deadline.saturating_add(unsafe { vcpu.context() }.el2.cntvoff_el2)
    };
    block_until(vcpu, physical, true)
}

/// `port_notify_wait` on one pCPU: the running vCPU blocks and the blocked one that it has notified runs at once, without a queue in
/// between. `None`, and nothing done, where that would pass over anyone: then the caller raises and blocks the long way.
///
/// Lends no budget and no priority: only plain weighted vCPUs with nobody waiting are handed over to.
#[inline(always)]
pub fn hand_off(vcpu: Ref<Vcpu>, target: Ref<Vcpu>, deadline: u64) -> Option<Next> {
    let pcpu = percpu::this();
    let index = pcpu.index();
    let here = |vcpu: Ref<Vcpu>| usize::from(vcpu.pcpu.load(Ordering::Relaxed)) == index;
    // Without an end of the slice the running one is plain and alone, so slice and WFI trap are right for its successor too.
    if deadline != DEADLINE_NEVER || pcpu.slice_end.load(Ordering::Relaxed) != u64::MAX || !here(target) {
        return None;
    }
    let mut guard = of(index).lock();
    let queue = &mut *guard;
    if target.place() != Place::Blocked || !here(target) {
        return None;
    }
    vcpu.set_place(Place::Blocked);
    // As in `block_until`.
    fence(Ordering::SeqCst);
    // SAFETY: both belong to this queue, whose lock is held, and they are two.
    let (from, to) = unsafe { (vcpu.sched(), target.sched()) };
    let now = timer::now();
    let handed = if vcpu.page().upcall_pending() || vcpu.upcall_wanted() || vcpu.stop.load(Ordering::Relaxed) != 0 {
        None
    } else {
        queue.run.hand_over(&mut from.entity, &mut to.entity, now)
    };
    let Some(ran) = handed else {
        stay_running(vcpu);
        return None;
    };
    // SAFETY: it is current here.
    unsafe { vcpu.context() }.set_reg(0, Status::Ok.raw() as u64);
    from.running += ran;
    from.since = now;
    from.block_deadline = u64::MAX;
    from.wants_result = true;
    queue.timers.cancel(target.id);
    to.blocked += now.wrapping_sub(to.since);
    to.since = now;
    to.block_deadline = u64::MAX;
    to.switches += 1;
    target.set_upcall_wanted();
    target.set_place(Place::Running);
    pcpu.current.store(target.as_ptr(), Ordering::Relaxed);
    Some(target.context_ptr())
}

/// Runs a vCPU that was blocked until now, on its own pCPU, where nothing runs and nobody waits.
fn run_blocked(pcpu: &Pcpu, queue: &mut Queue, vcpu: Ref<Vcpu>, now: u64) -> Next {
    queue.timers.cancel(vcpu.id);
    // SAFETY: the lock of its queue is held.
    let state = unsafe { vcpu.sched() };
    state.blocked += now.wrapping_sub(state.since);
    state.since = now;
    state.block_deadline = u64::MAX;
    if queue.run.may_run(&mut state.entity, now) {
        return run(pcpu, queue, vcpu, now);
    }
    vcpu.set_place(Place::Ready);
    queue.run.enqueue(vcpu.id, &mut state.entity, now, Why::Wake);
    pick(pcpu, queue, now)
}

/// The short way out of idling: the vCPU that is still loaded here wants an upcall. `None` if it does not.
pub fn resume_loaded(pcpu: &Pcpu) -> Option<Next> {
    let vcpu = pcpu.loaded()?;
    if !vcpu.upcall_wanted() || vcpu.place() != Place::Blocked {
        return None;
    }
    let mut queue = of(pcpu.index()).lock();
    if vcpu.place() != Place::Blocked {
        return None;
    }
    Some(run_blocked(pcpu, &mut queue, vcpu, timer::now()))
}

/// Blocks the running vCPU for a trapped WFI.
pub fn block_wfi(vcpu: Ref<Vcpu>) -> Next {
    block_until(vcpu, u64::MAX, false)
}

fn block_until(vcpu: Ref<Vcpu>, deadline: u64, wants_result: bool) -> Next {
    if vcpu.page().upcall_pending() {
        return STAY;
    }
    let pcpu = percpu::this();
    // The end of the slice says all: there is none while a weighted vCPU without a cap is alone here.
    if deadline == DEADLINE_NEVER && pcpu.slice_end.load(Ordering::Relaxed) == u64::MAX && wait_in_place(pcpu, vcpu) {
        return STAY;
    }
    let mut queue = of(pcpu.index()).lock();
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
    state.wants_result = wants_result;
    state.running += queue.run.stop(&mut state.entity, now);
    state.since = now;
    if deadline != u64::MAX {
        queue.timers.set(vcpu.id, deadline);
    }
    pick(pcpu, &mut queue, now)
}

/// Waits for an interrupt on behalf of the running vCPU, beside which there is nobody: it stays the running one, as in a WFI of its own, but
/// its pCPU is known to idle and the time is not charged. False if there is something to decide; true if it goes on, maybe for no reason.
///
/// No wake-up is lost: whoever wants something of a running vCPU or of its pCPU stores that first and pokes then, and a poke stays
/// pending, since interrupts are masked here, until the vCPU is entered. So each flag is either seen below or ends the WFI.
#[inline(never)]
fn wait_in_place(pcpu: &Pcpu, vcpu: Ref<Vcpu>) -> bool {
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
    let mut queue = of(pcpu.index()).lock();
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

/// Takes the running vCPU back from Blocked. A notifier that saw it there relies on [`wake`](super::wake::wake), which finds it running
/// again and does nothing: so the upcall is raised here.
fn stay_running(vcpu: Ref<Vcpu>) {
    vcpu.set_place(Place::Running);
    // Pairs with the fence in `notify`: either we see the wish, or the notifier sees us running and pokes.
    fence(Ordering::SeqCst);
    if vcpu.take_upcall_wanted() {
        gic::pend_upcall();
    }
}

/// The running vCPU leaves its pCPU for `place`, which is none of Running, Ready and Blocked.
pub fn leave(vcpu: Ref<Vcpu>, place: Place) -> Next {
    let pcpu = percpu::this();
    let mut queue = of(pcpu.index()).lock();
    let now = timer::now();
    // SAFETY: the lock of its queue is held.
    let state = unsafe { vcpu.sched() };
    state.running += queue.run.stop(&mut state.entity, now);
    state.since = now;
    vcpu.set_place(place);
    pcpu.unload.store(true, Ordering::Relaxed);
    pick(pcpu, &mut queue, now)
}

/// The running vCPU gives up its slice.
pub fn yield_now(vcpu: Ref<Vcpu>) -> Next {
    let pcpu = percpu::this();
    let mut queue = of(pcpu.index()).lock();
    if queue.run.ready_len() == 0 {
        return STAY;
    }
    requeue(pcpu, &mut queue, vcpu, Why::Yield)
}

/// Looks whether the running vCPU should go on: stop reasons, its slice, others that are ready, deadlines that passed.
pub fn reconsider(vcpu: Ref<Vcpu>) -> Next {
    let pcpu = percpu::this();
    pcpu.resched.store(false, Ordering::Relaxed);
    let mut queue = of(pcpu.index()).lock();
    let now = timer::now();
    if let Some(next) = swap(pcpu, &mut queue, vcpu, now) {
        return next;
    }
    expire(pcpu, &mut queue, now);
    if vcpu.stop.load(Ordering::Acquire) != 0 {
        // SAFETY: the lock of its queue is held.
        let state = unsafe { vcpu.sched() };
        state.running += queue.run.stop(&mut state.entity, now);
        state.since = now;
        state.resume_to = Place::Ready;
        vcpu.set_place(Place::Stopped);
        pcpu.unload.store(true, Ordering::Relaxed);
        return pick(pcpu, &mut queue, now);
    }
    // SAFETY: the lock of its queue is held.
    let allowed = unsafe { vcpu.sched() }.affinity & 1 << pcpu.index() != 0;
    if !allowed {
        // SAFETY: as above.
        let state = unsafe { vcpu.sched() };
        state.running += queue.run.stop(&mut state.entity, now);
        state.since = now;
        vcpu.set_place(Place::Migrating);
        pcpu.unload.store(true, Ordering::Relaxed);
        return pick(pcpu, &mut queue, now);
    }
    if now >= pcpu.slice_end.load(Ordering::Relaxed) || queue.run.should_preempt(now) {
        return requeue(pcpu, &mut queue, vcpu, Why::Preempted);
    }
    // SAFETY: as above.
    let state = unsafe { vcpu.sched() };
    set_slice(pcpu, &queue, queue.run.deadline(&state.entity, now));
    update_wfi_trap(pcpu, &queue, vcpu);
    STAY
}

/// The common case of a decision: one vCPU wakes and takes the place of the running one, without being queued. `None` if it is another case;
/// then the woken one, if any, is among the ready. Whoever is due too is seen to next: the timer's deadline is then past.
fn swap(pcpu: &Pcpu, queue: &mut Queue, vcpu: Ref<Vcpu>, now: u64) -> Option<Next> {
    let woken = take_woken(pcpu).or_else(|| queue.timers.due(now).and_then(by_id))?;
    if woken.place() != Place::Blocked || usize::from(woken.pcpu.load(Ordering::Relaxed)) != pcpu.index() {
        return None;
    }
    // SAFETY: both belong to this queue, whose lock is held, and they are two: one runs, one is blocked.
    let (state, to) = unsafe { (vcpu.sched(), woken.sched()) };
    queue.timers.cancel(woken.id);
    look_at_deadline(woken, to, now);
    let may_stay = vcpu.stop.load(Ordering::Acquire) == 0 && state.affinity & 1 << pcpu.index() != 0;
    let ran = if may_stay { queue.run.preempt(vcpu.id, &mut state.entity, &mut to.entity, now) } else { None };
    let Some(ran) = ran else {
        unblock(queue, woken, now);
        return None;
    };
    state.running += ran;
    state.since = now;
    vcpu.set_place(Place::Ready);
    to.blocked += now.wrapping_sub(to.since);
    to.since = now;
    to.block_deadline = u64::MAX;
    Some(started(pcpu, queue, woken, now))
}

/// The vCPU that others have left to this pCPU to wake.
#[inline(always)]
fn take_woken(pcpu: &Pcpu) -> Option<Ref<Vcpu>> {
    if pcpu.woken.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let number = pcpu.woken.swap(0, Ordering::AcqRel);
    by_id(number.wrapping_sub(1) as u16)
}

fn requeue(pcpu: &Pcpu, queue: &mut Queue, vcpu: Ref<Vcpu>, why: Why) -> Next {
    let now = timer::now();
    // SAFETY: the lock of its queue is held.
    let state = unsafe { vcpu.sched() };
    state.running += queue.run.stop(&mut state.entity, now);
    state.since = now;
    vcpu.set_place(Place::Ready);
    queue.run.enqueue(vcpu.id, &mut state.entity, now, why);
    pick(pcpu, queue, now)
}

/// Takes the next vCPU to run here; IDLE if there is none.
pub fn pick(pcpu: &Pcpu, queue: &mut Queue, now: u64) -> Next {
    release(queue, now);
    while let Some(id) = queue.run.pick() {
        let Some(vcpu) = by_id(id) else { continue };
        return run(pcpu, queue, vcpu, now);
    }
    pcpu.current.store(null_mut(), Ordering::Relaxed);
    set_slice(pcpu, queue, queue.run.next_release());
    IDLE
}

/// [`pick`] for an idle pCPU that was asked to look.
pub fn pick_idle(pcpu: &Pcpu) -> Next {
    let mut queue = of(pcpu.index()).lock();
    let now = timer::now();
    expire(pcpu, &mut queue, now);
    pick(pcpu, &mut queue, now)
}

/// Makes a vCPU, which is in no queue, the running one of this pCPU.
#[inline]
pub fn run(pcpu: &Pcpu, queue: &mut Queue, vcpu: Ref<Vcpu>, now: u64) -> Next {
    // SAFETY: the lock of its queue is held.
    let state = unsafe { vcpu.sched() };
    queue.run.start(&mut state.entity, now);
    state.ready += now.wrapping_sub(state.since);
    state.since = now;
    state.note_ready();
    started(pcpu, queue, vcpu, now)
}

/// The rest of [`run`], for a vCPU that the run queue has started.
fn started(pcpu: &Pcpu, queue: &mut Queue, vcpu: Ref<Vcpu>, now: u64) -> Next {
    // SAFETY: the lock of its queue is held.
    let state = unsafe { vcpu.sched() };
    state.switches += 1;
    vcpu.set_place(Place::Running);
    pcpu.current.store(vcpu.as_ptr(), Ordering::Relaxed);
    set_slice(pcpu, queue, queue.run.deadline(&state.entity, now));
    pcpu.trap_wfi.store(must_trap_wfi(queue), Ordering::Relaxed);
    vcpu.context_ptr()
}

/// Whether the WFI of the vCPU that runs here must trap: someone else could use the time.
pub fn must_trap_wfi(queue: &Queue) -> bool {
    queue.run.ready_len() != 0 || ALWAYS_TRAP_WFI.load(Ordering::Relaxed)
}

/// Sets or clears the trap for the vCPU that is loaded and runs here.
pub fn update_wfi_trap(pcpu: &Pcpu, queue: &Queue, vcpu: Ref<Vcpu>) {
    let trap = must_trap_wfi(queue);
    if pcpu.trap_wfi.load(Ordering::Relaxed) != trap {
        pcpu.trap_wfi.store(trap, Ordering::Relaxed);
        super::switch::apply_wfi_trap(vcpu, trap);
    }
}

/// Puts throttled vCPUs whose time has come back among the ready.
fn release(queue: &mut Queue, now: u64) {
    while let Some(id) = queue.run.pop_released(now) {
        if let Some(vcpu) = by_id(id) {
            // SAFETY: it is in this queue, whose lock is held.
            queue.run.enqueue(id, &mut unsafe { vcpu.sched() }.entity, now, Why::Released);
        }
    }
}

/// Wakes the blocked vCPUs of this queue whose deadline has passed, and the one that another pCPU left to this one.
pub fn expire(pcpu: &Pcpu, queue: &mut Queue, now: u64) {
    release(queue, now);
    if let Some(vcpu) = take_woken(pcpu)
        && vcpu.place() == Place::Blocked
        && usize::from(vcpu.pcpu.load(Ordering::Relaxed)) == pcpu.index()
    {
        queue.timers.cancel(vcpu.id);
        unblock(queue, vcpu, now);
    }
    while let Some(id) = queue.timers.pop_due(now) {
        let Some(vcpu) = by_id(id) else { continue };
        if vcpu.place() != Place::Blocked {
            continue;
        }
        // SAFETY: the lock of its queue is held.
        look_at_deadline(vcpu, unsafe { vcpu.sched() }, now);
        unblock(queue, vcpu, now);
    }
    if queue.run.should_preempt(now) {
        pcpu.resched.store(true, Ordering::Relaxed);
    }
}

/// What a blocked vCPU finds when it wakes because of a deadline: its timer's port pending, or the result of its call.
fn look_at_deadline(vcpu: Ref<Vcpu>, state: &mut SchedState, now: u64) {
    if vcpu.loaded_on.load(Ordering::Acquire) == NOT_LOADED {
        // SAFETY: it neither runs nor is loaded, and its lock is held.
        let context = unsafe { vcpu.context() };
        if context.el1.cntv_ctl_el0 & (timer::CTL_ENABLE | timer::CTL_IMASK) == timer::CTL_ENABLE
            && context.el1.cntv_cval_el0.saturating_add(context.el2.cntvoff_el2) <= now
        {
            context.el1.cntv_ctl_el0 |= timer::CTL_IMASK;
            if notify::mark(vcpu, BIT_TIMER) {
                gic::pend_upcall_saved(&mut context.gic);
            }
        }
    }
    if state.block_deadline <= now && state.wants_result && !vcpu.page().upcall_pending() {
        // SAFETY: its general registers were stored when it blocked.
        unsafe { vcpu.context() }.set_reg(0, Status::TimedOut.raw() as u64);
    }
}

/// Moves a blocked vCPU, whose deadline is cancelled, among the ready of its queue.
pub fn unblock(queue: &mut Queue, vcpu: Ref<Vcpu>, now: u64) {
    // SAFETY: the lock of its queue is held.
    let state = unsafe { vcpu.sched() };
    state.blocked += now.wrapping_sub(state.since);
    state.since = now;
    state.block_deadline = u64::MAX;
    vcpu.set_place(Place::Ready);
    queue.run.enqueue(vcpu.id, &mut state.entity, now, Why::Wake);
}

/// Programs CNTHP for the end of the slice or the next deadline of a blocked vCPU, whichever is first.
pub fn set_slice(pcpu: &Pcpu, queue: &Queue, slice_end: Option<u64>) {
    let slice_end = slice_end.unwrap_or(u64::MAX);
    pcpu.slice_end.store(slice_end, Ordering::Relaxed);
    let waiting = queue.run.ready_len() != 0;
    if pcpu.waiting.load(Ordering::Relaxed) != waiting {
        pcpu.waiting.store(waiting, Ordering::Relaxed);
        // Each bit has one writer.
        WAITING_MASK.fetch_xor(1 << pcpu.index(), Ordering::Relaxed);
    }
    let at = slice_end.min(queue.timers.first().unwrap_or(u64::MAX));
    if pcpu.timer.load(Ordering::Relaxed) != at {
        pcpu.timer.store(at, Ordering::Relaxed);
        if at == u64::MAX {
            timer::clear_deadline();
        } else {
            timer::set_deadline(at);
        }
    }
}
