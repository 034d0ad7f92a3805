//! Power control of the machine by PSCI over SMC (Arm DEN0022).

use core::arch::asm;
use portico_abi::psci as number;

/// Calls the firmware with up to three arguments and returns its first result.
fn smc(function: u32, a: u64, b: u64, c: u64) -> i64 {
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

/// Starts the pCPU with affinity `mpidr` at physical address `entry` with `context` in x0.
///
/// # Errors
/// The negative PSCI status.
pub fn cpu_on(mpidr: u64, entry: u64, context: u64) -> Result<(), i64> {
    // What the newcomer will read must be visible before it runs.
    crate::barrier::dsb_ish();
    match smc(number::CPU_ON_64, mpidr, entry, context) {
        number::ret::SUCCESS => Ok(()),
        error => Err(error),
    }
}

/// Calls a function of one argument: discovery, workarounds, power of the machine.
pub fn call(function: u32, argument: u64) -> i64 {
    smc(function, argument, 0, 0)
}
