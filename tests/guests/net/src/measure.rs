//! What frames cost: for `cargo xtask bench`.

use core::time::Duration;
use portico_sdk::abi::port::DEADLINE_NEVER;
use portico_sdk::{port, println, time};

use crate::talk::{End, Failure, LONGEST, NUMBER, number_of};

/// Round trips.
const ROUNDS: u64 = 400;
/// Blocks that are streamed.
const BLOCKS: u64 = 50;
/// Bytes of a block.
const BLOCK: usize = 64 << 10;
/// Frames of a block, each with an MTU of payload, and of a quarter of it.
const FRAMES: u64 = BLOCK.div_ceil(LONGEST - 14) as u64;
const QUARTER: u64 = FRAMES / 4;
/// Rounds and blocks that are not counted.
const WARM_UP: u64 = 16;

/// Marks in the stream of instructions, between which QEMU counts what the whole machine executes: time does not tell, since it jumps when all wait. A hint without a
/// meaning, which no compiler makes. (Arm DDI 0487, "HINT")
macro_rules! mark {
    ($hint:literal) => {
        // SAFETY: an unallocated hint does nothing.
        unsafe { core::arch::asm!(concat!("hint #", $hint), options(nostack, preserves_flags)) }
    };
}

/// Frames of 64 bytes, each sent back by the other side.
///
/// # Errors
/// If an answer does not come, or is wrong.
pub fn round_trips(mut end: End) -> Result<(), Failure> {
    time::sleep(Duration::from_millis(100));
    end.make(0, 64);
    for number in 0..ROUNDS + WARM_UP {
        if number == WARM_UP {
            mark!("96");
        }
        end.out.0[NUMBER..NUMBER + 8].copy_from_slice(&number.to_le_bytes());
        end.net.try_send(end.out.0.get(..64).unwrap_or_default())?;
        while end.net.receive(&mut end.into.0)?.is_none() {
            end.net.wait(DEADLINE_NEVER)?;
        }
        if number_of(&end.into.0) != number {
            return Err(Failure::Content(number));
        }
    }
    mark!("97");
    println!("COUNT net_rtt_64 {ROUNDS}");
    println!("BENCH end");
    port::idle()
}

/// Sends blocks of 64 KiB and is told that they came. The other side tells of each quarter, and no more than three are
/// on their way, so that nothing is lost.
///
/// # Errors
/// If that is not told, or something was lost.
pub fn stream(mut end: End) -> Result<(), Failure> {
    time::sleep(Duration::from_millis(100));
    end.make(0, LONGEST);
    let (mut number, mut told) = (0, 0);
    for block in 0..BLOCKS + WARM_UP {
        if block == WARM_UP {
            mark!("96");
        }
        let last = number + FRAMES;
        while told < last {
            while number < last && number < told + 3 * QUARTER {
                end.out.0[NUMBER..NUMBER + 8].copy_from_slice(&number.to_le_bytes());
                if !end.net.try_send(end.out.0.get(..LONGEST).unwrap_or_default())? {
                    break;
                }
                number += 1;
            }
            end.net.wait(DEADLINE_NEVER)?;
            while end.net.receive(&mut end.into.0)?.is_some() {
                told = number_of(&end.into.0);
            }
        }
    }
    mark!("97");
    println!("COUNT net_stream_64k {BLOCKS}");
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
