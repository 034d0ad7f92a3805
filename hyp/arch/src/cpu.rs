//! Small things that a pCPU does to itself.

pub use crate::barrier::{halt, relax};

use crate::sysreg::ID_AA64ISAR2_EL1;
use aarch64_cpu::registers::{
    ID_AA64ISAR0_EL1, ID_AA64ISAR1_EL1, ID_AA64MMFR0_EL1, ID_AA64MMFR1_EL1, ID_AA64MMFR2_EL1, ID_AA64PFR0_EL1,
    ID_AA64PFR1_EL1, MPIDR_EL1, Readable,
};

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

/// Stops until an interrupt is pending, masked or not. Stores are complete first.
#[inline(always)]
pub fn wait_for_interrupt() {
    crate::barrier::dsb_sy();
    crate::barrier::wfi();
}

/// ID registers in the order of `portico_core::idregs`.
pub fn id_registers() -> [u64; portico_core::idregs::COUNT] {
    [
        ID_AA64PFR0_EL1.get(),
        ID_AA64PFR1_EL1.get(),
        ID_AA64ISAR0_EL1.get(),
        ID_AA64ISAR1_EL1.get(),
        ID_AA64ISAR2_EL1.get(),
        ID_AA64MMFR0_EL1.get(),
        ID_AA64MMFR1_EL1.get(),
        ID_AA64MMFR2_EL1.get(),
    ]
}
