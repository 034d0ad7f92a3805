//! The short ways against the long ones: same state afterwards, or nothing done.

use super::tests::{MS, entity};
use super::{Class, RunQueue, SchedEntity, Why};
use proptest::prelude::*;

/// vCPU 0 runs, vCPU 1 is blocked, the others wait.
struct World {
    queue: RunQueue<8>,
    entities: Vec<SchedEntity>,
}

fn world(classes: &[(Class, u64)], started: u64) -> World {
    let mut queue = RunQueue::new(MS);
    let mut entities: Vec<_> = classes.iter().map(|(class, _)| entity(*class)).collect();
    for (entity, (class, vruntime)) in entities.iter_mut().zip(classes) {
        if matches!(class, Class::Weighted { .. }) {
            entity.vruntime = *vruntime;
        }
    }
    queue.start(&mut entities[0], started);
    for (id, entity) in entities.iter_mut().enumerate().skip(2) {
        queue.enqueue(id as u16, entity, started, Why::Preempted);
    }
    World { queue, entities }
}

impl World {
    fn two(&mut self) -> (&mut RunQueue<8>, &mut SchedEntity, &mut SchedEntity) {
        let [running, blocked, ..] = self.entities.as_mut_slice() else { unreachable!() };
        (&mut self.queue, running, blocked)
    }

    /// All that later decisions depend on; the queue is emptied by looking.
    fn state(mut self, now: u64) -> (Vec<String>, Vec<u16>, String) {
        let current = format!("{:?} since {} started {}", self.queue.current, self.queue.since, self.queue.started);
        let least = format!("{current} least {}", self.queue.min_vruntime);
        let order = std::iter::from_fn(|| self.queue.pick().or_else(|| self.queue.timers.pop_due(u64::MAX))).collect();
        assert!(now >= self.queue.since);
        (self.entities.iter().map(|entity| format!("{entity:?}")).collect(), order, least)
    }
}

fn class() -> impl Strategy<Value = Class> {
    prop_oneof![
        4 => Just(Class::DEFAULT),
        3 => (1u32..=65535).prop_map(|weight| Class::Weighted { weight, cap_permille: 0 }),
        1 => Just(Class::Weighted { weight: 256, cap_permille: 500 }),
        1 => Just(Class::Reservation { budget: MS, period: 4 * MS }),
    ]
}

fn worlds() -> impl Strategy<Value = (Vec<(Class, u64)>, u64, u64)> {
    // Virtual times close to each other, so that every comparison goes both ways.
    let vruntime = prop_oneof![0u64..4 * MS, (1000 * MS..1004 * MS)];
    let ran = prop_oneof![0u64..3 * MS, Just(0), (1u64 << 31) - 2..(1u64 << 31) + 2, Just(1u64 << 45)];
    (prop::collection::vec((class(), vruntime), 2..6), 0u64..1 << 40, ran)
}

proptest! {
    #[test]
    fn preempt((classes, started, ran) in worlds()) {
        let now = started + ran;
        let (mut short, mut long) = (world(&classes, started), world(&classes, started));
        let (queue, running, woken) = short.two();
        let taken = queue.preempt(0, running, woken, now);
        let (queue, running, woken) = long.two();
        let preempts = queue.enqueue(1, woken, now, Why::Wake);
        if let Some(charged) = taken {
            prop_assert_eq!((preempts, charged), (true, ran));
            prop_assert_eq!(queue.stop(running, now), ran);
            queue.enqueue(0, running, now, Why::Preempted);
            prop_assert_eq!(queue.pick(), Some(1));
            queue.start(woken, now);
        } else {
            let (queue, _, woken) = short.two();
            prop_assert_eq!(queue.enqueue(1, woken, now, Why::Wake), preempts);
        }
        prop_assert_eq!(short.state(now), long.state(now));
    }

    #[test]
    fn give_way((classes, started, ran) in worlds()) {
        let now = started + ran;
        let (mut short, mut long) = (world(&classes, started), world(&classes, started));
        let before = long.queue.ready_len();
        let (queue, running, _) = short.two();
        if let Some((charged, next)) = queue.give_way(running, now) {
            prop_assert_eq!(charged, ran);
            let (queue, running, _) = long.two();
            queue.stop(running, now);
            prop_assert_eq!(queue.pick(), Some(next));
        } else {
            prop_assert_eq!(queue.ready_len(), before);
        }
        prop_assert_eq!(short.state(now), long.state(now));
    }

    #[test]
    fn hand_over((classes, started, ran) in worlds()) {
        let now = started + ran;
        let (mut short, mut long) = (world(&classes, started), world(&classes, started));
        let (queue, running, blocked) = short.two();
        if let Some(charged) = queue.hand_over(running, blocked, now) {
            prop_assert_eq!(charged, ran);
            let (queue, running, blocked) = long.two();
            prop_assert_eq!(queue.stop(running, now), ran);
            prop_assert!(queue.may_run(blocked, now));
            queue.start(blocked, now);
        }
        prop_assert_eq!(short.state(now), long.state(now));
    }

    /// Waiting in place is not charged, and earns no more credit than blocking and waking does.
    #[test]
    fn waited((classes, started, ran) in worlds(), idle in 0u64..5 * MS, more in 0u64..3 * MS) {
        let classes = [(Class::DEFAULT, classes[0].1), classes[1]];
        let (asleep, now) = (started + ran, started + ran + idle);
        let (mut short, mut long) = (world(&classes, started), world(&classes, started));
        let (queue, running, _) = short.two();
        queue.waited(running, idle, now);
        prop_assert_eq!(queue.charge(running, now + more), ran + more);
        let (queue, running, _) = long.two();
        queue.stop(running, asleep);
        prop_assert!(queue.may_run(running, now));
        queue.start(running, now);
        queue.charge(running, now + more);
        prop_assert_eq!(short.entities[0].vruntime, long.entities[0].vruntime);
    }
}

#[test]
fn a_slice_beside_few_is_the_longest() {
    for others in 1..=6u64 {
        let world = world(&vec![(Class::DEFAULT, 0); 2 + others as usize], 5 * MS);
        let want = (6 * MS / (others + 1)).clamp(MS / 2, 2 * MS);
        assert_eq!(world.queue.deadline(&world.entities[0], 5 * MS), 5 * MS + want);
        // Asked late, it is now.
        assert_eq!(world.queue.deadline(&world.entities[0], 50 * MS), 50 * MS);
    }
}
