//! Where the vectors arrive: hot calls first, everything else by [`crate::dispatch`].
//!
//! Each handler returns null to go on with the same vCPU, a context to switch to, or `IDLE`. (See `portico_arch::vectors`.)

use core::ptr::null_mut;
use core::sync::atomic::Ordering;

use crate::graph::Ref;
use crate::object::handle;
use crate::object::port::Port;
use crate::object::vcpu::Vcpu;
use crate::{dispatch, fault, irq, notify, sched};
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
/// what Spectre v2 trains) and hands the rest over. Everything that is not the short way is a tail call, so that the short way needs no stack.
#[unsafe(no_mangle)]
extern "C" fn portico_hypercall(
    x0: u64,
    x1: u64,
    _x2: u64,
    _x3: u64,
    _x4: u64,
    _x5: u64,
    _x6: u64,
    context: *mut VcpuContext,
) -> Next {
    // SAFETY: the vectors pass the context of the vCPU that runs here.
    let vcpu = unsafe { Vcpu::from_context(context) };
    let id = x0 as u32 & !SVE_HINT;
    if id == PORT_NOTIFY {
        return match mark_peer(vcpu, x1) {
            Ok(None) => {
                set_status(vcpu, Ok(()));
                STAY
            }
            Ok(Some(target)) => raise(vcpu, target),
            Err(status) => refuse(vcpu, status),
        };
    }
    if id == psci::PSCI_VERSION {
        set_result(vcpu, dispatch::PSCI_1_1);
        return STAY;
    }
    other(vcpu, id)
}

#[unsafe(export_name = "portico_other")]
fn other(vcpu: Ref<Vcpu>, id: u32) -> Next {
    if id == PORT_NOTIFY_WAIT {
        return notify_wait(vcpu);
    }
    dispatch::call(vcpu, id)
}

/// `port_notify_wait(port, deadline)`.
fn notify_wait(vcpu: Ref<Vcpu>) -> Next {
    // SAFETY: it is current here, and no other reference to its context is live.
    let context = unsafe { vcpu.context() };
    let (port, deadline) = (context.reg(1), context.reg(2));
    match mark_peer(vcpu, port) {
        Ok(target) => {
            if let Some(target) = target {
                if let Some(next) = sched::hand_off(vcpu, target, deadline) {
                    return next;
                }
                notify::raise(target);
            }
            sched::block(vcpu, deadline)
        }
        Err(status) => refuse(vcpu, status),
    }
}

#[inline(never)]
fn raise(vcpu: Ref<Vcpu>, target: Ref<Vcpu>) -> Next {
    set_status(vcpu, Ok(()));
    notify::raise(target);
    sched::after_call(vcpu)
}

#[cold]
#[inline(never)]
fn refuse(vcpu: Ref<Vcpu>, status: Status) -> Next {
    set_status(vcpu, Err(status));
    STAY
}

/// `port_notify` up to the interrupt: look-up with rights, the other end, its bytes. `Some` if the upcall of its vCPU must be raised.
#[inline(always)]
fn mark_peer(vcpu: Ref<Vcpu>, raw: u64) -> Result<Option<Ref<Vcpu>>, Status> {
    let port: Ref<Port> = handle::lookup_hot(vcpu.domain, Handle::from_raw(raw as u32), Rights::NOTIFY)?;
    let peer = port.peer.load(Ordering::Acquire);
    // SAFETY: `peer` was made by `as_ptr`; a port is unlinked from its peer, and every pCPU seen outside EL2, before it is freed.
    match unsafe { Ref::from_ptr(peer) } {
        Some(peer) => Ok(peer.mark()),
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
    let vcpu = unsafe { Vcpu::from_context(context) };
    if fault::is_wfi(esr) { fault::wait_for_interrupt(vcpu, esr) } else { fault::synchronous(vcpu, esr) }
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
