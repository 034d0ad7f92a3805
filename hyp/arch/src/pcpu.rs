//! What every pCPU owns, reached through `TPIDR_EL2`.
//!
//! The hypervisor's own per-pCPU structure starts with a [`PcpuBase`] (`#[repr(C)]`, first field), so asm and this
//! crate find theirs at the address in `TPIDR_EL2` and the hypervisor finds the whole.

use core::arch::asm;

/// Most pCPUs that one image drives.
pub const MAX_PCPUS: usize = 8;

/// Bytes of EL2 stack of each pCPU.
pub const STACK_SIZE: usize = 12 * 1024;

/// Bytes of each pCPU's stack for fatal exceptions.
pub const FATAL_STACK_SIZE: usize = 4096;

/// The start of a pCPU's own structure. Written once at boot, before the pCPU runs.
#[repr(C)]
pub struct PcpuBase {
    /// Top of this pCPU's EL2 stack; the vectors load it on a trap.
    pub stack_top: u64,
    /// Top of a small stack for fatal exceptions, which may come from an overflow of the other.
    pub fatal_sp: u64,
    /// Dense index, 0 for the boot pCPU.
    pub index: u64,
    /// Affinity fields of `MPIDR_EL1`.
    pub mpidr: u64,
}

impl PcpuBase {
    /// An unused slot.
    pub const fn new() -> Self {
        Self { stack_top: 0, fatal_sp: 0, index: 0, mpidr: 0 }
    }
}

/// Tells the dense index of this pCPU.
#[inline(always)]
pub fn index() -> usize {
    // SAFETY: `set_current` ran on this pCPU before any other Rust code, with a pointer valid for ever.
    let base = unsafe { &*current_raw().cast::<PcpuBase>() };
    base.index as usize
}

/// Reads the pointer in `TPIDR_EL2`: the hypervisor's structure of this pCPU.
#[inline(always)]
pub fn current_raw() -> *const u8 {
    let raw: *const u8;
    // SAFETY: reads a register that only `set_current` writes.
    unsafe { asm!("mrs {}, tpidr_el2", out(reg) raw, options(nomem, pure, nostack, preserves_flags)) };
    raw
}

/// Makes `base` the structure of this pCPU.
///
/// # Safety
/// `base` is valid for ever, belongs to this pCPU only, and this runs before anything asks for the pCPU.
pub unsafe fn set_current(base: *const PcpuBase) {
    // SAFETY: the caller's contract.
    unsafe { asm!("msr tpidr_el2, {}", in(reg) base, options(nostack, preserves_flags)) };
}
