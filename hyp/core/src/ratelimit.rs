//! A token bucket, for what a guest can make EL2 write.

/// Allows `burst` units at once and `rate` units in each second over time.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    /// In units times ticks per second, so that no fraction is lost.
    level: u64,
    last: u64,
}

/// What a bucket allows.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Units that can be taken at once.
    pub burst: u32,
    /// Units in each second.
    pub per_second: u32,
    /// Frequency of the clock, in Hz.
    pub hz: u32,
}

impl TokenBucket {
    /// A bucket that is full at its first use.
    pub const fn new() -> Self {
        Self { level: u64::MAX, last: 0 }
    }

    /// Takes `units` at the time `now`, in ticks. False if they are not there.
    pub const fn take(&mut self, rate: Rate, now: u64, units: u32) -> bool {
        // Both products are below 2^64, since the factors are 32 bits wide.
        let full = rate.burst as u64 * rate.hz as u64;
        let elapsed = now.saturating_sub(self.last);
        let level = self.level.saturating_add(elapsed.saturating_mul(rate.per_second as u64));
        self.level = if level > full { full } else { level };
        self.last = now;
        let cost = units as u64 * rate.hz as u64;
        let fits = cost <= self.level;
        if fits {
            self.level -= cost;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::{Rate, TokenBucket};
    use proptest::prelude::*;

    const RATE: Rate = Rate { burst: 10, per_second: 100, hz: 1000 };

    #[test]
    fn burst_then_rate() {
        let mut bucket = TokenBucket::new();
        assert_eq!((0..20).filter(|_| bucket.take(RATE, 5, 1)).count(), 10);
        assert!(!bucket.take(RATE, 14, 1));
        assert!(bucket.take(RATE, 15, 1));
        assert!(!bucket.take(RATE, 15, 1));
        assert!(!bucket.take(RATE, 1 << 60, 11));
        assert!(bucket.take(RATE, 1 << 60, 10));
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate(steps in prop::collection::vec((0u64..50, 0u32..5), 1..200)) {
            let mut bucket = TokenBucket::new();
            let (mut now, mut taken) = (0, 0);
            for (wait, units) in steps {
                now += wait;
                if bucket.take(RATE, now, units) {
                    taken += u64::from(units);
                }
                prop_assert!(taken <= 10 + now / 10);
            }
        }
    }
}
