//! The run queue of one pCPU: who runs next, and for how long.
//!
//! Two classes. A *reservation* is a constant-bandwidth server: it gets its budget in each period, in order of earliest deadline,
//! before all others; when the budget is used up it waits for the next period. The *weighted* class shares the rest by virtual runtime:
//! time run, divided by weight; least first. A weighted vCPU can have a cap, over windows of 10 ms.
//!
//! The queue holds only vCPUs that are READY. The running one (`current`) is outside, so a lone vCPU
//! that blocks and wakes touches no heap. A vCPU is in exactly one of these places: current, ready, throttled (READY but out of budget or
//! over its cap), or not known to the queue (off, blocked). A throttled one waits for a time as a blocked one with a deadline does, so
//! it is among the same `timers`. Its [`SchedEntity`] stays with the caller, who passes the one that belongs to the id.
//!
//! Life of the pCPU's scheduling decision, all under the queue's lock:
//! ```text
//! while let Some(id) = rq.timers.pop_due(now) { /* blocked: wake it; READY: */ rq.enqueue(id, se(id), now, Why::Released); }
//! let ran = rq.stop(se(current), now);                     // if there is a current one
//! rq.enqueue(current, se(current), now, Why::Preempted);   // if it is still runnable
//! if let Some(next) = rq.pick() { rq.start(se(next), now); timer = rq.deadline(se(next), now).min(rq.timers.first()); }
//! ```
//! If nothing is picked the pCPU idles until an interrupt or the first of `timers`.
//!
//! A sleeper's virtual runtime is lifted at its wake-up to a little below the least of the queue: it is
//! served soon, but what it did not use while asleep is gone, so it cannot monopolise the pCPU.
//! All times are counter ticks of one clock. It does no locking and knows no hardware.

mod admission;
mod entity;
mod heap;
#[cfg(test)]
mod shortcuts;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod timers;

pub use admission::Admission;
pub use entity::{Class, SchedEntity};
pub use timers::TimerQueue;

use heap::Heap;

/// Length of the window of a cap, in milliseconds.
pub const CAP_WINDOW_MS: u64 = 10;
/// Time within which all ready weighted vCPUs get a turn, if there are few, in milliseconds.
const LATENCY_MS: u64 = 6;
/// The longest slice beside others, in milliseconds.
const MAX_SLICE_MS: u64 = 2;
/// Up to so many others the slice is the longest one.
const FEW: usize = (LATENCY_MS / MAX_SLICE_MS - 1) as usize;
/// Ready entries that a steal looks at.
const STEAL_SCAN: usize = 16;
/// Set in the keys of weighted entries, so that every reservation comes first.
const WEIGHTED_KEY: u64 = 1 << 63;

/// Why a vCPU enters the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It was off or blocked and may run now.
    Wake,
    /// It was current and is still runnable.
    Preempted,
    /// It was current and gives way.
    Yield,
    /// [`RunQueue::timers`] have given it while it is READY: its throttle may be over.
    Released,
    /// It comes from another pCPU's queue.
    Migrated,
}

/// What the queue remembers of the running vCPU.
#[derive(Clone, Copy, Debug)]
enum Current {
    /// Idle.
    None,
    /// A weighted one: virtual runtime at `since`, inverse weight.
    Weighted { vruntime: u64, inverse: u64 },
    /// A reservation with its deadline.
    Reservation { deadline: u64 },
}

/// The run queue of one pCPU, for vCPU ids below `N`.
pub struct RunQueue<const N: usize> {
    ready: Heap<N>,
    /// When blocked vCPUs have to be looked at, and throttled ones.
    pub timers: TimerQueue<N>,
    current: Current,
    /// When the current one was last charged.
    since: u64,
    /// When the current one began to run.
    started: u64,
    /// No weighted vCPU's claim is older than this virtual time. Never goes back.
    min_vruntime: u64,
    ticks_per_ms: u64,
}

impl<const N: usize> RunQueue<N> {
    /// An empty queue on an idle pCPU.
    pub const fn new(ticks_per_ms: u64) -> Self {
        Self {
            ready: Heap::new(),
            timers: TimerQueue::new(),
            current: Current::None,
            since: 0,
            started: 0,
            min_vruntime: 0,
            ticks_per_ms,
        }
    }

