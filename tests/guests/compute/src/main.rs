//! Measures how it is scheduled. Its arguments say as what it runs:
//!
//! * `share`: computes, and prints `share N, accounted M`: the millionths of a processor that it had from `from` to `to` ms after
//!   its start, by its own clock and by what EL2 tells it;
//! * `periodic`: wakes every millisecond, works for `work` us and counts the deadlines, ends of periods, that it missed;
//! * `yielder`: does nothing but give the processor back, for others to suffer from.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::hint::black_box;
use portico_sdk::{dtb, hvc, println, time, vcpu};

portico_sdk::entry!(compute);

/// Periods that `periodic` runs.
const PERIODS: u64 = 1000;

fn compute() -> u64 {
    match dtb::bootarg("as") {
        Some("periodic") => periodic(),
        Some("yielder") => loop {
            hvc::vcpu_yield();
        },
        _ => share(),
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    dtb::bootarg(name).and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Computes until `deadline`; returns how many ticks of that it did not have.
fn work_until(deadline: u64) -> u64 {
    // A turn takes about a microsecond; longer means that others ran.
    let turn = time::Scale::read().ticks(20_000);
    let (mut sum, mut stolen) = (0_u64, 0);
    let mut before = time::now();
    while before < deadline {
        for n in 0..200_u64 {
            sum = black_box(sum.wrapping_add(n));
        }
        let now = time::now();
        if now - before > turn {
            stolen += now - before;
        }
        before = now;
    }
    stolen
}

/// Time that this vCPU has run so far, in nanoseconds. The page has it up to the last entry: the call makes one.
fn running_ns() -> u64 {
    hvc::vcpu_yield();
    vcpu::current().page().map_or(0, |page| page.run_state().0)
}

fn share() -> u64 {
    let scale = time::Scale::read();
    let at = |ms: u64| scale.ticks(ms.saturating_mul(1_000_000));
    let (from, to) = (number("from", 500), number("to", 2500));
    work_until(at(from));
    let (begin, running) = (time::now(), running_ns());
    let stolen = work_until(at(to));
    let (end, after) = (time::now(), running_ns());
    // The others measure too: nobody may stop before they are done.
    work_until(at(to + 300));
    let span = (end - begin).max(1);
    let share = (span - stolen.min(span)).saturating_mul(1_000_000) / span;
    let accounted = (after - running).saturating_mul(1_000_000) / scale.ns(span).max(1);
    println!("share {share}, accounted {accounted}");
    0
}

fn periodic() -> u64 {
    let scale = time::Scale::read();
    let period = scale.ticks(1_000_000);
    let work = scale.ticks(number("work", 100) * 1000);
    let mut missed = 0_u64;
    let mut latest = 0;
    let mut begin = time::now() + period;
    for _ in 0..PERIODS {
        time::sleep_until(begin);
        latest = latest.max(time::now().saturating_sub(begin));
        work_for(work);
        if time::now() > begin + period {
            missed += 1;
        }
        begin += period;
    }
    println!("periods {PERIODS}, missed {missed}, at most {} ns late", scale.ns(latest));
    u64::from(missed > 0)
}

/// Computes for some time, counted by the work and not by the clock: time without the processor is no work.
fn work_for(ticks: u64) {
    let mut done = 0;
    while done < ticks {
        let begin = time::now();
        let mut sum = 0_u64;
        for n in 0..50_u64 {
            sum = black_box(sum.wrapping_add(n));
        }
        // A turn takes well under a microsecond; longer means that others ran.
        done += time::now().saturating_sub(begin).min(ticks / 20);
    }
}
