//! When blocked vCPUs have to be looked at, earliest first.
//!
//! Most deadlines never pass: a vCPU that waits for a notification with a limit is woken before, and soon blocks again with a later one. So a
//! deadline that no longer holds stays here until its time, and serves for every later one of the same vCPU: whoever takes
//! it out looks what is true then, and sets what is left. The price is a decision too many now and then.

use super::heap::{Heaps, Side};

/// A queue of deadlines for ids below `N`, in counter ticks.
pub struct TimerQueue<const N: usize> {
    heaps: Heaps<N>,
}

impl<const N: usize> TimerQueue<N> {
    /// No deadlines.
    pub const fn new() -> Self {
        Self { heaps: Heaps::new() }
    }

    /// Sees to it that an id comes up at `at` or before.
    pub fn set(&mut self, id: u16, at: u64) {
        if !self.covers(id, at) {
            self.heaps.remove(id);
            self.heaps.insert_behind(at, id);
        }
    }

    /// Whether an id comes up at `at` or before.
    #[inline(always)]
    pub fn covers(&self, id: u16, at: u64) -> bool {
        self.heaps.key_of(id).is_some_and(|key| key <= at)
    }

    /// Forgets an id.
    pub fn cancel(&mut self, id: u16) {
        self.heaps.remove(id);
    }

    /// Takes out the id that [`TimerQueue::due`] has named.
    #[inline(always)]
    pub fn remove_due(&mut self, id: u16) {
        self.heaps.remove_first(id);
    }

    /// The earliest deadline.
    #[inline]
    pub fn first(&self) -> Option<u64> {
        self.heaps.first(Side::Ready).map(|(at, _)| at)
    }

    /// The id of the earliest deadline if that is not after `now`.
    #[inline]
    pub fn due(&self, now: u64) -> Option<u16> {
        self.heaps.first(Side::Ready).and_then(|(at, id)| (at <= now).then_some(id))
    }

    /// Takes out an id whose deadline is not after `now`.
    pub fn pop_due(&mut self, now: u64) -> Option<u16> {
        let (at, id) = self.heaps.first(Side::Ready)?;
        if at > now {
            return None;
        }
        self.heaps.remove_first(id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::TimerQueue;

    #[test]
    fn earliest_first_and_one_for_each_id() {
        let mut queue = TimerQueue::<8>::new();
        queue.set(1, 50);
        queue.set(2, 30);
        queue.set(1, 20);
        assert_eq!(queue.first(), Some(20));
        assert_eq!(queue.pop_due(10), None);
        assert_eq!(queue.pop_due(25), Some(1));
        assert_eq!(queue.pop_due(25), None);
        assert_eq!(queue.pop_due(99), Some(2));
        assert_eq!(queue.first(), None);
    }

    #[test]
    fn an_early_one_serves_for_a_later_one() {
        let mut queue = TimerQueue::<8>::new();
        assert!(!queue.covers(1, 50));
        queue.set(1, 50);
        assert!(queue.covers(1, 50) && queue.covers(1, 90) && !queue.covers(1, 49) && !queue.covers(2, 90));
        queue.set(1, 90);
        assert_eq!(queue.first(), Some(50));
        assert_eq!(queue.due(60), Some(1));
        queue.remove_due(1);
        assert_eq!(queue.first(), None);
    }

    proptest::proptest! {
        /// The short ways for few entries come to the same as an ordered map of the earliest deadline of each id.
        #[test]
        fn comes_up_in_order(steps in proptest::collection::vec((0_u8..3, 0_u16..4, 0_u64..50), 1..100)) {
            let mut queue = TimerQueue::<8>::new();
            let mut model = std::collections::BTreeMap::<u16, u64>::new();
            for (kind, id, at) in steps {
                match kind {
                    0 => {
                        queue.set(id, at);
                        let entry = model.entry(id).or_insert(at);
                        *entry = at.min(*entry);
                    }
                    1 => {
                        queue.cancel(id);
                        model.remove(&id);
                    }
                    _ => {
                        let due = queue.pop_due(at);
                        let earliest = model.values().copied().min().filter(|&first| first <= at);
                        proptest::prop_assert_eq!(due.and_then(|id| model.remove(&id)), earliest);
                    }
                }
                proptest::prop_assert_eq!(queue.first(), model.values().copied().min());
            }
        }
    }
}
