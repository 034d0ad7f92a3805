//! The generic timer as EL2 uses it: its own physical timer for the scheduler, the virtual timer for guests.

use crate::sysreg::CNTHP_CVAL_EL2;
use aarch64_cpu::registers::{CNTFRQ_EL0, CNTHP_CTL_EL2, CNTPCT_EL0, CNTV_CTL_EL0, Readable, Writeable};

/// `CNT*_CTL`: the timer is enabled.
pub const CTL_ENABLE: u64 = 1 << 0;
/// `CNT*_CTL`: its interrupt is masked.
pub const CTL_IMASK: u64 = 1 << 1;

/// Whether a timer whose control register reads `ctl` will interrupt.
#[inline(always)]
#[must_use]
pub const fn runs(ctl: u64) -> bool {
    ctl & (CTL_ENABLE | CTL_IMASK) == CTL_ENABLE
}

/// Reads the physical counter, in ticks. May be taken early by speculation: fine for time-keeping, not for
/// ordering against memory.
#[inline(always)]
#[must_use]
pub fn now() -> u64 {
    CNTPCT_EL0.get()
}

/// Reads the counter frequency in Hz.
#[inline]
#[must_use]
pub fn frequency_hz() -> u64 {
    CNTFRQ_EL0.get() & 0xffff_ffff
}

/// Arms EL2's timer for the absolute tick `deadline`.
#[inline(always)]
pub fn set_deadline(deadline: u64) {
    CNTHP_CVAL_EL2::write(deadline);
    CNTHP_CTL_EL2.set(CTL_ENABLE);
}

/// Stops EL2's timer; its level drops at once.
#[inline(always)]
pub fn clear_deadline() {
    CNTHP_CTL_EL2.set(0);
}

/// The virtual timer of the vCPU whose context is loaded.
pub mod guest {
    use super::{CNTV_CTL_EL0, CTL_IMASK, Readable, Writeable};

    /// Reads `CNTV_CTL_EL0`.
    #[inline(always)]
    #[must_use]
    pub fn ctl() -> u64 {
        CNTV_CTL_EL0.get()
    }

    /// Writes `CNTV_CTL_EL0`.
    #[inline(always)]
    pub fn set_ctl(value: u64) {
        CNTV_CTL_EL0.set(value);
    }

    /// Masks the timer's interrupt at its source: what EL2 does when it fires.
    #[inline(always)]
    pub fn mask() {
        set_ctl(ctl() | CTL_IMASK);
    }
}
