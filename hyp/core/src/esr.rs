//! What ESR_EL2 says.
//!
//! A pure decoding of the syndrome of an exception taken to EL2 from AArch64 EL1 or EL0. It decides
//! nothing: whether a trap is served, refused or reported is the dispatcher's business.
//! (Arm DDI 0487, "ESR_EL2, Exception Syndrome Register (EL2)")

use crate::addr::Ipa;

/// Exception classes that the trap path tells apart before the full decoding.
pub mod ec {
    /// WFI, WFE and their timed forms.
    pub const WFX: u8 = 0x01;
    /// Access to FP or SIMD, trapped by CPTR_EL2.
    pub const FP_SIMD: u8 = 0x07;
    /// HVC from AArch64.
    pub const HVC64: u8 = 0x16;
    /// SMC from AArch64.
    pub const SMC64: u8 = 0x17;
    /// MSR, MRS or a system instruction.
    pub const SYSREG: u8 = 0x18;
    /// Access to SVE.
    pub const SVE: u8 = 0x19;
    /// Instruction abort from a lower exception level.
    pub const INSTR_ABORT_LOWER: u8 = 0x20;
    /// Data abort from a lower exception level.
    pub const DATA_ABORT_LOWER: u8 = 0x24;
    /// SError.
    pub const SERROR: u8 = 0x2f;
}

/// The exception class of a syndrome.
#[inline(always)]
pub const fn class(esr: u64) -> u8 {
    ((esr >> 26) & 0x3f) as u8
}

/// Bytes to step over the trapped instruction: 4, or 2 for a 16-bit one of AArch32.
#[inline(always)]
pub const fn instruction_bytes(esr: u64) -> u64 {
    if esr & (1 << 25) != 0 { 4 } else { 2 }
}

/// A decoded syndrome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exception {
    /// WFI (false) or WFE (true); the timed forms count as their plain ones.
    Wfx {
        /// It was WFE or WFET.
        event: bool,
    },
    /// HVC with its immediate.
    Hvc64 {
        /// Immediate of the instruction.
        imm: u16,
    },
    /// SMC with its immediate.
    Smc64 {
        /// Immediate of the instruction.
        imm: u16,
    },
    /// FP or SIMD while it is trapped.
    FpSimd,
    /// SVE while it is trapped.
    Sve,
    /// MSR, MRS or a system instruction.
    Sysreg(SysregAccess),
    /// Data abort of a lower exception level.
    DataAbort(DataAbort),
    /// Instruction abort of a lower exception level.
    InstrAbort(Fault),
    /// Any other class.
    Other {
        /// The class.
        ec: u8,
    },
}

/// Decodes a syndrome.
pub const fn decode(esr: u64) -> Exception {
    let iss = esr as u32 & 0x1ff_ffff;
    match class(esr) {
        ec::WFX => Exception::Wfx { event: iss & 1 != 0 },
        ec::HVC64 => Exception::Hvc64 { imm: iss as u16 },
        ec::SMC64 => Exception::Smc64 { imm: iss as u16 },
        ec::FP_SIMD => Exception::FpSimd,
        ec::SVE => Exception::Sve,
        ec::SYSREG => Exception::Sysreg(SysregAccess::from_iss(iss)),
        ec::DATA_ABORT_LOWER => Exception::DataAbort(DataAbort::from_iss(iss)),
        ec::INSTR_ABORT_LOWER => Exception::InstrAbort(Fault::from_iss(iss)),
        ec => Exception::Other { ec },
    }
}

/// Names a system register or instruction by its encoding, in the layout of the ISS of its trap.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct SysregId(u32);

impl SysregId {
    /// The bits of the ISS that name the register.
    const MASK: u32 = 0x3f_fc1e;

    /// Composes an id from the fields of the instruction.
    pub const fn new(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> Self {
        Self((op0 & 3) << 20 | (op2 & 7) << 17 | (op1 & 7) << 14 | (crn & 15) << 10 | (crm & 15) << 1)
    }

    /// Takes the id out of an ISS.
    #[inline(always)]
    pub const fn from_iss(iss: u32) -> Self {
        Self(iss & Self::MASK)
    }

    /// The raw id, to print.
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// Field op0.
    pub const fn op0(self) -> u32 {
        self.0 >> 20 & 3
    }

    /// Field op1.
    pub const fn op1(self) -> u32 {
        self.0 >> 14 & 7
    }

    /// Field CRn.
    pub const fn crn(self) -> u32 {
        self.0 >> 10 & 15
    }

    /// Field CRm.
    pub const fn crm(self) -> u32 {
        self.0 >> 1 & 15
    }

    /// Field op2.
    pub const fn op2(self) -> u32 {
        self.0 >> 17 & 7
    }
}

impl core::fmt::Debug for SysregId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "S{}_{}_C{}_C{}_{}", self.op0(), self.op1(), self.crn(), self.crm(), self.op2())
    }
}

