//! A thousand lives: create, start, crash, destroy. (Rows 17, 43 and 44 of the list of attacks.)

use core::time::Duration;

use portico_sdk::abi::Status;
use portico_sdk::abi::record::EndReason;
use portico_sdk::{hvc, println, time};
use test_kit::Tap;

use crate::books::{Books, READ_WRITE, WINDOW, map_here, peek, unmap_here};
use crate::child::{self, CHILD_WINDOW, Child, Program};

/// Lives: enough for the VMIDs to come round several times.
const LIVES: u64 = 1000;

pub fn rounds(tap: &mut Tap, books: &mut Books) {
    let before = books.balance();
    let begin = time::now_ns();
    tap.none("a thousand domains live and crash while another runs on", lives(books).err());
    tap.none("everything is back, to the page and handle", books.differs(before));
    println!("# {} lives in {} ms", LIVES, (time::now_ns() - begin) / 1_000_000);
}

fn named<T>(what: &'static str, got: Result<T, Status>) -> Result<T, (&'static str, Status)> {
    got.map_err(|status| (what, status))
}

/// Waits until the witness has counted beyond `before`. What a host keeps a processor from doing while the witness runs there counts as the
/// witness's time, which the others then get first: for so long it may stand still, without anything being wrong.
fn counts_on(before: u64) -> Option<u64> {
    let end = time::deadline(Duration::from_secs(10));
    loop {
        let now = peek(WINDOW);
        if now > before {
            return Some(now);
        }
        if time::passed(end) {
            return None;
        }
        hvc::vcpu_yield();
    }
}

fn lives(books: &mut Books) -> Result<(), (&'static str, Status)> {
    // One that lives on through all of them, and must keep its own memory whatever VMIDs the others get.
    let own_code = named("code", child::code(books))?;
    let code = named("code", child::code(books))?;
    let window = named("take", books.take(1))?;
    let witness = Child::build(own_code, child::BUDGET)?;
    named("map here", map_here(window, WINDOW))?;
    let grant = named("lend", hvc::extent_lend(window, witness.domain, 0, 1, READ_WRITE))?;
    named("map there", hvc::complete(|| hvc::grant_map(grant, witness.domain, CHILD_WINDOW, READ_WRITE)))?;
    named("start", witness.start(Program::Count, CHILD_WINDOW))?;
    let mut counted = 0;
    for life in 0..LIVES {
        let child = Child::build(code, child::BUDGET)?;
        // Some end by themselves, some crash, some are destroyed as they run or before they ran.
        let ended = match life % 4 {
            0 | 1 => child.start(Program::Crash, life).is_ok() && child.ends_by(EndReason::Fault),
            2 => child.start(Program::Exit, life).is_ok() && child.wait().is_some_and(|status| status.code == life),
            _ => life % 8 == 3 || child.start(Program::Notify, 0).is_ok(),
        };
        named("destroy", child.destroy())?;
        if !ended {
            return Err(("a life did not end as it should", Status::Ok));
        }
        if life % 100 == 99 {
            counted = counts_on(counted).ok_or(("the witness stands still", Status::Ok))?;
        }
    }
    let status = named("status", hvc::domain_status(witness.domain))?;
    named("destroy", witness.destroy())?;
    named("unmap here", unmap_here(window))?;
    named("give", books.give(window))?;
    named("give", books.give(code))?;
    named("give", books.give(own_code))?;
    if status.reason == EndReason::None as u32 { Ok(()) } else { Err(("the witness ended", Status::Ok)) }
}
