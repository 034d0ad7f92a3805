//! What frames cost: for `cargo xtask bench`, where a tick is an instruction.

use alloc::vec::Vec;
use core::time::Duration;
use portico_sdk::abi::port::DEADLINE_NEVER;
use portico_sdk::{port, println, time};

use crate::talk::{End, Failure, LONGEST, number_of};

/// Round trips.
const ROUNDS: usize = 400;
/// Blocks that are streamed.
const BLOCKS: usize = 50;
/// Bytes of a block.
const BLOCK: usize = 64 << 10;
/// Frames of a block, each with an MTU of payload, and of a quarter of it.
const FRAMES: u64 = BLOCK.div_ceil(LONGEST - 14) as u64;
const QUARTER: u64 = FRAMES / 4;
/// Rounds that are not counted.
const WARM_UP: usize = 16;

fn print(name: &str, mut ticks: Vec<u64>) {
    ticks.drain(..WARM_UP.min(ticks.len()));
    ticks.sort_unstable();
    let at = |index: usize| ticks.get(index).copied().unwrap_or(0);
    println!("BENCH {name} {} {} {}", at(ticks.len() / 2), at(0), at(ticks.len().saturating_sub(1)));
}

/// Measures from before a frame of 64 bytes is sent to when the answer was received.
///
/// # Errors
/// If an answer does not come, or is wrong.
pub fn round_trips(mut end: End) -> Result<(), Failure> {
    time::sleep(Duration::from_millis(100));
    let mut ticks = Vec::with_capacity(ROUNDS);
    let begin = end.net.told();
    for number in 0..ROUNDS as u64 {
        end.make(number, 64);
        let deadline = time::deadline(Duration::from_secs(5));
        let before = time::now();
        unsafe { core::arch::asm!("mov x19, x19") };
        end.net.try_send(end.out.0.get(..64).unwrap_or_default())?;
        while end.net.receive(&mut end.into.0)?.is_none() {
            end.net.wait(deadline)?;
        }
        unsafe { core::arch::asm!("mov x20, x20") };
        ticks.push(time::now() - before);
        if number_of(&end.into.0) != number || end.into.0.get(24..64) != end.out.0.get(24..64) {
            return Err(Failure::Content(number));
        }
    }
    let notifies = (end.net.told() - begin) * 1000 / ROUNDS as u64;
    print("net_rtt_64", ticks);
    println!("{notifies} notifications in 1000 round trips");
    println!("BENCH end");
    port::idle()
}

/// Measures how long it takes to send 64 KiB and to be told that it came. The other side tells of each quarter, and no more than three are
/// on their way, so that nothing is lost.
///
/// # Errors
/// If that is not told, or something was lost.
pub fn stream(mut end: End) -> Result<(), Failure> {
    time::sleep(Duration::from_millis(100));
    let mut ticks = Vec::with_capacity(BLOCKS);
    let begin = end.net.told();
    let (mut number, mut told) = (0, 0);
    for _ in 0..BLOCKS {
        end.make(number, LONGEST);
        let before = time::now();
        let last = number + FRAMES;
        while told < last {
            while number < last && number < told + 3 * QUARTER {
                end.out.0[14..22].copy_from_slice(&number.to_le_bytes());
                if !end.net.try_send(end.out.0.get(..LONGEST).unwrap_or_default())? {
                    break;
                }
                number += 1;
            }
            end.net.wait(time::deadline(Duration::from_secs(5)))?;
            while end.net.receive(&mut end.into.0)?.is_some() {
                told = number_of(&end.into.0);
            }
        }
        ticks.push(time::now() - before);
    }
    let notifies = (end.net.told() - begin) * 1000 / BLOCKS as u64;
    print("net_stream_64k", ticks);
    println!("{notifies} notifications in 1000 blocks");
    println!("BENCH end");
    port::idle()
}

/// Takes blocks, and tells after each quarter how many frames came.
///
/// # Errors
/// If a frame is lost or wrong.
pub fn sink(mut end: End) -> Result<(), Failure> {
    let mut next = 0;
    loop {
        while let Some(bytes) = end.net.receive(&mut end.into.0)? {
            let number = number_of(&end.into.0);
            if bytes != LONGEST || number != next {
                return Err(Failure::Content(number));
            }
            next += 1;
            if next % QUARTER == 0 {
                end.make(next, 64);
                end.net.try_send(end.out.0.get(..64).unwrap_or_default())?;
            }
        }
        end.net.wait(DEADLINE_NEVER)?;
    }
}
