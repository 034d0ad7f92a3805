//! The exception vectors of EL2: from a guest's trap to a Rust handler and back.
//!
//! One frame, one way: the entry stores x0..x18 and x30 to the [`VcpuContext`](crate::context::VcpuContext) that SP_EL2
//! points at, moves SP to the pCPU's stack, and calls a handler. The handler returns null to go on with the same vCPU (the
//! frame is reloaded, `eret`), or what to run instead: then the rest of the frame is stored and `portico_switch` decides
//! with all Rust frames unwound.
//!
//! Two tables hold the same code: plain, and with the Spectre-BHB loop before anything else is executed. A boot option picks one; so the loop
//! costs nothing when it is not wanted.
//!
//! (Arm ARM DDI 0487, "Exception vectors"; Arm "Spectre-BHB: Speculative Target Reuse Attacks", loop of 8 for Cortex-A72)

use crate::barrier::isb;
use crate::context::VcpuContext;
use crate::pcpu::PcpuBase;
use aarch64_cpu::registers::{VBAR_EL2, Writeable};
use core::arch::global_asm;
use core::mem::offset_of;

/// What a handler returns to ask for "no vCPU": the pCPU idles.
pub const IDLE: *mut VcpuContext = core::ptr::without_provenance_mut(1);

unsafe extern "C" {
    static portico_vectors_plain: u8;
    static portico_vectors_bhb: u8;
    /// Leaves boot code for good: the pCPU idles on its handler stack until there is a vCPU to run.
    ///
    /// # Safety
    /// `handler_sp` is 16-byte aligned with 16 bytes above it and this pCPU's stack below it; all per-pCPU state is set up.
    pub fn portico_enter_idle(handler_sp: u64) -> !;
}

/// Installs a vector table on this pCPU (VBAR_EL2): with the branch-history loop at each entry, or plain.
pub fn install(bhb: bool) {
    let table = if bhb { &raw const portico_vectors_bhb } else { &raw const portico_vectors_plain };
    VBAR_EL2.set(table.addr() as u64);
    isb();
}

global_asm!(include_str!("vectors.S"), handler_sp = const offset_of!(VcpuContext, handler_sp), fatal_sp = const offset_of!(PcpuBase, fatal_sp));
