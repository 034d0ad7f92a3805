//! The queue's structure and rules, step by step.

use super::heap::Heap;
use super::{Admission, Class, RunQueue, SchedEntity, Why};
use portico_abi::Status;
use proptest::prelude::*;
use std::collections::BTreeMap;

pub(super) const MS: u64 = 1_000_000;

pub(super) fn entity(class: Class) -> SchedEntity {
    let mut entity = SchedEntity::new();
    assert_eq!(class.check(MS), Ok(()));
    entity.configure(class, MS);
    entity
}

#[test]
fn alone_needs_no_timer_and_no_heap() {
    let mut queue = RunQueue::<8>::new(MS);
    let mut lone = SchedEntity::new();
    for round in 0..1000 {
        let now = round * 7 * MS;
        assert!(queue.may_run(&mut lone, now));
        queue.start(&mut lone, now);
        assert_eq!(queue.deadline(&lone, now), u64::MAX);
        assert_eq!(queue.stop(&mut lone, now + 3 * MS), 3 * MS);
    }
    assert_eq!((queue.ready_len(), queue.timers.first(), queue.pick()), (0, u64::MAX, None));
}

#[test]
fn a_sleeper_gets_no_more_than_a_little_credit() {
    let mut queue = RunQueue::<8>::new(MS);
    let (mut worker, mut sleeper) = (SchedEntity::new(), SchedEntity::new());
    queue.start(&mut worker, 0);
    // A remote wake-up an hour later, with the worker not charged since.
    let now = 3_600_000 * MS;
    assert!(queue.enqueue(1, &mut sleeper, now, Why::Wake));
    queue.stop(&mut worker, now);
    queue.enqueue(0, &mut worker, now, Why::Preempted);
    assert_eq!(queue.pick(), Some(1));
    queue.start(&mut sleeper, now);
    assert!(!queue.should_preempt(now + MS));
    assert!(queue.should_preempt(now + 3 * MS / 2));
}

#[test]
fn yield_lets_the_next_one_run() {
    let mut queue = RunQueue::<8>::new(MS);
    let mut all = [SchedEntity::new(), SchedEntity::new()];
    queue.enqueue(1, &mut all[1], 0, Why::Wake);
    queue.start(&mut all[0], 0);
    let mut current = 0u16;
    for now in 1..100 {
        let entity = &mut all[usize::from(current)];
        queue.stop(entity, now);
        queue.enqueue(current, entity, now, Why::Yield);
        let next = queue.pick().unwrap();
        assert_ne!(next, current);
        queue.start(&mut all[usize::from(next)], now);
        current = next;
    }
    // Alone, it goes on.
    queue.dequeue(1 - current);
    let entity = &mut all[usize::from(current)];
    queue.stop(entity, 100);
    queue.enqueue(current, entity, 100, Why::Yield);
    assert_eq!(queue.pick(), Some(current));
}

#[test]
fn reservation_is_throttled_until_its_next_period() {
    let mut queue = RunQueue::<8>::new(MS);
    let mut server = entity(Class::Reservation { budget: MS, period: 4 * MS });
    let mut other = SchedEntity::new();
    queue.start(&mut other, 0);
    assert!(queue.enqueue(1, &mut server, 100, Why::Wake));
    queue.stop(&mut other, 100);
    queue.enqueue(0, &mut other, 100, Why::Preempted);
    assert_eq!(queue.pick(), Some(1));
    queue.start(&mut server, 100);
    assert_eq!(queue.deadline(&server, 100), 100 + MS);
    // It overruns by 1000 ticks before EL2 gets the pCPU.
    queue.stop(&mut server, 1100 + MS);
    assert!(!queue.enqueue(1, &mut server, 1100 + MS, Why::Preempted));
    assert_eq!(queue.timers.first(), 100 + 4 * MS);
    assert_eq!(queue.pick(), Some(0));
    queue.start(&mut other, 1100 + MS);
    assert_eq!(queue.deadline(&other, 1100 + MS), u64::MAX);
    assert_eq!(queue.timers.pop_due(4 * MS), None);
    assert_eq!(queue.timers.pop_due(100 + 4 * MS), Some(1));
    assert!(queue.enqueue(1, &mut server, 100 + 4 * MS, Why::Released));
    queue.stop(&mut other, 100 + 4 * MS);
    assert_eq!(queue.pick(), Some(1));
    queue.start(&mut server, 100 + 4 * MS);
    assert_eq!(queue.deadline(&server, 100 + 4 * MS), 100 + 5 * MS - 1000);
    assert_eq!(server.missed(), 0);
}

