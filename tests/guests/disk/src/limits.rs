//! `mode=limits`: how many requests and bytes a disk lets pass in a second. The disk `iops` is limited to `iops=` requests, the disk `rate` to `rate=`
//! bytes; what is limited is limited for all queues together, so both are loaded by all that they have.
//!
//! Never more passes than the limit and what its bucket holds. As much passes in the best of some seconds: a host that takes processors away for
//! longer than the bucket lasts lets the others have less.

use crate::{number, open};
use alloc::format;
use alloc::string::String;
use core::time::Duration;
use portico_sdk::device::block::Disk;
use portico_sdk::{println, time};
use test_kit::Tap;

/// How long is waited for the burst to be over.
const BURST: Duration = Duration::from_secs(2);
/// What is counted apart.
const SPAN: Duration = Duration::from_secs(1);
/// Spans that are measured: more than the least if none was full.
const SPANS: core::ops::RangeInclusive<u64> = 3..=20;
/// Requests in flight on each queue.
const DEPTH: u32 = 4;

/// What passed.
struct Passed {
    requests: u64,
    time: Duration,
    /// In a second, in the best span.
    best: u64,
}

/// Prints a report.
pub fn run() -> u64 {
    let mut tap = Tap::new();
    for (name, bytes, limit) in [("iops", 4096, number("iops", 0)), ("rate", 65536, number("rate", 0) / 65536)] {
        match measure(name, bytes, limit) {
            Ok(passed) => {
                let ms = passed.time.as_millis() as u64;
                println!("{name}: {} in {ms} ms, {} in the best second, of {limit}", passed.requests, passed.best);
                // A bucket holds a tenth of a second's, and those in flight had passed before.
                let most = limit * ms / 1000 + limit / 10 + 2 * u64::from(DEPTH) + 1;
                tap.holds(&format!("{name}: no more than its limit"), passed.requests <= most);
                tap.holds(&format!("{name}: no less"), is_full(passed.best, limit));
            }
            Err(why) => tap.none(name, Some(why)),
        }
    }
    tap.finish()
}

/// The limit, but for a tenth.
fn is_full(a_second: u64, limit: u64) -> bool {
    a_second * 10 >= limit * 9
}

/// Reads, as many at a time as [`DEPTH`] says on each of two queues, and counts the answers.
fn measure(name: &str, bytes: usize, limit: u64) -> Result<Passed, String> {
    let mut disk = open(name)?;
    // The second queue has its own ring and the same limit.
    let mut second =
        Disk::open_queue(name, 1, time::deadline(crate::PATIENCE)).map_err(|error| format!("{error:?}"))?;
    let mut passed = Passed { requests: 0, time: Duration::ZERO, best: 0 };
    count(&mut disk, &mut second, bytes, BURST)?;
    for span in 1..=*SPANS.end() {
        let (requests, time) = count(&mut disk, &mut second, bytes, SPAN)?;
        passed.requests += requests;
        passed.time += time;
        passed.best = passed.best.max((u128::from(requests) * 1_000_000_000 / time.as_nanos().max(1)) as u64);
        if span >= *SPANS.start() && is_full(passed.best, limit) {
            break;
        }
    }
    Ok(passed)
}

/// Counts the answers in a time, which is a little longer than it should be.
fn count(first: &mut Disk, second: &mut Disk, bytes: usize, time: Duration) -> Result<(u64, Duration), String> {
    let begin_ns = time::now_ns();
    let mut counted = 0;
    loop {
        for disk in [&mut *first, &mut *second] {
            while disk.in_flight() < DEPTH {
                let buffer = disk.buffer(bytes).map_err(|error| format!("{error:?}"))?;
                disk.submit_read(0, buffer, bytes).map_err(|(error, _)| format!("{error:?}"))?;
            }
            disk.publish();
            while let Some(done) = disk.reap().map_err(|error| format!("{error:?}"))? {
                done.result.map_err(|error| format!("{error:?}"))?;
                done.buffer.into_iter().for_each(|buffer| disk.free(buffer));
                counted += 1;
            }
        }
        let took = Duration::from_nanos(time::now_ns() - begin_ns);
        if took >= time {
            return Ok((counted, took));
        }
        time::sleep(Duration::from_millis(1));
    }
}
