//! Deadlines of blocked vCPUs, one for each id, earliest first.

use super::heap::{Heaps, Side};

/// A queue of deadlines for ids below `N`, in counter ticks.
pub struct TimerQueue<const N: usize> {
    heaps: Heaps<N>,
}

impl<const N: usize> Default for TimerQueue<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> TimerQueue<N> {
    /// No deadlines.
    pub const fn new() -> Self {
        Self { heaps: Heaps::new() }
    }

    /// Sets the deadline of an id, in place of an earlier one.
    pub fn set(&mut self, id: u16, at: u64) {
        self.heaps.remove(id);
        self.heaps.insert(Side::Ready, at, id);
    }

    /// Forgets an id. Cheap if nothing is queued.
    #[inline]
    pub fn cancel(&mut self, id: u16) {
        if self.heaps.len(Side::Ready) != 0 {
            self.heaps.remove(id);
        }
    }

    /// [`TimerQueue::cancel`], short if nothing else is queued either.
    #[inline(always)]
    pub fn cancel_fast(&mut self, id: u16) {
        if self.heaps.len(Side::Ready) != 0 {
            self.heaps.remove_first(id);
        }
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
        self.heaps.remove(id);
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
        queue.set(3, 40);
        queue.cancel(3);
        assert_eq!(queue.first(), Some(20));
        assert_eq!(queue.pop_due(10), None);
        assert_eq!(queue.pop_due(25), Some(1));
        assert_eq!(queue.pop_due(25), None);
        assert_eq!(queue.pop_due(99), Some(2));
        assert_eq!(queue.first(), None);
    }
}
