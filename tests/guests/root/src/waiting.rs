//! A vCPU that waits, on a processor of its own where there is one: paused, moved and destroyed meanwhile, it misses nothing.

use core::time::Duration;
use portico_sdk::abi::Status;
use portico_sdk::abi::handle::SELF_DOMAIN;
use portico_sdk::hvc::{self, Sched};
use portico_sdk::port::Port;
use portico_sdk::time;
use test_kit::{Random, Tap};

use crate::books::Books;
use crate::child::{self, Child, Program};

type Outcome = Result<(), (&'static str, Status)>;

/// Things that are done to it before it is destroyed.
const ROUNDS: u64 = 100;
/// How long one that is paused is given to answer all the same.
const SILENCE: Duration = Duration::from_micros(500);
/// Lives.
const LIVES: u64 = 10;

pub fn attempts(tap: &mut Tap, books: &mut Books) {
    let what = "a vCPU that waits is paused, resumed, moved and destroyed, and misses no notification";
    let before = books.balance();
    tap.none(what, lives(books).err());
    if let Some(differs) = books.differs(before) {
        tap.none(what, Some(differs));
    }
}

fn named<T>(what: &'static str, got: Result<T, Status>) -> Result<T, (&'static str, Status)> {
    got.map_err(|status| (what, status))
}

fn lives(books: &mut Books) -> Outcome {
    let pcpus = named("stats", hvc::system_stats(books.system))?.pcpus;
    let code = named("code", child::code(books))?;
    let mut random = Random::new(9);
    for _ in 0..LIVES {
        let child = Child::build(code, child::BUDGET)?;
        let (theirs, ours) = named("a pair", hvc::port_pair_create(child.domain, SELF_DOMAIN, 0, 0))?;
        let port = named("bind", Port::bind(ours))?;
        named("start", child.start(Program::Answer, u64::from(theirs.raw())))?;
        let outcome = (0..ROUNDS).try_for_each(|_| trouble(&child, &port, pcpus, &mut random));
        // It waits, or is about to.
        named("destroy", child.destroy())?;
        if port.notify() != Err(Status::PeerGone) {
            return Err(("the peer should be gone", Status::Ok));
        }
        named("unbind", port.unbind())?;
        named("close", hvc::handle_close(ours))?;
        outcome?;
    }
    named("give", books.give(code))
}

/// Does one thing to it while it waits, and asks it something.
fn trouble(child: &Child, port: &Port, pcpus: u32, random: &mut Random) -> Outcome {
    answers(port, "it does not answer")?;
    match random.below(3) {
        0 => {
            named("pause", hvc::domain_run(child.domain, 1))?;
            named("ask", port.notify())?;
            if port.wait(time::deadline(SILENCE)) != Err(Status::TimedOut) {
                return Err(("it answers though it is paused", Status::Ok));
            }
            named("resume", hvc::domain_run(child.domain, 0))?;
            named("what was asked while it was paused", port.wait(soon()))
        }
        1 => {
            let affinity = 1 << random.below(u64::from(pcpus));
            named("move", hvc::vcpu_sched_set(child.vcpu, Sched { affinity, ..Sched::default() }))?;
            answers(port, "it does not answer where it was moved to")
        }
        _ => {
            // Moved while it is paused, and asked only then.
            named("pause", hvc::domain_run(child.domain, 1))?;
            let affinity = 1 << random.below(u64::from(pcpus));
            named("move", hvc::vcpu_sched_set(child.vcpu, Sched { affinity, ..Sched::default() }))?;
            named("resume", hvc::domain_run(child.domain, 0))?;
            answers(port, "it does not answer after it was paused and moved")
        }
    }
}

fn answers(port: &Port, what: &'static str) -> Outcome {
    named("ask", port.notify())?;
    named(what, port.wait(soon()))
}

fn soon() -> u64 {
    time::deadline(Duration::from_secs(5))
}
