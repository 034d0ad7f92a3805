//! Starting, stopping and parameters: what management calls do to a vCPU's scheduling.

use core::sync::atomic::Ordering;

use super::queue::{self};
use super::wake;
use crate::graph::Ref;
use crate::object::vcpu::{NOT_LOADED, Place, Vcpu};
use crate::percpu;
use portico_abi::Status;
use portico_arch::timer;
use portico_core::runq::{Class, Why};

/// Adds a stop reason. One that runs elsewhere is poked and stops within one interrupt; see [`is_at_rest`].
pub fn stop(vcpu: Ref<Vcpu>, reason: u8) {
    let (mut home, index) = queue::lock_home(vcpu);
    vcpu.stop.fetch_or(reason, Ordering::AcqRel);
    let now = timer::now();
    match vcpu.place() {
        Place::Ready => {
            home.run.dequeue(vcpu.id);
            // SAFETY: the lock of its queue is held.
            let state = unsafe { vcpu.sched() };
            state.ready += now.wrapping_sub(state.since);
            state.since = now;
            state.resume_to = Place::Ready;
            vcpu.set_place(Place::Stopped);
        }
        Place::Blocked => {
            // SAFETY: as above.
            let state = unsafe { vcpu.sched() };
            state.blocked += now.wrapping_sub(state.since);
            state.since = now;
            // A wake-up without a reason is legal, so it simply runs when it is resumed.
            state.resume_to = Place::Ready;
            vcpu.set_place(Place::Stopped);
        }
        Place::Running => {
            if let Some(pcpu) = percpu::get(index) {
                pcpu.resched.store(true, Ordering::Release);
            }
            if index != percpu::index() {
                percpu::poke(index);
            }
        }
        Place::Off | Place::Faulted | Place::Stopped | Place::Migrating => {}
    }
    drop(home);
    evict(vcpu);
}

/// Asks the pCPU on which a vCPU is merely loaded to store it.
pub fn evict(vcpu: Ref<Vcpu>) {
    let loaded_on = usize::from(vcpu.loaded_on.load(Ordering::Acquire));
    if loaded_on != usize::from(NOT_LOADED)
        && let Some(pcpu) = percpu::get(loaded_on)
    {
        pcpu.unload.store(true, Ordering::Release);
        if loaded_on != percpu::index() {
            percpu::poke(loaded_on);
        }
    }
}

/// Whether a vCPU neither runs nor is about to, and its registers are in memory.
pub fn is_at_rest(vcpu: Ref<Vcpu>) -> bool {
    matches!(vcpu.place(), Place::Off | Place::Stopped | Place::Faulted)
        && vcpu.loaded_on.load(Ordering::Acquire) == NOT_LOADED
}

/// Takes a stop reason away; with the last one the vCPU goes on.
pub fn resume(vcpu: Ref<Vcpu>, reason: u8) {
    let (mut home, index) = queue::lock_home(vcpu);
    let left = vcpu.stop.fetch_and(!reason, Ordering::AcqRel) & !reason;
    if left != 0 || vcpu.place() != Place::Stopped {
        return;
    }
    // SAFETY: the lock of its queue is held.
    let state = unsafe { vcpu.sched() };
    if state.resume_to == Place::Ready {
        let now = timer::now();
        state.since = now;
        vcpu.set_place(Place::Ready);
        wake::place(vcpu, &mut home, index, now, Why::Wake);
    } else {
        vcpu.set_place(state.resume_to);
    }
}

/// Lets a vCPU run that is off, or whose fault was answered. If a stop reason is set it runs when that is gone.
///
/// # Errors
/// `BadState` if it is in another place, or still loaded somewhere (try again).
pub fn start(vcpu: Ref<Vcpu>) -> Result<(), Status> {
    let (mut home, index) = queue::lock_home(vcpu);
    if !matches!(vcpu.place(), Place::Off | Place::Faulted) {
        return Err(Status::BadState);
    }
    let now = timer::now();
    // SAFETY: the lock of its queue is held.
    let state = unsafe { vcpu.sched() };
    state.since = now;
    if vcpu.stop.load(Ordering::Acquire) != 0 {
        state.resume_to = Place::Ready;
        vcpu.set_place(Place::Stopped);
    } else {
        vcpu.set_place(Place::Ready);
        wake::place(vcpu, &mut home, index, now, Why::Wake);
    }
    Ok(())
}

