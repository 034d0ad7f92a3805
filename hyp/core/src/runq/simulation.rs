//! A pCPU in simulation: shares, caps and deadlines beside hostile loads.

use super::tests::{MS, entity};
use super::{Class, RunQueue, SchedEntity, Why};
use proptest::prelude::*;

/// How a simulated vCPU behaves.
#[derive(Clone, Copy, Debug)]
enum Load {
    /// Computes for ever.
    Busy,
    /// Runs for the first and sleeps for the second number of ticks, over and over.
    Sleepy(u64, u64),
    /// Yields after each so many ticks.
    Yielding(u64),
    /// At each multiple of `period` does `work` ticks, and must be done by the next.
    Periodic { work: u64, period: u64 },
}

struct Task {
    entity: SchedEntity,
    load: Load,
    ran: u64,
    /// Ticks of the current burst that are left; unused for `Busy`.
    burst: u64,
    /// When it wakes, if it sleeps.
    wakes: Option<u64>,
    /// Periodic: when the current job must be done, and jobs that were late.
    due: u64,
    late: u64,
    waited: u64,
}

struct Sim {
    queue: RunQueue<16>,
    tasks: Vec<Task>,
    now: u64,
    current: Option<usize>,
    decisions: u64,
}

/// What a decision costs, in ticks: it is charged to nobody.
const SWITCH: u64 = 1000;

impl Sim {
    fn new(tasks: &[(Class, Load)]) -> Self {
        let tasks = tasks
            .iter()
            .map(|&(class, load)| {
                let burst = match load {
                    Load::Busy => u64::MAX,
                    Load::Sleepy(run, _) | Load::Yielding(run) => run,
                    Load::Periodic { work, .. } => work,
                };
                let due = if let Load::Periodic { period, .. } = load { period } else { 0 };
                Task { entity: entity(class), load, ran: 0, burst, wakes: Some(0), due, late: 0, waited: 0 }
            })
            .collect();
        Self { queue: RunQueue::new(MS), tasks, now: 0, current: None, decisions: 0 }
    }

    fn run_until(&mut self, end: u64) {
        while self.now < end {
            self.wake_and_release();
            self.schedule();
            let next = self.next_event(end);
            assert!(next > self.now, "stuck at {}", self.now);
            if let Some(current) = self.current {
                self.tasks[current].burst = self.tasks[current].burst.saturating_sub(next - self.now);
            }
            self.now = next;
        }
        if let Some(index) = self.current {
            let task = &mut self.tasks[index];
            task.ran += self.queue.charge(&mut task.entity, self.now);
        }
    }

    fn wake_and_release(&mut self) {
        for index in 0..self.tasks.len() {
            if self.tasks[index].wakes.is_some_and(|at| at <= self.now) {
                self.tasks[index].wakes = None;
                let entity = &mut self.tasks[index].entity;
                self.queue.enqueue(index as u16, entity, self.now, Why::Wake);
            }
        }
        while let Some(id) = self.queue.timers.pop_due(self.now) {
            self.queue.enqueue(id, &mut self.tasks[usize::from(id)].entity, self.now, Why::Released);
        }
    }

    fn schedule(&mut self) {
        self.decisions += 1;
        if let Some(index) = self.current.take() {
            let ran = self.queue.stop(&mut self.tasks[index].entity, self.now);
            let task = &mut self.tasks[index];
            task.ran += ran;
            let why = if task.burst > 0 { Some(Why::Preempted) } else { task.end_burst(self.now) };
            if let Some(why) = why {
                self.queue.enqueue(index as u16, &mut task.entity, self.now, why);
            }
        }
        if let Some(id) = self.queue.pick() {
            self.now += SWITCH;
            let index = usize::from(id);
            self.queue.start(&mut self.tasks[index].entity, self.now);
            self.current = Some(index);
        }
    }

    fn next_event(&self, end: u64) -> u64 {
        let wake = self.tasks.iter().filter_map(|task| task.wakes).min();
        let decision = match self.current {
            Some(index) => {
                let task = &self.tasks[index];
                self.queue.deadline(&task.entity, self.now).min(self.now.saturating_add(task.burst))
            }
            None => u64::MAX,
        };
        wake.into_iter().chain([decision, self.queue.timers.first(), end]).min().unwrap_or(end).max(self.now + 1)
    }

    fn share(&self, index: usize) -> f64 {
        self.tasks[index].ran as f64 / self.now as f64
    }
}

impl Task {
    /// Says how it goes on after a burst; `None` if it sleeps.
    fn end_burst(&mut self, now: u64) -> Option<Why> {
        match self.load {
            Load::Busy => Some(Why::Preempted),
            Load::Yielding(run) => {
                self.burst = run;
                Some(Why::Yield)
            }
            Load::Sleepy(run, sleep) => {
                self.burst = run;
                self.wakes = Some(now + sleep);
                None
            }
            Load::Periodic { work, period } => {
                self.late += u64::from(now > self.due);
                self.waited = self.waited.max(now + period - self.due);
                self.burst = work;
                self.wakes = Some(self.due.max(now));
                self.due += period;
                None
            }
        }
    }
}

const fn weight(weight: u32) -> Class {
    Class::Weighted { weight, cap_permille: 0 }
}

fn assert_near(found: f64, want: f64, tolerance: f64) {
    assert!((found / want - 1.0).abs() <= tolerance, "{found} is not {want}");
}

