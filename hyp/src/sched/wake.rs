//! Waking a vCPU, and choosing where it runs.

use core::sync::atomic::Ordering;

use super::queue::{self, IDLE_MASK, Queue, WAITING_MASK};
use crate::graph::Ref;
use crate::object::vcpu::{NOT_LOADED, Place, Vcpu};
use crate::percpu;
use crate::trace;
use portico_arch::timer;
use portico_core::runq::Why;
use portico_core::trace::Event;

/// Makes a vCPU that wants an upcall notice it: by a poke if it runs, by waking it if it is blocked. One that is ready or stopped will see
/// the wish when it is entered.
#[inline]
pub fn kick(vcpu: Ref<Vcpu>) {
    match vcpu.place() {
        Place::Running => percpu::poke(usize::from(vcpu.pcpu.load(Ordering::Relaxed))),
        Place::Blocked => {
            let home = vcpu.pcpu.load(Ordering::Relaxed);
            if vcpu.loaded_on.load(Ordering::Relaxed) != home {
                if !wake_there(vcpu, usize::from(home)) {
                    wake(vcpu);
                }
            } else if usize::from(home) != percpu::index() {
                // Its pCPU idles with it loaded, and will look at the wish when it wakes; or it is just about to unload it, and will look then.
                percpu::poke(usize::from(home));
            }
        }
        Place::Off | Place::Ready | Place::Faulted | Place::Stopped | Place::Migrating => {}
    }
}

/// Leaves the waking of a blocked vCPU to its own pCPU, where it is cheaper, if all pCPUs are busy: then it would not run elsewhere either.
///
/// The number is stored before `resched`, and that before the poke, so the next decision there finds it. A blocked vCPU changes its pCPU only
/// by becoming ready, and then it sees the wish when it is entered; so a number found too late is passed over.
#[inline]
fn wake_there(vcpu: Ref<Vcpu>, home: usize) -> bool {
    if home == percpu::index() || IDLE_MASK.load(Ordering::Relaxed) != 0 {
        return false;
    }
    let woken = &percpu::of(home).woken;
    let noted = woken.compare_exchange(0, u32::from(vcpu.id) + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    if noted {
        notice(home);
    }
    noted
}

/// Wakes a blocked vCPU; does nothing to another.
pub fn wake(vcpu: Ref<Vcpu>) {
    let (mut home, index) = queue::lock_home(vcpu);
    if vcpu.place() != Place::Blocked {
        return;
    }
    let now = timer::now();
    // SAFETY: the lock of its queue is held.
    let state = unsafe { vcpu.sched() };
    state.woken(now);
    vcpu.set_place(Place::Ready);
    trace::record(Event::Wake, vcpu.id, index as u16);
    place(vcpu, &mut home, index, now, Why::Wake);
}

/// Lets a vCPU run that was off, stopped, faulted or migrating. If a stop reason is set it runs when that is gone.
pub fn let_run(vcpu: Ref<Vcpu>, home: &mut Queue, index: usize) {
    if vcpu.stop.load(Ordering::Acquire) != 0 {
        return vcpu.set_place(Place::Stopped);
    }
    let now = timer::now();
    // SAFETY: the lock of its queue is held.
    unsafe { vcpu.sched() }.since = now;
    vcpu.set_place(Place::Ready);
    place(vcpu, home, index, now, Why::Wake);
}

/// Puts a vCPU that is READY but in no queue into one: its own, or that of an idle pCPU that it may use.
pub fn place(vcpu: Ref<Vcpu>, home: &mut Queue, index: usize, now: u64, why: Why) {
    // SAFETY: the lock of its queue is held.
    let state = unsafe { vcpu.sched() };
    let allowed = state.affinity & ((1 << percpu::online()) - 1);
    let idle = IDLE_MASK.load(Ordering::Relaxed) & allowed;
    let may_stay = allowed & 1 << index != 0;
    // An idle pCPU is best, its own first; a busy one is better than one that it may not use.
    let best = if idle != 0 || may_stay { idle } else { allowed };
    if best != 0
        && best & 1 << index == 0
        && vcpu.loaded_on.load(Ordering::Acquire) == NOT_LOADED
        && state.entity.is_weighted()
    {
        let other = best.trailing_zeros() as usize;
        if let Some(mut queue) = queue::of(other).try_lock() {
            move_home(vcpu, index, other);
            queue.run.enqueue(vcpu.id, &mut state.entity, now, Why::Migrated);
            notice(other);
            return;
        }
    }
    let preempts = home.run.enqueue(vcpu.id, &mut state.entity, now, why);
    let pcpu = percpu::this();
    if preempts || index != pcpu.index() {
        notice(index);
    } else if let Some(current) = pcpu.current() {
        // The one that runs is no longer alone: its slice ends some time, and its WFI traps.
        // SAFETY: it belongs to this queue, whose lock is held.
        let deadline = home.run.deadline(&unsafe { current.sched() }.entity, now);
        queue::set_slice(pcpu, home, deadline);
        queue::update_wfi_trap(pcpu, home);
    }
}

/// Has a pCPU decide anew.
pub fn notice(index: usize) {
    percpu::of(index).resched.store(true, Ordering::Release);
    if index != percpu::index() {
        percpu::poke(index);
    }
}

/// Changes the queue that a vCPU belongs to. Both locks are held, or the vCPU is in no queue and only `from`'s lock can find it.
pub fn move_home(vcpu: Ref<Vcpu>, from: usize, to: usize) {
    percpu::of(from).homed.fetch_sub(1, Ordering::Relaxed);
    percpu::of(to).homed.fetch_add(1, Ordering::Relaxed);
    vcpu.pcpu.store(to as u8, Ordering::Release);
}

/// Whether, as far as is known, no pCPU has a vCPU that it could give away: this one, which idles, is not looked at.
#[inline(always)]
pub fn nobody_waits() -> bool {
    WAITING_MASK.load(Ordering::Relaxed) == 0
}

/// Takes a ready vCPU from a busier pCPU to this idle one. Looks at each once.
#[cold]
#[inline(never)]
pub fn steal(own: usize) -> bool {
    for other in 0..percpu::online() {
        if other == own || WAITING_MASK.load(Ordering::Relaxed) & 1 << other == 0 {
            continue;
        }
        let Some(mut victim) = queue::of(other).try_lock() else { continue };
        let found = victim.run.steal(|id| {
            queue::by_id(id).is_some_and(|vcpu| {
                // SAFETY: it is in the victim's queue, whose lock is held.
                vcpu.loaded_on.load(Ordering::Acquire) == NOT_LOADED && unsafe { vcpu.sched() }.affinity & 1 << own != 0
            })
        });
        let Some(vcpu) = found.and_then(queue::by_id) else { continue };
        let now = timer::now();
        // SAFETY: its home is still the victim.
        let state = unsafe { vcpu.sched() };
        if let Some(mut queue) = queue::of(own).try_lock() {
            move_home(vcpu, other, own);
            queue.run.enqueue(vcpu.id, &mut state.entity, now, Why::Migrated);
            return true;
        }
        victim.run.enqueue(vcpu.id, &mut state.entity, now, Why::Wake);
    }
    false
}
