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
    /// Instruction abort from a lower exception level.
    pub const INSTR_ABORT_LOWER: u8 = 0x20;
    /// Data abort from a lower exception level.
    pub const DATA_ABORT_LOWER: u8 = 0x24;
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
    /// HVC from AArch64.
    Hvc64,
    /// SMC from AArch64.
    Smc64,
    /// FP or SIMD while it is trapped.
    FpSimd,
    /// MSR, MRS or a system instruction.
    Sysreg(SysregAccess),
    /// Data abort of a lower exception level.
    DataAbort(Abort),
    /// Instruction abort of a lower exception level.
    InstrAbort(Abort),
    /// Any other class.
    Other,
}

/// Decodes a syndrome.
pub const fn decode(esr: u64) -> Exception {
    let iss = esr as u32 & 0x1ff_ffff;
    match class(esr) {
        ec::WFX => Exception::Wfx { event: iss & 1 != 0 },
        ec::HVC64 => Exception::Hvc64,
        ec::SMC64 => Exception::Smc64,
        ec::FP_SIMD => Exception::FpSimd,
        ec::SYSREG => Exception::Sysreg(SysregAccess::from_iss(iss)),
        ec::DATA_ABORT_LOWER => Exception::DataAbort(Abort(iss)),
        ec::INSTR_ABORT_LOWER => Exception::InstrAbort(Abort(iss)),
        _ => Exception::Other,
    }
}

/// Names a system register or instruction by its encoding, in the layout of the ISS of its trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// An instruction or data abort of a lower exception level: its ISS, whose fields are taken out when asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort(u32);

impl Abort {
    /// The fault status code.
    const fn status(self) -> u32 {
        self.0 & 0x3f
    }

    /// Synchronous external abort, also on a table walk, or parity error.
    pub const fn is_external(self) -> bool {
        matches!(self.status(), 0x10 | 0x14..=0x18 | 0x1c..=0x1f)
    }

    /// Translation, access flag or permission: stage 2 may have caused it, so that a re-walk makes sense.
    pub const fn is_stage2(self) -> bool {
        matches!(self.status(), 0x04..=0x0f)
    }

    /// A data abort by a store. Cache maintenance says nothing about the guest's wish to write.
    pub const fn is_write(self) -> bool {
        self.0 & (1 << 6 | 1 << 8) == 1 << 6
    }

    /// A data abort by a load.
    pub const fn is_load(self) -> bool {
        self.0 & 1 << 6 == 0
    }

    /// What is needed to do the access of a data abort for the guest, if the hardware says it.
    pub const fn access(self) -> Option<Access> {
        if self.0 & 1 << 24 != 0 { Some(Access(self.0)) } else { None }
    }
}

/// The access behind a data abort (valid ISV).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(u32);

impl Access {
    /// General register, 31 for XZR.
    pub const fn register(self) -> u8 {
        (self.0 >> 16 & 31) as u8
    }

    /// The value that the register of a load gets when memory holds `raw`.
    pub const fn extend(self, raw: u64) -> u64 {
        let (sign_extend, wide) = (self.0 & 1 << 21 != 0, self.0 & 1 << 15 != 0);
        let drop = 64 - (8 << (self.0 >> 22 & 3));
        let value = raw << drop;
        let value = if sign_extend { ((value as i64) >> drop) as u64 } else { value >> drop };
        if wide { value } else { value & 0xffff_ffff }
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
    use super::{Abort, Access, Exception, SysregAccess, SysregId, decode, ec, fault_ipa};
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
            (esr(ec::HVC64, 0xffff), Exception::Hvc64),
            (esr(ec::SMC64, 0), Exception::Smc64),
            (esr(ec::FP_SIMD, 0x1e0_0000), Exception::FpSimd),
            (esr(0x19, 0), Exception::Other),
            (esr(0x2f, 0), Exception::Other),
            (esr(0x3f, 0x1ff_ffff), Exception::Other),
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
        assert!(abort.is_write() && abort.is_stage2() && !abort.is_external());
        assert_eq!(abort.access().map(Access::register), Some(5));
        assert!(!Abort(1 << 6 | 1 << 8).is_write() && !Abort(1 << 6 | 1 << 8).is_load() && Abort(7).access().is_none());
        let Exception::InstrAbort(abort) = decode(esr(ec::INSTR_ABORT_LOWER, 1 << 7 | 0xd)) else {
            panic!("not an instruction abort")
        };
        assert!(abort.is_stage2());
        // Address size, external (also on a walk), alignment, TLB conflict.
        let kind = |status| (Abort(status).is_external(), Abort(status).is_stage2());
        assert_eq!([0, 0x10, 0x16, 0x21, 0x30].map(kind), [0, 1, 1, 0, 0].map(|external| (external == 1, false)));
        assert_eq!(kind(0x09), (false, true));
        assert_eq!(fault_ipa(0x0800_0000 >> 8, 0xffff_0000_1234_5678).raw(), 0x0800_0678);
    }

    #[test]
    fn loads_extend() {
        let access = |log2_bytes: u32, sign: u32, wide: u32| Access(log2_bytes << 22 | sign << 21 | wide << 15);
        assert_eq!(access(0, 1, 0).extend(0x1280), 0xffff_ff80);
        assert_eq!(access(0, 1, 1).extend(0x80), 0xffff_ffff_ffff_ff80);
        assert_eq!(access(0, 0, 0).extend(0x1280), 0x80);
        assert_eq!(access(3, 1, 1).extend(u64::MAX), u64::MAX);
        assert_eq!(access(2, 0, 0).extend(u64::MAX), 0xffff_ffff);
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
