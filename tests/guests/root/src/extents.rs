//! Extents: what must be refused, taint, donation. (Rows 12, 15, 16 and 18 of the list of attacks.)

use portico_sdk::abi::call::{attrs, extent_flags};
use portico_sdk::abi::handle::SELF_DOMAIN;
use portico_sdk::abi::record::EndReason;
use portico_sdk::abi::{Call, Handle, Rights, Status, dt};
use portico_sdk::hvc;
use test_kit::Tap;

use crate::books::{Books, READ_WRITE, WINDOW, map_here, peek, poke, unmap_here};
use crate::child::{self, CHILD_WINDOW, Child, Program};

type Outcome = Result<(), (&'static str, Status)>;

pub fn attempts(tap: &mut Tap, books: &mut Books) {
    for (what, attempt) in [
        ("split and merge refuse what is not there, and lose nothing", split_merge as fn(&mut Books) -> Outcome),
        ("maps refuse ranges that wrap, are unaligned, taken, or too far", maps),
        ("a mapped or lent extent is left alone", busy),
        ("lending refuses ranges and rights that are not there", lending),
        ("a guest's data reaches its next owner scrubbed", taint),
        ("a donated extent comes back when its owner dies", donation),
        ("a read-only grant cannot be written", read_only),
    ] {
        let before = books.balance();
        tap.none(what, attempt(books).err());
        if let Some(differs) = books.differs(before) {
            tap.none(what, Some(differs));
        }
    }
}

/// Makes an error of a call that should have failed but did not, or failed with another status.
fn expect<T>(what: &'static str, got: Result<T, Status>, wanted: &[Status]) -> Outcome {
    match got {
        Ok(_) => Err((what, Status::Ok)),
        Err(status) if wanted.contains(&status) => Ok(()),
        Err(status) => Err((what, status)),
    }
}

fn named<T>(what: &'static str, got: Result<T, Status>) -> Result<T, (&'static str, Status)> {
    got.map_err(|status| (what, status))
}

const INVALID: &[Status] = &[Status::Invalid];
const BUSY: &[Status] = &[Status::BadState];

fn split_merge(books: &mut Books) -> Outcome {
    let a = named("take", books.take(64))?;
    for offset in [0, 64, 65, 1 << 32, 1 << 52, u64::MAX] {
        expect("split outside", hvc::extent_split(a, offset), INVALID)?;
    }
    let b = named("split", hvc::extent_split(a, 16))?;
    let c = named("split", hvc::extent_split(b, 16))?;
    expect("merge with itself", hvc::extent_merge(a, a), &[Status::Invalid, Status::BadState])?;
    expect("merge over a gap", hvc::extent_merge(a, c), INVALID)?;
    expect("merge in the wrong order", hvc::extent_merge(b, a), INVALID)?;
    named("merge", hvc::extent_merge(b, c))?;
    expect("merge with what is gone", hvc::extent_merge(b, c), &[Status::BadHandle])?;
    named("merge", hvc::extent_merge(a, b))?;
    // A copy without OWN.
    let weak = named("copy", hvc::handle_copy(a, SELF_DOMAIN, Rights::INSPECT, 0));
    if let Ok(weak) = weak {
        expect("split without OWN", hvc::extent_split(weak, 1), &[Status::NoRights])?;
        expect("scrub without OWN", hvc::extent_scrub(weak), &[Status::NoRights])?;
        expect("map without MAP", hvc::extent_map(weak, SELF_DOMAIN, WINDOW, READ_WRITE), &[Status::NoRights])?;
        named("close a copy", hvc::handle_close(weak))?;
    }
    expect("close the last handle", hvc::handle_close(a), BUSY)?;
    named("give", books.give(a))
}

fn maps(books: &mut Books) -> Outcome {
    let a = named("take", books.take(8))?;
    let map = |ipa, attributes| hvc::extent_map(a, SELF_DOMAIN, ipa, attributes);
    for ipa in [
        1,
        WINDOW + 1,
        WINDOW + 8,
        WINDOW + 4095,
        1 << 39,
        (1 << 39) - 4096,
        (1 << 39) - 7 * 4096,
        1 << 40,
        1 << 48,
        1 << 63,
        u64::MAX,
        !0xfff,
        !0xfff - 7 * 4096,
        u64::MAX - 8 * 4096,
    ] {
        expect("map at a wild IPA", map(ipa, READ_WRITE), INVALID)?;
    }
    for attributes in [0x10, 1 << 8, 1 << 63, attrs::DEVICE, READ_WRITE | attrs::DEVICE] {
        expect("map with wild attributes", map(WINDOW, attributes), &[Status::Invalid, Status::NoRights])?;
    }
    for ipa in [dt::RAM_BASE, dt::RAM_BASE - 4096 * 7, dt::VCPU_PAGES, dt::INFO_PAGE, dt::VCPU_PAGES - 7 * 4096] {
        let got = hvc::complete(|| map(ipa, READ_WRITE));
        // A piece of it may have been mapped before that was found.
        let _ = unmap_here(a);
        expect("map where something is", got, &[Status::Exists])?;
    }
    for domain in [Handle::from_raw(0), Handle::from_raw(0x7777), a] {
        let got = hvc::extent_map(a, domain, WINDOW, READ_WRITE);
        expect("map into no domain", got, &[Status::BadHandle, Status::WrongType])?;
    }
    expect("unmap what is not mapped", hvc::extent_unmap(a, SELF_DOMAIN), &[Status::NotFound, Status::BadState])?;
    named("map", map_here(a, WINDOW))?;
    expect("map twice", map(WINDOW, READ_WRITE), BUSY)?;
    expect("map elsewhere too", map(WINDOW + (1 << 30), READ_WRITE), BUSY)?;
    named("unmap", unmap_here(a))?;
    expect("unmap twice", hvc::extent_unmap(a, SELF_DOMAIN), &[Status::NotFound, Status::BadState])?;
    // What is gone faults no more and less: the same IPA is free again.
    named("map again", map_here(a, WINDOW))?;
    poke(WINDOW, 0x1234);
    named("unmap again", unmap_here(a))?;
    named("give", books.give(a))
}

fn busy(books: &mut Books) -> Outcome {
    let code = named("code", child::code(books))?;
    let a = named("take", books.take(8))?;
    let target = Child::build(code, child::BUDGET)?;
    named("map", map_here(a, WINDOW))?;
    let refused = |what: &'static str| -> Outcome {
        expect(what, hvc::extent_split(a, 4), BUSY)?;
        expect(what, hvc::extent_donate(a, target.domain), BUSY)?;
        expect(what, hvc::extent_scrub(a), BUSY)?;
        expect(what, hvc::extent_merge(books.memory, a), BUSY)?;
        expect(what, hvc::pool_add(books.system, a), &[Status::BadState, Status::Invalid])
    };
    refused("while it is mapped")?;
    named("unmap", unmap_here(a))?;
    let grant = named("lend", hvc::extent_lend(a, target.domain, 0, 8, READ_WRITE))?;
    refused("while it is lent")?;
    named("map the grant", hvc::complete(|| hvc::grant_map(grant, target.domain, CHILD_WINDOW, READ_WRITE)))?;
    refused("while its grant is mapped")?;
    named("revoke", hvc::complete(|| hvc::extent_revoke(a)))?;
    let again = hvc::grant_map(grant, target.domain, CHILD_WINDOW, READ_WRITE);
    expect("a grant that was revoked", again, &[Status::BadHandle])?;
    named("destroy", target.destroy())?;
    named("give", books.give(a))?;
    named("give", books.give(code))
}

