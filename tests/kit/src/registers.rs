//! Patterns in registers that must survive whatever others do meanwhile, and must never be another domain's.

use core::arch::asm;
use portico_sdk::irq;

/// EL1 registers that a guest on the SDK does not need itself.
const COUNT: usize = 8;

/// Bits of each that can be written on every processor.
const MASKS: [u64; COUNT] = [
    u64::MAX,              // TPIDR_EL0
    u64::MAX,              // TPIDRRO_EL0
    0xffff_ffff,           // CONTEXTIDR_EL1
    0x0000_ffff_ffff_f000, // TTBR1_EL1, unused: TCR_EL1.EPD1
    u64::MAX,              // ELR_EL1, with interrupts masked
    u64::MAX,              // FAR_EL1
    0xffff_ffff,           // ESR_EL1
    u64::MAX,              // SP_EL0
];

fn write(values: &[u64; COUNT]) {
    // SAFETY: none of these registers is used by the SDK while interrupts are masked.
    unsafe {
        asm!(
            "msr tpidr_el0, {a}", "msr tpidrro_el0, {b}", "msr contextidr_el1, {c}", "msr ttbr1_el1, {d}", "msr elr_el1, {e}",
            "msr far_el1, {f}", "msr esr_el1, {g}", "msr sp_el0, {h}", "isb",
            a = in(reg) values[0], b = in(reg) values[1], c = in(reg) values[2], d = in(reg) values[3], e = in(reg) values[4],
            f = in(reg) values[5], g = in(reg) values[6], h = in(reg) values[7],
            options(nostack, preserves_flags),
        );
    }
}

fn read() -> [u64; COUNT] {
    let (a, b, c, d, e, f, g, h): (u64, u64, u64, u64, u64, u64, u64, u64);
    // SAFETY: reads registers.
    unsafe {
        asm!(
            "mrs {a}, tpidr_el0", "mrs {b}, tpidrro_el0", "mrs {c}, contextidr_el1", "mrs {d}, ttbr1_el1", "mrs {e}, elr_el1",
            "mrs {f}, far_el1", "mrs {g}, esr_el1", "mrs {h}, sp_el0",
            a = out(reg) a, b = out(reg) b, c = out(reg) c, d = out(reg) d, e = out(reg) e, f = out(reg) f, g = out(reg) g,
            h = out(reg) h, options(nomem, nostack, preserves_flags),
        );
    }
    [a, b, c, d, e, f, g, h]
}

/// Fills system registers from `seed`, runs `meanwhile` with interrupts masked, and names the first register that changed.
pub fn survive(seed: u64, meanwhile: impl FnOnce()) -> Option<(usize, u64, u64)> {
    irq::masked(|| {
        let mut random = crate::Random::new(seed);
        let wanted: [u64; COUNT] = core::array::from_fn(|n| random.next() & MASKS[n]);
        write(&wanted);
        meanwhile();
        let got = read();
        (0..COUNT).find_map(|n| (got[n] != wanted[n]).then_some((n, got[n], wanted[n])))
    })
}

/// Fills v0 to v31 from `seed`.
///
/// # Safety
/// The compiler must not keep anything in them: guests are built for a target without FP.
pub unsafe fn fill_fp(seed: u64) {
    let mut values = [0_u64; 64];
    let mut random = crate::Random::new(seed);
    values.fill_with(|| random.next());
    // SAFETY: reads the array; the caller answers for the registers.
    unsafe {
        asm!(
            ".arch_extension fp",
            ".arch_extension simd",
            "ldp q0, q1, [{0}]", "ldp q2, q3, [{0}, #32]", "ldp q4, q5, [{0}, #64]", "ldp q6, q7, [{0}, #96]",
            "ldp q8, q9, [{0}, #128]", "ldp q10, q11, [{0}, #160]", "ldp q12, q13, [{0}, #192]", "ldp q14, q15, [{0}, #224]",
            "ldp q16, q17, [{0}, #256]", "ldp q18, q19, [{0}, #288]", "ldp q20, q21, [{0}, #320]", "ldp q22, q23, [{0}, #352]",
            "ldp q24, q25, [{0}, #384]", "ldp q26, q27, [{0}, #416]", "ldp q28, q29, [{0}, #448]", "ldp q30, q31, [{0}, #480]",
            ".arch_extension nosimd",
            ".arch_extension nofp",
            in(reg) values.as_ptr(), options(nostack, preserves_flags, readonly),
        );
    }
}

/// Compares v0 to v31 with what [`fill_fp`] put there; names the first half that differs.
pub fn check_fp(seed: u64) -> Option<(usize, u64, u64)> {
    let mut got = [0_u64; 64];
    // SAFETY: writes the array only.
    unsafe {
        asm!(
            ".arch_extension fp",
            ".arch_extension simd",
            "stp q0, q1, [{0}]", "stp q2, q3, [{0}, #32]", "stp q4, q5, [{0}, #64]", "stp q6, q7, [{0}, #96]",
            "stp q8, q9, [{0}, #128]", "stp q10, q11, [{0}, #160]", "stp q12, q13, [{0}, #192]", "stp q14, q15, [{0}, #224]",
            "stp q16, q17, [{0}, #256]", "stp q18, q19, [{0}, #288]", "stp q20, q21, [{0}, #320]", "stp q22, q23, [{0}, #352]",
            "stp q24, q25, [{0}, #384]", "stp q26, q27, [{0}, #416]", "stp q28, q29, [{0}, #448]", "stp q30, q31, [{0}, #480]",
            ".arch_extension nosimd",
            ".arch_extension nofp",
            in(reg) got.as_mut_ptr(), options(nostack, preserves_flags),
        );
    }
    let mut random = crate::Random::new(seed);
    (0..64).find_map(|n| {
        let wanted = random.next();
        (got[n] != wanted).then_some((n, got[n], wanted))
    })
}
