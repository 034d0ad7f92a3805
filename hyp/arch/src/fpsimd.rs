//! Lazy FP/SIMD: trapped on first use after a switch-in, saved at switch-out if used.
//!
//! The registers never hold another domain's values while a guest can reach them: they are either trapped or its own. EL2 itself uses
//! no FP/SIMD but here, and the target has no FP ABI, so the compiler keeps nothing in these registers.

use crate::barrier::isb;
use crate::context::FpState;
use aarch64_cpu::registers::{CPTR_EL2, Writeable};
use core::arch::asm;

/// CPTR_EL2 that traps FP/SIMD: RES1 bits of Armv8.0 and TFP.
pub const CPTR_TRAP: u64 = CPTR_ALLOW | 1 << 10;
/// CPTR_EL2 that lets the guest use FP/SIMD, and EL2.
const CPTR_ALLOW: u64 = 0x33ff & !(1 << 10);

/// V0 to V31 by `$op`, from or to where `{p}` points, which ends behind them.
macro_rules! vectors {
    ($op:literal) => {
        concat!(
            ".arch_extension fp\n.arch_extension simd\n",
            concat!($op, " {{v0.2d-v3.2d}}, [{p}], #64\n", $op, " {{v4.2d-v7.2d}}, [{p}], #64\n"),
            concat!($op, " {{v8.2d-v11.2d}}, [{p}], #64\n", $op, " {{v12.2d-v15.2d}}, [{p}], #64\n"),
            concat!($op, " {{v16.2d-v19.2d}}, [{p}], #64\n", $op, " {{v20.2d-v23.2d}}, [{p}], #64\n"),
            concat!($op, " {{v24.2d-v27.2d}}, [{p}], #64\n", $op, " {{v28.2d-v31.2d}}, [{p}], #64\n"),
        )
    };
}

/// Stores V0..V31, FPCR and FPSR, and traps FP/SIMD from now on.
///
/// # Safety
/// FP/SIMD is allowed; `state` is valid and not used by anyone else.
pub unsafe fn save(state: *mut FpState) {
    // SAFETY: by the contract.
    unsafe {
        asm!(vectors!("st1"), "mrs {a}, fpcr", "mrs {b}, fpsr", "stp {a}, {b}, [{p}]",
             p = inout(reg) state => _, a = out(reg) _, b = out(reg) _, options(nostack, preserves_flags));
    }
    CPTR_EL2.set(CPTR_TRAP);
}

/// Allows FP/SIMD from now on, and loads V0..V31, FPCR and FPSR.
///
/// # Safety
/// `state` is valid and not used by anyone else.
pub unsafe fn load(state: *const FpState) {
    CPTR_EL2.set(CPTR_ALLOW);
    isb();
    // SAFETY: by the contract.
    unsafe {
        asm!(vectors!("ld1"), "ldp {a}, {b}, [{p}]", "msr fpcr, {a}", "msr fpsr, {b}",
             p = inout(reg) state => _, a = out(reg) _, b = out(reg) _, options(nostack, preserves_flags));
    }
}
