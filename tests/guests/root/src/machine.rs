//! Calls on the machine: device memory, interrupts, the pool.

use portico_sdk::abi::{Call, PAGE_SIZE, Status};
use portico_sdk::dtb;
use portico_sdk::hvc::{self, Trigger};
use test_kit::Tap;

use crate::books::Books;

type Outcome = Result<(), (&'static str, Status)>;

/// Pages of a block.
const BLOCK: u64 = 512;

pub fn attempts(tap: &mut Tap, books: &mut Books) {
    for (what, attempt) in [
        ("RAM, the interrupt controller and ranges that wrap are no devices", devices as fn(&mut Books) -> Outcome),
        ("interrupts of EL2 and wild ones cannot be had, others once", interrupts),
        ("the pool takes whole free blocks and gives them back", pool),
        ("figures and power: wild arguments", figures),
    ] {
        let before = books.balance();
        tap.none(what, attempt(books).err());
        if what.starts_with("the pool")
            && let Some(differs) = books.differs(before)
        {
            tap.none(what, Some(differs));
        }
    }
}

fn named<T>(what: &'static str, got: Result<T, Status>) -> Result<T, (&'static str, Status)> {
    got.map_err(|status| (what, status))
}

fn refused<T>(what: &'static str, got: Result<T, Status>) -> Outcome {
    match got {
        Err(Status::Invalid | Status::Exists | Status::BadState) => Ok(()),
        Err(status) => Err((what, status)),
        Ok(_) => Err((what, Status::Ok)),
    }
}

fn devices(books: &mut Books) -> Outcome {
    let system = books.system;
    // RAM begins at 1 GiB on one machine and at 0 on the other.
    let ram: u64 = if is_raspberry() { 1 << 20 } else { 1 << 30 };
    for (pa, pages) in [(ram, 1), (ram + (64 << 20), 512), (ram - PAGE_SIZE, 2), (0, 1 << 28), (0, u64::MAX)] {
        refused("RAM", hvc::device_extent(system, pa, pages, 0))?;
    }
    for (pa, pages) in [
        (1, 1),
        (0x0900_0800, 1),
        (u64::MAX, 1),
        (!0xfff, 1),
        (!0xfff, 2),
        (1 << 52, 1),
        // The processors of all machines here have 44 bits.
        (1 << 44, 1),
        ((1 << 44) - PAGE_SIZE, 2),
        ((1 << 47) - PAGE_SIZE, 1),
        (0x0900_0000, 0),
        (0x1000, u64::MAX),
    ] {
        refused("a wild range", hvc::device_extent(system, pa, pages, 0))?;
    }
    // It stays for good: the last name of an extent cannot be closed.
    named("the last page", hvc::device_extent(system, (1 << 44) - PAGE_SIZE, 1, 0))?;
    let stats = named("figures", hvc::system_stats(system))?;
    // On QEMU virt; elsewhere these places are RAM, or nothing.
    if stats.gic == 3 {
        refused("the distributor", hvc::device_extent(system, 0x0800_0000, 1, 0))?;
        refused("a redistributor", hvc::device_extent(system, 0x080a_0000, 1, 0))?;
        refused("a range over the distributor", hvc::device_extent(system, 0x07ff_0000, 0x100, 0))?;
    }
    Ok(())
}

/// What the machine's device tree says of it.
fn is_raspberry() -> bool {
    dtb::machine().is_some_and(|bytes| bytes.windows(11).any(|window| window == b"raspberrypi"))
}

fn interrupts(books: &mut Books) -> Outcome {
    let system = books.system;
    // SGIs, PPIs, special and wild numbers.
    for intid in (0..32).chain([1019, 1020, 1021, 1023, 1024, 8191, 8192, u32::MAX]) {
        refused("an interrupt of EL2's, or none", hvc::irq_create(system, intid, Trigger::Level, 0))?;
    }
    for flags in [2, 1 << 63, u64::MAX] {
        let got = hvc::call(Call::IrqCreate, [u64::from(system.raw()), 100, flags, 0, 0, 0]);
        refused("wild flags", got)?;
    }
    let irq = named("interrupt 100", hvc::irq_create(system, 100, Trigger::Level, 0))?;
    refused("the same again", hvc::irq_create(system, 100, Trigger::Level, 0))?;
    for (vcpu, bit) in [(0, 1024), (0, 65535)] {
        if hvc::irq_bind(irq, vcpu, bit).is_ok() {
            return Err(("a wild bit", Status::Ok));
        }
    }
    if hvc::irq_bind(irq, 7, 900).is_ok() {
        return Err(("a wild vCPU", Status::Ok));
    }
    named("bind", hvc::irq_bind(irq, 0, 900))?;
    let _ = hvc::irq_complete(irq);
    named("unbind", hvc::irq_unbind(irq))?;
    named("close", hvc::handle_close(irq))?;
    let again = named("interrupt 100 again", hvc::irq_create(system, 100, Trigger::Level, 0))?;
    named("close", hvc::handle_close(again))
}

fn pool(books: &mut Books) -> Outcome {
    let system = books.system;
    let odd = named("take", books.take(3))?;
    refused("three pages", hvc::pool_add(system, odd))?;
    named("give", books.give(odd))?;
    // The end of the largest extent is aligned or not: cut so that a whole block comes off.
    let mut tries = 0;
    let block = loop {
        let piece = named("take", books.take(BLOCK))?;
        match hvc::pool_add(system, piece) {
            Ok(()) => break piece,
            Err(Status::Invalid) if tries < BLOCK => {
                named("give", books.give(piece))?;
                // One page further down. It is kept out of the books till the end of this test.
                tries += 1;
                let page = named("take", books.take(1))?;
                if tries > 1 {
                    named("merge", hvc::extent_merge(page, books.spare))?;
                }
                books.spare = page;
            }
            Err(status) => return Err(("add a block", status)),
        }
    };
    if hvc::extent_info(block) != Err(Status::BadHandle) {
        return Err(("the handle should be closed", Status::Ok));
    }
    let back = named("reclaim", hvc::pool_reclaim(system))?;
    named("give", books.give(back))?;
    if tries > 0 {
        let spare = books.spare;
        named("give", books.give(spare))?;
    }
    Ok(())
}

fn figures(books: &mut Books) -> Outcome {
    let system = u64::from(books.system.raw());
    for index in [65, 1 << 32, u64::MAX] {
        if hvc::call(Call::StatsRead, [system, index, 0, 0, 0, 0]).is_ok() {
            return Err(("figures of no processor", Status::Ok));
        }
    }
    for op in [2, 255, 1 << 32, u64::MAX] {
        if hvc::call(Call::SystemOff, [system, op, 0, 0, 0, 0]).is_ok() {
            return Err(("a wild way to power off", Status::Ok));
        }
    }
    let stats = named("figures", hvc::system_stats(books.system))?;
    for pcpu in 0..stats.pcpus {
        named("figures of a processor", hvc::pcpu_stats(books.system, pcpu))?;
    }
    Ok(())
}
