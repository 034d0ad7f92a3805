//! A healthy guest beside hostile ones: it works a little, sleeps a little, and says at once if anything is not as it left it.
//!
//! It prints `healthy N` twice a second and `NOTICED ...` if its memory, its registers or its clock were touched. Being late
//! is no damage: how late is measured, and printed with each line.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![cfg_attr(not(target_os = "none"), allow(unused, reason = "a guest for the target only"))]

extern crate alloc;

use alloc::vec::Vec;
use core::time::Duration;
use portico_sdk::{control, dtb, hvc, println, time};
use test_kit::Random;

portico_sdk::entry!(neighbour);

/// Words of memory that it watches, if `watch=64M` does not say otherwise.
const WORDS: usize = 64 << 10;
/// Words of a MiB.
const MIB: usize = (1 << 20) / 8;
/// Naps between two lines.
const NAPS: u64 = 100;
/// Length of a nap.
const NAP: Duration = Duration::from_millis(5);

#[cfg(not(target_os = "none"))]
fn neighbour() -> u64 {
    0
}

#[cfg(target_os = "none")]
fn neighbour() -> u64 {
    let seed = time::now();
    let mut memory: Vec<Vec<u64>> = Vec::new();
    fill(&mut memory, seed);
    let mut before = time::now();
    for line in 1_u64.. {
        let mut late = 0;
        for nap in 0..NAPS {
            let seed = seed ^ line << 32 ^ nap;
            // SAFETY: this guest is built without FP.
            unsafe { test_kit::registers::fill_fp(seed) };
            let deadline = time::deadline(NAP);
            let changed = test_kit::registers::survive(seed, || {
                let _ = hvc::vcpu_block(deadline);
            });
            if let Some((register, got, wanted)) = changed {
                println!("NOTICED: system register {register} is {got:#x}, was {wanted:#x}");
            }
            if let Some((half, got, wanted)) = test_kit::registers::check_fp(seed) {
                println!("NOTICED: half {half} of the FP registers is {got:#x}, was {wanted:#x}");
            }
            time::sleep_until(deadline);
            let now = time::now();
            if now < before {
                println!("NOTICED: the counter went back from {before} to {now}");
            }
            before = now;
            late = late.max(now.saturating_sub(deadline));
        }
        check(&memory, seed);
        control::heartbeat();
        println!("healthy {line}, at most {} us late", time::Scale::read().ns(late) / 1000);
    }
    0
}

/// Fills memory with what follows from `seed`: as much as is asked for, in pieces that the heap has.
fn fill(memory: &mut Vec<Vec<u64>>, seed: u64) {
    let asked = dtb::bootarg("watch").and_then(|text| text.strip_suffix('M')?.parse().ok());
    let (pieces, words) = asked.map_or((1, WORDS), |mib: usize| (mib, MIB));
    let mut random = Random::new(seed);
    for _ in 0..pieces {
        let mut piece = Vec::with_capacity(words);
        piece.extend((0..words).map(|_| random.next()));
        memory.push(piece);
    }
}

fn check(memory: &[Vec<u64>], seed: u64) {
    let mut random = Random::new(seed);
    for (word, got) in memory.iter().flatten().enumerate() {
        let wanted = random.next();
        if *got != wanted {
            println!("NOTICED: word {word} of memory is {got:#x}, was {wanted:#x}");
            return;
        }
    }
}
