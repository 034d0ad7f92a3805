//! Starting, stopping and parameters: what management calls do to a vCPU's scheduling.

use core::sync::atomic::Ordering;

use super::queue;
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
    match vcpu.place() {
        // A wake-up without a reason is legal, so one that is blocked simply runs when it is resumed.
        place @ (Place::Ready | Place::Blocked) => {
            home.run.dequeue(vcpu.id);
            // SAFETY: the lock of its queue is held.
            let state = unsafe { vcpu.sched() };
            let now = timer::now();
            let waited = if place == Place::Ready { &mut state.ready } else { &mut state.blocked };
            *waited += now.wrapping_sub(state.since);
            state.since = now;
            vcpu.set_place(Place::Stopped);
        }
        Place::Running => wake::notice(index),
        Place::Off | Place::Faulted | Place::Stopped | Place::Migrating => {}
    }
    drop(home);
    evict(vcpu);
}

/// Asks the pCPU on which a vCPU is merely loaded to store it.
pub fn evict(vcpu: Ref<Vcpu>) {
    let loaded_on = usize::from(vcpu.loaded_on.load(Ordering::Acquire));
    if loaded_on != usize::from(NOT_LOADED) {
        percpu::of(loaded_on).unload.store(true, Ordering::Release);
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
    vcpu.stop.fetch_and(!reason, Ordering::AcqRel);
    if vcpu.is_at(Place::Stopped) {
        wake::let_run(vcpu, &mut home, index);
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
    wake::let_run(vcpu, &mut home, index);
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
    let fits_here = affinity & 1 << index != 0 && home.admission.admit(class);
    if !fits_here {
        // A vCPU in no queue can change its home at once. The graph's lock lets only one caller wait for a second queue at a time.
        let at_rest = is_at_rest(vcpu);
        let other = (0..percpu::online())
            .filter(|&other| at_rest && other != index && affinity & 1 << other != 0)
            .find(|&other| queue::of(other).lock().admission.admit(class));
        match other {
            Some(other) => wake::move_home(vcpu, index, other),
            // One that runs leaves by itself for a pCPU that it may use.
            None if class.permille() == 0 && !at_rest => {}
            None => {
                home.admission.admit(before);
                return Err(Status::Overcommitted);
            }
        }
    }
    let now = timer::now();
    let place = vcpu.place();
    home.run.dequeue(vcpu.id);
    if place == Place::Running {
        let ran = home.run.stop(&mut state.entity, now);
        state.stopped(ran, now);
    }
    state.entity.configure(class, ticks_per_ms);
    state.affinity = affinity;
    if place == Place::Running {
        home.run.start(&mut state.entity, now);
        wake::notice(index);
    } else if place == Place::Ready {
        wake::place(vcpu, &mut home, index, now, Why::Wake);
    }
    Ok(())
}

/// The pCPU on which a new vCPU begins: the one with the fewest.
pub fn choose_home() -> u8 {
    let homed = |index: &usize| percpu::of(*index).homed.load(Ordering::Relaxed);
    let least = (0..percpu::online()).min_by_key(homed).unwrap_or(0);
    percpu::of(least).homed.fetch_add(1, Ordering::Relaxed);
    least as u8
}

/// Takes a vCPU that is at rest and will not run again out of the books of its pCPU.
pub fn forget(vcpu: Ref<Vcpu>) {
    let (mut home, index) = queue::lock_home(vcpu);
    home.run.timers.cancel(vcpu.id);
    // SAFETY: the lock of its queue is held.
    let class = unsafe { vcpu.sched() }.entity.class();
    home.admission.release(class);
    percpu::of(index).homed.fetch_sub(1, Ordering::Relaxed);
}
