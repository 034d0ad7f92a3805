//! ID registers as a guest sees them.
//!
//! Each field of the machine's register is limited to the highest value whose features EL2 lets a guest use: features without
//! state of their own, or whose state is switched. All other fields, and those not known when this was written, read as not implemented.
//! The reference is Armv8.0 (Cortex-A72). A guest sees no EL2 or EL3, no AArch32, SVE, SME, PMU, RAS, MTE, pointer
//! authentication, MPAM, AMU, trace, statistical profiling, nested virtualization or physical-counter extension.
//! (Arm DDI 0487, "AArch64 System register descriptions", ID_AA64*)

use crate::esr::SysregId;

/// The registers that are read from the machine; every other one of the space reads as zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum IdRegister {
    /// ID_AA64PFR0_EL1.
    Pfr0,
    /// ID_AA64PFR1_EL1.
    Pfr1,
    /// ID_AA64ISAR0_EL1.
    Isar0,
    /// ID_AA64ISAR1_EL1.
    Isar1,
    /// ID_AA64ISAR2_EL1 (S3_0_C0_C6_2).
    Isar2,
    /// ID_AA64MMFR0_EL1.
    Mmfr0,
    /// ID_AA64MMFR1_EL1.
    Mmfr1,
    /// ID_AA64MMFR2_EL1.
    Mmfr2,
}

/// Number of registers in [`IdRegister`].
pub const COUNT: usize = 8;

/// ID_AA64DFR0_EL1, the same on all machines: debug architecture v8, two breakpoints, two watchpoints, one context-aware; no
/// trace, no PMU. It is the least that the architecture allows, since the registers behind it are RAZ/WI.
const DFR0: u64 = 1 << 20 | 1 << 12 | 6;

/// How a register is limited, a hex digit for each field.
struct Row {
    crm: u32,
    op2: u32,
    /// Highest value of each field.
    limit: u64,
    /// Fields with a digit of `f` here are signed: 0xf means not implemented and stays.
    signed: u64,
}

const ROWS: [Row; COUNT] = [
    // CSV3 1, CSV2 1 (2 has registers), DIT 1, GIC 1, AdvSIMD 1, FP 1, EL1 1, EL0 1: AArch64 only.
    Row { crm: 4, op2: 0, limit: 0x1101_0000_0111_0011, signed: 0x0000_0000_00ff_0000 },
    // SSBS 2, BT 1.
    Row { crm: 4, op2: 1, limit: 0x0000_0000_0000_0021, signed: 0 },
    // All but TME: instructions without state.
    Row { crm: 6, op2: 0, limit: 0x1221_1111_0131_1220, signed: 0 },
    // I8MM, DGH, BF16, SPECRES, SB, FRINTTS, LRCPC 3, FCMA, JSCVT, DPB 2; no pointer authentication, XS, LS64.
    Row { crm: 6, op2: 1, limit: 0x0011_1111_0031_1002, signed: 0 },
    // CLRBHB only.
    Row { crm: 6, op2: 2, limit: 0x0000_0000_1000_0000, signed: 0 },
    // TGran4 0, TGran64 0, TGran16 1, BigEnd 1, ASIDBits 2, PARange 2 (40 bits).
    Row { crm: 7, op2: 0, limit: 0x0000_0000_0010_0122, signed: 0x0000_0000_ff00_0000 },
    // ECBHB 1, ETS 2, PAN 3, HPDS 2, HAFDBS 2.
    Row { crm: 7, op2: 1, limit: 0x1000_0020_0030_2002, signed: 0 },
    // E0PD 1, TTL 1, AT 1, CCIDX 1 (CCSIDR_EL1 is not trapped), UAO 1.
    Row { crm: 7, op2: 2, limit: 0x1001_0001_0010_0010, signed: 0 },
];

/// Says whether a register is in the space that HCR_EL2.TID3 traps: op0 3, op1 0, CRn 0, CRm 1 to 7.
pub const fn is_id_space(reg: SysregId) -> bool {
    reg.op0() == 3 && reg.op1() == 0 && reg.crn() == 0 && reg.crm() >= 1 && reg.crm() <= 7
}

