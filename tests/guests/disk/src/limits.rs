//! `mode=limits`: how many requests and bytes a disk lets pass in a second. The disk `iops` is limited to `iops=` requests, the disk `rate` to `rate=`
//! bytes; what is limited is limited for all queues together, so both are loaded by all that they have.

use crate::{number, open};
use alloc::format;
use alloc::string::String;
use core::time::Duration;
use portico_sdk::device::block::Disk;
use portico_sdk::{println, time};
use test_kit::Tap;

/// How long is measured, after as long as the burst takes.
const SPAN: Duration = Duration::from_secs(3);

/// Prints a report.
pub fn run() -> u64 {
    let mut tap = Tap::new();
    for (name, bytes, wanted) in [("iops", 4096, number("iops", 0)), ("rate", 65536, number("rate", 0))] {
        let per_request = if name == "iops" { 1 } else { bytes as u64 };
        match measure(name, bytes) {
            Ok(requests) => {
                let rate = requests * per_request / SPAN.as_secs();
                println!("{name}: {rate} a second, of {wanted}");
                tap.holds(&format!("{name} within a tenth"), rate.abs_diff(wanted) * 10 <= wanted);
            }
            Err(why) => tap.none(name, Some(why)),
        }
    }
    tap.finish()
}

/// Reads, eight at a time, and counts the answers in [`SPAN`].
fn measure(name: &str, bytes: usize) -> Result<u64, String> {
    let mut disk = open(name)?;
    // The second queue has its own ring and the same limit.
    let mut second =
        Disk::open_queue(name, 1, time::deadline(crate::PATIENCE)).map_err(|error| format!("{error:?}"))?;
    let begin = time::deadline(Duration::from_secs(2));
    let end = time::deadline(Duration::from_secs(2) + SPAN);
    let mut counted = 0;
    while !time::passed(end) {
        for disk in [&mut disk, &mut second] {
            while disk.in_flight() < 4 {
                let buffer = disk.buffer(bytes).map_err(|error| format!("{error:?}"))?;
                disk.submit_read(0, buffer, bytes).map_err(|(error, _)| format!("{error:?}"))?;
            }
            disk.publish();
            while let Some(done) = disk.reap().map_err(|error| format!("{error:?}"))? {
                done.result.map_err(|error| format!("{error:?}"))?;
                done.buffer.into_iter().for_each(|buffer| disk.free(buffer));
                counted += u64::from(time::passed(begin) && !time::passed(end));
            }
        }
        time::sleep(Duration::from_millis(1));
    }
    Ok(counted)
}