/// A trapped MSR or MRS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SysregAccess {
    /// The register.
    pub id: SysregId,
    /// General register, 31 for XZR.
    pub rt: u8,
    /// MRS if true, else MSR.
    pub read: bool,
}

impl SysregAccess {
    /// Decodes the ISS of class [`ec::SYSREG`].
    #[inline]
    pub const fn from_iss(iss: u32) -> Self {
        Self { id: SysregId::from_iss(iss), rt: (iss >> 5 & 31) as u8, read: iss & 1 != 0 }
    }
}

/// Kind of an abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultClass {
    /// Address size.
    AddressSize,
    /// Nothing is mapped.
    Translation,
    /// Access flag.
    AccessFlag,
    /// Mapped, but not so permitted.
    Permission,
    /// Synchronous external abort, also on a table walk, and parity errors.
    External,
    /// Alignment.
    Alignment,
    /// Anything else.
    Other,
}

/// What instruction and data aborts have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Kind.
    pub class: FaultClass,
    /// Level of the walk at which it arose, 0 to 3; 0 if the kind has none.
    pub level: u8,
    /// It arose on a stage-1 table walk: the IPA is that of a table.
    pub on_table_walk: bool,
    /// FAR_EL2 does not hold the address.
    pub far_invalid: bool,
}

impl Fault {
    /// Decodes the ISS of an instruction abort, or the common part of that of a data abort.
    pub const fn from_iss(iss: u32) -> Self {
        let fsc = iss & 0x3f;
        let class = match fsc {
            0x00..=0x03 => FaultClass::AddressSize,
            0x04..=0x07 => FaultClass::Translation,
            0x08..=0x0b => FaultClass::AccessFlag,
            0x0c..=0x0f => FaultClass::Permission,
            0x10 | 0x14..=0x18 | 0x1c..=0x1f => FaultClass::External,
            0x21 => FaultClass::Alignment,
            _ => FaultClass::Other,
        };
        let has_level = fsc < 0x10 || matches!(fsc, 0x14..=0x17 | 0x1c..=0x1f);
        Self {
            class,
            level: if has_level { (fsc & 3) as u8 } else { 0 },
            on_table_walk: iss & (1 << 7) != 0,
            far_invalid: iss & (1 << 10) != 0,
        }
    }

    /// Says whether stage 2 may have caused it, so that a re-walk makes sense.
    pub const fn is_stage2(self) -> bool {
        matches!(self.class, FaultClass::Translation | FaultClass::Permission | FaultClass::AccessFlag)
    }
}

/// A data abort of a lower exception level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataAbort {
    /// What it has in common with an instruction abort.
    pub fault: Fault,
    /// A store. For a walk and for cache maintenance this says nothing about the guest's wish to write.
    pub write: bool,
    /// It was cache maintenance or address translation.
    pub cache_maintenance: bool,
    /// What is needed to do the access for the guest, if the hardware says it.
    pub syndrome: Option<AccessSyndrome>,
}

impl DataAbort {
    /// Decodes the ISS of class [`ec::DATA_ABORT_LOWER`].
    pub const fn from_iss(iss: u32) -> Self {
        let syndrome = if iss & (1 << 24) != 0 {
            Some(AccessSyndrome {
                size_bytes: 1 << (iss >> 22 & 3),
                sign_extend: iss & (1 << 21) != 0,
                rt: (iss >> 16 & 31) as u8,
                wide: iss & (1 << 15) != 0,
                acquire_release: iss & (1 << 14) != 0,
            })
        } else {
            None
        };
        Self {
            fault: Fault::from_iss(iss),
            write: iss & (1 << 6) != 0,
            cache_maintenance: iss & (1 << 8) != 0,
            syndrome,
        }
    }
}

/// The access behind a data abort (valid ISV).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessSyndrome {
    /// Size of the access: 1, 2, 4 or 8 bytes.
    pub size_bytes: u8,
    /// A load extends the sign.
    pub sign_extend: bool,
    /// General register, 31 for XZR.
    pub rt: u8,
    /// The register is 64 bits wide.
    pub wide: bool,
    /// The access has acquire or release semantics.
    pub acquire_release: bool,
}

impl AccessSyndrome {
    /// The value that the register of a load gets when memory holds `raw`.
    pub const fn extend(self, raw: u64) -> u64 {
        let drop = 64 - 8 * self.size_bytes as u32;
        let value = raw << drop;
        let value = if self.sign_extend { ((value as i64) >> drop) as u64 } else { value >> drop };
        if self.wide { value } else { value & 0xffff_ffff }
    }
}

