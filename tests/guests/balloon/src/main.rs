//! Gives memory back and takes it again, as its argument `do=` says:
//!
//! * `follow`: does what the manager asks for, tells how much it has each time, and checks that what it keeps stays as it was;
//! * `cycle`: gives each block of what is free back and takes it again, over and over, and checks that it comes back as zeros;
//! * `lie`: asks for everything that must be refused, notifies without end, changes requests that are being worked at, and at last touches a block that it
//!   gave back.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::alloc::{Layout, alloc};
use alloc::vec::Vec;
use core::time::Duration;
use portico_sdk::abi::device::control::{memory_op, memory_result};
use portico_sdk::abi::port::DEADLINE_NEVER;
use portico_sdk::abi::{BLOCK_SIZE, PAGE_SIZE, dt};
use portico_sdk::balloon::{self, Balloon, Refusal};
use portico_sdk::control::{self, Ask, Control};
use portico_sdk::port::Port;
use portico_sdk::{dtb, exit, println, time};

portico_sdk::entry!(guest);

const BLOCK: usize = BLOCK_SIZE as usize;
const WORDS: usize = BLOCK / 8;
const BLOCK_PAGES: u32 = (BLOCK_SIZE / PAGE_SIZE) as u32;

fn guest() -> u64 {
    match dtb::bootarg("do") {
        Some("cycle") => cycle(),
        Some("lie") => lie(),
        _ => follow(),
    }
}

fn mebibytes(pages: u32) -> u64 {
    (u64::from(pages) * PAGE_SIZE) >> 20
}

/// A word that says where it is and how often it was written.
fn pattern(at: usize, round: u64) -> u64 {
    (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17) ^ round
}

/// A block of the heap, for good.
fn block() -> Option<*mut u64> {
    let layout = Layout::from_size_align(BLOCK, BLOCK).ok()?;
    // SAFETY: the layout is not empty.
    let block = unsafe { alloc(layout) };
    (!block.is_null()).then(|| block.cast())
}

fn fill(block: *mut u64, round: u64) {
    for at in 0..WORDS {
        // SAFETY: inside a block that is this function's caller's own; volatile, as what is read back must not be what the compiler remembers.
        unsafe { block.add(at).write_volatile(pattern(block as usize + at * 8, round)) };
    }
}

/// How many words are not as `expected` says.
fn differing(block: *mut u64, expected: impl Fn(usize) -> u64) -> usize {
    // SAFETY: as in `fill`.
    (0..WORDS).filter(|&at| unsafe { block.add(at).read_volatile() } != expected(block as usize + at * 8)).count()
}

fn range(block: *mut u64) -> core::ops::Range<u64> {
    block as u64..block as u64 + BLOCK_SIZE
}

fn follow() -> u64 {
    let Ok(port) = control::port() else { return 1 };
    control::able(&[Ask::PowerOff]);
    let kept: Vec<*mut u64> = (0..3).map_while(|_| block()).collect();
    kept.iter().for_each(|&block| fill(block, 1));
    let mut balloon = Balloon::new();
    let mut last = None;
    loop {
        let outcome = balloon.follow();
        let Some((present, target)) = balloon::pages() else { return 2 };
        if last != Some((present, target, outcome)) {
            let spoilt: usize = kept.iter().map(|&block| differing(block, |at| pattern(at, 1))).sum();
            let [present, target] = [present, target].map(mebibytes);
            println!("{present} of {target} MiB, {} blocks out, {spoilt} words spoilt, {outcome:?}", balloon.len());
        }
        last = Some((present, target, outcome));
        if control::asked() == Some(Ask::PowerOff) {
            return 0;
        }
        // What the machine does not have now may be there later.
        let deadline = if outcome.is_err() { time::deadline(Duration::from_millis(200)) } else { DEADLINE_NEVER };
        let _ = port.wait(deadline);
    }
}

fn cycle() -> u64 {
    let blocks: Vec<*mut u64> = (0..4).map_while(|_| block()).collect();
    let mut bad = 0;
    let mut round = 0;
    loop {
        round += 1;
        for &block in &blocks {
            fill(block, round);
        }
        for &block in &blocks {
            // SAFETY: nothing but the pattern is in it.
            if unsafe { balloon::release(range(block)) }.is_err() {
                return 1;
            }
        }
        for &block in blocks.iter().rev() {
            while let Err((refusal, _)) = balloon::populate(range(block)) {
                if refusal != Refusal::Exhausted {
                    return 2;
                }
                time::sleep(Duration::from_millis(20));
            }
            bad += differing(block, |_| 0);
        }
        time::sleep(Duration::from_millis(10));
        if round % 10 == 0 {
            println!("round {round}, {} blocks, {bad} words not zero", blocks.len());
        }
    }
}

