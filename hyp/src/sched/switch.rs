//! Changing the registers of a pCPU from one vCPU to another, and idling.
//!
//! [`portico_switch`] is called by the vectors after all Rust frames of the handler are gone. A context stays loaded while its pCPU idles: a
//! vCPU that blocks and wakes with nobody else there is not saved and loaded again, and its virtual timer keeps counting in hardware.

use core::sync::atomic::{Ordering, fence};

use super::queue::{self, IDLE_MASK};
use super::{fast, wake};
use crate::graph::Ref;
use crate::object::domain::empty_root;
use crate::object::vcpu::{NOT_LOADED, Place, Vcpu};
use crate::percpu::{self, Pcpu};
use crate::{irq, quiesce, trace, vmid};
use portico_arch::context::{self, VcpuContext};
use portico_arch::pcpu::MAX_PCPUS;
use portico_arch::registers::{HCR_EL2, Writeable};
use portico_arch::vectors::IDLE;
use portico_arch::{cpu, gic, timer, tlb};
use portico_core::trace::Event;

/// What is common comes without a call in between, which would cost a stack frame each time; everything else is done before or after it.
#[unsafe(no_mangle)]
extern "C" fn portico_switch(next: *mut VcpuContext) -> *mut VcpuContext {
    let pcpu = percpu::this();
    if next != IDLE
        && let Some(from) = pcpu.loaded()
        && from.context_ptr() != next
    {
        // SAFETY: a handler returns IDLE or the context of a vCPU.
        let to = unsafe { Vcpu::from_context(next) };
        // SAFETY: one is loaded on this pCPU, the other runs here now and is loaded nowhere; they are two.
        let (saved, loaded) = unsafe { (from.context(), to.context()) };
        if saved.rare | loaded.rare == 0
            && let Some(vttbr) = vmid::if_current(pcpu, to.domain)
        {
            // SAFETY: as above.
            let timer_runs = timer::runs(unsafe { context::save(saved) });
            gic::save(&mut saved.gic);
            let gone = from.is_at(Place::Ready) | (from.is_at(Place::Blocked) & !timer_runs);
            if gone {
                from.loaded_on.store(NOT_LOADED, Ordering::Release);
            }
            return take_in(pcpu, to, vttbr, Some(from), gone);
        }
    }
    switch_slow(pcpu, next)
}

#[inline(never)]
fn switch_slow(pcpu: &'static Pcpu, mut next: *mut VcpuContext) -> *mut VcpuContext {
    if next == IDLE {
        next = idle(pcpu);
    }
    // SAFETY: what the handlers and `idle` return is IDLE or the context of a vCPU.
    let vcpu = unsafe { Vcpu::from_context(next) };
    if let Some(before) = pcpu.loaded() {
        if before == vcpu {
            HCR_EL2.set(pcpu.hcr.load(Ordering::Relaxed));
            return arrive(vcpu);
        }
        unload(pcpu, before);
    }
    let vttbr = vmid::activate(pcpu, vcpu.domain);
    // SAFETY: it runs here now and is loaded nowhere else.
    let context = unsafe { vcpu.context() };
    if context.rare != 0 {
        // SAFETY: nothing is loaded here.
        unsafe { context::load_rare(context) };
    }
    take_in(pcpu, vcpu, vttbr, None, true)
}

/// Loads the registers of a vCPU, but for the rare ones, where nothing is loaded now. `from`, if any, was stored just before; it counts as
/// loaded here unless it is `gone`.
#[unsafe(export_name = "portico_take_in")]
fn take_in(pcpu: &Pcpu, to: Ref<Vcpu>, vttbr: u64, from: Option<Ref<Vcpu>>, gone: bool) -> *mut VcpuContext {
    // SAFETY: it runs here now and is loaded nowhere else.
    let context = unsafe { to.context() };
    context.el2.vttbr_el2 = vttbr;
    context.handler_sp = handler_sp(pcpu);
    // SAFETY: the slot above the handler stack is the vectors' own (see `portico_arch::vectors`).
    unsafe { (context.handler_sp as *mut *mut VcpuContext).write(to.context_ptr()) };
    // SAFETY: nothing is loaded here, and the tables are those of its domain, which lives.
    unsafe { context::load(context, pcpu.hcr.load(Ordering::Relaxed)) };
    gic::restore(&context.gic);
    let index = pcpu.index() & (MAX_PCPUS - 1);
    let last = &to.domain.last_here[index];
    if last.load(Ordering::Relaxed) != to.index {
        // vCPUs of one domain share a VMID but each may use an ASID in its own way, as on processors of its own.
        tlb::guest_stage1_local();
        last.store(to.index, Ordering::Relaxed);
    }
    pcpu.loaded.store(to.as_ptr(), Ordering::Relaxed);
    to.loaded_on.store(index as u8, Ordering::Release);
    Pcpu::count(&pcpu.switches, 1);
    trace::record(Event::Switch, to.id, index as u16);
    // Pairs with the fence in `notify`: `to` is Running, so either we see the wish or the notifier pokes us; and whoever saw `from` still
    // loaded here has only poked us.
    fence(Ordering::SeqCst);
    if to.times_are_due() || from.is_some_and(|from| !gone || from.upcall_wanted()) {
        return finish(pcpu, to, from, gone);
    }
    to.raise_wanted();
    to.context_ptr()
}