fn lending(books: &mut Books) -> Outcome {
    let code = named("code", child::code(books))?;
    let a = named("take", books.take(8))?;
    let target = Child::build(code, child::BUDGET)?;
    for (offset, pages) in [
        (0, 0),
        (0, 9),
        (8, 1),
        (9, 0),
        (7, 2),
        (u64::MAX, 1),
        (u64::MAX, 2),
        (1, u64::MAX),
        (1 << 52, 1),
        (0, 1 << 52),
    ] {
        expect("lend a wild range", hvc::extent_lend(a, target.domain, offset, pages, READ_WRITE), INVALID)?;
    }
    for attributes in [0x10, 1 << 63, attrs::DEVICE | attrs::READ] {
        expect(
            "lend with wild attributes",
            hvc::extent_lend(a, target.domain, 0, 1, attributes),
            &[Status::Invalid, Status::NoRights],
        )?;
    }
    let grant = named("lend", hvc::extent_lend(a, target.domain, 2, 4, attrs::READ))?;
    let more = hvc::grant_map(grant, target.domain, CHILD_WINDOW, READ_WRITE);
    expect("map a read-only grant writable", more, &[Status::NoRights, Status::Invalid])?;
    // The grant's handle is the borrower's; here it names nothing, or another object.
    let own = hvc::call(
        Call::ExtentMap,
        [u64::from(a.raw()), u64::from(target.domain.raw()), CHILD_WINDOW, 1, u64::from(grant.raw()), 0],
    );
    expect("both handles", own, INVALID)?;
    // Many grants of one extent, to the end of the borrower's budget; then all of them back.
    let mut count = 0_u64;
    let why = loop {
        match hvc::extent_lend(a, target.domain, 0, 8, READ_WRITE) {
            Ok(_) => count += 1,
            Err(status) => break status,
        }
        if count > 100_000 {
            return Err(("no end of grants", Status::Ok));
        }
    };
    expect("the last grant", Err::<(), _>(why), &[Status::NoBudget, Status::Limit])?;
    named("revoke them all", hvc::complete(|| hvc::extent_revoke(a)))?;
    named("destroy", target.destroy())?;
    named("give", books.give(a))?;
    named("give", books.give(code))
}

