//! Where the vectors arrive: hot calls first, everything else by [`crate::dispatch`].
//!
//! Each handler returns null to go on with the same vCPU, a context to switch to, or `IDLE`. (See `portico_arch::vectors`.)

use core::ptr::null_mut;

use crate::graph::Ref;
use crate::object::handle;
use crate::object::port::Port;
use crate::object::vcpu::Vcpu;
use crate::{dispatch, fault, irq, sched};
use portico_abi::call::SVE_HINT;
use portico_abi::{Call, Handle, Rights, Status, psci};
use portico_arch::context::VcpuContext;

/// What a handler returns.
pub type Next = *mut VcpuContext;

/// Goes on with the same vCPU.
pub const STAY: Next = null_mut();

const PORT_NOTIFY: u32 = Call::PortNotify.function_id();
const PORT_NOTIFY_WAIT: u32 = Call::PortNotifyWait.function_id();

/// `hvc #0`. Decodes the calls whose cost matters by a short chain of comparisons (no jump tables here: an indirect branch is
/// what Spectre v2 trains) and hands the rest over.
#[unsafe(no_mangle)]
extern "C" fn portico_hypercall(x0: u64, x1: u64, x2: u64, _x3: u64, _x4: u64, _x5: u64, _x6: u64, context: *mut VcpuContext) -> Next {
    // SAFETY: the vectors pass the context of the vCPU that runs here.
    let vcpu = unsafe { Vcpu::from_context(context) };
    let id = x0 as u32 & !SVE_HINT;
    if id == PORT_NOTIFY {
        set_status(vcpu, notify(vcpu, x1));
        return sched::after_call(vcpu);
    }
    if id == psci::PSCI_VERSION {
        set_result(vcpu, dispatch::PSCI_1_1);
        return STAY;
    }
    if id == PORT_NOTIFY_WAIT {
        return match notify(vcpu, x1) {
            Ok(()) => sched::block(vcpu, x2),
            Err(status) => {
                set_status(vcpu, Err(status));
                STAY
            }
        };
    }
    dispatch::call(vcpu, id)
}

/// The whole of `port_notify`: look-up with rights, the other end, its vCPU.
#[inline(always)]
fn notify(vcpu: Ref<Vcpu>, raw: u64) -> Result<(), Status> {
    let port: Ref<Port> = handle::lookup_hot(vcpu.domain, Handle::from_raw(raw as u32), Rights::NOTIFY)?;
    let peer = port.peer.load(core::sync::atomic::Ordering::Acquire);
    // SAFETY: `peer` was made by `as_ptr`; a port is unlinked from its peer, and every pCPU seen outside EL2, before it is freed.
    match unsafe { Ref::from_ptr(peer) } {
        Some(peer) => {
            peer.deliver();
            Ok(())
        }
        None => Err(Status::PeerGone),
    }
}

/// Writes x0 of the guest whose call is being handled.
#[inline(always)]
pub fn set_result(vcpu: Ref<Vcpu>, value: u64) {
    // SAFETY: the vCPU is current on this pCPU, and no other reference to its context is live.
    unsafe { vcpu.context() }.set_reg(0, value);
}

/// Writes a status to x0 of the guest whose call is being handled.
#[inline(always)]
pub fn set_status(vcpu: Ref<Vcpu>, result: Result<(), Status>) {
    let status = match result {
        Ok(()) => Status::Ok,
        Err(status) => status,
    };
    set_result(vcpu, status.raw() as u64);
}

#[unsafe(no_mangle)]
extern "C" fn portico_guest_sync(context: *mut VcpuContext, esr: u64) -> Next {
    // SAFETY: as above.
    fault::synchronous(unsafe { Vcpu::from_context(context) }, esr)
}

#[unsafe(no_mangle)]
extern "C" fn portico_guest_irq(context: *mut VcpuContext) -> Next {
    // SAFETY: as above.
    irq::from_guest(unsafe { Vcpu::from_context(context) })
}

#[unsafe(no_mangle)]
extern "C" fn portico_guest_serror(context: *mut VcpuContext, esr: u64) -> Next {
    // SAFETY: as above.
    fault::serror(unsafe { Vcpu::from_context(context) }, esr)
}