/// The faulting IPA. On a table walk only the page is meant.
///
/// (Arm DDI 0487, "HPFAR_EL2, Hypervisor IPA Fault Address Register")
#[inline]
pub const fn fault_ipa(hpfar: u64, far: u64) -> Ipa {
    Ipa::new((hpfar & 0xfff_ffff_fff0) << 8 | far & 0xfff)
}

#[cfg(test)]
mod tests {
    use super::{AccessSyndrome, Exception, FaultClass, SysregAccess, SysregId, decode, ec, fault_ipa};
    use proptest::prelude::*;

    const fn esr(class: u8, iss: u64) -> u64 {
        (class as u64) << 26 | 1 << 25 | iss
    }

    #[test]
    fn table() {
        let rows = [
            (esr(ec::WFX, 0), Exception::Wfx { event: false }),
            (esr(ec::WFX, 1), Exception::Wfx { event: true }),
            (esr(ec::WFX, 3), Exception::Wfx { event: true }),
            (esr(ec::HVC64, 0xffff), Exception::Hvc64 { imm: 0xffff }),
            (esr(ec::SMC64, 0), Exception::Smc64 { imm: 0 }),
            (esr(ec::FP_SIMD, 0x1e0_0000), Exception::FpSimd),
            (esr(ec::SVE, 0), Exception::Sve),
            (esr(0x2f, 0), Exception::Other { ec: 0x2f }),
            (esr(0x3f, 0x1ff_ffff), Exception::Other { ec: 0x3f }),
            // mrs x3, id_aa64pfr0_el1
            (
                esr(ec::SYSREG, 3 << 20 | 3 << 5 | 4 << 1 | 1),
                Exception::Sysreg(SysregAccess { id: SysregId::new(3, 0, 0, 4, 0), rt: 3, read: true }),
            ),
            // msr oslar_el1, xzr
            (
                esr(ec::SYSREG, 2 << 20 | 4 << 17 | 1 << 10 | 31 << 5),
                Exception::Sysreg(SysregAccess { id: SysregId::new(2, 0, 1, 0, 4), rt: 31, read: false }),
            ),
        ];
        for (raw, want) in rows {
            assert_eq!(decode(raw), want, "{raw:#x}");
        }
    }

    #[test]
    fn aborts() {
        // str w5, [..] to an unmapped page, level 3
        let Exception::DataAbort(abort) = decode(esr(ec::DATA_ABORT_LOWER, 1 << 24 | 2 << 22 | 5 << 16 | 1 << 6 | 7))
        else {
            panic!("not a data abort")
        };
        assert!(abort.write && abort.fault.is_stage2() && !abort.fault.on_table_walk);
        assert_eq!((abort.fault.class, abort.fault.level), (FaultClass::Translation, 3));
        let access = abort.syndrome.unwrap();
        assert_eq!((access.size_bytes, access.rt, access.wide), (4, 5, false));
        let Exception::InstrAbort(fault) = decode(esr(ec::INSTR_ABORT_LOWER, 1 << 7 | 0xd)) else {
            panic!("not an instruction abort")
        };
        assert!(fault.on_table_walk);
        assert_eq!((fault.class, fault.level), (FaultClass::Permission, 1));
        let class = |fsc| super::Fault::from_iss(fsc).class;
        assert_eq!(class(0x10), FaultClass::External);
        assert_eq!(class(0x16), FaultClass::External);
        assert_eq!(class(0x21), FaultClass::Alignment);
        assert_eq!(class(0x30), FaultClass::Other);
        assert_eq!(class(0x09), FaultClass::AccessFlag);
        assert_eq!(fault_ipa(0x0800_0000 >> 8, 0xffff_0000_1234_5678).raw(), 0x0800_0678);
    }

    #[test]
    fn loads_extend() {
        let byte = AccessSyndrome { size_bytes: 1, sign_extend: true, rt: 0, wide: false, acquire_release: false };
        assert_eq!(byte.extend(0x1280), 0xffff_ff80);
        assert_eq!(AccessSyndrome { wide: true, ..byte }.extend(0x80), 0xffff_ffff_ffff_ff80);
        assert_eq!(AccessSyndrome { sign_extend: false, ..byte }.extend(0x1280), 0x80);
        assert_eq!(AccessSyndrome { size_bytes: 8, wide: true, ..byte }.extend(u64::MAX), u64::MAX);
    }

    proptest! {
        #[test]
        fn any_syndrome_decodes(raw: u64) {
            let _ = decode(raw);
        }

        #[test]
        fn sysreg_fields(op0 in 0u32..4, op1 in 0u32..8, crn in 0u32..16, crm in 0u32..16, op2 in 0u32..8) {
            let id = SysregId::new(op0, op1, crn, crm, op2);
            prop_assert_eq!((id.op0(), id.op1(), id.crn(), id.crm(), id.op2()), (op0, op1, crn, crm, op2));
            prop_assert_eq!(SysregId::from_iss(id.raw() | 0x3e1), id);
        }
    }
}