fn taint(books: &mut Books) -> Outcome {
    let code = named("code", child::code(books))?;
    let a = named("take", books.take(1))?;
    let first = Child::build(code, child::BUDGET)?;
    named("map", hvc::complete(|| hvc::extent_map(a, first.domain, CHILD_WINDOW, READ_WRITE)))?;
    named("start", first.start(Program::Mark, CHILD_WINDOW))?;
    if !first.ends_by(EndReason::Exit) {
        return Err(("the first does not end", Status::TimedOut));
    }
    named("destroy", first.destroy())?;
    let flags = named("info", hvc::extent_info(a))?.flags;
    if flags & extent_flags::DIRTY == 0 || flags & extent_flags::MAPPED != 0 {
        return Err(("it should be tainted and unmapped", Status::Ok));
    }
    let second = Child::build(code, child::BUDGET)?;
    let dirty = &[Status::Dirty];
    expect("map to another", hvc::extent_map(a, second.domain, CHILD_WINDOW, READ_WRITE), dirty)?;
    expect("lend to another", hvc::extent_lend(a, second.domain, 0, 1, attrs::READ), dirty)?;
    expect("donate to another", hvc::extent_donate(a, second.domain), dirty)?;
    named("map here", map_here(a, WINDOW))?;
    let counted = peek(WINDOW);
    named("unmap here", unmap_here(a))?;
    named("scrub", hvc::complete(|| hvc::extent_scrub(a)))?;
    named("map here", map_here(a, WINDOW))?;
    let zero = (0..512).all(|word| peek(WINDOW + word * 8) == 0);
    named("unmap here", unmap_here(a))?;
    named("map to another", hvc::complete(|| hvc::extent_map(a, second.domain, CHILD_WINDOW, READ_WRITE)))?;
    named("destroy", second.destroy())?;
    named("give", books.give(a))?;
    named("give", books.give(code))?;
    if counted == 0 {
        return Err(("the first did not write", Status::Ok));
    }
    if zero { Ok(()) } else { Err(("scrubbed memory is not zero", Status::Ok)) }
}

fn donation(books: &mut Books) -> Outcome {
    let code = named("code", child::code(books))?;
    let a = named("take", books.take(8))?;
    let owner = Child::build(code, child::BUDGET)?;
    named("donate", hvc::extent_donate(a, owner.domain))?;
    expect("use what was donated", hvc::extent_info(a), &[Status::BadHandle])?;
    named("start", owner.start(Program::Exit, 5))?;
    if !owner.ends_by(EndReason::Exit) {
        return Err(("it does not end", Status::TimedOut));
    }
    named("destroy", owner.destroy())?;
    let back = books.inherited().ok_or(("nothing came back", Status::NotFound))?;
    named("give back", books.give(back))?;
    named("give", books.give(code))
}

fn read_only(books: &mut Books) -> Outcome {
    let code = named("code", child::code(books))?;
    let a = named("take", books.take(1))?;
    let reader = Child::build(code, child::BUDGET)?;
    let grant = named("lend", hvc::extent_lend(a, reader.domain, 0, 1, attrs::READ))?;
    named("map", hvc::complete(|| hvc::grant_map(grant, reader.domain, CHILD_WINDOW, attrs::READ)))?;
    named("start", reader.start(Program::Count, CHILD_WINDOW))?;
    let ended = reader.ends_by(EndReason::Fault);
    let record = hvc::vcpu_fault_get(reader.vcpu);
    named("destroy", reader.destroy())?;
    named("revoke", hvc::complete(|| hvc::extent_revoke(a)))?;
    named("give", books.give(a))?;
    named("give", books.give(code))?;
    let record = named("fault record", record)?;
    if ended && record.ipa == CHILD_WINDOW && record.flags & 1 == 1 {
        Ok(())
    } else {
        Err(("no fault, or another", Status::Ok))
    }
}
