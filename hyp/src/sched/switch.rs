//! Changing the registers of a pCPU from one vCPU to another, and idling.
//!
//! [`portico_switch`] is called by the vectors after all Rust frames of the handler are gone. A context stays loaded while its pCPU idles: a
//! vCPU that blocks and wakes with nobody else there is not saved and loaded again, and its virtual timer keeps counting in hardware.

use core::sync::atomic::{Ordering, fence};

use super::queue::{self, IDLE_MASK};
use super::wake;
use crate::graph::Ref;
use crate::object::domain::EMPTY_ROOT;
use crate::object::vcpu::{NOT_LOADED, Place, Vcpu};
use crate::percpu::{self, Pcpu};
use crate::{irq, quiesce, trace, vmid};
use portico_arch::context::{self, HCR_GUEST, VcpuContext, hcr};
use portico_arch::pcpu::MAX_PCPUS;
use portico_arch::vectors::IDLE;
use portico_arch::{cpu, fpsimd, gic, timer, tlb};
use portico_core::runq::Why;
use portico_core::trace::Event;

#[unsafe(no_mangle)]
extern "C" fn portico_switch(mut next: *mut VcpuContext) -> *mut VcpuContext {
    let pcpu = percpu::this();
    if next == IDLE {
        next = idle(pcpu);
    }
    // SAFETY: what the handlers and `idle` return is IDLE or the context of a vCPU.
    let vcpu = unsafe { Vcpu::from_context(next) };
    match pcpu.loaded() {
        Some(before) if before == vcpu => apply_wfi_trap(vcpu, pcpu.trap_wfi.load(Ordering::Relaxed)),
        before => {
            if let Some(before) = before {
                unload(pcpu, before);
            }
            load(pcpu, vcpu);
        }
    }
    vcpu.publish_times();
    // Pairs with the fence in `notify`: our place is Running, so either we see the wish or the notifier pokes us.
    fence(Ordering::SeqCst);
    if vcpu.take_upcall_wanted() {
        gic::pend_upcall();
    }
    next
}

/// Sets or clears TWI for the vCPU that is loaded here.
pub fn apply_wfi_trap(vcpu: Ref<Vcpu>, trap: bool) {
    // SAFETY: it is loaded on this pCPU.
    let el2 = &mut unsafe { vcpu.context() }.el2;
    let want = guest_hcr(trap) | el2.hcr_el2 & hcr::VSE;
    if el2.hcr_el2 != want {
        el2.hcr_el2 = want;
        context::set_hcr(want);
    }
}

const fn guest_hcr(trap_wfi: bool) -> u64 {
    if trap_wfi { HCR_GUEST | hcr::TWI } else { HCR_GUEST }
}

/// Stack pointer of handlers: 16 bytes below the top, where the vectors find the context.
pub fn handler_sp(pcpu: &Pcpu) -> u64 {
    pcpu.base().stack_top - 16
}

fn load(pcpu: &Pcpu, vcpu: Ref<Vcpu>) {
    let vttbr = vmid::activate(pcpu, vcpu.domain);
    // SAFETY: it runs here now and is loaded nowhere else.
    let context = unsafe { vcpu.context() };
    context.el2.vttbr_el2 = vttbr;
    context.el2.hcr_el2 = guest_hcr(pcpu.trap_wfi.load(Ordering::Relaxed)) | context.el2.hcr_el2 & hcr::VSE;
    context.handler_sp = handler_sp(pcpu);
    // SAFETY: the slot above the handler stack is the vectors' own (see `portico_arch::vectors`).
    unsafe { (context.handler_sp as *mut *mut VcpuContext).write(vcpu.context_ptr()) };
    // SAFETY: nothing is loaded here, and the tables are those of its domain, which lives.
    unsafe { context::load(context) };
    let index = pcpu.index() & (MAX_PCPUS - 1);
    let last = &vcpu.domain.last_here[index];
    if last.load(Ordering::Relaxed) != vcpu.index {
        // vCPUs of one domain share a VMID but each may use an ASID in its own way, as on processors of its own.
        tlb::guest_stage1_local();
        last.store(vcpu.index, Ordering::Relaxed);
    }
    gic::restore(&context.gic);
    pcpu.loaded.store(vcpu.as_ptr(), Ordering::Relaxed);
    vcpu.loaded_on.store(index as u8, Ordering::Release);
    Pcpu::count(&pcpu.switches, 1);
    trace::record(Event::Switch, vcpu.id, index as u16);
}

