//! Lazy FP/SIMD: trapped on first use after a switch-in, saved at switch-out if used.
//!
//! The registers never hold another domain's values while a guest can reach them: they are either trapped or its own.

use crate::context::FpState;
use core::arch::asm;

/// CPTR_EL2 that traps FP/SIMD: RES1 bits of Armv8.0 and TFP.
pub const CPTR_TRAP: u64 = CPTR_ALLOW | 1 << 10;
/// CPTR_EL2 that lets the guest use FP/SIMD.
pub const CPTR_ALLOW: u64 = 0x33ff & !(1 << 10);

/// Traps FP/SIMD from now on.
#[inline(always)]
pub fn trap() {
    // SAFETY: EL2 itself uses no FP/SIMD but in this module, which allows it first.
    unsafe { asm!("msr cptr_el2, {}", in(reg) CPTR_TRAP, options(nostack, preserves_flags)) };
}

/// Allows FP/SIMD from now on, for EL2 too.
#[inline(always)]
pub fn allow() {
    // SAFETY: as above; the barrier makes the next FP instruction of EL2 see it.
    unsafe { asm!("msr cptr_el2, {}", "isb", in(reg) CPTR_ALLOW, options(nostack, preserves_flags)) };
}

macro_rules! fp_block {
    ($name:ident, $op:literal, $doc:literal, $first:literal, $last:literal, $ptr:ty) => {
        #[doc = $doc]
        ///
        /// # Safety
        /// FP/SIMD is allowed; `state` is valid and not used by anyone else.
        pub unsafe fn $name(state: $ptr) {
            // SAFETY: by the contract. The target has no FP ABI, so the compiler keeps nothing in these registers.
            unsafe {
                asm!(".arch_extension fp", ".arch_extension simd", $first,
                     concat!($op, " q0, q1, [{p}, #0]"), concat!($op, " q2, q3, [{p}, #32]"),
                     concat!($op, " q4, q5, [{p}, #64]"), concat!($op, " q6, q7, [{p}, #96]"),
                     concat!($op, " q8, q9, [{p}, #128]"), concat!($op, " q10, q11, [{p}, #160]"),
                     concat!($op, " q12, q13, [{p}, #192]"), concat!($op, " q14, q15, [{p}, #224]"),
                     concat!($op, " q16, q17, [{p}, #256]"), concat!($op, " q18, q19, [{p}, #288]"),
                     concat!($op, " q20, q21, [{p}, #320]"), concat!($op, " q22, q23, [{p}, #352]"),
                     concat!($op, " q24, q25, [{p}, #384]"), concat!($op, " q26, q27, [{p}, #416]"),
                     concat!($op, " q28, q29, [{p}, #448]"), concat!($op, " q30, q31, [{p}, #480]"),
                     $last, p = in(reg) state, a = out(reg) _, b = out(reg) _, options(nostack));
            }
        }
    };
}

fp_block!(
    save,
    "stp",
    "Stores V0..V31, FPCR and FPSR.",
    "mrs {a}, fpcr\nmrs {b}, fpsr",
    "str {a}, [{p}, #512]\nstr {b}, [{p}, #520]",
    *mut FpState
);
fp_block!(
    restore,
    "ldp",
    "Loads V0..V31, FPCR and FPSR.",
    "ldr {a}, [{p}, #512]\nldr {b}, [{p}, #520]",
    "msr fpcr, {a}\nmsr fpsr, {b}",
    *const FpState
);