/// The ID registers of all domains.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdTable {
    values: [u64; COUNT],
}

impl IdTable {
    /// Limits the machine's registers, given in the order of [`IdRegister`]. `has_icc`: the guest acknowledges at ICC_* registers.
    pub fn new(machine: &[u64; COUNT], has_icc: bool) -> Self {
        let mut values = [0; COUNT];
        for ((value, raw), row) in values.iter_mut().zip(machine).zip(&ROWS) {
            *value = limited(*raw, row);
        }
        if !has_icc {
            values[IdRegister::Pfr0 as usize] &= !(0xf << 24);
        }
        Self { values }
    }

    /// What a read gives: zero for a register of the space that is not in the table. `None` outside the space.
    pub fn read(&self, reg: SysregId) -> Option<u64> {
        if !is_id_space(reg) {
            return None;
        }
        if reg.crm() == 5 && reg.op2() == 0 {
            return Some(DFR0);
        }
        let index = ROWS.iter().position(|row| row.crm == reg.crm() && row.op2 == reg.op2());
        Some(index.and_then(|index| self.values.get(index)).copied().unwrap_or(0))
    }
}

fn limited(raw: u64, row: &Row) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(4) {
        let field = raw >> shift & 0xf;
        let keep = field == 0xf && row.signed >> shift & 0xf != 0;
        let limit = row.limit >> shift & 0xf;
        value |= (if keep { field } else { field.min(limit) }) << shift;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::{COUNT, IdRegister, IdTable};
    use crate::esr::SysregId;
    use proptest::prelude::*;

    fn read(table: &IdTable, crm: u32, op2: u32) -> u64 {
        table.read(SysregId::new(3, 0, 0, crm, op2)).unwrap()
    }

    /// What QEMU's cortex-a72 has: pfr0, pfr1, isar0..2, mmfr0..2.
    const A72: [u64; COUNT] = [0x2222, 0, 0x1_1120, 0, 0, 0x1124, 0, 0];

    #[test]
    fn a72() {
        let mut machine = A72;
        machine[0] |= 1 << 24;
        let table = IdTable::new(&machine, true);
        assert_eq!(read(&table, 4, 0), 0x0100_0011);
        assert_eq!(read(&table, 6, 0), 0x1_1120);
        assert_eq!(read(&table, 7, 0), 0x0122);
        assert_eq!(read(&table, 5, 0), 0x10_1006);
        assert_eq!(read(&IdTable::new(&machine, false), 4, 0), 0x0011);
        // AArch32, SVE, SME, debug and auxiliary registers are hidden.
        for (crm, op2) in [(1, 0), (2, 5), (3, 0), (4, 4), (4, 5), (5, 1), (5, 4), (7, 3), (7, 4)] {
            assert_eq!(read(&table, crm, op2), 0);
        }
        assert_eq!(table.read(SysregId::new(3, 0, 0, 0, 5)), None);
    }

    #[test]
    fn everything_on_is_tamed() {
        let table = IdTable::new(&[0x7777_7777_7777_7777; COUNT], true);
        let pfr0 = read(&table, 4, 0);
        assert_eq!((pfr0 >> 8 & 0xff, pfr0 >> 28 & 0xfffff, pfr0 & 0xff), (0, 0, 0x11));
        assert_eq!(read(&table, 6, 1) & 0xff00_0ff0, 0);
        assert_eq!(read(&table, 7, 2) >> 24 & 0xf, 0);
        let pfr0 = IdTable::new(&[u64::MAX; COUNT], true).read(SysregId::new(3, 0, 0, 4, 0)).unwrap();
        assert_eq!(pfr0 >> 16 & 0xff, 0xff);
    }

    proptest! {
        #[test]
        fn never_above_the_machine(raw: u64) {
            let table = IdTable::new(&[raw; COUNT], true);
            for value in table.values {
                for shift in (0..64).step_by(4) {
                    prop_assert!(value >> shift & 0xf <= raw >> shift & 0xf);
                }
            }
            prop_assert_eq!(table.values[IdRegister::Pfr1 as usize] >> 8, 0);
        }
    }
}
