//! vCPUs of others: faults and their replies, register state, scheduling parameters.

use portico_sdk::abi::call::config;
use portico_sdk::abi::record::{EndReason, FaultVerb, RegisterId};
use portico_sdk::abi::{Call, Status};
use portico_sdk::hvc::{self, Sched};
use portico_sdk::time;
use test_kit::Tap;

use crate::books::Books;
use crate::child::{self, Child, Program};

type Outcome = Result<(), (&'static str, Status)>;

pub fn attempts(tap: &mut Tap, books: &mut Books) {
    for (what, attempt) in [
        ("a watcher replies to a fault: skip, retry, abort, undefined, end", replies as fn(&mut Books) -> Outcome),
        ("registers of a running vCPU are out of reach, and EL2's modes of any", states),
        ("wild scheduling parameters are refused, and reservations that cannot be kept", schedules),
        ("starting, stopping, pausing and resuming in any order", orders),
    ] {
        let before = books.balance();
        tap.none(what, attempt(books).err());
        if let Some(differs) = books.differs(before) {
            tap.none(what, Some(differs));
        }
    }
}

fn named<T>(what: &'static str, got: Result<T, Status>) -> Result<T, (&'static str, Status)> {
    got.map_err(|status| (what, status))
}

/// Waits until the vCPU has a fault record and is at rest.
fn faulted(child: &Child) -> Outcome {
    let end = time::deadline(core::time::Duration::from_secs(5));
    while hvc::vcpu_fault_get(child.vcpu).is_err() || hvc::vcpu_state_get(child.vcpu, RegisterId::Pc).is_err() {
        if time::passed(end) {
            return Err(("it does not fault", Status::TimedOut));
        }
        hvc::vcpu_yield();
    }
    Ok(())
}

fn replies(books: &mut Books) -> Outcome {
    let code = named("code", child::code(books))?;
    let mut outcome = Ok(());
    for verb in [FaultVerb::Skip, FaultVerb::Retry, FaultVerb::InjectAbort, FaultVerb::InjectUndef, FaultVerb::End] {
        let child = Child::build(code, child::BUDGET)?;
        named("fault policy", hvc::domain_config(child.domain, config::FAULT_POLICY, 1))?;
        named("start", child.start(Program::Read, 0))?;
        let result = faulted(&child).and_then(|()| reply(&child, verb));
        named("destroy", child.destroy())?;
        outcome = outcome.and(result);
    }
    named("give", books.give(code))?;
    outcome
}

fn reply(child: &Child, verb: FaultVerb) -> Outcome {
    let record = named("record", hvc::vcpu_fault_get(child.vcpu))?;
    if record.ipa != 0x7000_0000 {
        return Err(("another IPA", Status::Ok));
    }
    for wild in [5, 255, u64::MAX] {
        let got = hvc::call(Call::VcpuFaultReply, [u64::from(child.vcpu.raw()), wild, 0, 0, 0, 0]);
        if got.is_ok() {
            return Err(("a wild verb", Status::Ok));
        }
    }
    named("reply", hvc::vcpu_fault_reply(child.vcpu, verb, 77))?;
    match verb {
        // The value arrives in the register that was loaded, which is the exit code.
        FaultVerb::Skip => match child.wait() {
            Some(status) if status.reason == EndReason::Exit as u32 && status.code == 77 => Ok(()),
            _ => Err(("skip: it does not go on with the value", Status::Ok)),
        },
        FaultVerb::Retry => {
            faulted(child)?;
            named("end", hvc::vcpu_fault_reply(child.vcpu, FaultVerb::End, 0))
        }
        // The guest has no vectors: its VBAR is 0, where nothing is mapped, so it faults there.
        FaultVerb::InjectAbort | FaultVerb::InjectUndef => {
            faulted(child)?;
            let at = named("record", hvc::vcpu_fault_get(child.vcpu))?;
            if at.flags & 2 == 2 && at.ipa < 0x1000 { Ok(()) } else { Err(("no exception in the guest", Status::Ok)) }
        }
        FaultVerb::End => {
            if child.ends_by(EndReason::Fault) {
                Ok(())
            } else {
                Err(("it did not end", Status::Ok))
            }
        }
    }
}

fn states(books: &mut Books) -> Outcome {
    let code = named("code", child::code(books))?;
    let child = Child::build(code, child::BUDGET)?;
    named("fault policy", hvc::domain_config(child.domain, config::FAULT_POLICY, 1))?;
    named("start", child.start(Program::Read, 0))?;
    faulted(&child)?;
    let mut outcome = Ok(());
    // EL2h, EL2t, EL3h, AArch32, IL, SS.
    for pstate in [0x3c9, 0x3c8, 0x3cd, 0x1d3, 0x10, 0x3c5 | 1 << 20, 0x3c5 | 1 << 21, 1 << 63 | 0x3c5, u64::MAX] {
        if hvc::vcpu_state_set(child.vcpu, RegisterId::Pstate, pstate) != Err(Status::Invalid) {
            outcome = Err(("a PSTATE that is not a guest's", Status::Ok));
        }
    }
    for id in [31, 44, 255, 1 << 32, u64::MAX] {
        if hvc::call(Call::VcpuState, [u64::from(child.vcpu.raw()), 0, id, 0, 0, 0]).is_ok() {
            outcome = Err(("a register that is not there", Status::Ok));
        }
    }
    for op in [2, 1 << 32, u64::MAX] {
        if hvc::call(Call::VcpuState, [u64::from(child.vcpu.raw()), op, 0, 0, 0, 0]).is_ok() {
            outcome = Err(("an operation that is not there", Status::Ok));
        }
    }
    named("write x2", hvc::call(Call::VcpuState, [u64::from(child.vcpu.raw()), 1, 2, 99, 0, 0]).map(drop))?;
    named("destroy", child.destroy())?;
    let runs = Child::run(code, Program::Count, child::CHILD_WINDOW);
    // It faults at once; but a vCPU that has never run is not at rest either way round.
    named("destroy", runs?.destroy())?;
    named("give", books.give(code))?;
    outcome
}

fn schedules(books: &mut Books) -> Outcome {
    let code = named("code", child::code(books))?;
    let child = Child::build(code, child::BUDGET)?;
    let plain = Sched::default();
    let reserved = |budget_ns, period_ns| Sched { class: 1, weight: 0, budget_ns, period_ns, ..plain };
    let wild = [
        Sched { class: 2, ..plain },
        Sched { class: 255, ..plain },
        Sched { weight: 65536, ..plain },
        Sched { weight: 1 << 40, ..plain },
        Sched { cap_permille: 1001, ..plain },
        Sched { cap_permille: u64::MAX, ..plain },
        Sched { affinity: 1 << 63, ..plain },
        reserved(0, 0),
        reserved(1_000_000, 0),
        reserved(0, 1_000_000),
        reserved(2_000_000, 1_000_000),
        reserved(u64::MAX, u64::MAX),
        reserved(1, 2),
        reserved(1 << 62, 1 << 63),
    ];
    let mut outcome = Ok(());
    for sched in wild {
        match hvc::vcpu_sched_set(child.vcpu, sched) {
            Err(Status::Invalid | Status::Overcommitted) => {}
            Err(status) => outcome = Err(("another status", status)),
            Ok(()) => outcome = Err(("wild parameters", Status::Ok)),
        }
    }
    // A whole processor is more than can be had; half of one is not, and then not another two thirds on the same.
    let all = Sched { affinity: 1, ..reserved(10_000_000, 10_000_000) };
    if hvc::vcpu_sched_set(child.vcpu, all) != Err(Status::Overcommitted) {
        outcome = Err(("a whole processor", Status::Ok));
    }
    named("half", hvc::vcpu_sched_set(child.vcpu, Sched { affinity: 1, ..reserved(5_000_000, 10_000_000) }))?;
    let other_code = named("code", child::code(books))?;
    let other = Child::build(other_code, child::BUDGET)?;
    let more = Sched { affinity: 1, ..reserved(6_600_000, 10_000_000) };
    if hvc::vcpu_sched_set(other.vcpu, more) != Err(Status::Overcommitted) {
        outcome = Err(("more than a processor", Status::Ok));
    }
    named("destroy", child.destroy())?;
    // What the dead one had reserved is free again.
    named("two thirds", hvc::vcpu_sched_set(other.vcpu, more))?;
    named("destroy", other.destroy())?;
    named("give", books.give(other_code))?;
    named("give", books.give(code))?;
    outcome
}

fn orders(books: &mut Books) -> Outcome {
    let code = named("code", child::code(books))?;
    let window = named("take", books.take(1))?;
    let mut random = test_kit::Random::new(5);
    for _ in 0..20 {
        let child = Child::build(code, child::BUDGET)?;
        let grant = named("lend", hvc::extent_lend(window, child.domain, 0, 1, 3))?;
        named("map", hvc::complete(|| hvc::grant_map(grant, child.domain, child::CHILD_WINDOW, 3)))?;
        for _ in 0..60 {
            // Most are refused in most states: none may do harm.
            let _ = match random.below(7) {
                0 => child.start(Program::Count, child::CHILD_WINDOW),
                1 => hvc::vcpu_stop(child.vcpu),
                2 => hvc::domain_run(child.domain, 1),
                3 => hvc::domain_run(child.domain, 0),
                4 => hvc::vcpu_sched_set(child.vcpu, Sched { affinity: 1 << random.below(2), ..Sched::default() }),
                5 => hvc::vcpu_state_get(child.vcpu, RegisterId::Pc).map(drop),
                _ => {
                    hvc::vcpu_yield();
                    Ok(())
                }
            };
        }
        named("destroy", child.destroy())?;
        named("revoke", hvc::complete(|| hvc::extent_revoke(window)))?;
        named("scrub", hvc::complete(|| hvc::extent_scrub(window)))?;
    }
    named("give", books.give(window))?;
    named("give", books.give(code))
}