/// Sets class, parameters and affinity. Its pCPU changes if the new affinity excludes it, or a reservation does not fit there.
///
/// # Errors
/// `Invalid`, `Overcommitted`.
pub fn configure(vcpu: Ref<Vcpu>, class: Class, affinity: u64, ticks_per_ms: u64) -> Result<(), Status> {
    class.check(ticks_per_ms)?;
    let online = (1u64 << percpu::online()) - 1;
    let affinity = if affinity == 0 { u64::MAX } else { affinity };
    if affinity & online == 0 {
        return Err(Status::Invalid);
    }
    let (mut home, index) = queue::lock_home(vcpu);
    // SAFETY: the lock of its queue is held.
    let state = unsafe { vcpu.sched() };
    let before = state.entity.class();
    home.admission.release(before);
    let at_rest = matches!(vcpu.place(), Place::Off | Place::Stopped | Place::Faulted)
        && vcpu.loaded_on.load(Ordering::Acquire) == NOT_LOADED;
    let fits_here = affinity & 1 << index != 0 && home.admission.fits(class);
    if fits_here {
        let _ = home.admission.admit(class);
    } else if at_rest {
        // A vCPU in no queue can change its home at once.
        let target = (0..percpu::online()).find(|&other| {
            other != index
                && affinity & 1 << other != 0
                && queue::of(other).try_lock().is_some_and(|mut queue| queue.admission.admit(class).is_ok())
        });
        match target {
            Some(other) => wake::move_home(vcpu, index, other),
            None => {
                let _ = home.admission.admit(before);
                return Err(Status::Overcommitted);
            }
        }
    } else if class.permille() != 0 {
        let _ = home.admission.admit(before);
        return Err(Status::Overcommitted);
    }
    let was_queued = home.run.dequeue(vcpu.id);
    let now = timer::now();
    if vcpu.place() == Place::Running {
        state.running += home.run.stop(&mut state.entity, now);
        state.since = now;
    }
    state.entity.configure(class, ticks_per_ms);
    state.affinity = affinity;
    match vcpu.place() {
        Place::Ready if was_queued => wake::place(vcpu, &mut home, index, now, Why::Wake),
        Place::Running => {
            home.run.start(&mut state.entity, now);
            if let Some(pcpu) = percpu::get(index) {
                pcpu.resched.store(true, Ordering::Release);
            }
            if index != percpu::index() {
                percpu::poke(index);
            }
        }
        _ => {}
    }
    Ok(())
}

/// The pCPU on which a new vCPU begins: the one with the fewest.
pub fn choose_home() -> u8 {
    let mut best = 0;
    let mut least = u8::MAX;
    for index in 0..percpu::online() {
        if let Some(pcpu) = percpu::get(index) {
            let homed = pcpu.homed.load(Ordering::Relaxed);
            if homed < least {
                least = homed;
                best = index;
            }
        }
    }
    if let Some(pcpu) = percpu::get(best) {
        pcpu.homed.fetch_add(1, Ordering::Relaxed);
    }
    best as u8
}

/// Takes a vCPU that is at rest and will not run again out of the books of its pCPU.
pub fn forget(vcpu: Ref<Vcpu>) {
    let (mut home, index) = queue::lock_home(vcpu);
    home.timers.cancel(vcpu.id);
    // SAFETY: the lock of its queue is held.
    let class = unsafe { vcpu.sched() }.entity.class();
    home.admission.release(class);
    if let Some(pcpu) = percpu::get(index) {
        pcpu.homed.fetch_sub(1, Ordering::Relaxed);
    }
}
