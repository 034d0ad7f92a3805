//! ABI.md, "What is standard": the processor as a guest sees it, and FP/SIMD across calls.

use crate::tap::Tap;
use core::arch::{asm, global_asm};
use core::time::Duration;
use portico_sdk::{time, trap};

/// Reads a system register, or tells the exception.
macro_rules! read {
    ($register:literal) => {{
        let (value, caught) = trap::catch(|| {
            let value: u64;
            // SAFETY: reads a register; an exception is caught.
            unsafe { asm!("mov {0}, #0", concat!("mrs {0}, ", $register), out(reg) value, options(nostack)) };
            value
        });
        if caught.is_some() { Err(caught.is_some_and(|caught| caught.is_undefined())) } else { Ok(value) }
    }};
}

/// Writes zero to a system register, or tells the exception.
macro_rules! write {
    ($register:literal) => {{
        let ((), caught) = trap::catch(|| {
            // SAFETY: zero is harmless in all registers that are tried here; an exception is caught.
            unsafe { asm!(concat!("msr ", $register, ", xzr"), options(nostack)) };
        });
        caught.is_some_and(|caught| caught.is_undefined())
    }};
}

/// A refused access: an undefined-instruction exception.
const UNDEFINED: Result<u64, bool> = Err(true);

fn field(value: Result<u64, bool>, low: u32) -> Result<u64, bool> {
    value.map(|value| value >> low & 0xf)
}

/// All checks.
pub fn check(tap: &mut Tap) {
    identification(tap);
    hidden(tap);
    boot_writes(tap);
    floating_point(tap);
    system_registers(tap);
}

fn identification(tap: &mut Tap) {
    let pfr0 = read!("id_aa64pfr0_el1");
    tap.is("ID: AArch64 only at EL0 and EL1", pfr0.map(|value| value & 0xff), Ok(0x11));
    tap.is("trapped reads: the value arrives in whichever register is named", by_register(), [pfr0.unwrap_or(0); 4]);
    tap.is("ID: no EL2", field(pfr0, 8), Ok(0));
    tap.is("ID: no EL3", field(pfr0, 12), Ok(0));
    tap.is("ID: no RAS", field(pfr0, 28), Ok(0));
    tap.is("ID: no SVE", field(pfr0, 32), Ok(0));
    tap.is("ID: no AMU", field(pfr0, 44), Ok(0));
    let dfr0 = read!("id_aa64dfr0_el1");
    tap.is("ID: no PMU", field(dfr0, 8), Ok(0));
    tap.is("ID: no statistical profiling", field(dfr0, 32), Ok(0));
    tap.is("ID: no trace", field(dfr0, 4), Ok(0));
    tap.is("ID: no SME", field(read!("id_aa64pfr1_el1"), 24), Ok(0));
    tap.is("ID: no SVE registers", read!("S3_0_C0_C4_4"), Ok(0));
    tap.is("ID: reserved registers are zero", read!("S3_0_C0_C7_7"), Ok(0));
    // Kernels take them with MIDR_EL1 for what errata the processor has.
    tap.is("ID: REVIDR and AIDR can be read", (read!("revidr_el1").is_ok(), read!("aidr_el1").is_ok()), (true, true));
    tap.is("ID: no AArch32 registers", read!("S3_0_C0_C1_0"), Ok(0));
}

/// The same trapped register, read into registers that an implementation may save in different places.
fn by_register() -> [u64; 4] {
    let (a, b, c, d): (u64, u64, u64, u64);
    // SAFETY: reads a register that was just read without an exception.
    unsafe {
        asm!(
            "mrs x9, id_aa64pfr0_el1", "mrs x20, id_aa64pfr0_el1", "mrs x24, id_aa64pfr0_el1", "mrs x28, id_aa64pfr0_el1",
            out("x9") a, out("x20") b, out("x24") c, out("x28") d, options(nomem, nostack),
        );
    }
    [a, b, c, d]
}

fn hidden(tap: &mut Tap) {
    tap.is("hidden: CNTPCT_EL0", read!("cntpct_el0"), UNDEFINED);
    tap.is("hidden: CNTP_CTL_EL0", read!("cntp_ctl_el0"), UNDEFINED);
    tap.is("hidden: PMCR_EL0", read!("pmcr_el0"), UNDEFINED);
    tap.is("hidden: PMCCNTR_EL0", read!("pmccntr_el0"), UNDEFINED);
    tap.holds("hidden: ICC_SGI1R_EL1", write!("S3_0_C12_C11_5"));
    tap.is("hidden: an implementation-defined register", read!("S3_1_C15_C2_1"), UNDEFINED);
    tap.is("hidden: HCR_EL2", read!("hcr_el2"), UNDEFINED);
}

