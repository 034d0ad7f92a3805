//! Revoking while another processor writes. (Rows 13, 14 and 17 of the list of attacks.)

use core::time::Duration;
use portico_sdk::abi::Status;
use portico_sdk::abi::record::EndReason;
use portico_sdk::{hvc, time};
use test_kit::Tap;

use crate::books::{Books, READ_WRITE, WINDOW, map_here, peek, unmap_here};
use crate::child::{self, CHILD_WINDOW, Child, Program};

type Outcome = Result<(), (&'static str, Status)>;

/// How the writer loses its window.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Revoke,
    Unmap,
    Destroy,
}

pub fn attempts(tap: &mut Tap, books: &mut Books) {
    for (what, way) in [
        ("a writer on another processor faults when a revoke is done", Way::Revoke),
        ("a writer on another processor faults when an unmap is done", Way::Unmap),
        ("a writer writes no more when its domain is destroyed", Way::Destroy),
    ] {
        let before = books.balance();
        let outcome = (0..10).try_for_each(|_| lose(books, way));
        tap.none(what, outcome.err());
        if let Some(differs) = books.differs(before) {
            tap.none(what, Some(differs));
        }
    }
    let before = books.balance();
    tap.none("tearing down a domain of three while all write", several(books).err());
    if let Some(differs) = books.differs(before) {
        tap.none("tearing down a domain of three while all write", Some(differs));
    }
}

fn named<T>(what: &'static str, got: Result<T, Status>) -> Result<T, (&'static str, Status)> {
    got.map_err(|status| (what, status))
}

/// Waits until the word at [`WINDOW`] changes.
fn is_counting(at: u64) -> bool {
    let before = peek(at);
    let end = time::deadline(Duration::from_secs(5));
    while peek(at) == before {
        if time::passed(end) {
            return false;
        }
        hvc::vcpu_yield();
    }
    true
}

fn lose(books: &mut Books, way: Way) -> Outcome {
    let code = named("code", child::code(books))?;
    let window = named("take", books.take(4))?;
    let writer = Child::build(code, child::BUDGET)?;
    named("map here", map_here(window, WINDOW))?;
    let grant = named("lend", hvc::extent_lend(window, writer.domain, 0, 4, READ_WRITE))?;
    named("map there", hvc::complete(|| hvc::grant_map(grant, writer.domain, CHILD_WINDOW, READ_WRITE)))?;
    named("start", writer.start(Program::Count, CHILD_WINDOW))?;
    let counted = is_counting(WINDOW);
    match way {
        Way::Revoke => named("revoke", hvc::complete(|| hvc::extent_revoke(window)).map(drop))?,
        Way::Unmap => named("unmap", hvc::complete(|| hvc::grant_unmap(grant, writer.domain)).map(drop))?,
        Way::Destroy => named("destroy", writer.destroy())?,
    }
    let last = peek(WINDOW);
    let ended = way == Way::Destroy || writer.ends_by(EndReason::Fault);
    time::sleep(Duration::from_millis(2));
    let stopped = peek(WINDOW) == last;
    if way != Way::Destroy {
        named("destroy", writer.destroy())?;
    }
    if way == Way::Unmap {
        // Destroying the borrower has returned its grant.
        named("revoke", hvc::complete(|| hvc::extent_revoke(window)))?;
    }
    named("unmap here", unmap_here(window))?;
    named("give", books.give(window))?;
    named("give", books.give(code))?;
    match (counted, stopped, ended) {
        (false, ..) => Err(("the writer does not write", Status::TimedOut)),
        (_, false, _) => Err(("it writes after the end", Status::Ok)),
        (_, _, false) => Err(("it does not fault", Status::Ok)),
        _ => Ok(()),
    }
}

fn several(books: &mut Books) -> Outcome {
    let code = named("code", child::code(books))?;
    let codes = [named("code", child::code(books))?, named("code", child::code(books))?];
    let window = named("take", books.take(4))?;
    named("map here", map_here(window, WINDOW))?;
    let mut children = [None; 3];
    for (child, code) in children.iter_mut().zip([code, codes[0], codes[1]]) {
        let built = Child::build(code, child::BUDGET)?;
        let grant = named("lend", hvc::extent_lend(window, built.domain, 0, 4, READ_WRITE))?;
        named("map there", hvc::complete(|| hvc::grant_map(grant, built.domain, CHILD_WINDOW, READ_WRITE)))?;
        named("start", built.start(Program::Count, CHILD_WINDOW))?;
        *child = Some(built);
    }
    let counted = is_counting(WINDOW);
    // All three go down at once, a piece of each in turn.
    let mut left = 3;
    while left > 0 {
        left = 0;
        for child in &mut children {
            let Some(domain) = child.map(|child| child.domain) else { continue };
            match named("destroy", hvc::domain_destroy(domain))? {
                hvc::Progress::Done(_) => *child = None,
                hvc::Progress::Again(_) => left += 1,
            }
        }
    }
    let last = peek(WINDOW);
    time::sleep(Duration::from_millis(2));
    let stopped = peek(WINDOW) == last;
    named("unmap here", unmap_here(window))?;
    named("give", books.give(window))?;
    named("give", books.give(codes[1]))?;
    named("give", books.give(codes[0]))?;
    named("give", books.give(code))?;
    if counted && stopped { Ok(()) } else { Err(("they do not write, or write on", Status::Ok)) }
}
