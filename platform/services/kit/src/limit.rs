//! Limits of rate: a bucket of tokens that time fills.

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// A limit of so many tokens a second, of which so many can be taken at once after a pause.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Tokens a second; 0 for no limit.
    rate: u64,
    /// Nanoseconds of rate that the bucket holds.
    depth_ns: u64,
    /// Until when tokens are spent, in nanoseconds: behind now by the bucket's fill, ahead of now by a debt.
    spent_ns: u64,
}

impl Limit {
    /// A limit whose bucket, full at first, holds `burst` tokens, or a tenth of a second's if that is more.
    pub fn new(rate: u64, burst: u64) -> Limit {
        let depth_ns = if rate == 0 { 0 } else { scale(burst, rate).max(SECOND / 10) };
        Limit { rate, depth_ns, spent_ns: 0 }
    }

    /// Whether there is no limit.
    pub fn is_none(&self) -> bool {
        self.rate == 0
    }

    /// Takes `tokens`, or answers when there will be some, in nanoseconds. One who takes more than there are is in debt, so that a
    /// large request passes and then waits for its like.
    ///
    /// # Errors
    /// The time at which to try again.
    #[inline]
    pub fn take(&mut self, tokens: u64, now_ns: u64) -> Result<(), u64> {
        if self.rate == 0 {
            return Ok(());
        }
        let start = self.spent_ns.max(now_ns.saturating_sub(self.depth_ns));
        if start >= now_ns {
            return Err(start.saturating_add(1));
        }
        self.spent_ns = start.saturating_add(scale(tokens, self.rate));
        Ok(())
    }

    /// Whether a request would pass now; when, if not.
    ///
    /// # Errors
    /// The time at which to try again, in nanoseconds.
    pub fn check(&self, now_ns: u64) -> Result<(), u64> {
        let mut copy = *self;
        copy.take(0, now_ns)
    }
}

/// Nanoseconds in which a rate gives so many tokens.
fn scale(tokens: u64, rate: u64) -> u64 {
    u64::try_from(u128::from(tokens) * u128::from(SECOND) / u128::from(rate.max(1))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::Limit;

    #[test]
    fn holds_the_rate_and_lets_a_burst_through() {
        let mut limit = Limit::new(1000, 500);
        let mut now = 10_000_000_000;
        let mut passed = 0;
        let start = now;
        while now < start + 2_000_000_000 {
            match limit.take(1, now) {
                Ok(()) => passed += 1,
                Err(again) => now = again,
            }
        }
        assert!((2495..=2505).contains(&passed), "{passed}");
    }

    #[test]
    fn large_requests_pass_and_pay_afterwards() {
        let mut limit = Limit::new(1 << 20, 0);
        assert_eq!(limit.take(4 << 20, 5_000_000_000), Ok(()));
        assert!(limit.take(1, 5_000_000_001).is_err_and(|at| at > 8_800_000_000));
        assert_eq!(limit.take(1, 10_000_000_000), Ok(()));
    }

    #[test]
    fn none_is_none() {
        let mut limit = Limit::new(0, 0);
        assert!(limit.is_none() && (0..100).all(|_| limit.take(u64::MAX, 0) == Ok(())));
    }
}