fn boot_writes(tap: &mut Tap) {
    tap.holds("boot: OSLAR_EL1 can be written", !write!("oslar_el1"));
    tap.holds("boot: OSDLR_EL1 can be written", !write!("osdlr_el1"));
    tap.holds("boot: PMUSERENR_EL0 can be written", !write!("pmuserenr_el0"));
    tap.holds("boot: DBGBCR0_EL1 can be written", !write!("dbgbcr0_el1"));
    tap.is("boot: and reads as zero", read!("dbgbcr0_el1"), Ok(0));
    tap.holds("boot: MDSCR_EL1 can be written", !write!("mdscr_el1"));
    tap.is("boot: and reads back", read!("mdscr_el1"), Ok(0));
}

// conformance_fp(function, argument): fills q0..q31, FPCR and FPSR with patterns, makes the call, returns how many changed.
global_asm!(
    ".section .text.conformance_fp, \"ax\"",
    ".arch_extension fp",
    ".arch_extension simd",
    "conformance_fp:",
    ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    "movz x4, #(0x3c00 + \\n)",
    "movk x4, #(0x2000 + \\n), lsl #48",
    "mov v\\n\\().d[0], x4",
    "add x4, x4, #7",
    "mov v\\n\\().d[1], x4",
    ".endr",
    "mov x4, #0x03000000",
    "msr fpcr, x4",
    "mov x5, #0x08000000",
    "msr fpsr, x5",
    "hvc #0",
    "mov x2, #0",
    ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    "movz x4, #(0x3c00 + \\n)",
    "movk x4, #(0x2000 + \\n), lsl #48",
    "mov x5, v\\n\\().d[0]",
    "cmp x4, x5",
    "cinc x2, x2, ne",
    "add x4, x4, #7",
    "mov x5, v\\n\\().d[1]",
    "cmp x4, x5",
    "cinc x2, x2, ne",
    ".endr",
    "mrs x4, fpcr",
    "mov x5, #0x03000000",
    "cmp x4, x5",
    "cinc x2, x2, ne",
    "mrs x4, fpsr",
    "mov x5, #0x08000000",
    "cmp x4, x5",
    "cinc x2, x2, ne",
    "msr fpcr, xzr",
    "mov x0, x2",
    "ret",
    ".arch_extension nofp",
);

unsafe extern "C" {
    fn conformance_fp(function: u64, argument: u64) -> u64;
}

fn floating_point(tap: &mut Tap) {
    use portico_sdk::abi::Call;
    let calls = [
        ("FP: q0 to q31, FPCR and FPSR survive a null call", Call::AbiFeatures),
        ("FP: q0 to q31, FPCR and FPSR survive a yield", Call::VcpuYield),
        ("FP: q0 to q31, FPCR and FPSR survive a block of 5 ms", Call::VcpuBlock),
    ];
    let _guard = portico_sdk::irq::Guard::new();
    for (name, call) in calls {
        let argument = if call == Call::VcpuBlock { time::deadline(Duration::from_millis(5)) } else { 0 };
        // SAFETY: the function changes registers only that the soft-float ABI does not use, or that a call may change.
        let changed = unsafe { conformance_fp(u64::from(call.function_id()), argument) };
        tap.is(name, changed, 0);
    }
}

fn system_registers(tap: &mut Tap) {
    let pattern = 0x5aa5_1234_8765_0ff0_u64;
    let (el0, ro, par): (u64, u64, u64);
    // SAFETY: none of these is used by the guest: TPIDR_EL0, TPIDRRO_EL0, CONTEXTIDR_EL1.
    unsafe {
        asm!(
            "msr tpidr_el0, {0}", "msr tpidrro_el0, {1}", "msr contextidr_el1, {2}", "isb",
            in(reg) pattern, in(reg) !pattern, in(reg) 0x1234_5678_u64, options(nostack),
        );
    }
    time::sleep(Duration::from_millis(5));
    // SAFETY: reads them back.
    unsafe {
        asm!("mrs {0}, tpidr_el0", "mrs {1}, tpidrro_el0", "mrs {2}, contextidr_el1", out(reg) el0, out(reg) ro, out(reg) par, options(nostack));
    }
    tap.is(
        "registers: TPIDR_EL0, TPIDRRO_EL0 and CONTEXTIDR_EL1 survive a switch",
        (el0, ro, par),
        (pattern, !pattern, 0x1234_5678),
    );
}
