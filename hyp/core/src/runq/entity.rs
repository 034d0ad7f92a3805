//! What the scheduler keeps for each vCPU.

use portico_abi::Status;

/// Scheduling class and its parameters. All times are in counter ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Shares by weight what reservations leave.
    Weighted {
        /// Weight, 1 to 65535; 256 is the default.
        weight: u32,
        /// Upper bound in thousandths of a pCPU in each window of 10 ms; 0 or 1000 for none.
        cap_permille: u32,
    },
    /// A constant-bandwidth server: `budget` ticks in each `period`, before all weighted vCPUs, and not more.
    Reservation {
        /// Ticks in each period.
        budget: u64,
        /// Length of the period in ticks.
        period: u64,
    },
}

impl Class {
    /// Weighted with the default weight and no cap.
    pub const DEFAULT: Class = Class::Weighted { weight: 256, cap_permille: 0 };

    /// Checks the parameters. A reservation's period is 100 us to 10 s and its budget at least 10 us and at most the period.
    ///
    /// # Errors
    /// `Invalid`.
    pub const fn check(self, ticks_per_ms: u64) -> Result<(), Status> {
        let fits = match self {
            Class::Weighted { weight, cap_permille } => weight >= 1 && weight <= 65535 && cap_permille <= 1000,
            Class::Reservation { budget, period } => {
                period >= ticks_per_ms / 10
                    && period <= ticks_per_ms * 10_000
                    && budget >= ticks_per_ms / 100
                    && budget <= period
            }
        };
        if fits { Ok(()) } else { Err(Status::Invalid) }
    }

    /// Thousandths of a pCPU that it reserves, rounded up; 0 for the weighted class.
    pub const fn permille(self) -> u32 {
        match self {
            Class::Weighted { .. } => 0,
            // Both are below 2^50, see `check`.
            Class::Reservation { budget, period } => {
                if period == 0 {
                    1000
                } else {
                    (budget * 1000).div_ceil(period) as u32
                }
            }
        }
    }
}

/// Virtual runtime stops here, so that it leaves a bit for the class in a key. At weight 1 and 1 GHz that is a year of running
/// alone; past it such vCPUs count as equal.
pub(super) const VRUNTIME_MAX: u64 = (1 << 63) - 1;
const INVERSE_SHIFT: u32 = 24;

/// The scheduler's state of one vCPU. The caller keeps it in its vCPU object and passes it in; only the lock
/// of the run queue that it belongs to protects it.
#[derive(Clone, Debug)]
pub struct SchedEntity {
    class: Class,
    /// Weighted and without a cap.
    plain: bool,
    /// Weighted: time run, scaled by 256 / weight.
    pub(super) vruntime: u64,
    /// Weighted: `(256 << 24) / weight`.
    pub(super) inverse: u64,
    /// Capped: ticks for each window; 0 for no cap.
    pub(super) cap_budget: u64,
    /// Capped: ticks used in the current window, with the excess of earlier ones.
    pub(super) cap_used: u64,
    /// Capped: end of the current window.
    pub(super) cap_end: u64,
    /// Reservation: end of the current period.
    pub(super) deadline: u64,
    /// Reservation: ticks left in the current period.
    pub(super) remaining: u64,
    /// Reservation: ticks run beyond the budget, taken off the next one.
    pub(super) excess: u64,
    missed: u64,
}

impl SchedEntity {
    /// Weighted, default weight, no cap.
    pub const fn new() -> Self {
        Self {
            class: Class::DEFAULT,
            plain: true,
            vruntime: 0,
            inverse: 1 << INVERSE_SHIFT,
            cap_budget: 0,
            cap_used: 0,
            cap_end: 0,
            deadline: 0,
            remaining: 0,
            excess: 0,
            missed: 0,
        }
    }

    /// Class and parameters.
    pub const fn class(&self) -> Class {
        self.class
    }

    /// Periods in which the budget was not delivered although the vCPU was ready.
    pub const fn missed(&self) -> u64 {
        self.missed
    }

    /// Says whether it is weighted and uncapped, so that it needs no timer while it is alone.
    #[inline(always)]
    pub const fn is_plain(&self) -> bool {
        self.plain
    }