#[test]
fn weights_one_two_four() {
    let mut sim = Sim::new(&[(weight(128), Load::Busy), (weight(256), Load::Busy), (weight(512), Load::Busy)]);
    sim.run_until(2000 * MS);
    let all: f64 = (0..3).map(|index| sim.share(index)).sum();
    for (index, want) in [(0, 1.0 / 7.0), (1, 2.0 / 7.0), (2, 4.0 / 7.0)] {
        assert_near(sim.share(index) / all, want, 0.02);
    }
    assert!(all > 0.99);
}

#[test]
fn cap_of_a_quarter_alone_and_in_company() {
    let capped = Class::Weighted { weight: 256, cap_permille: 250 };
    let mut sim = Sim::new(&[(capped, Load::Busy)]);
    sim.run_until(2000 * MS);
    assert_near(sim.share(0), 0.25, 0.02);
    let mut sim = Sim::new(&[(capped, Load::Busy), (weight(256), Load::Busy)]);
    sim.run_until(2000 * MS);
    assert_near(sim.share(0), 0.25, 0.02);
    assert_near(sim.share(1), 0.75, 0.02);
    // A heavy one that blocks and wakes to dodge the account.
    let heavy = Class::Weighted { weight: 65535, cap_permille: 250 };
    let mut sim = Sim::new(&[(heavy, Load::Sleepy(900_000, 1000)), (weight(1), Load::Busy)]);
    sim.run_until(2000 * MS);
    assert!(sim.share(0) < 0.255);
}

#[test]
fn a_reservation_meets_each_deadline() {
    let real_time = Class::Reservation { budget: 210_000, period: MS };
    let hostile = [
        (real_time, Load::Periodic { work: 200_000, period: MS }),
        (weight(65535), Load::Busy),
        (weight(65535), Load::Yielding(20_000)),
        (weight(65535), Load::Sleepy(50_000, 10_000)),
        // Another server that always wants more than it has.
        (Class::Reservation { budget: 2 * MS, period: 5 * MS }, Load::Busy),
    ];
    let mut sim = Sim::new(&hostile);
    sim.run_until(1000 * MS);
    let task = &sim.tasks[0];
    assert_eq!((task.late, task.entity.missed()), (0, 0));
    assert!(task.due >= 999 * MS);
    assert_near(sim.share(4), 0.4, 0.02);
    assert!(sim.share(1) > 0.05);
}

#[test]
fn a_greedy_reservation_takes_no_more_than_its_budget() {
    let mut sim = Sim::new(&[
        (Class::Reservation { budget: MS, period: 4 * MS }, Load::Sleepy(400_000, 1000)),
        (weight(256), Load::Busy),
    ]);
    sim.run_until(1000 * MS);
    assert!(sim.share(0) < 0.255 && sim.share(1) > 0.70, "{} {}", sim.share(0), sim.share(1));
}

#[test]
fn a_sleeper_cannot_monopolise() {
    for sleep in [1000, 10_000, 100_000, MS] {
        let mut sim = Sim::new(&[(weight(256), Load::Busy), (weight(256), Load::Sleepy(950_000, sleep))]);
        sim.run_until(1000 * MS);
        assert!(sim.share(1) < 0.52, "{} at {sleep}", sim.share(1));
        assert!(sim.share(0) > 0.46);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Busy vCPUs of any weight: shares by weight, nobody starves, the pCPU is never idle and decisions stay few.
    #[test]
    fn any_weights(weights in prop::collection::vec(64u32..1024, 1..8)) {
        let tasks: Vec<_> = weights.iter().map(|&w| (weight(w), Load::Busy)).collect();
        let mut sim = Sim::new(&tasks);
        sim.run_until(1000 * MS);
        let total: u32 = weights.iter().sum();
        let all: f64 = (0..weights.len()).map(|index| sim.share(index)).sum();
        prop_assert!(all > 0.99 && sim.decisions < 3000);
        for (index, weight) in weights.iter().enumerate() {
            let want = f64::from(*weight) / f64::from(total);
            prop_assert!((sim.share(index) - want).abs() < 0.006, "{} for {}", sim.share(index), want);
        }
    }

    /// Any admitted set of reservations: each gets its budget beside any weighted load, and no period is missed.
    #[test]
    fn admitted_reservations_are_kept(
        servers in prop::collection::vec((1u64..=8, 50u64..300), 1..4),
        run in 10_000u64..2_000_000, sleep in 1000u64..2_000_000)
    {
        let mut admission = super::Admission::new();
        let mut tasks = vec![(weight(65535), Load::Sleepy(run, sleep)), (weight(256), Load::Yielding(30_000))];
        let first = tasks.len();
        for (period_ms, permille) in servers {
            let class = Class::Reservation { budget: period_ms * MS * permille / 1000, period: period_ms * MS };
            if admission.admit(class) {
                tasks.push((class, Load::Busy));
            }
        }
        let mut sim = Sim::new(&tasks);
        sim.run_until(400 * MS);
        for (index, task) in tasks.iter().enumerate().skip(first) {
            let Class::Reservation { budget, period } = task.0 else { unreachable!() };
            let want = budget as f64 / period as f64;
            prop_assert!((sim.share(index) - want).abs() < 0.01 + want * 0.02, "{} for {want}", sim.share(index));
            prop_assert_eq!(sim.tasks[index].entity.missed(), 0);
        }
    }
}
