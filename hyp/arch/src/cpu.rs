//! Small things that a pCPU does to itself.

pub use crate::barrier::halt;

use aarch64_cpu::registers::{ID_AA64MMFR0_EL1, MPIDR_EL1, Readable};

/// Identification of this pCPU (MPIDR_EL1).
pub fn mpidr() -> u64 {
    MPIDR_EL1.get()
}

/// Bits of a physical address of this machine, as many of them as 4 KiB tables can name. (Arm ARM, "ID_AA64MMFR0_EL1, AArch64
/// Memory Model Feature Register 0", PARange)
pub fn pa_bits() -> u32 {
    const BITS: [u8; 6] = [32, 36, 40, 42, 44, 48];
    let range = ID_AA64MMFR0_EL1.read(ID_AA64MMFR0_EL1::PARange);
    BITS.get(range as usize).copied().unwrap_or(48).into()
}

/// Lets another pCPU go on while this one waits: a spin without it burns a whole slice under emulation.
#[inline(always)]
pub fn relax() {
    crate::barrier::yield_now();
}

/// Stops until an interrupt is pending, masked or not. Stores are complete first.
#[inline(always)]
pub fn wait_for_interrupt() {
    crate::barrier::dsb_sy();
    crate::barrier::wfi();
}

/// ID registers in the order of `portico_core::idregs`.
pub fn id_registers() -> [u64; portico_core::idregs::COUNT] {
    macro_rules! read {
        ($($name:literal),*) => { [$({
            let value: u64;
            // SAFETY: reading identification has no effect.
            unsafe { core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value, options(nomem, nostack, preserves_flags)) };
            value
        }),*] };
    }
    read!(
        "id_aa64pfr0_el1",
        "id_aa64pfr1_el1",
        "id_aa64isar0_el1",
        "id_aa64isar1_el1",
        "s3_0_c0_c6_2",
        "id_aa64mmfr0_el1",
        "id_aa64mmfr1_el1",
        "s3_0_c0_c7_2"
    )
}
