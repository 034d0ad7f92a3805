//! What a guest gets when a system register traps.
//!
//! The closed list of registers that EL2 answers: those that every arm64 kernel touches at boot although the guest does not have
//! the feature behind them. All else is outside the ABI. Set/way cache maintenance is not trapped (SWIO), nor are the registers of the
//! virtual timer and of the GIC CPU interface that the guest acknowledges at.

use crate::esr::SysregId;

/// Names of registers by their encoding.
pub mod id {
    use crate::esr::SysregId;

    /// MDSCR_EL1.
    pub const MDSCR_EL1: SysregId = SysregId::new(2, 0, 0, 2, 2);
    /// MDRAR_EL1.
    pub const MDRAR_EL1: SysregId = SysregId::new(2, 0, 1, 0, 0);
    /// OSLAR_EL1.
    pub const OSLAR_EL1: SysregId = SysregId::new(2, 0, 1, 0, 4);
    /// OSLSR_EL1.
    pub const OSLSR_EL1: SysregId = SysregId::new(2, 0, 1, 1, 4);
    /// OSDLR_EL1.
    pub const OSDLR_EL1: SysregId = SysregId::new(2, 0, 1, 3, 4);
    /// DBGPRCR_EL1.
    pub const DBGPRCR_EL1: SysregId = SysregId::new(2, 0, 1, 4, 4);
    /// ACTLR_EL1.
    pub const ACTLR_EL1: SysregId = SysregId::new(3, 0, 1, 0, 1);
    /// PMUSERENR_EL0.
    pub const PMUSERENR_EL0: SysregId = SysregId::new(3, 3, 9, 14, 0);
}

/// OSLSR_EL1: the OS lock is implemented and open. (Arm DDI 0487, "OSLSR_EL1, OS Lock Status Register")
const OSLSR_OPEN: u64 = 1 << 3;
/// MDSCR_EL1.SS, TDCC and KDE: software step works, breakpoints and the debug channel do not.
const MDSCR_WRITABLE: u64 = 1 | 1 << 12 | 1 << 13;

/// How a trapped access is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A read gives this value; then step over the instruction.
    Value(u64),
    /// A write has no effect; step over the instruction.
    Ignore,
    /// A read of an ID register: ask [`crate::idregs::read`].
    IdRegister,
    /// MDSCR_EL1, which is trapped along with the breakpoints but belongs to the guest: a read gives the
    /// guest's register, a write sets its bits in `writable` and clears the others.
    Mdscr {
        /// Bits that a guest can set.
        writable: u64,
    },
    /// Outside the ABI: a fault of kind `Trapped`, or an undefined-instruction exception.
    Refuse,
}

/// Decides on a trapped access.
pub const fn answer(reg: SysregId, read: bool) -> Answer {
    let zero = if read { Answer::Value(0) } else { Answer::Ignore };
    match (reg, read) {
        (id::MDSCR_EL1, _) => Answer::Mdscr { writable: MDSCR_WRITABLE },
        (id::OSLSR_EL1, true) => Answer::Value(OSLSR_OPEN),
        (id::OSLAR_EL1, false) => Answer::Ignore,
        (id::OSDLR_EL1 | id::DBGPRCR_EL1 | id::ACTLR_EL1 | id::PMUSERENR_EL0, _) | (id::MDRAR_EL1, true) => zero,
        _ if read && crate::idregs::is_id_space(reg) => Answer::IdRegister,
        // Breakpoint, watchpoint and debug channel registers.
        _ if matches!((reg.op0(), reg.op1(), reg.crn()), (2, 0, 0)) => zero,
        _ => Answer::Refuse,
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, answer, id};
    use crate::esr::SysregId;

    const PMCR_EL0: SysregId = SysregId::new(3, 3, 9, 12, 0);
    const ICC_SGI1R_EL1: SysregId = SysregId::new(3, 0, 12, 11, 5);
    const CNTPCT_EL0: SysregId = SysregId::new(3, 3, 14, 0, 1);
    const CNTP_CTL_EL0: SysregId = SysregId::new(3, 3, 14, 2, 1);

    #[test]
    fn boot_writes_of_a_kernel() {
        assert_eq!(answer(id::OSLAR_EL1, false), Answer::Ignore);
        assert_eq!(answer(id::OSLAR_EL1, true), Answer::Refuse);
        assert_eq!(answer(id::OSLSR_EL1, true), Answer::Value(8));
        assert_eq!(answer(id::OSLSR_EL1, false), Answer::Refuse);
        assert_eq!(answer(id::OSDLR_EL1, false), Answer::Ignore);
        assert_eq!(answer(id::PMUSERENR_EL0, false), Answer::Ignore);
        assert_eq!(answer(PMCR_EL0, true), Answer::Refuse);
        assert_eq!(answer(CNTPCT_EL0, true), Answer::Refuse);
        assert_eq!(answer(ICC_SGI1R_EL1, false), Answer::Refuse);
        assert_eq!(answer(CNTP_CTL_EL0, false), Answer::Refuse);
        assert!(matches!(answer(id::MDSCR_EL1, false), Answer::Mdscr { .. }));
        for n in 0..16 {
            for op2 in 4..8 {
                assert_eq!(answer(SysregId::new(2, 0, 0, n, op2), true), Answer::Value(0));
                assert_eq!(answer(SysregId::new(2, 0, 0, n, op2), false), Answer::Ignore);
            }
        }
    }

    #[test]
    fn id_space() {
        assert_eq!(answer(SysregId::new(3, 0, 0, 4, 0), true), Answer::IdRegister);
        assert_eq!(answer(SysregId::new(3, 0, 0, 7, 7), true), Answer::IdRegister);
        assert_eq!(answer(SysregId::new(3, 0, 0, 4, 0), false), Answer::Refuse);
        assert_eq!(answer(SysregId::new(3, 0, 0, 0, 0), true), Answer::Refuse);
        assert_eq!(answer(SysregId::new(3, 0, 0, 8, 0), true), Answer::Refuse);
    }
}
