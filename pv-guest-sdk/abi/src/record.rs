//! Records that calls write to the caller's buffer, and the enumerations in them.
//!
//! Each begins with its size and version, so that it can grow at its end.

use crate::enumeration::enumeration;
use core::mem::size_of;

enumeration! {
    /// State of a domain.
    DomainState: u32 {
        /// Being built: no vCPU has started.
        Created = 0,
        /// At least one vCPU may run.
        Runnable = 1,
        /// Paused.
        Paused = 2,
        /// Ended; see the reason. Can be inspected, and must be destroyed.
        Ended = 3,
        /// Being destroyed.
        Dying = 4,
    }
}

enumeration! {
    /// Why a domain ended.
    EndReason: u32 {
        /// It has not.
        None = 0,
        /// `self_exit` EXIT; `code` is the guest's.
        Exit = 1,
        /// `self_exit` PANIC; `code` is the guest's.
        Panic = 2,
        /// `self_exit` REBOOT or PSCI SYSTEM_RESET.
        Reboot = 3,
        /// PSCI SYSTEM_OFF.
        Off = 4,
        /// A vCPU faulted; see the fault record of the vCPU in `code`.
        Fault = 5,
        /// The last vCPU turned itself off.
        AllOff = 6,
    }
}

enumeration! {
    /// Kind of a fault.
    FaultKind: u32 {
        /// Access to an IPA that is not mapped or not so permitted.
        Stage2 = 1,
        /// Trapped system register or instruction outside the ABI.
        Trapped = 2,
        /// SError or external abort.
        SError = 3,
        /// Any other synchronous exception to EL2.
        Other = 4,
    }
}

enumeration! {
    /// What `vcpu_fault_reply` does.
    FaultVerb: u64 {
        /// Run the faulting instruction again.
        Retry = 0,
        /// Step over it; a load's target register gets `value`.
        Skip = 1,
        /// Give the guest a synchronous external abort.
        InjectAbort = 2,
        /// Give the guest an undefined-instruction exception.
        InjectUndef = 3,
        /// End the domain.
        End = 4,
    }
}

enumeration! {
    /// State of a vCPU.
    VcpuState: u32 {
        /// Powered off.
        Off = 0,
        /// On a processor.
        Running = 1,
        /// Waiting for a processor.
        Ready = 2,
        /// Blocked until notified or its deadline.
        Blocked = 3,
        /// Faulted, waiting for a reply.
        Faulted = 4,
        /// Stopped by `vcpu_stop`, a pause or the end of its domain.
        Stopped = 5,
    }
}

enumeration! {
    /// Registers that `vcpu_state` reads and writes. Append only.
    RegisterId: u64 {
        /// X0; X1..X30 follow as 1..30.
        X0 = 0,
        /// PC.
        Pc = 32,
        /// PSTATE.
        Pstate = 33,
        /// SP_EL0.
        SpEl0 = 34,
        /// SP_EL1.
        SpEl1 = 35,
        /// SCTLR_EL1.
        SctlrEl1 = 36,
        /// VBAR_EL1.
        VbarEl1 = 37,
        /// TTBR0_EL1.
        Ttbr0El1 = 38,
        /// TTBR1_EL1.
        Ttbr1El1 = 39,
        /// ELR_EL1.
        ElrEl1 = 40,
        /// ESR_EL1.
        EsrEl1 = 41,
        /// FAR_EL1.
        FarEl1 = 42,
        /// SPSR_EL1.
        SpsrEl1 = 43,
    }
}

/// Answer of `domain_status`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct DomainStatus {
    /// Size of this record in bytes.
    pub size: u32,
    /// 1.
    pub version: u32,
    /// [`DomainState`].
    pub state: u32,
    /// [`EndReason`].
    pub reason: u32,
    /// Guest's exit code, or for `Fault` the index of the vCPU.
    pub code: u64,
    /// Budget, in pages.
    pub budget_pages: u32,
    /// Pages of it in use.
    pub used_pages: u32,
    /// vCPUs that exist.
    pub vcpus: u32,
    /// vCPUs that are powered on.
    pub vcpus_on: u32,
    /// Time on processors, all vCPUs, in nanoseconds.
    pub cpu_ns: u64,
    /// Pages mapped into it.
    pub mapped_pages: u64,
    /// Calls made.
    pub calls: u64,
    /// Name.
    pub name: [u8; 16],
}