    /// Sets the frequency of the clock, for queues made before it was known. Only while nothing is queued.
    pub const fn set_ticks_per_ms(&mut self, ticks_per_ms: u64) {
        self.ticks_per_ms = ticks_per_ms;
    }

    /// vCPUs that wait and could run now.
    #[inline(always)]
    pub const fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// Makes a vCPU the running one. It was picked, or it woke on an idle pCPU and [`RunQueue::may_run`] allowed it.
    #[inline]
    pub fn start(&mut self, entity: &mut SchedEntity, now: u64) {
        self.since = now;
        self.started = now;
        if entity.is_weighted() {
            self.current = Current::Weighted { vruntime: entity.vruntime, inverse: entity.inverse };
        } else {
            // It may have waited past its deadline.
            entity.roll_period(now, true);
            self.current = Current::Reservation { deadline: entity.deadline };
        }
    }

    /// Charges the running vCPU for its time up to `now`, and returns that time.
    #[inline(never)]
    pub fn charge(&mut self, entity: &mut SchedEntity, now: u64) -> u64 {
        let ran = now.saturating_sub(self.since);
        self.since = now;
        entity.account(ran);
        if let Current::Weighted { vruntime, .. } = &mut self.current {
            *vruntime = entity.vruntime;
            entity.refill_cap(now, CAP_WINDOW_MS * self.ticks_per_ms);
            self.raise_min(Some(entity.vruntime));
        } else if let Current::Reservation { deadline } = &mut self.current {
            entity.roll_period(now, true);
            *deadline = entity.deadline;
        }
        ran
    }

    /// The running vCPU stops and one that was blocked runs in its place: [`RunQueue::stop`], [`RunQueue::may_run`] and [`RunQueue::start`] in
    /// one. Returns how long the first one ran; `None`, and nothing done, unless both are plain and nobody waits.
    #[inline(always)]
    pub fn hand_over(&mut self, from: &mut SchedEntity, to: &mut SchedEntity, now: u64) -> Option<u64> {
        let Current::Weighted { vruntime, inverse } = &mut self.current else { return None };
        if self.ready.len() != 0 || !from.is_plain() || !to.is_plain() {
            return None;
        }
        let ran = now.saturating_sub(self.since);
        from.vruntime = from.vruntime_after(ran);
        self.min_vruntime = self.min_vruntime.max(from.vruntime);
        to.vruntime = to.vruntime.max(self.min_vruntime.saturating_sub(self.ticks_per_ms));
        (*vruntime, *inverse) = (to.vruntime, to.inverse);
        self.since = now;
        self.started = now;
        Some(ran)
    }

    /// [`RunQueue::charge`], after which the pCPU has no running vCPU. Enqueue it if it is still runnable.
    #[inline(always)]
    pub fn stop(&mut self, entity: &mut SchedEntity, now: u64) -> u64 {
        let ran = self.charge(entity, now);
        self.current = Current::None;
        ran
    }

    /// The running vCPU blocks while others wait: [`RunQueue::stop`] and [`RunQueue::pick`] in one. Returns how long it ran, and the next one,
    /// to be started; `None`, and nothing done, unless all that are ready are weighted and it is plain.
    #[inline(always)]
    pub fn give_way(&mut self, from: &mut SchedEntity, now: u64) -> Option<(u64, u16)> {
        let Current::Weighted { .. } = self.current else { return None };
        let (key, next) = self.ready.first()?;
        if !from.is_plain() || key & WEIGHTED_KEY == 0 {
            return None;
        }
        let ran = now.saturating_sub(self.since);
        from.vruntime = from.vruntime_after(ran);
        self.min_vruntime = self.min_vruntime.max(from.vruntime.min(key & !WEIGHTED_KEY));
        self.since = now;
        self.current = Current::None;
        self.ready.remove(next);
        Some((ran, next))
    }

