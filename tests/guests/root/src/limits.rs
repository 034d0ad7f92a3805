//! Budgets and limits: whatever fails leaves nothing behind. (Rows 19, 23 and 43 of the list of attacks.)

use alloc::vec::Vec;
use portico_sdk::abi::handle::SELF_DOMAIN;
use portico_sdk::abi::record::EndReason;
use portico_sdk::abi::{Rights, Status};
use portico_sdk::hvc;
use test_kit::Tap;

use crate::books::Books;
use crate::child::{self, Child, Program};

type Outcome = Result<(), (&'static str, Status)>;

pub fn attempts(tap: &mut Tap, books: &mut Books) {
    for (what, attempt) in [
        ("domains with wild sizes are refused", wild_domains as fn(&mut Books) -> Outcome),
        ("with every budget a domain is built or nothing is left of it", budgets),
        ("vCPUs with wild numbers and places are refused", wild_vcpus),
        ("copies of a handle end at a limit, and come back", copies),
        ("domains end with the pool, and come back", domains),
        ("budgets of others can be changed only to what they use and the pool has", changes),
    ] {
        // The first time the own handle table may grow, which it does for good.
        let first = attempt(books);
        let before = books.balance();
        tap.none(what, first.and_then(|()| attempt(books)).err());
        if let Some(differs) = books.differs(before) {
            tap.none(what, Some(differs));
        }
    }
}

fn named<T>(what: &'static str, got: Result<T, Status>) -> Result<T, (&'static str, Status)> {
    got.map_err(|status| (what, status))
}

fn wild_domains(_: &mut Books) -> Outcome {
    let wild = [
        (0, 1, 36),
        (1, 1, 36),
        (1 << 20, 1, 36),
        (1 << 32, 1, 36),
        (u64::MAX, 1, 36),
        (16, 0, 36),
        (16, 49, 36),
        (16, 255, 36),
        (16, 256, 36),
        (16, 1, 31),
        (16, 1, 40),
        (16, 1, 48),
        (16, 1, 0),
        (16, 1, 255),
        (16, u32::MAX, 36),
        (16, 1, u32::MAX),
    ];
    for (budget, vcpus, bits) in wild {
        match hvc::domain_create(budget, vcpus, bits, 0) {
            Ok(domain) => {
                let _ = child::destroy(domain);
                // A budget of one page may be enough for an empty domain; nothing else may.
                if budget > 1 {
                    return Err(("a wild domain was created", Status::Ok));
                }
            }
            Err(Status::Invalid | Status::NoBudget) => {}
            Err(status) => return Err(("another status", status)),
        }
    }
    Ok(())
}

fn budgets(books: &mut Books) -> Outcome {
    let code = named("code", child::code(books))?;
    let before = books.balance();
    let mut built = 0;
    for budget in 0..child::BUDGET + 4 {
        match Child::build(code, budget) {
            Ok(child) => {
                built += 1;
                let started = child.start(Program::Exit, 9);
                let ended = started.is_ok() && child.ends_by(EndReason::Exit);
                named("destroy", child.destroy())?;
                if !ended {
                    return Err(("a domain that was built does not run", Status::Ok));
                }
            }
            Err((_, Status::NoBudget | Status::Invalid)) => {}
            Err(failure) => return Err(failure),
        }
        if books.differs(before).is_some() {
            return Err(("something is left", Status::Ok));
        }
    }
    named("give", books.give(code))?;
    if built > 4 { Ok(()) } else { Err(("it needs more than expected", Status::NoBudget)) }
}

fn wild_vcpus(_: &mut Books) -> Outcome {
    let domain = named("domain", hvc::domain_create(40, 2, 36, 0))?;
    let wild = [
        (2, 2, 0x800_0000),
        (48, 3, 0x800_0000),
        (u32::MAX, 4, 0x800_0000),
        (0, 1 << 24, 0x800_0000),
        (0, 1 << 31, 0x800_0000),
        (0, u64::MAX, 0x800_0000),
        (0, 0, 1),
        (0, 0, 0x800_0800),
        (0, 0, 1 << 36),
        (0, 0, u64::MAX),
        (0, 0, !0xfff),
    ];
    let mut wrong = None;
    for (index, mpidr, page) in wild {
        match hvc::vcpu_create(domain, index, mpidr, page, 0) {
            Err(Status::Invalid | Status::Limit) => {}
            Err(status) => wrong = Some(("another status", status)),
            Ok(_) => wrong = Some(("a wild vCPU was created", Status::Ok)),
        }
    }
    let first = named("vCPU 0", hvc::vcpu_create(domain, 0, 0, 0x800_0000, 0))?;
    for (index, mpidr, page) in [(0, 1, 0x800_1000), (1, 0, 0x800_1000), (1, 1, 0x800_0000)] {
        if hvc::vcpu_create(domain, index, mpidr, page, 0) != Err(Status::Exists) {
            wrong = Some(("a vCPU twice", Status::Ok));
        }
    }
    // Where there is no memory it may start and fault, or not start: nothing else.
    let _ = hvc::vcpu_start(first, u64::MAX, 0);
    named("destroy", child::destroy(domain))?;
    wrong.map_or(Ok(()), Err)
}

fn copies(_: &mut Books) -> Outcome {
    let (a, b) = named("a pair", hvc::port_pair_create(SELF_DOMAIN, SELF_DOMAIN, 0, 0))?;
    let mut counts = Vec::new();
    for _ in 0..2 {
        let mut copies = Vec::new();
        let why = loop {
            match hvc::handle_copy(a, SELF_DOMAIN, Rights::NOTIFY, 0) {
                Ok(copy) => copies.push(copy),
                Err(status) => break status,
            }
            if copies.len() > 100_000 {
                return Err(("no end of copies", Status::Ok));
            }
        };
        if !matches!(why, Status::Limit | Status::NoBudget) {
            return Err(("another status", why));
        }
        counts.push(copies.len());
        for copy in copies {
            named("close", hvc::handle_close(copy))?;
        }
    }
    named("close", hvc::handle_close(a))?;
    named("close", hvc::handle_close(b))?;
    if counts.first() == counts.last() { Ok(()) } else { Err(("other counts", Status::Ok)) }
}

fn domains(_: &mut Books) -> Outcome {
    let mut domains = Vec::new();
    let why = loop {
        match hvc::domain_create(8, 1, 36, domains.len() as u64) {
            Ok(domain) => domains.push(domain),
            Err(status) => break status,
        }
        if domains.len() > 10_000 {
            return Err(("no end of domains", Status::Ok));
        }
    };
    for domain in domains.drain(..) {
        named("destroy", child::destroy(domain))?;
    }
    match why {
        Status::NoBudget | Status::Limit => Ok(()),
        status => Err(("another status", status)),
    }
}

fn changes(_: &mut Books) -> Outcome {
    let domain = named("domain", hvc::domain_create(20, 1, 36, 0))?;
    let used = named("status", hvc::domain_status(domain))?.used_pages;
    let mut wrong = None;
    for pages in [0, u64::from(used) - 1, 1 << 20, u64::from(u32::MAX), 1 << 32, u64::MAX] {
        match hvc::domain_budget(domain, pages) {
            Err(Status::NoBudget | Status::Invalid) => {}
            Err(status) => wrong = Some(("another status", status)),
            Ok(()) => wrong = Some(("a wild budget", Status::Ok)),
        }
    }
    for pages in [u64::from(used), 40, 20] {
        named("a good budget", hvc::domain_budget(domain, pages))?;
    }
    named("destroy", child::destroy(domain))?;
    wrong.map_or(Ok(()), Err)
}
