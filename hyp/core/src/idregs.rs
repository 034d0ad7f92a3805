//! ID registers as a guest sees them.
//!
//! Each field of the machine's register is limited to the highest value whose features EL2 lets a guest use: features without
//! state of their own, or whose state is switched. All other fields, and those not known when this was written, read as not implemented.
//! The reference is Armv8.0 (Cortex-A72). A guest sees no EL2 or EL3, no AArch32, SVE, SME, PMU, RAS, MTE, pointer
//! authentication, MPAM, AMU, trace, statistical profiling, nested virtualization or physical-counter extension.
//! (Arm DDI 0487, "AArch64 System register descriptions", ID_AA64*)

use crate::esr::SysregId;

/// Registers that are read from the machine, in the order of [`ROWS`]; every other one of the space reads as zero.
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

static ROWS: [Row; COUNT] = [
    // ID_AA64PFR0_EL1: CSV3 1, CSV2 1 (2 has registers), DIT 1, GIC 1, AdvSIMD 1, FP 1, EL1 1, EL0 1: AArch64 only.
    Row { crm: 4, op2: 0, limit: 0x1101_0000_0111_0011, signed: 0x0000_0000_00ff_0000 },
    // ID_AA64PFR1_EL1: SSBS 2, BT 1.
    Row { crm: 4, op2: 1, limit: 0x0000_0000_0000_0021, signed: 0 },
    // ID_AA64ISAR0_EL1: All but TME: instructions without state.
    Row { crm: 6, op2: 0, limit: 0x1221_1111_0131_1220, signed: 0 },
    // ID_AA64ISAR1_EL1: I8MM, DGH, BF16, SPECRES, SB, FRINTTS, LRCPC 3, FCMA, JSCVT, DPB 2; no pointer authentication, XS, LS64.
    Row { crm: 6, op2: 1, limit: 0x0011_1111_0031_1002, signed: 0 },
    // ID_AA64ISAR2_EL1: CLRBHB only.
    Row { crm: 6, op2: 2, limit: 0x0000_0000_1000_0000, signed: 0 },
    // ID_AA64MMFR0_EL1: TGran4 0, TGran64 0, TGran16 1, BigEnd 1, ASIDBits 2, PARange 2 (40 bits).
    Row { crm: 7, op2: 0, limit: 0x0000_0000_0010_0122, signed: 0x0000_0000_ff00_0000 },
    // ID_AA64MMFR1_EL1: ECBHB 1, ETS 2, PAN 3, HPDS 2, HAFDBS 2.
    Row { crm: 7, op2: 1, limit: 0x1000_0020_0030_2002, signed: 0 },
    // ID_AA64MMFR2_EL1: E0PD 1, TTL 1, AT 1, CCIDX 1 (CCSIDR_EL1 is not trapped), UAO 1.
    Row { crm: 7, op2: 2, limit: 0x1001_0001_0010_0010, signed: 0 },
];

/// Says whether a register is in the space that HCR_EL2.TID3 traps: op0 3, op1 0, CRn 0, CRm 1 to 7.
pub const fn is_id_space(reg: SysregId) -> bool {
    reg.op0() == 3 && reg.op1() == 0 && reg.crn() == 0 && reg.crm() >= 1 && reg.crm() <= 7
}

/// What a guest's read gives: zero for a register of the space that is not in the table, `None` outside the space. `machine` has the
/// machine's registers in the order of [`ROWS`]. `has_icc`: the guest acknowledges at ICC_* registers.
pub fn read(reg: SysregId, machine: &[u64; COUNT], has_icc: bool) -> Option<u64> {
    if !is_id_space(reg) {
        return None;
    }
    let (crm, op2) = (reg.crm(), reg.op2());
    if (crm, op2) == (5, 0) {
        return Some(DFR0);
    }
    let known = ROWS.iter().zip(machine).find(|(row, _)| (row.crm, row.op2) == (crm, op2));
    let value = known.map_or(0, |(row, raw)| limited(*raw, row));
    Some(if (crm, op2) == (4, 0) && !has_icc { value & !(0xf << 24) } else { value })
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
    use super::COUNT;
    use crate::esr::SysregId;
    use proptest::prelude::*;

    fn read(machine: &[u64; COUNT], crm: u32, op2: u32) -> u64 {
        super::read(SysregId::new(3, 0, 0, crm, op2), machine, true).unwrap()
    }

    #[test]
    fn a72() {
        // What QEMU's cortex-a72 has: pfr0, pfr1, isar0..2, mmfr0..2; and a GICv3.
        let machine = [0x0100_2222, 0, 0x1_1120, 0, 0, 0x1124, 0, 0];
        assert_eq!(read(&machine, 4, 0), 0x0100_0011);
        assert_eq!(read(&machine, 6, 0), 0x1_1120);
        assert_eq!(read(&machine, 7, 0), 0x0122);
        assert_eq!(read(&machine, 5, 0), 0x10_1006);
        assert_eq!(super::read(SysregId::new(3, 0, 0, 4, 0), &machine, false), Some(0x0011));
        // AArch32, SVE, SME, debug and auxiliary registers are hidden.
        for (crm, op2) in [(1, 0), (2, 5), (3, 0), (4, 4), (4, 5), (5, 1), (5, 4), (7, 3), (7, 4)] {
            assert_eq!(read(&machine, crm, op2), 0);
        }
        assert_eq!(super::read(SysregId::new(3, 0, 0, 0, 5), &machine, true), None);
    }

    #[test]
    fn everything_on_is_tamed() {
        let machine = [0x7777_7777_7777_7777; COUNT];
        let pfr0 = read(&machine, 4, 0);
        assert_eq!((pfr0 >> 8 & 0xff, pfr0 >> 28 & 0xfffff, pfr0 & 0xff), (0, 0, 0x11));
        assert_eq!(read(&machine, 6, 1) & 0xff00_0ff0, 0);
        assert_eq!(read(&machine, 7, 2) >> 24 & 0xf, 0);
        assert_eq!(read(&[u64::MAX; COUNT], 4, 0) >> 16 & 0xff, 0xff);
    }

    proptest! {
        #[test]
        fn never_above_the_machine(raw: u64) {
            for (crm, op2) in [(4, 0), (4, 1), (6, 0), (6, 1), (6, 2), (7, 0), (7, 1), (7, 2)] {
                let value = read(&[raw; COUNT], crm, op2);
                for shift in (0..64).step_by(4) {
                    prop_assert!(value >> shift & 0xf <= raw >> shift & 0xf);
                }
            }
            prop_assert_eq!(read(&[raw; COUNT], 4, 1) >> 8, 0);
        }
    }
}
