//! Ports between domains: closing against notifying, and no notification lost. (Rows 22, 24 and 26 of the list of attacks.)

use core::time::Duration;
use portico_sdk::abi::Status;
use portico_sdk::abi::handle::SELF_DOMAIN;
use portico_sdk::{hvc, port, time};
use test_kit::Tap;

use crate::books::Books;
use crate::child::{self, Child, Program};

type Outcome = Result<(), (&'static str, Status)>;

/// Rounds of question and answer with each of the others.
const ROUNDS: u64 = 3000;

pub fn attempts(tap: &mut Tap, books: &mut Books) {
    for (what, attempt) in [
        ("closing, binding and moving a port that a storm comes through", storm as fn(&mut Books) -> Outcome),
        ("every question to three domains at once is answered", questions),
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

fn storm(books: &mut Books) -> Outcome {
    let code = named("code", child::code(books))?;
    for round in 0..30 {
        let child = Child::build(code, child::BUDGET)?;
        let (theirs, ours) = named("a pair", hvc::port_pair_create(child.domain, SELF_DOMAIN, 0, 0))?;
        named("start", child.start(Program::Notify, u64::from(theirs.raw())))?;
        for turn in 0..50_u16 {
            let _ = hvc::port_bind(ours, 0, 900 + turn % 100);
            if turn % 3 == 0 {
                let _ = hvc::port_unbind(ours);
            }
            hvc::vcpu_yield();
        }
        // Closed before the other end, or after it.
        if round % 2 == 0 {
            named("close", hvc::handle_close(ours))?;
            named("destroy", child.destroy())?;
        } else {
            named("destroy", child.destroy())?;
            if hvc::port_notify(ours) != Err(Status::PeerGone) {
                return Err(("the peer should be gone", Status::Ok));
            }
            named("close", hvc::handle_close(ours))?;
        }
    }
    named("give", books.give(code))
}

fn questions(books: &mut Books) -> Outcome {
    let mut codes = [None; 3];
    let mut children = [None; 3];
    let mut ports = [None; 3];
    for ((code, child), port) in codes.iter_mut().zip(&mut children).zip(&mut ports) {
        let page = named("code", child::code(books))?;
        *code = Some(page);
        let built = Child::build(page, child::BUDGET)?;
        let (theirs, ours) = named("a pair", hvc::port_pair_create(built.domain, SELF_DOMAIN, 0, 0))?;
        *port = Some(named("bind", port::Port::bind(ours))?);
        named("start", built.start(Program::Answer, u64::from(theirs.raw())))?;
        *child = Some(built);
    }
    let mut outcome = Ok(());
    'rounds: for _ in 0..ROUNDS {
        for port in ports.iter().flatten() {
            named("ask", port.notify())?;
        }
        for port in ports.iter().flatten() {
            if port.wait(time::deadline(Duration::from_secs(5))).is_err() {
                outcome = Err(("an answer was lost", Status::TimedOut));
                break 'rounds;
            }
        }
    }
    for port in ports.into_iter().flatten() {
        let handle = port.handle();
        named("unbind", port.unbind())?;
        named("close", hvc::handle_close(handle))?;
    }
    for child in children.into_iter().flatten() {
        named("destroy", child.destroy())?;
    }
    for code in codes.into_iter().rev().flatten() {
        named("give", books.give(code))?;
    }
    outcome
}
