//! What a 4 KiB request to a PV disk costs the whole machine: guest, EL2, block service.

use crate::mark;
use crate::sample::Figure;
use alloc::vec::Vec;
use core::time::Duration;
use portico_sdk::abi::port::DEADLINE_NEVER;
use portico_sdk::device::block::{Disk, Ticket};
use portico_sdk::{Status, println, time};

/// Bytes of a request, and sectors.
const BYTES: usize = 4096;
const SECTORS: u64 = 8;
/// Requests that are measured, after as many that are not.
const COUNT: u64 = 512;

/// Measures reads at depth 1 and 32, writes at depth 1.
///
/// # Errors
/// `NotFound` if there is no disk.
pub fn measure() -> Result<Vec<Figure>, Status> {
    let mut disk = Disk::open("disk0", time::deadline(Duration::from_secs(10))).map_err(|_| Status::NotFound)?;
    for (name, depth, is_write) in [
        ("blk_read4k_qd1", 1, false),
        ("blk_write4k_qd1", 1, true),
        ("blk_read4k_qd8", 8, false),
        ("blk_read4k_qd32", 32, false),
        ("blk_write4k_qd32", 32, true),
    ] {
        run(&mut disk, depth, is_write);
        let before = disk.told() + disk.woken();
        mark::begin();
        run(&mut disk, depth, is_write);
        mark::end(name, COUNT);
        if depth == 32 && !is_write {
            // Those that it made, and those that woke it.
            let both = disk.told() + disk.woken() - before;
            println!("PER blk_notifies_per_req_qd32 {}", both * 1000 / COUNT);
        }
    }
    Ok(Vec::new())
}

/// Does nothing for ten seconds, with a disk that is connected: what runs meanwhile is services and the manager.
///
/// # Errors
/// `NotFound` if there is no disk.
pub fn idle() -> Result<Vec<Figure>, Status> {
    let disk = Disk::open("disk0", time::deadline(Duration::from_secs(10))).map_err(|_| Status::NotFound)?;
    time::sleep(Duration::from_millis(100));
    mark::begin();
    time::sleep(Duration::from_secs(10));
    mark::end("idle_instructions", 1);
    drop(disk);
    Ok(Vec::new())
}

/// Makes requests, always `depth` of them in flight.
fn run(disk: &mut Disk, depth: u64, is_write: bool) {
    let mut made = 0;
    let mut done = 0;
    while done < COUNT {
        while made < COUNT && made - done < depth {
            if submit(disk, (made * 37 % 1024) * SECTORS, is_write).is_none() {
                break;
            }
            made += 1;
        }
        // Woken when half of what is in flight has ended.
        let Ok(completion) = disk.wait_for(depth.div_ceil(2) as u32, DEADLINE_NEVER) else { return };
        let mut next = Some(completion);
        while let Some(completion) = next {
            if let Some(buffer) = completion.buffer {
                disk.free(buffer);
            }
            done += 1;
            next = disk.reap().ok().flatten();
        }
    }
}

fn submit(disk: &mut Disk, sector: u64, is_write: bool) -> Option<Ticket> {
    let buffer = disk.buffer(BYTES).ok()?;
    let submitted =
        if is_write { disk.submit_write(sector, buffer, BYTES) } else { disk.submit_read(sector, buffer, BYTES) };
    submitted.ok()
}
