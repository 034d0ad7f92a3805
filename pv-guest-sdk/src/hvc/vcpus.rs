//! Calls on vCPUs: the caller's own, and those of domains that it manages.

use super::{call, h, handle, unit, value};
use portico_abi::record::{FaultRecord, FaultVerb, RegisterId, VcpuStats};
use portico_abi::{Call, Handle, Status};

/// Blocks until `upcall_pending` is set or CNTVCT_EL0 reaches `deadline`.
///
/// # Errors
/// `TimedOut`.
#[inline]
pub fn vcpu_block(deadline: u64) -> Result<(), Status> {
    unit(Call::VcpuBlock, [deadline, 0, 0, 0, 0, 0])
}

/// Gives up the rest of the time slice.
#[inline]
pub fn vcpu_yield() {
    let _ = call(Call::VcpuYield, [0; 6]);
}

/// Creates vCPU `index` with affinity `mpidr` and its page at `page_ipa`.
///
/// # Errors
/// `Exists`, `Limit`, `NoBudget`.
pub fn vcpu_create(domain: Handle, index: u32, mpidr: u64, page_ipa: u64, cookie: u64) -> Result<Handle, Status> {
    handle(Call::VcpuCreate, [h(domain), u64::from(index), mpidr, page_ipa, cookie, 0])
}

/// Powers a vCPU on at `pc` with `x0`.
///
/// # Errors
/// `BadState` if it is on.
pub fn vcpu_start(vcpu: Handle, pc: u64, x0: u64) -> Result<(), Status> {
    unit(Call::VcpuStart, [h(vcpu), pc, x0, 0, 0, 0])
}

/// Stops a vCPU.
///
/// # Errors
/// `BadState` if it is off.
pub fn vcpu_stop(vcpu: Handle) -> Result<(), Status> {
    unit(Call::VcpuStop, [h(vcpu), 0, 0, 0, 0, 0])
}

/// Reads a register of a stopped or faulted vCPU.
///
/// # Errors
/// `BadState` if it runs.
pub fn vcpu_state_get(vcpu: Handle, id: RegisterId) -> Result<u64, Status> {
    value(Call::VcpuState, [h(vcpu), 0, id as u64, 0, 0, 0])
}

/// Writes a register of a stopped or faulted vCPU.
///
/// # Errors
/// `BadState` if it runs, `Invalid` for a value that the register cannot hold.
pub fn vcpu_state_set(vcpu: Handle, id: RegisterId, to: u64) -> Result<(), Status> {
    unit(Call::VcpuState, [h(vcpu), 1, id as u64, to, 0, 0])
}

/// Parameters of [`vcpu_sched_set`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sched {
    /// One of [`portico_abi::call::sched`].
    pub class: u64,
    /// Weight, 1 to 65535.
    pub weight: u64,
    /// Cap in thousandths of one processor, 0 for none.
    pub cap_permille: u64,
    /// Period of a reservation, in nanoseconds.
    pub period_ns: u64,
    /// Budget in each period, in nanoseconds.
    pub budget_ns: u64,
    /// Mask of pCPUs, 0 for all.
    pub affinity: u64,
}

impl Default for Sched {
    fn default() -> Self {
        Self {
            class: portico_abi::call::sched::WEIGHTED,
            weight: portico_abi::call::sched::DEFAULT_WEIGHT,
            cap_permille: 0,
            period_ns: 0,
            budget_ns: 0,
            affinity: 0,
        }
    }
}

/// Sets the scheduling of a vCPU.
///
/// # Errors
/// `Overcommitted` if a reservation is not admitted; `Invalid`.
pub fn vcpu_sched_set(vcpu: Handle, to: Sched) -> Result<(), Status> {
    let class_weight = to.class | to.weight << 8;
    unit(Call::VcpuSchedSet, [h(vcpu), class_weight, to.cap_permille, to.period_ns, to.budget_ns, to.affinity])
}

/// The fault record of a faulted vCPU.
///
/// # Errors
/// `NotFound` if it did not fault.
pub fn vcpu_fault_get(vcpu: Handle) -> Result<FaultRecord, Status> {
    crate::vcpu::with_buffer(|| unit(Call::VcpuFaultGet, [h(vcpu), 0, 0, 0, 0, 0]))
}

/// Answers a fault.
///
/// # Errors
/// `BadState` if the vCPU is not faulted.
pub fn vcpu_fault_reply(vcpu: Handle, verb: FaultVerb, value: u64) -> Result<(), Status> {
    unit(Call::VcpuFaultReply, [h(vcpu), verb as u64, value, 0, 0, 0])
}

/// Accounts of a vCPU.
///
/// # Errors
/// `BadHandle`, `NoRights`.
pub fn vcpu_stats_read(vcpu: Handle) -> Result<VcpuStats, Status> {
    crate::vcpu::with_buffer(|| unit(Call::VcpuStatsRead, [h(vcpu), 0, 0, 0, 0, 0]))
}
