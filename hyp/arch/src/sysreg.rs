//! Typed access to the system registers that the `aarch64-cpu` crate lacks.
//!
//! `sysreg!` makes a unit type with `get` and `set`, as that crate has them. Registers whose value could break EL2's own memory
//! safety (`SCTLR_EL2`, `TTBR0_EL2`, ...) are deliberately not here: the asm in `boot` owns them.
//! Names follow the Arm Architecture Reference Manual (DDI 0487), encodings its "System register encoding" tables.

/// Defines registers: `NAME = "assembler name", "what it is";`.
macro_rules! sysreg {
    ($($(#[$meta:meta])* $name:ident = $asm:literal;)+) => {$(
        $(#[$meta])*
        #[expect(non_camel_case_types, reason = "registers keep Arm's names")]
        pub struct $name;

        impl $name {
            /// Reads the register.
            #[inline(always)]
            pub fn get(&self) -> u64 {
                let value: u64;
                // SAFETY: reads a register of this exception level; no memory is accessed.
                unsafe { core::arch::asm!(concat!("mrs {}, ", $asm), out(reg) value, options(nostack, preserves_flags)) };
                value
            }

            /// Writes the register. The caller adds the `isb` where the effect must be seen at once.
            #[inline(always)]
            pub fn set(&self, value: u64) {
                // SAFETY: only registers that do not govern EL2's own memory accesses are defined by this macro.
                unsafe { core::arch::asm!(concat!("msr ", $asm, ", {}"), in(reg) value, options(nostack, preserves_flags)) };
            }
        }
    )+};
}

sysreg! {
    /// GIC CPU interface: interrupt acknowledge, Group 1.
    ICC_IAR1_EL1 = "s3_0_c12_c12_0";
    /// GIC CPU interface: priority drop, Group 1.
    ICC_EOIR1_EL1 = "s3_0_c12_c12_1";
    /// GIC CPU interface: deactivate.
    ICC_DIR_EL1 = "s3_0_c12_c11_1";
    /// GIC CPU interface: priority mask.
    ICC_PMR_EL1 = "s3_0_c4_c6_0";
    /// GIC CPU interface: binary point, Group 1.
    ICC_BPR1_EL1 = "s3_0_c12_c12_3";
    /// GIC CPU interface: control.
    ICC_CTLR_EL1 = "s3_0_c12_c12_4";
    /// GIC CPU interface: Group 1 enable.
    ICC_IGRPEN1_EL1 = "s3_0_c12_c12_7";
    /// GIC CPU interface: software-generated interrupt, Group 1.
    ICC_SGI1R_EL1 = "s3_0_c12_c11_5";
    /// System register enable for EL1.
    ICC_SRE_EL1 = "s3_0_c12_c12_5";
    /// Hypervisor physical timer: compare value, ticks.
    CNTHP_CVAL_EL2 = "cnthp_cval_el2";
    /// Cache type: line sizes, I-cache policy.
    CTR_EL0 = "ctr_el0";
    /// Instruction set attributes, the third register.
    ID_AA64ISAR2_EL1 = "s3_0_c0_c6_2";
    /// Size of the block that `dc zva` zeroes.
    DCZID_EL0 = "dczid_el0";
}
