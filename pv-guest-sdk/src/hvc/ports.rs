//! Calls on ports.

use super::{call, from_register, h, unit};
use portico_abi::{Call, Handle, Status};

/// Notifies the other end of a port.
///
/// # Errors
/// `BadHandle`, `WrongType`, `NoRights`, `PeerGone`.
#[inline]
pub fn port_notify(port: Handle) -> Result<(), Status> {
    unit(Call::PortNotify, [h(port), 0, 0, 0, 0, 0])
}

/// Notifies the other end and blocks, in one trap. `deadline` is a value of CNTVCT_EL0.
///
/// # Errors
/// As [`port_notify`] (then it did not block), and `TimedOut`.
#[inline]
pub fn port_notify_wait(port: Handle, deadline: u64) -> Result<(), Status> {
    unit(Call::PortNotifyWait, [h(port), deadline, 0, 0, 0, 0])
}

/// Makes a pair of linked ports, one in each domain's table.
///
/// # Errors
/// See `ABI.md`.
pub fn port_pair_create(a: Handle, b: Handle, cookie_a: u64, cookie_b: u64) -> Result<(Handle, Handle), Status> {
    call(Call::PortPairCreate, [h(a), h(b), cookie_a, cookie_b, 0, 0])
        .map(|[a, b, _]| (from_register(a), from_register(b)))
}

/// Binds a port to bit `bit` of the caller's vCPU `vcpu`.
///
/// # Errors
/// `Invalid` for a bit that is reserved or out of range, `NotFound` if there is no such vCPU.
pub fn port_bind(port: Handle, vcpu: u32, bit: u16) -> Result<(), Status> {
    unit(Call::PortBind, [h(port), u64::from(vcpu), u64::from(bit), portico_abi::port::CLASS_DEFAULT, 0, 0])
}

/// Unbinds a port.
///
/// # Errors
/// `BadState` if it is not bound.
pub fn port_unbind(port: Handle) -> Result<(), Status> {
    unit(Call::PortUnbind, [h(port), 0, 0, 0, 0, 0])
}
