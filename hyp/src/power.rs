//! Power of vCPUs: on at the boot contract, off, and what the last one off means.

use crate::graph;
use crate::graph::{Graph, Ref};
use crate::object::domain;
use crate::object::vcpu::{Place, Vcpu, stop};
use crate::sched::{self, control, queue};
use crate::trap::{Next, STAY};
use portico_abi::Status;
use portico_abi::record::{DomainState, EndReason};
use portico_arch::context::VcpuContext;
use portico_arch::registers::{CNTV_CTL_EL0, Writeable};

/// Turns a vCPU on at `pc` with `x0`, everything else as the boot contract says.
///
/// # Errors
/// `BadState` if it is on, or just going off (try again).
pub fn on(graph: &mut Graph, vcpu: Ref<Vcpu>, pc: u64, x0: u64) -> Result<(), Status> {
    if vcpu.powered.get(graph) || vcpu.place() != Place::Off || !control::is_at_rest(vcpu) {
        return Err(Status::BadState);
    }
    {
        let (_home, _) = queue::lock_home(vcpu);
        // SAFETY: it is off and loaded nowhere, and its queue's lock is held.
        let context = unsafe { vcpu.context() };
        let el2 = context.el2;
        *context = VcpuContext::at_power_on();
        context.el2 = el2;
        context.pc = pc;
        context.set_reg(0, x0);
    }
    vcpu.powered.set(graph, true);
    if vcpu.domain.state() == DomainState::Paused {
        control::stop(vcpu, stop::PAUSED);
    }
    if vcpu.domain.state() == DomainState::Created {
        vcpu.domain.set_state(graph, DomainState::Runnable);
    }
    control::start(vcpu)
}

/// Turns the calling vCPU off. The last one ends its domain.
pub fn off(vcpu: Ref<Vcpu>) -> Next {
    {
        let graph = &mut *graph::lock();
        let last = vcpu.domain.vcpus().all(|other| other == vcpu || !other.powered.get(graph));
        if last {
            domain::end(graph, vcpu.domain, EndReason::AllOff, 0);
            if vcpu.domain.state() == DomainState::Runnable {
                // It is the first domain, which has begun anew.
                return STAY;
            }
        }
        vcpu.powered.set(graph, false);
    }
    // A vCPU that is off has no timer.
    CNTV_CTL_EL0.set(0);
    sched::leave(vcpu, Place::Off)
}