    /// Says whether it is of the weighted class.
    #[inline(always)]
    pub const fn is_weighted(&self) -> bool {
        matches!(self.class, Class::Weighted { .. })
    }

    /// Changes class and parameters, which passed [`Class::check`]. The vCPU must be neither queued nor current.
    pub const fn configure(&mut self, class: Class, ticks_per_ms: u64) {
        self.class = class;
        self.remaining = 0;
        self.deadline = 0;
        self.excess = 0;
        self.cap_budget = 0;
        self.cap_used = 0;
        if let Class::Weighted { weight, cap_permille } = class {
            let weight = if weight == 0 { 1 } else { weight as u64 };
            self.inverse = (256 << INVERSE_SHIFT) / weight;
            if cap_permille != 0 && cap_permille < 1000 {
                self.cap_budget = super::CAP_WINDOW_MS * ticks_per_ms * cap_permille as u64 / 1000;
            }
        }
        self.plain = self.is_weighted() && self.cap_budget == 0;
    }

    /// Virtual runtime after `ran` more ticks.
    #[inline(always)]
    pub(super) const fn vruntime_after(&self, ran: u64) -> u64 {
        advance(self.vruntime, self.inverse, ran)
    }

    /// Opens the window that `now` is in and takes what was allowed since off what was used.
    pub(super) const fn refill_cap(&mut self, now: u64, window: u64) {
        if self.cap_budget != 0 && now >= self.cap_end {
            let windows = (now - self.cap_end) / window + 1;
            self.cap_used = self.cap_used.saturating_sub(windows.saturating_mul(self.cap_budget));
            self.cap_end += windows * window;
        }
    }

    /// Opens the period that `now` is in. A period that ended with budget left over counts as missed if the vCPU wanted it.
    pub(super) const fn roll_period(&mut self, now: u64, wanted: bool) {
        let Class::Reservation { budget, period } = self.class else { return };
        if now < self.deadline || period == 0 {
            return;
        }
        let periods = (now - self.deadline) / period + 1;
        if wanted && self.remaining != 0 {
            self.missed += periods;
        }
        self.deadline += periods * period;
        self.replenish(budget);
    }

    /// Applies the wake-up rule of the constant-bandwidth server: the old budget and deadline go on only if
    /// using them up by the deadline takes no more than the bandwidth.
    pub(super) const fn wake_period(&mut self, now: u64) {
        let Class::Reservation { budget, period } = self.class else { return };
        let expired = now >= self.deadline;
        if expired || self.remaining as u128 * period as u128 > (self.deadline - now) as u128 * budget as u128 {
            self.deadline = now + period;
            self.replenish(budget);
        }
    }

    const fn replenish(&mut self, budget: u64) {
        let left = budget.saturating_sub(self.excess);
        self.excess = self.excess.saturating_sub(budget);
        self.remaining = left;
    }

    /// Takes `ran` ticks off budget and cap, and adds them to the virtual runtime.
    #[inline(always)]
    pub(super) const fn account(&mut self, ran: u64) {
        if self.is_weighted() {
            self.vruntime = self.vruntime_after(ran);
            if !self.plain {
                self.cap_used = self.cap_used.saturating_add(ran);
            }
        } else {
            self.excess += ran.saturating_sub(self.remaining);
            self.remaining = self.remaining.saturating_sub(ran);
        }
    }
}

/// `vruntime + ran * inverse`, saturating.
#[inline(always)]
pub(super) const fn advance(vruntime: u64, inverse: u64, ran: u64) -> u64 {
    // `inverse` is 2^32 at most, for weight 1, so up to here the product fits, and the sum of two below 2^63 does.
    if ran >> 31 != 0 {
        return advance_far(vruntime, inverse, ran);
    }
    let sum = vruntime + ((ran * inverse) >> INVERSE_SHIFT);
    if sum > VRUNTIME_MAX { VRUNTIME_MAX } else { sum }
}

#[cold]
#[inline(never)]
const fn advance_far(vruntime: u64, inverse: u64, ran: u64) -> u64 {
    let sum = vruntime as u128 + ((ran as u128 * inverse as u128) >> INVERSE_SHIFT);
    if sum > VRUNTIME_MAX as u128 { VRUNTIME_MAX } else { sum as u64 }
}