/// Answer of `vcpu_fault_get`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct FaultRecord {
    /// Size of this record in bytes.
    pub size: u32,
    /// 1.
    pub version: u32,
    /// [`FaultKind`].
    pub kind: u32,
    /// Bit 0: write; bit 1: instruction fetch; bit 2: `syndrome` is valid for emulation.
    pub flags: u32,
    /// ESR_EL2 as trapped.
    pub syndrome: u64,
    /// Faulting IPA, for stage-2 faults.
    pub ipa: u64,
    /// FAR_EL2: faulting virtual address.
    pub far: u64,
    /// Program counter.
    pub pc: u64,
    /// PSTATE.
    pub pstate: u64,
    /// For a trapped write or store: the value.
    pub value: u64,
}

/// Answer of `vcpu_stats_read`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct VcpuStats {
    /// Size of this record in bytes.
    pub size: u32,
    /// 1.
    pub version: u32,
    /// [`VcpuState`].
    pub state: u32,
    /// pCPU it runs or last ran on.
    pub pcpu: u32,
    /// Time running, in nanoseconds.
    pub running_ns: u64,
    /// Time ready, in nanoseconds.
    pub ready_ns: u64,
    /// Scheduling class.
    pub class: u32,
    /// Weight.
    pub weight: u32,
    /// Cap in thousandths of a processor.
    pub cap: u32,
    /// Zero.
    pub _reserved: u32,
    /// Reservation period, in nanoseconds.
    pub period_ns: u64,
    /// Reservation budget, in nanoseconds.
    pub budget_ns: u64,
    /// Affinity mask.
    pub affinity: u64,
    /// Calls made.
    pub calls: u64,
    /// Times it was switched in.
    pub switches: u64,
    /// Periods of a reservation in which its budget was not delivered although it was ready.
    pub missed: u64,
}

/// Answer of `stats_read` with index 0.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct SystemStats {
    /// Size of this record in bytes.
    pub size: u32,
    /// 1.
    pub version: u32,
    /// pCPUs online.
    pub pcpus: u32,
    /// GIC version, 2 or 3.
    pub gic: u32,
    /// Pages in the pool.
    pub pool_pages: u64,
    /// Pages of it in use.
    pub pool_used: u64,
    /// EL2's image and per-pCPU memory, in bytes.
    pub image_bytes: u64,
    /// Calls refused or unknown.
    pub bad_calls: u64,
}

/// Answer of `log_read`: what a domain wrote by one `early_write`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct EarlyText {
    /// Size of this record in bytes.
    pub size: u32,
    /// 1.
    pub version: u32,
    /// Name of the domain, filled up with zeros.
    pub name: [u8; 16],
    /// How many bytes it is.
    pub len: u64,
    /// The bytes, packed little-endian: any values.
    pub words: [u64; 5],
}

/// Answer of `stats_read` with index n+1.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct PcpuStats {
    /// Size of this record in bytes.
    pub size: u32,
    /// 1.
    pub version: u32,
    /// MPIDR affinity bits.
    pub mpidr: u64,
    /// Time idle, in nanoseconds.
    pub idle_ns: u64,
    /// Time since it came up, in nanoseconds.
    pub up_ns: u64,
    /// vCPU switches.
    pub switches: u64,
    /// Interrupts taken in EL2.
    pub irqs: u64,
    /// Reservations admitted, in thousandths of the processor.
    pub reserved_permille: u64,
}

const _: () = assert!(size_of::<DomainStatus>() == 80);
const _: () = assert!(size_of::<FaultRecord>() == 64);
const _: () = assert!(size_of::<VcpuStats>() == 96);
const _: () = assert!(size_of::<SystemStats>() == 48);
const _: () = assert!(size_of::<EarlyText>() == 72);
const _: () = assert!(size_of::<PcpuStats>() == 56);