#[test]
fn asking_again_does_not_put_the_decision_off() {
    let mut queue = RunQueue::<8>::new(MS);
    let mut server = entity(Class::Reservation { budget: MS, period: 4 * MS });
    assert!(queue.may_run(&mut server, 0));
    queue.start(&mut server, 0);
    assert_eq!((queue.deadline(&server, 0), queue.deadline(&server, MS / 2)), (MS, MS));
    queue.charge(&mut server, MS / 2);
    assert_eq!(queue.deadline(&server, MS / 2), MS);
    queue.stop(&mut server, MS / 2);
    let (mut a, mut b) = (SchedEntity::new(), SchedEntity::new());
    queue.start(&mut a, 10 * MS);
    queue.enqueue(1, &mut b, 11 * MS, Why::Preempted);
    assert_eq!((queue.deadline(&a, 11 * MS), queue.deadline(&a, 13 * MS)), (12 * MS, 13 * MS));
}

#[test]
fn steal_takes_only_what_may_move() {
    let mut queue = RunQueue::<8>::new(MS);
    let mut server = entity(Class::Reservation { budget: MS, period: 4 * MS });
    let (mut a, mut b) = (SchedEntity::new(), SchedEntity::new());
    queue.enqueue(0, &mut server, 0, Why::Wake);
    queue.enqueue(1, &mut a, 0, Why::Wake);
    queue.enqueue(2, &mut b, 0, Why::Wake);
    assert_eq!(queue.steal(|id| id == 0), None);
    assert_eq!(queue.steal(|id| id == 2), Some(2));
    assert_eq!(queue.ready_len(), 2);
    assert!(queue.ready.key_of(1).is_some() && queue.ready.key_of(2).is_none());
    let mut thief = RunQueue::<8>::new(MS);
    assert!(thief.enqueue(2, &mut b, 0, Why::Migrated));
}

#[test]
fn parameters() {
    let weighted = |weight, cap_permille| Class::Weighted { weight, cap_permille }.check(MS);
    let reserved = |budget, period| Class::Reservation { budget, period }.check(MS);
    assert_eq!((weighted(1, 0), weighted(65535, 1000)), (Ok(()), Ok(())));
    for bad in [weighted(0, 0), weighted(65536, 0), weighted(1, 1001), reserved(0, MS), reserved(MS + 1, MS)] {
        assert_eq!(bad, Err(Status::Invalid));
    }
    assert_eq!(reserved(1000, MS / 10 - 1), Err(Status::Invalid));
    assert_eq!(reserved(MS, u64::MAX), Err(Status::Invalid));
    let half = Class::Reservation { budget: MS / 2, period: MS };
    let mut admission = Admission::new();
    assert!(admission.admit(half) && !admission.admit(half));
    assert!(admission.admit(Class::Reservation { budget: MS * 2, period: MS * 5 }));
    assert_eq!(admission.permille(), 900);
    assert!(admission.admit(Class::DEFAULT));
    admission.release(half);
    assert!(admission.admit(half));
}

proptest! {
    #[test]
    fn heap_like_the_model(steps in prop::collection::vec((0u8..3, 0u16..24, 0u64..50), 1..400)) {
        let mut heap = Heap::<20>::new();
        let mut model: BTreeMap<u16, u64> = BTreeMap::new();
        for (op, id, key) in steps {
            if op == 0 {
                prop_assert_eq!(heap.remove(id), model.remove(&id).is_some());
            } else {
                let fits = id < 20 && !model.contains_key(&id);
                prop_assert_eq!(heap.insert(key, id), fits);
                if fits { model.insert(id, key); }
            }
            prop_assert_eq!(heap.len(), model.len());
            let first = heap.first();
            prop_assert_eq!(first.map(|(key, _)| key), model.values().copied().min());
            if let Some((key, id)) = first { prop_assert_eq!(model[&id], key); }
            for id in 0..24 { prop_assert_eq!(heap.key_of(id), model.get(&id).copied()); }
            for index in 0..24 { prop_assert_eq!(heap.at(index).is_some(), index < model.len()); }
        }
    }
}