/// Stores the registers of the vCPU that is loaded here.
#[inline(always)]
fn unload(pcpu: &Pcpu, vcpu: Ref<Vcpu>) {
    // SAFETY: it is loaded on this pCPU.
    let context = unsafe { vcpu.context() };
    // SAFETY: as above.
    unsafe { context::save(context) };
    gic::save(&mut context.gic);
    if vcpu.fp_live.load(Ordering::Relaxed) {
        // SAFETY: FP is allowed since `fp_live` was set, and the state is this vCPU's.
        unsafe { fpsimd::save(&mut context.fp) };
        fpsimd::trap();
        vcpu.fp_live.store(false, Ordering::Relaxed);
    }
    pcpu.loaded.store(core::ptr::null_mut(), Ordering::Relaxed);
    let timer_at = (context.el1.cntv_ctl_el0 & (timer::CTL_ENABLE | timer::CTL_IMASK) == timer::CTL_ENABLE)
        .then(|| context.el1.cntv_cval_el0.saturating_add(context.el2.cntvoff_el2));
    if let Some(at) = timer_at
        && vcpu.place() == Place::Blocked
    {
        watch_timer(pcpu, vcpu, at);
    }
    vcpu.loaded_on.store(NOT_LOADED, Ordering::Release);
    // Pairs with the fence in `notify`: whoever saw it still loaded here has only poked us.
    fence(Ordering::SeqCst);
    let place = vcpu.place();
    if place == Place::Migrating || place == Place::Blocked && vcpu.upcall_wanted() {
        unloaded(vcpu);
    }
}

#[cold]
#[inline(never)]
fn unloaded(vcpu: Ref<Vcpu>) {
    if vcpu.place() == Place::Migrating { settle(vcpu) } else { wake::wake(vcpu) }
}

/// From now on the virtual timer of a blocked vCPU does not count in hardware: its queue's timer does.
#[inline(never)]
fn watch_timer(pcpu: &Pcpu, vcpu: Ref<Vcpu>, at: u64) {
    let mut queue = queue::of(pcpu.index()).lock();
    if vcpu.place() == Place::Blocked {
        // SAFETY: the lock of its queue is held.
        let at = at.min(unsafe { vcpu.sched() }.block_deadline);
        queue.timers.set(vcpu.id, at);
        let slice_end = pcpu.slice_end.load(Ordering::Relaxed);
        queue::set_slice(pcpu, &queue, Some(slice_end));
    }
}

/// Finds a new pCPU for a vCPU that may no longer run on its own.
#[cold]
#[inline(never)]
fn settle(vcpu: Ref<Vcpu>) {
    let (mut home, index) = queue::lock_home(vcpu);
    if vcpu.place() != Place::Migrating {
        return;
    }
    let now = timer::now();
    if vcpu.stop.load(Ordering::Acquire) != 0 {
        // SAFETY: the lock of its queue is held.
        unsafe { vcpu.sched() }.resume_to = Place::Ready;
        vcpu.set_place(Place::Stopped);
        return;
    }
    vcpu.set_place(Place::Ready);
    wake::place(vcpu, &mut home, index, now, Why::Wake);
}

/// Waits until there is a vCPU to run here. The last context stays loaded unless somebody wants it out.
///
/// Who calls has just found nothing in the queue, so it is looked at again only after something happened.
#[inline(never)]
fn idle(pcpu: &'static Pcpu) -> *mut VcpuContext {
    let index = pcpu.index();
    let since = timer::now();
    IDLE_MASK.fetch_or(1 << index, Ordering::SeqCst);
    let next = loop {
        if pcpu.unload.load(Ordering::Relaxed) {
            unload_on_demand(pcpu);
        }
        quiesce::note();
        if let Some(next) = queue::resume_loaded(pcpu)
            && next != IDLE
        {
            break next;
        }
        if pcpu.resched.load(Ordering::Acquire) || !wake::nobody_waits() && wake::steal(index) {
            pcpu.resched.store(false, Ordering::Relaxed);
            let next = queue::pick_idle(pcpu);
            if next != IDLE {
                break next;
            }
            continue;
        }
        cpu::wait_for_interrupt();
        irq::drain(pcpu);
    };
    IDLE_MASK.fetch_and(!(1 << index), Ordering::Relaxed);
    Pcpu::count(&pcpu.idle_ticks, timer::now().wrapping_sub(since));
    next
}

#[cold]
#[inline(never)]
fn unload_on_demand(pcpu: &Pcpu) {
    pcpu.unload.store(false, Ordering::Relaxed);
    if let Some(loaded) = pcpu.loaded()
        && loaded.place() != Place::Blocked
    {
        release_context(pcpu, loaded);
    }
}

/// Takes a context off this pCPU for good, with the tables that it points at.
fn release_context(pcpu: &Pcpu, loaded: Ref<Vcpu>) {
    unload(pcpu, loaded);
    // SAFETY: just unloaded; the root is a zeroed table of EL2's image.
    unsafe { context::unload_stage2(EMPTY_ROOT.pa().raw()) };
    pcpu.active_vmid.store(0, Ordering::Release);
}
