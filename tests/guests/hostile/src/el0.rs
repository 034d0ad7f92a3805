//! What code at EL0 tries. (Row 29 of the list of attacks.)
//!
//! The SDK maps nothing for EL0, so this turns stage-1 off for a moment: then all of the domain's memory is EL0's too.

use core::arch::{asm, global_asm};
use portico_sdk::irq;
use test_kit::Tap;

// hostile_el0(code) -> ESR_EL1: runs `code` at EL0, with vectors of its own, until its first exception.
// Uses no memory while stage-1 is off, since the caches are off too.
global_asm!(
    ".section .text.hostile_el0, \"ax\"",
    ".global hostile_el0",
    "hostile_el0:",
    "mrs x9, sctlr_el1",
    "mrs x10, vbar_el1",
    "mov x11, x30",
    "adrp x1, hostile_el0_vectors",
    "add x1, x1, :lo12:hostile_el0_vectors",
    "msr vbar_el1, x1",
    "mov x2, #0x1005", // M, C, I
    "bic x2, x9, x2",
    "isb",
    "msr sctlr_el1, x2",
    "isb",
    "msr elr_el1, x0",
    "mov x2, #0x3c0", // EL0t, DAIF masked
    "msr spsr_el1, x2",
    "ldr x0, =0xc6000000",
    "mov x1, #0",
    "eret",
    ".ltorg",
    "hostile_el0_back:",
    "mrs x0, esr_el1",
    "msr sctlr_el1, x9",
    "msr vbar_el1, x10",
    "isb",
    "mov x30, x11",
    "ret",
    ".balign 2048",
    "hostile_el0_vectors:",
    ".rept 16",
    ".balign 128",
    "b hostile_el0_back",
    ".endr",
    ".balign 128",
    "hostile_el0_hvc:",
    "hvc #0",
    "svc #1",
    "hostile_el0_smc:",
    "smc #0",
    "svc #1",
    "hostile_el0_sysreg:",
    "mrs x0, s3_4_c1_c1_0", // HCR_EL2
    "svc #1",
    "hostile_el0_wfi:",
    "wfe",
    "wfe",
    "svc #1",
);

unsafe extern "C" {
    fn hostile_el0_hvc();
    fn hostile_el0_smc();
    fn hostile_el0_sysreg();
    fn hostile_el0_wfi();
}

/// Runs `code` at EL0 and returns the syndrome of its first exception.
fn syndrome(code: unsafe extern "C" fn()) -> u64 {
    irq::masked(|| {
        let esr: u64;
        // SAFETY: it changes no memory, and puts SCTLR_EL1 and VBAR_EL1 back.
        unsafe {
            asm!(
                "bl hostile_el0", inlateout("x0") code as usize as u64 => esr, out("x1") _, out("x2") _, out("x9") _, out("x10") _,
                out("x11") _, out("x30") _, options(nostack),
            );
        }
        esr
    })
}

const UNDEFINED: u64 = 0;
const SVC: u64 = 0x15;

pub fn attempts(tap: &mut Tap) {
    tap.is("hvc at EL0 is undefined", syndrome(hostile_el0_hvc) >> 26, UNDEFINED);
    tap.is("smc at EL0 is undefined", syndrome(hostile_el0_smc) >> 26, UNDEFINED);
    tap.is("a register of EL2 at EL0 is undefined", syndrome(hostile_el0_sysreg) >> 26, UNDEFINED);
    // WFE at EL0 goes to EL1 or is executed, as EL1 sets it; EL2 shows nothing of itself.
    tap.holds("WFE at EL0 is the guest's own affair", matches!(syndrome(hostile_el0_wfi) >> 26, SVC | 1));
}