/// Asks, waits for the answer, and tells what it was.
fn ask(control: &Control, port: &Port, op: u32, first: u64, pages: u32) -> (u32, u32) {
    control.ask_memory(op, first, pages);
    loop {
        if let Some(answer) = control.memory_answer() {
            return answer;
        }
        let _ = port.notify();
        let _ = port.wait(time::deadline(Duration::from_millis(10)));
    }
}

fn lie() -> u64 {
    let (Some(control), Ok(port)) = (Control::find(), control::port()) else { return 1 };
    let Some((present, _)) = balloon::pages() else { return 2 };
    let all = u64::from(present) * PAGE_SIZE;
    let (base, pages) = (dt::RAM_BASE, BLOCK_PAGES);
    // A block in the middle of the heap, which nothing uses.
    let Some(mine) = block() else { return 3 };
    let first = mine as u64;
    let invalid = [
        (memory_op::RELEASE, first, 0),
        (memory_op::RELEASE, first, 1),
        (memory_op::RELEASE, first + PAGE_SIZE, pages),
        (memory_op::RELEASE, first + 8, pages),
        (memory_op::RELEASE, base - BLOCK_SIZE, pages),
        (memory_op::RELEASE, 0, pages),
        (memory_op::RELEASE, base + all, pages),
        (memory_op::RELEASE, base + all - BLOCK_SIZE, 2 * pages),
        (memory_op::RELEASE, base, u32::MAX),
        (memory_op::RELEASE, base, u32::MAX - pages + 1),
        (memory_op::POPULATE, base, 1 << 31),
        (memory_op::POPULATE, base + all, pages),
        (memory_op::POPULATE, u64::MAX - BLOCK_SIZE + 1, pages),
        (memory_op::POPULATE, dt::WINDOWS, pages),
        (0, first, pages),
        (3, first, pages),
        (255, first, pages),
    ];
    let mut wrong = 0;
    for (op, first, pages) in invalid {
        if ask(&control, &port, op, first, pages) != (memory_result::INVALID, 0) {
            println!("NOT REFUSED: {op} {first:#x} {pages}");
            wrong += 1;
        }
    }
    // Twice, and what is there already, is as once.
    for op in [memory_op::POPULATE, memory_op::RELEASE, memory_op::RELEASE, memory_op::POPULATE, memory_op::POPULATE] {
        if ask(&control, &port, op, first, pages) != (memory_result::OK, pages) {
            println!("NOT DONE: {op}");
            wrong += 1;
        }
    }
    wrong += differing(mine, |_| 0);
    println!("lies told, {wrong} wrong, {} MiB", balloon::pages().map_or(0, |(present, _)| mebibytes(present)));

    // All of the heap that it can have, until nothing more may go.
    let mut out: Vec<*mut u64> = Vec::new();
    let refusal = loop {
        let Some(block) = block() else { break None };
        match ask(&control, &port, memory_op::RELEASE, block as u64, pages) {
            (memory_result::OK, _) => out.push(block),
            other => break Some(other),
        }
    };
    let left = balloon::pages().map_or(0, |(present, _)| mebibytes(present));
    println!("{} blocks out, then {refusal:?}, {left} MiB left", out.len());

    // Words that change while they are read, the manager's own words spoilt, notifications without end. What of it makes sense is about this one block.
    for round in 0..2000_u32 {
        let pages = if round % 3 == 0 { pages } else { round << (round % 31) | 1 };
        let junk = u64::from(round % 7) << (round % 20);
        control.ask_memory(1 + round % 5, first + junk, pages);
        for _ in 0..50 {
            let _ = port.notify();
        }
        let _ = control.window().store(272, u64::MAX);
        let _ = control.window().store(280, u64::from(round));
    }
    println!("flooded");
    let Some(&gone) = out.last() else { exit::panic(1) };
    time::sleep(Duration::from_millis(50));
    println!("asked again: {:?}", ask(&control, &port, memory_op::RELEASE, gone as u64, pages));
    // SAFETY: none: nothing is there, and it must end this domain.
    unsafe { gone.write_volatile(1) };
    println!("NOTICED NOTHING");
    5
}
