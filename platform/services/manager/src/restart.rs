//! Whether and when an ended guest starts again.
//!
//! The policy is data from the system description; this module only counts. A guest that ends too
//! often within a window is given up on, so that a guest which can never work does not take the machine's
//! time for ever. The wait before a restart doubles each time and falls back to the shortest one after the
//! guest has run well for a whole window.

use alloc::vec::Vec;
use portico_bundle::description::{Guest, OnCrash};
use serde::{Deserialize, Serialize};

/// How an ended guest ended, as far as the policy cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was done: exit code 0, or powered itself off.
    Orderly,
    /// It asked to be started afresh.
    Reboot,
    /// A fault, a panic, an exit code that is not 0, or its watchdog.
    Crash,
}

/// Limits of restarting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What to do on a crash.
    pub on_crash: OnCrash,
    /// Most restarts within `window_ns`.
    pub limit: u32,
    /// Length of the window, in nanoseconds.
    pub window_ns: u64,
    /// First wait, in nanoseconds.
    pub backoff_first_ns: u64,
    /// Longest wait, in nanoseconds.
    pub backoff_last_ns: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            on_crash: OnCrash::Restart,
            limit: 5,
            window_ns: 60_000_000_000,
            backoff_first_ns: 100_000_000,
            backoff_last_ns: 10_000_000_000,
        }
    }
}

impl Policy {
    /// The policy that a guest's description asks for.
    pub fn of(guest: &Guest) -> Self {
        Self {
            on_crash: guest.on_crash,
            limit: guest.restart.count,
            window_ns: u64::from(guest.restart.window_s).saturating_mul(1_000_000_000),
            ..Self::default()
        }
    }
}

/// What to do with a guest that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Destroy it, wait so long from its end, start it afresh.
    RestartAfter {
        /// The wait, in nanoseconds.
        delay_ns: u64,
    },
    /// Destroy it; it ended too often.
    GiveUp {
        /// Restarts within the window.
        restarts: u32,
    },
    /// Destroy it.
    Destroy,
    /// Leave it as it is.
    Preserve,
}

/// History of one guest's restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartState {
    /// Times of the restarts within the window, oldest first.
    recent: Vec<u64>,
    /// Restarts since an operator started it.
    total: u32,
}

impl RestartState {
    /// Restarts since it was last started by an operator.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Forgets everything: an operator started it.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Forgets when it was restarted, not how often.
    pub fn forget_times(&mut self) {
        self.recent.clear();
    }

    /// Decides about a guest that ended at `now_ns`, and counts the restart if there is to be one.
    ///
    /// A reboot that the guest asked for is counted too: a boot loop is a boot loop.
    pub fn decide(&mut self, policy: &Policy, ending: Ending, now_ns: u64) -> Decision {
        match (ending, policy.on_crash) {
            (Ending::Orderly, _) | (Ending::Crash, OnCrash::Destroy) => return Decision::Destroy,
            (Ending::Crash, OnCrash::Preserve) => return Decision::Preserve,
            (Ending::Reboot, _) | (Ending::Crash, OnCrash::Restart) => {}
        }
        self.recent.retain(|&then| now_ns.saturating_sub(then) < policy.window_ns);
        let restarts = u32::try_from(self.recent.len()).unwrap_or(u32::MAX);
        if restarts >= policy.limit {
            return Decision::GiveUp { restarts };
        }
        let delay_ns = if ending == Ending::Reboot {
            0
        } else {
            let factor = 1u64.checked_shl(restarts).unwrap_or(u64::MAX);
            policy.backoff_first_ns.saturating_mul(factor).min(policy.backoff_last_ns)
        };
        self.recent.push(now_ns);
        self.total = self.total.saturating_add(1);
        Decision::RestartAfter { delay_ns }
    }
}

#[cfg(test)]
mod tests {
    use super::{Decision, Ending, Policy, RestartState};
    use portico_bundle::description::OnCrash;

    const MS: u64 = 1_000_000;

    #[test]
    fn waits_double_up_to_the_longest_and_then_it_gives_up() {
        let policy = Policy { limit: 10, backoff_last_ns: 1000 * MS, ..Policy::default() };
        let mut state = RestartState::default();
        let mut delays = alloc::vec::Vec::new();
        for n in 0..10 {
            if let Decision::RestartAfter { delay_ns } = state.decide(&policy, Ending::Crash, n * MS) {
                delays.push(delay_ns / MS);
            }
        }
        assert_eq!(delays, [100, 200, 400, 800, 1000, 1000, 1000, 1000, 1000, 1000]);
        assert_eq!(state.decide(&policy, Ending::Crash, 11 * MS), Decision::GiveUp { restarts: 10 });
        assert_eq!(state.total(), 10);
    }

    #[test]
    fn a_window_without_a_crash_forgives() {
        let policy = Policy { limit: 2, ..Policy::default() };
        let mut state = RestartState::default();
        for now in [0, 1] {
            assert!(matches!(state.decide(&policy, Ending::Crash, now), Decision::RestartAfter { .. }));
        }
        assert!(matches!(state.decide(&policy, Ending::Crash, 2), Decision::GiveUp { .. }));
        let later = policy.window_ns + 2;
        assert_eq!(state.decide(&policy, Ending::Crash, later), Decision::RestartAfter { delay_ns: 100 * MS });
    }

    #[test]
    fn policy_and_ending_decide() {
        let with = |on_crash| Policy { on_crash, ..Policy::default() };
        let mut state = RestartState::default();
        assert_eq!(state.decide(&with(OnCrash::Restart), Ending::Orderly, 0), Decision::Destroy);
        assert_eq!(state.decide(&with(OnCrash::Destroy), Ending::Crash, 0), Decision::Destroy);
        assert_eq!(state.decide(&with(OnCrash::Preserve), Ending::Crash, 0), Decision::Preserve);
        assert_eq!(state.decide(&with(OnCrash::Destroy), Ending::Reboot, 0), Decision::RestartAfter { delay_ns: 0 });
    }

    #[test]
    fn a_limit_of_zero_never_restarts() {
        let policy = Policy { limit: 0, ..Policy::default() };
        let mut state = RestartState::default();
        assert_eq!(state.decide(&policy, Ending::Crash, 0), Decision::GiveUp { restarts: 0 });
    }
}
