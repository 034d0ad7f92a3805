//! The watchdog: has a guest's heartbeat changed in time?

/// Watches one heartbeat. Times are nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Watchdog {
    heartbeat: u32,
    changed_ns: u64,
}

impl Watchdog {
    /// Begins to watch.
    pub fn new(heartbeat: u32, now_ns: u64) -> Self {
        Self { heartbeat, changed_ns: now_ns }
    }

    /// Looks at the heartbeat. True if it has not changed for `limit_ms` milliseconds; 0 is never.
    pub fn expired(&mut self, heartbeat: u32, limit_ms: u32, now_ns: u64) -> bool {
        if heartbeat != self.heartbeat || limit_ms == 0 {
            *self = Self::new(heartbeat, now_ns);
            return false;
        }
        now_ns >= self.deadline(limit_ms)
    }

    /// When it has to be looked at, at the latest.
    pub fn deadline(&self, limit_ms: u32) -> u64 {
        self.changed_ns.saturating_add(u64::from(limit_ms) * 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::Watchdog;

    #[test]
    fn expires_only_without_a_beat() {
        const MS: u64 = 1_000_000;
        let mut watchdog = Watchdog::new(0, 0);
        assert!(!watchdog.expired(0, 10, 9 * MS));
        assert!(!watchdog.expired(1, 10, 10 * MS));
        assert!(!watchdog.expired(1, 10, 19 * MS));
        assert!(watchdog.expired(1, 10, 20 * MS));
        assert!(!watchdog.expired(1, 0, 99 * MS));
        assert!(!watchdog.expired(1, 10, 99 * MS));
    }
}
