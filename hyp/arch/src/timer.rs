//! The generic timer as EL2 uses it: its own physical timer for the scheduler, the virtual timer for guests.

use crate::sysreg::CNTHP_CVAL_EL2;
use aarch64_cpu::registers::{CNTFRQ_EL0, CNTHP_CTL_EL2, CNTPCT_EL0, CNTV_CTL_EL0, Readable, Writeable};

/// `CNT*_CTL`: the timer is enabled.
const CTL_ENABLE: u64 = 1 << 0;
/// `CNT*_CTL`: its interrupt is masked.
pub const CTL_IMASK: u64 = 1 << 1;

/// Whether a timer whose control register reads `ctl` will interrupt.
#[inline(always)]
pub const fn runs(ctl: u64) -> bool {
    ctl & (CTL_ENABLE | CTL_IMASK) == CTL_ENABLE
}

/// Reads the physical counter, in ticks. May be taken early by speculation: fine for time-keeping, not for
/// ordering against memory.
#[inline(always)]
pub fn now() -> u64 {
    CNTPCT_EL0.get()
}

/// Reads the counter frequency in Hz.
#[inline]
pub fn frequency_hz() -> u64 {
    CNTFRQ_EL0.get() & 0xffff_ffff
}

/// Arms EL2's timer for the absolute tick `deadline`.
#[inline(always)]
pub fn set_deadline(deadline: u64) {
    CNTHP_CVAL_EL2.set(deadline);
    CNTHP_CTL_EL2.set(CTL_ENABLE);
}

/// Stops EL2's timer; its level drops at once.
#[inline(always)]
pub fn clear_deadline() {
    CNTHP_CTL_EL2.set(0);
}

/// Masks the interrupt of the loaded vCPU's virtual timer at its source: what EL2 does when it fires.
#[inline(always)]
pub fn mask_virtual() {
    CNTV_CTL_EL0.set(CNTV_CTL_EL0.get() | CTL_IMASK);
}
