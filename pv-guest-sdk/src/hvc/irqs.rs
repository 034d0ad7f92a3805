//! Calls on physical interrupts.

use super::{h, handle, unit};
use portico_abi::{Call, Handle, Status};

/// How a device signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Trigger {
    /// Level: stays active until [`irq_complete`].
    Level = 0,
    /// Edge.
    Edge = 1,
}

/// Makes the handle of a physical interrupt.
///
/// # Errors
/// `Exists`, `Invalid` for one that EL2 uses itself.
pub fn irq_create(system: Handle, intid: u32, trigger: Trigger, cookie: u64) -> Result<Handle, Status> {
    handle(Call::IrqCreate, [h(system), u64::from(intid), trigger as u64, cookie, 0, 0])
}

/// Binds an interrupt to bit `bit` of the caller's vCPU `vcpu` and enables it.
///
/// # Errors
/// `Exists`, `Limit`, `NotFound`.
pub fn irq_bind(irq: Handle, vcpu: u32, bit: u16) -> Result<(), Status> {
    unit(Call::IrqBind, [h(irq), u64::from(vcpu), u64::from(bit), 0, 0, 0])
}

/// Disables an interrupt and unbinds it.
///
/// # Errors
/// `BadState` if it is not bound.
pub fn irq_unbind(irq: Handle) -> Result<(), Status> {
    unit(Call::IrqUnbind, [h(irq), 0, 0, 0, 0, 0])
}

/// Says that a level-triggered device interrupt was handled.
///
/// # Errors
/// `BadState` if it was not active.
pub fn irq_complete(irq: Handle) -> Result<(), Status> {
    unit(Call::IrqComplete, [h(irq), 0, 0, 0, 0, 0])
}