    /// A blocked vCPU wakes while another runs: if it comes first it takes the other's place, which is queued under its `id`. Returns how long
    /// that one ran; `None` if the woken one must be enqueued, or one of them is not plain.
    #[inline(always)]
    pub fn preempt(&mut self, id: u16, running: &mut SchedEntity, woken: &mut SchedEntity, now: u64) -> Option<u64> {
        let Current::Weighted { vruntime, inverse } = self.current else { return None };
        let first = self.ready.first().map_or(u64::MAX, |(key, _)| key);
        if !running.is_plain() || !woken.is_plain() || first & WEIGHTED_KEY == 0 {
            return None;
        }
        let first = first & !WEIGHTED_KEY;
        let ran = now.saturating_sub(self.since);
        let reached = entity::advance(vruntime, inverse, ran);
        self.min_vruntime = self.min_vruntime.max(reached.min(first));
        let claim = woken.vruntime.max(self.min_vruntime.saturating_sub(self.ticks_per_ms));
        if first <= claim || reached <= claim.saturating_add(self.ticks_per_ms / 4) {
            return None;
        }
        running.vruntime = reached;
        woken.vruntime = claim;
        self.ready.insert(WEIGHTED_KEY | reached, id);
        self.current = Current::Weighted { vruntime: claim, inverse: woken.inverse };
        self.since = now;
        self.started = now;
        Some(ran)
    }

    /// The running vCPU, which is plain, did nothing in the `ticks` that end now, as if it had blocked and woken: they are not charged.
    #[inline]
    pub fn waited(&mut self, entity: &mut SchedEntity, ticks: u64, now: u64) {
        if let Current::Weighted { vruntime, .. } = &mut self.current {
            self.since = now.min(self.since + ticks);
            self.started = now;
            // Who looked at the queue meanwhile took the time for run time.
            entity.vruntime = entity.vruntime.max(self.min_vruntime.saturating_sub(self.ticks_per_ms));
            *vruntime = entity.vruntime;
        }
    }

    /// The fast path of a wake-up on an idle pCPU with nothing ready: places the vCPU as [`Why::Wake`] does and says whether it may run at
    /// once, without being queued. If not, enqueue it.
    #[inline]
    pub fn may_run(&mut self, entity: &mut SchedEntity, now: u64) -> bool {
        if self.ready_len() != 0 || !matches!(self.current, Current::None) {
            return false;
        }
        if entity.is_plain() {
            entity.vruntime = entity.vruntime.max(self.floor(now));
            return true;
        }
        self.place(entity, now, Why::Wake);
        self.release_time(entity).is_none()
    }

    /// Adds a runnable vCPU; it may be throttled, to come up in `timers`. Says whether the running one should give way to it (true on an
    /// idle pCPU too, unless it is throttled). An id that is ready already, or not below `N`, is left alone.
    pub fn enqueue(&mut self, id: u16, entity: &mut SchedEntity, now: u64, why: Why) -> bool {
        if self.ready.key_of(id).is_some() {
            return false;
        }
        self.place(entity, now, why);
        if let Some(release) = self.release_time(entity) {
            self.timers.set(id, release);
            return false;
        }
        let key = Self::key(entity);
        self.ready.insert(key, id) && self.preempts(key, now)
    }

    /// Takes a vCPU out, if it is there. One that was throttled comes up once more, for nothing.
    #[inline(never)]
    pub fn dequeue(&mut self, id: u16) {
        self.ready.remove(id);
    }

    /// Takes out the vCPU that should run next.
    pub fn pick(&mut self) -> Option<u16> {
        let (_, id) = self.ready.first()?;
        self.dequeue(id);
        Some(id)
    }

    /// Says whether what is ready should run before the current one.
    pub fn should_preempt(&self, now: u64) -> bool {
        self.ready.first().is_some_and(|(key, _)| self.preempts(key, now))
    }

    /// When `entity`, the running one, has to give way. `u64::MAX`: not before something wakes. Asking again does not put it
    /// off: slice and budget count from when it was started or charged.
    #[inline(always)]
    pub fn deadline(&self, entity: &SchedEntity, now: u64) -> u64 {
        if !entity.is_plain() || self.ready_len() > FEW {
            return self.deadline_slow(entity, now);
        }
        // The common cases, in few instructions: `deadline_slow` comes to the same.
        if self.ready_len() == 0 { u64::MAX } else { (self.started + MAX_SLICE_MS * self.ticks_per_ms).max(now) }
    }

    /// Takes out a weighted vCPU that `allowed` says may run on another pCPU. Looks at no more than 16.
    pub fn steal(&mut self, mut allowed: impl FnMut(u16) -> bool) -> Option<u16> {
        for index in 0..self.ready_len().min(STEAL_SCAN) {
            let (key, id) = self.ready.at(index)?;
            if key & WEIGHTED_KEY != 0 && allowed(id) {
                self.dequeue(id);
                return Some(id);
            }
        }
        None
    }

