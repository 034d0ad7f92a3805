//! Physical interrupts: the virtual timer of whoever is loaded, EL2's own timer, pokes, and device interrupts as ports.

use core::sync::atomic::Ordering;

use crate::graph::Ref;
use crate::object::irq;
use crate::object::vcpu::Vcpu;
use crate::percpu::{self, Pcpu, SGI_HALT, SGI_POKE};
use crate::sched;
use crate::trap::{Next, STAY};
use crate::{notify, quiesce};
use portico_abi::port::BIT_TIMER;
use portico_arch::gic::{self, FIRST_SPECIAL_INTID, FIRST_SPI};
use portico_arch::timer;

/// Interrupt of EL2's own timer (CNTHP). (Arm BSA, "PPI assignments")
pub const PPI_HYP_TIMER: u32 = 26;
/// Interrupt of the virtual timer (CNTV).
pub const PPI_VIRTUAL_TIMER: u32 = 27;

/// An interrupt while a guest runs.
#[inline]
pub fn from_guest(vcpu: Ref<Vcpu>) -> Next {
    let acknowledged = gic::ack();
    if gic::intid(acknowledged) == PPI_VIRTUAL_TIMER {
        virtual_timer(vcpu);
        gic::end(acknowledged);
        return STAY;
    }
    if gic::intid(acknowledged) == SGI_POKE {
        gic::end(acknowledged);
        quiesce::note();
        return look(vcpu);
    }
    if gic::intid(acknowledged) == PPI_HYP_TIMER {
        gic::end(acknowledged);
        // This decision programs it again; until then its level is high, which nobody sees.
        return sched::reconsider(vcpu);
    }
    from_guest_slow(vcpu, acknowledged)
}

/// EL2's own timer fired. It is off until the next decision programs it again; the flag leads to that decision.
fn deadline_passed(pcpu: &Pcpu) {
    timer::clear_deadline();
    pcpu.timer.store(u64::MAX, Ordering::Relaxed);
    pcpu.resched.store(true, Ordering::Relaxed);
}

/// Looks at what others may have asked of this pCPU or of the vCPU that runs here.
#[inline(always)]
fn look(vcpu: Ref<Vcpu>) -> Next {
    vcpu.raise_wanted();
    if percpu::this().resched.load(Ordering::Acquire) { sched::reconsider(vcpu) } else { STAY }
}

#[inline(never)]
fn from_guest_slow(vcpu: Ref<Vcpu>, acknowledged: u32) -> Next {
    serve(percpu::this(), acknowledged);
    look(vcpu)
}

/// The virtual timer fired: it stays masked until the guest arms it again with CTL = ENABLE, and its port is pending. No tick is lost,
/// since the guest's write of CTL fires it at once if its time has passed.
#[inline(always)]
fn virtual_timer(vcpu: Ref<Vcpu>) {
    timer::mask_virtual();
    notify::pend(vcpu, BIT_TIMER);
}

/// Serves what is pending while no guest runs.
pub fn drain(pcpu: &Pcpu) {
    // Bounded: a storm of interrupts is served one round at a time, with a scheduling decision in between.
    for _ in 0..8 {
        let acknowledged = gic::ack();
        if gic::intid(acknowledged) >= FIRST_SPECIAL_INTID {
            return;
        }
        serve(pcpu, acknowledged);
    }
}

fn serve(pcpu: &Pcpu, acknowledged: u32) {
    Pcpu::count(&pcpu.irqs, 1);
    let intid = gic::intid(acknowledged);
    match intid {
        PPI_VIRTUAL_TIMER => match pcpu.loaded() {
            Some(vcpu) => virtual_timer(vcpu),
            None => timer::mask_virtual(),
        },
        PPI_HYP_TIMER => deadline_passed(pcpu),
        SGI_POKE => quiesce::note(),
        SGI_HALT => crate::panic::halt_this(),
        FIRST_SPI..FIRST_SPECIAL_INTID => {
            gic::eoi(acknowledged);
            // Level interrupts stay active until the guest's `irq_complete`.
            if !irq::deliver(intid) {
                gic::deactivate(acknowledged);
            }
            return;
        }
        _ => {}
    }
    if intid < FIRST_SPECIAL_INTID {
        gic::end(acknowledged);
    }
}
