//! Making a port bit pending on a vCPU: the one way by which anything interrupts a guest.
//!
//! Takes no lock; only waking a blocked vCPU takes a run-queue lock. The bytes written are the guest's to read and clear with
//! plain stores; EL2 only ever stores 1 to them, and what it reads back can mislead it about no one but that guest.

use core::sync::atomic::{Ordering, fence};

use crate::graph::Ref;
use crate::object::vcpu::Vcpu;
use crate::sched;

/// Makes `bit` pending on `vcpu` and raises its upcall unless it is masked or already raised.
///
/// The order of the stores is the protocol's (see ABI.md, "Ports"): pending byte, selector byte, then `upcall_pending`.
#[inline(always)]
pub fn pend(vcpu: Ref<Vcpu>, bit: u16) {
    if mark(vcpu, bit) {
        raise(vcpu);
    }
}

/// The stores of [`pend`] alone; says whether the upcall must be raised.
#[inline(always)]
pub fn mark(vcpu: Ref<Vcpu>, bit: u16) -> bool {
    portico_abi::pending::mark(vcpu.page(), usize::from(bit))
}

/// Raises the upcall interrupt of a vCPU, wherever it is. Not to be called between a decision who runs next here and the change of
/// registers: then the one that runs is not the one whose registers are loaded.
#[inline(always)]
pub fn raise(vcpu: Ref<Vcpu>) {
    if sched::is_current(vcpu) {
        portico_arch::gic::pend_upcall();
    } else {
        raise_elsewhere(vcpu);
    }
}

#[unsafe(export_name = "portico_raise_elsewhere")]
fn raise_elsewhere(vcpu: Ref<Vcpu>) {
    vcpu.set_upcall_wanted();
    // Pairs with the barrier in `sched` between publishing a state and looking at the flag: either the pCPU that enters or
    // blocks this vCPU sees the flag, or we see its new state here.
    fence(Ordering::SeqCst);
    sched::kick(vcpu);
}