    #[inline(never)]
    fn deadline_slow(&self, entity: &SchedEntity, now: u64) -> u64 {
        let mut due = u64::MAX;
        if !entity.is_weighted() {
            due = self.since + entity.remaining;
        }
        if entity.cap_budget != 0 {
            due = self.since + entity.cap_budget.saturating_sub(entity.cap_used);
        }
        let ready = self.ready_len() as u64;
        if entity.is_weighted() && ready != 0 {
            let share = LATENCY_MS * self.ticks_per_ms / (ready + 1);
            let slice = share.min(MAX_SLICE_MS * self.ticks_per_ms).max(self.ticks_per_ms / 2);
            due = due.min(self.started + slice);
        }
        due.max(now)
    }

    /// Brings budget and virtual runtime up to date for entering the queue.
    fn place(&mut self, entity: &mut SchedEntity, now: u64, why: Why) {
        if !entity.is_weighted() {
            match why {
                Why::Wake | Why::Migrated => entity.wake_period(now),
                Why::Preempted | Why::Yield => entity.roll_period(now, true),
                Why::Released => entity.roll_period(now, false),
            }
            return;
        }
        entity.refill_cap(now, CAP_WINDOW_MS * self.ticks_per_ms);
        match why {
            Why::Wake | Why::Released => entity.vruntime = entity.vruntime.max(self.floor(now)),
            // Virtual times of two queues do not compare.
            Why::Migrated => entity.vruntime = self.min_now(now),
            Why::Preempted => {}
            Why::Yield => {
                if let Some((key, _)) = self.ready.first()
                    && key & WEIGHTED_KEY != 0
                {
                    let behind = (key & !WEIGHTED_KEY).saturating_add(1).min(entity::VRUNTIME_MAX);
                    entity.vruntime = entity.vruntime.max(behind);
                }
            }
        }
    }

    /// When an entity that is out of budget may run again; `None` if it may now.
    fn release_time(&self, entity: &SchedEntity) -> Option<u64> {
        if !entity.is_weighted() {
            return if entity.remaining == 0 { Some(entity.deadline) } else { None };
        }
        // What is left below a hundredth of a millisecond is not worth a switch; it stays to its credit.
        let grain = self.ticks_per_ms / 100;
        let spent = entity.cap_budget != 0 && entity.cap_used + grain >= entity.cap_budget;
        if spent { Some(entity.cap_end) } else { None }
    }

    fn preempts(&self, key: u64, now: u64) -> bool {
        match self.current {
            Current::None => true,
            Current::Reservation { deadline } => key < deadline,
            Current::Weighted { vruntime, inverse } => {
                if key & WEIGHTED_KEY == 0 {
                    return true;
                }
                let ran = now.saturating_sub(self.since);
                let running = entity::advance(vruntime, inverse, ran);
                (key & !WEIGHTED_KEY).saturating_add(self.ticks_per_ms / 4) < running
            }
        }
    }

    #[inline(always)]
    fn key(entity: &SchedEntity) -> u64 {
        if entity.is_weighted() { WEIGHTED_KEY | entity.vruntime } else { entity.deadline & !WEIGHTED_KEY }
    }

    /// The least virtual time that a waking vCPU can claim.
    #[inline]
    fn floor(&mut self, now: u64) -> u64 {
        self.min_now(now).saturating_sub(self.ticks_per_ms)
    }

    #[inline]
    fn min_now(&mut self, now: u64) -> u64 {
        let running = match self.current {
            Current::Weighted { vruntime, inverse } => {
                Some(entity::advance(vruntime, inverse, now.saturating_sub(self.since)))
            }
            _ => None,
        };
        self.raise_min(running);
        self.min_vruntime
    }

    /// Raises the least virtual time to that of the running and the first ready weighted vCPU.
    #[inline]
    fn raise_min(&mut self, running: Option<u64>) {
        let first = match self.ready.first() {
            Some((key, _)) if key & WEIGHTED_KEY != 0 => Some(key & !WEIGHTED_KEY),
            // Reservations come first: the least weighted one is not known, and time does not pass for it.
            Some(_) => return,
            None => None,
        };
        let least = match (running, first) {
            (Some(a), Some(b)) => a.min(b),
            (Some(a), None) | (None, Some(a)) => a,
            (None, None) => return,
        };
        self.min_vruntime = self.min_vruntime.max(least);
    }
}