/// The end of [`take_in`] where there is more to do.
#[unsafe(export_name = "portico_finish")]
fn finish(pcpu: &Pcpu, to: Ref<Vcpu>, from: Option<Ref<Vcpu>>, gone: bool) -> *mut VcpuContext {
    if let Some(from) = from {
        if !gone {
            let_go(pcpu, from);
        }
        look_back(from);
    }
    arrive(to)
}

/// The last look before a vCPU is entered.
fn arrive(vcpu: Ref<Vcpu>) -> *mut VcpuContext {
    vcpu.publish_times();
    // As in `take_in`.
    fence(Ordering::SeqCst);
    vcpu.raise_wanted();
    vcpu.context_ptr()
}

/// Stack pointer of handlers: 16 bytes below the top, where the vectors find the context.
pub fn handler_sp(pcpu: &Pcpu) -> u64 {
    pcpu.base().stack_top - 16
}

/// Stores the registers of the vCPU that is loaded here.
fn unload(pcpu: &Pcpu, vcpu: Ref<Vcpu>) {
    // SAFETY: it is loaded on this pCPU.
    let context = unsafe { vcpu.context() };
    // SAFETY: as above.
    unsafe { context::save(context) };
    if context.rare != 0 {
        // SAFETY: as above.
        unsafe { context::save_rare(context) };
    }
    gic::save(&mut context.gic);
    pcpu.loaded.store(core::ptr::null_mut(), Ordering::Relaxed);
    let_go(pcpu, vcpu);
    look_back(vcpu);
}

/// A vCPU whose registers were just stored may be taken elsewhere.
fn let_go(pcpu: &Pcpu, vcpu: Ref<Vcpu>) {
    // SAFETY: it counts as loaded on this pCPU still.
    let context = unsafe { vcpu.context() };
    let due = queue::timer_due(context);
    if due != u64::MAX && vcpu.is_at(Place::Blocked) {
        watch_timer(pcpu, vcpu, due);
    }
    vcpu.loaded_on.store(NOT_LOADED, Ordering::Release);
    // Pairs with the fence in `notify`: whoever saw it still loaded here has only poked us.
    fence(Ordering::SeqCst);
}

/// Looks what became of a vCPU while it was loaded here.
fn look_back(vcpu: Ref<Vcpu>) {
    match vcpu.place() {
        Place::Migrating => settle(vcpu),
        Place::Blocked if vcpu.upcall_wanted() => wake::wake(vcpu),
        _ => {}
    }
}

/// From now on the virtual timer of a blocked vCPU does not count in hardware: its queue's timer does.
#[inline(never)]
fn watch_timer(pcpu: &Pcpu, vcpu: Ref<Vcpu>, at: u64) {
    let mut queue = pcpu.queue.lock();
    if vcpu.place() == Place::Blocked {
        // SAFETY: the lock of its queue is held.
        let state = unsafe { vcpu.sched() };
        state.look_at = at.min(state.block_deadline);
        queue.run.timers.set(vcpu.id, state.look_at);
        let slice_end = pcpu.slice_end.load(Ordering::Relaxed);
        queue::set_slice(pcpu, &queue, slice_end);
    }
}

/// Finds a new pCPU for a vCPU that may no longer run on its own.
#[cold]
#[inline(never)]
fn settle(vcpu: Ref<Vcpu>) {
    let (mut home, index) = queue::lock_home(vcpu);
    if vcpu.is_at(Place::Migrating) {
        wake::let_run(vcpu, &mut home, index);
    }
}

/// Waits until there is a vCPU to run here. The last context stays loaded unless somebody wants it out.
///
/// Who calls has just found nothing in the queue, so it is looked at again only after something happened.
#[unsafe(export_name = "portico_idle")]
fn idle(pcpu: &'static Pcpu) -> *mut VcpuContext {
    let index = pcpu.index();
    let since = timer::now();
    IDLE_MASK.fetch_or(1 << index, Ordering::SeqCst);
    gic::enable_virtual(false);
    let next = loop {
        if pcpu.unload.load(Ordering::Relaxed) {
            unload_for_good(pcpu);
        }
        quiesce::note();
        if let Some(next) = fast::resume_loaded(pcpu)
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
    gic::enable_virtual(true);
    IDLE_MASK.fetch_and(!(1 << index), Ordering::Relaxed);
    Pcpu::count(&pcpu.idle_ticks, timer::now().wrapping_sub(since));
    next
}

/// Takes a context that somebody wants off this pCPU, with the tables that it points at.
#[cold]
#[inline(never)]
fn unload_for_good(pcpu: &Pcpu) {
    pcpu.unload.store(false, Ordering::Relaxed);
    if let Some(loaded) = pcpu.loaded().filter(|loaded| !loaded.is_at(Place::Blocked)) {
        unload(pcpu, loaded);
        // SAFETY: just unloaded; the root is a zeroed table of EL2's image.
        unsafe { context::unload_stage2(empty_root().raw()) };
        pcpu.active_vmid.store(0, Ordering::Release);
    }
}
