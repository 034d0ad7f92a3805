//! When vCPUs that wait for a time have to be looked at, earliest first.
//!
//! Most deadlines never pass: a vCPU that waits for a notification with a limit is woken before, and soon blocks again with a later one. So a
//! deadline that no longer holds stays here until its time, and serves for every later one of the same vCPU: whoever takes
//! it out looks what is true then, and sets what is left. The price is a decision too many now and then.

use super::heap::Heap;

/// A queue of deadlines for ids below `N`, in counter ticks.
pub struct TimerQueue<const N: usize> {
    heap: Heap<N>,
}

impl<const N: usize> TimerQueue<N> {
    /// No deadlines.
    pub const fn new() -> Self {
        Self { heap: Heap::new() }
    }

    /// Sees to it that an id comes up at `at` or before.
    pub fn set(&mut self, id: u16, at: u64) {
        if !self.covers(id, at) && !self.heap.insert(at, id) {
            // It is there, for later.
            self.cancel(id);
            self.set(id, at);
        }
    }

    /// Whether an id comes up at `at` or before.
    #[inline(always)]
    pub fn covers(&self, id: u16, at: u64) -> bool {
        self.heap.key_of(id).is_some_and(|key| key <= at)
    }

    /// Forgets an id.
    #[inline(always)]
    pub fn cancel(&mut self, id: u16) {
        self.heap.remove(id);
    }

    /// The earliest deadline; `u64::MAX` if there is none.
    #[inline(always)]
    pub fn first(&self) -> u64 {
        self.heap.first().map_or(u64::MAX, |(at, _)| at)
    }

    /// The id of the earliest deadline if that is not after `now`.
    #[inline]
    pub fn due(&self, now: u64) -> Option<u16> {
        self.heap.first().and_then(|(at, id)| (at <= now).then_some(id))
    }

    /// Takes out an id whose deadline is not after `now`.
    pub fn pop_due(&mut self, now: u64) -> Option<u16> {
        let id = self.due(now)?;
        self.heap.remove(id);
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
        assert_eq!(queue.first(), 20);
        assert_eq!(queue.pop_due(10), None);
        assert_eq!(queue.pop_due(25), Some(1));
        assert_eq!(queue.pop_due(25), None);
        assert_eq!(queue.pop_due(99), Some(2));
        assert_eq!(queue.first(), u64::MAX);
    }

    #[test]
    fn an_early_one_serves_for_a_later_one() {
        let mut queue = TimerQueue::<8>::new();
        assert!(!queue.covers(1, 50));
        queue.set(1, 50);
        assert!(queue.covers(1, 50) && queue.covers(1, 90) && !queue.covers(1, 49) && !queue.covers(2, 90));
        queue.set(1, 90);
        assert_eq!(queue.first(), 50);
        assert_eq!(queue.due(60), Some(1));
        queue.cancel(1);
        assert_eq!(queue.first(), u64::MAX);
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
                proptest::prop_assert_eq!(queue.first(), model.values().copied().min().unwrap_or(u64::MAX));
            }
        }
    }
}
