//! Time: the virtual counter, deadlines, sleeping, and the one-shot timer of each vCPU.
//!
//! Deadlines are values of CNTVCT_EL0. Its frequency and the factors to nanoseconds stand in the information page and are
//! read anew each time, since they may change when the domain is restored on another machine.

use crate::{hvc, port, vcpu};
use core::mem::offset_of;
use core::sync::atomic::{AtomicPtr, Ordering, fence};
use core::time::Duration;
use portico_abi::call::info;
use portico_abi::page::InfoPage;
use portico_abi::port::{BIT_TIMER, DEADLINE_NEVER};

static INFO: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());

/// Finds the information page.
pub(crate) fn init() {
    if let Ok(ipa) = hvc::self_info(info::INFO_PAGE_IPA, 0) {
        INFO.store(core::ptr::with_exposed_provenance_mut(ipa as usize), Ordering::Relaxed);
    }
}

/// Frequency and factors, as the information page has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Ticks a second.
    pub hz: u32,
    /// `ns = ticks * mult >> shift`.
    pub mult: u32,
    /// See `mult`.
    pub shift: u32,
}

impl Scale {
    /// Reads it, consistently.
    pub fn read() -> Scale {
        let base = INFO.load(Ordering::Relaxed);
        if base.is_null() {
            return Self::from_hz(counter_hz());
        }
        let word = |offset: usize| {
            // SAFETY: the information page is mapped for the life of the domain; `offset` is that of one of its fields.
            unsafe { core::ptr::read_volatile(base.add(offset).cast::<u32>()) }
        };
        loop {
            let before = word(offset_of!(InfoPage, seq));
            fence(Ordering::Acquire);
            let scale = Scale {
                hz: word(offset_of!(InfoPage, counter_hz)),
                mult: word(offset_of!(InfoPage, mult)),
                shift: word(offset_of!(InfoPage, shift)),
            };
            fence(Ordering::Acquire);
            if before & 1 == 0 && before == word(offset_of!(InfoPage, seq)) {
                return if scale.mult == 0 { Self::from_hz(counter_hz()) } else { scale };
            }
            core::hint::spin_loop();
        }
    }

    /// The factors for a frequency, where there is no information page.
    pub const fn from_hz(hz: u32) -> Scale {
        let hz = if hz == 0 { 1 } else { hz };
        // The largest shift for which the factor fits into 32 bits.
        let mut shift = 32;
        while (1_000_000_000_u128 << shift) / hz as u128 > u32::MAX as u128 {
            shift -= 1;
        }
        Scale { hz, mult: ((1_000_000_000_u128 << shift) / hz as u128) as u32, shift }
    }

    /// Nanoseconds of `ticks`.
    pub const fn ns(&self, ticks: u64) -> u64 {
        ((ticks as u128 * self.mult as u128) >> self.shift) as u64
    }

    /// Ticks of `ns`, rounded up, at most `u64::MAX`.
    pub const fn ticks(&self, ns: u64) -> u64 {
        let ticks = (ns as u128 * self.hz as u128).div_ceil(1_000_000_000);
        if ticks > u64::MAX as u128 { u64::MAX } else { ticks as u64 }
    }
}

/// CNTVCT_EL0, not read ahead of earlier instructions.
#[inline(always)]
pub fn now() -> u64 {
    #[cfg(target_os = "none")]
    {
        let ticks: u64;
        // SAFETY: reads a counter.
        unsafe { core::arch::asm!("isb", "mrs {}, cntvct_el0", out(reg) ticks, options(nostack, preserves_flags)) };
        ticks
    }
    #[cfg(not(target_os = "none"))]
    {
        crate::fake::now()
    }
}

/// CNTFRQ_EL0, in Hz. Prefer [`Scale::read`], which is right after a restore too.
pub fn counter_hz() -> u32 {
    #[cfg(target_os = "none")]
    {
        let hz: u64;
        // SAFETY: reads a register.
        unsafe { core::arch::asm!("mrs {}, cntfrq_el0", out(reg) hz, options(nomem, nostack, preserves_flags)) };
        hz as u32
    }
    #[cfg(not(target_os = "none"))]
    {
        crate::fake::COUNTER_HZ
    }
}

/// The counter's present value in nanoseconds.
pub fn now_ns() -> u64 {
    Scale::read().ns(now())
}

/// The deadline `after` from now; a time too far away is [`DEADLINE_NEVER`].
pub fn deadline(after: Duration) -> u64 {
    let ns = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
    now().checked_add(Scale::read().ticks(ns)).unwrap_or(DEADLINE_NEVER)
}

/// Whether a deadline has passed.
pub fn passed(deadline: u64) -> bool {
    now() >= deadline
}

/// Sleeps, running handlers meanwhile.
pub fn sleep(duration: Duration) {
    sleep_until(deadline(duration));
}

/// Sleeps until CNTVCT_EL0 reaches `deadline`.
pub fn sleep_until(deadline: u64) {
    let _ = port::wait_until(deadline, || passed(deadline));
}

/// Arms the timer of the calling vCPU: port bit 0 is notified when CNTVCT_EL0 reaches `deadline`.
///
/// When it fires EL2 sets CNTV_CTL_EL0.IMASK; arming it again clears that, without a trap.
#[inline]
pub fn arm(deadline: u64) {
    #[cfg(target_os = "none")]
    // SAFETY: the virtual timer belongs to the guest.
    unsafe {
        core::arch::asm!(
            "msr cntv_cval_el0, {}", "msr cntv_ctl_el0, {}", "isb",
            in(reg) deadline, in(reg) 1_u64, options(nostack, preserves_flags),
        );
    }
    #[cfg(not(target_os = "none"))]
    crate::fake::arm_timer(Some(deadline));
}

/// Turns the timer of the calling vCPU off.
#[inline]
pub fn disarm() {
    #[cfg(target_os = "none")]
    // SAFETY: as in `arm`.
    unsafe {
        core::arch::asm!("msr cntv_ctl_el0, xzr", "isb", options(nostack, preserves_flags));
    }
    #[cfg(not(target_os = "none"))]
    crate::fake::arm_timer(None);
}

/// The timer's port on the calling vCPU: [`port::Port::on_notify`], [`port::Port::wait`] and so on.
pub fn timer_port() -> port::Port {
    port::Port::fixed(vcpu::index(), BIT_TIMER)
}

#[cfg(test)]
mod tests {
    use super::Scale;

    #[test]
    fn factors_are_exact_for_round_frequencies() {
        for hz in [1_000_000_000, 62_500_000, 54_000_000, 24_000_000, 19_200_000] {
            let scale = Scale::from_hz(hz);
            let second = scale.ns(u64::from(hz));
            assert!(second.abs_diff(1_000_000_000) <= 2, "{hz}: {second}");
            assert_eq!(scale.ticks(1_000_000_000), u64::from(hz));
        }
        assert_eq!(Scale::from_hz(1_000_000_000).ticks(u64::MAX), u64::MAX);
        assert_eq!(Scale::from_hz(1).ns(3), 3_000_000_000);
    }
}
