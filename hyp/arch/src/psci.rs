//! Calls to the firmware by SMC (Arm DEN0022, PSCI; Arm DEN0028, SMC Calling Convention).

use core::arch::asm;

/// Calls a function of the firmware and returns its first result; negative ones are PSCI's errors.
pub fn call(function: u32, [a, b, c]: [u64; 3]) -> i64 {
    let result: u64;
    // SAFETY: SMCCC: the firmware preserves x18-x30 and the stack, and may change x0-x17.
    unsafe {
        asm!("smc #0",
            inout("x0") u64::from(function) => result, inout("x1") a => _, inout("x2") b => _, inout("x3") c => _,
            out("x4") _, out("x5") _, out("x6") _, out("x7") _, out("x8") _, out("x9") _, out("x10") _, out("x11") _,
            out("x12") _, out("x13") _, out("x14") _, out("x15") _, out("x16") _, out("x17") _, options(nostack));
    }
    result.cast_signed()
}
