//! A disk that is added and taken away: `mode=hot` writes and verifies as long as it is there. With `stubborn` it cannot be
//! asked for it.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;
use portico_sdk::abi::device::refusal;
use portico_sdk::abi::dt;
use portico_sdk::abi::port::DEADLINE_NEVER;
use portico_sdk::control::{self, Ask};
use portico_sdk::device::DeviceError;
use portico_sdk::device::block::{BlockError, Disk};
use portico_sdk::{dtb, println, time};

const GONE: DeviceError = DeviceError::Refused(refusal::REMOVED);
/// Bytes of each request.
const BYTES: usize = 16 << 10;
/// Sectors of each request.
const SECTORS: u64 = BYTES as u64 / 512;
/// Requests in flight.
const DEPTH: usize = 4;
/// Rounds between two lines.
const ROUNDS: u64 = 10;

/// How a disk's time ended.
enum End {
    GivenUp,
    TakenAway(usize),
}

/// Uses the disk whenever there is one. Does not end.
pub fn run() -> Result<(), String> {
    let node = dtb::devices(dt::BLOCK).next().ok_or("no disk in the tree")?;
    let mut disk = Disk::new(&node).map_err(|error| format!("{error:?}"))?;
    if dtb::bootarg("stubborn").is_none() {
        control::able(&[Ask::Release]);
    }
    loop {
        wait_for(&mut disk)?;
        let info = disk.info();
        println!("there: {} sectors, {}", info.sectors, if info.is_read_only { "ro" } else { "rw" });
        match use_it(&mut disk, info.is_read_only)? {
            End::GivenUp => println!("given up"),
            End::TakenAway(in_flight) => println!("taken away with {in_flight} in flight"),
        }
    }
}

fn wait_for(disk: &mut Disk) -> Result<(), String> {
    let mut is_told = false;
    loop {
        match disk.connect(time::deadline(Duration::from_millis(200))) {
            Ok(()) => return Ok(()),
            Err(GONE) if !is_told => {
                println!("empty");
                is_told = true;
            }
            // Refused by the service: what was added is not to be had.
            Err(GONE | DeviceError::TimedOut) => {}
            Err(DeviceError::Refused(why)) => println!("refused {why}"),
            Err(other) => return Err(format!("{other:?}")),
        }
        time::sleep(Duration::from_millis(20));
    }
}

/// Writes a pattern of each round's own and reads it back, with several requests in flight, or only reads.
fn use_it(disk: &mut Disk, is_read_only: bool) -> Result<End, String> {
    let mut data = vec![0_u8; BYTES];
    let mut round = 0_u64;
    loop {
        round += 1;
        if control::asked() == Some(Ask::Release) && control::device() == Some(disk.cookie()) {
            disk.close();
            return Ok(End::GivenUp);
        }
        for (at, byte) in data.iter_mut().enumerate() {
            *byte = (at as u64 * 7 + at as u64 / 512 + round * 13) as u8;
        }
        if !is_read_only && let Some(failed) = batch(disk, Some(&data))? {
            return Ok(End::TakenAway(failed));
        }
        if let Some(failed) = batch(disk, None)? {
            return Ok(End::TakenAway(failed));
        }
        if !is_read_only {
            let mut back = vec![0_u8; BYTES];
            match disk.read_at(SECTORS * (round % DEPTH as u64), &mut back) {
                Ok(()) if back == data => {}
                Ok(()) => return Err(format!("round {round}: what was read is not what was written")),
                Err(BlockError::Device(GONE)) => return Ok(End::TakenAway(1)),
                Err(other) => return Err(format!("round {round}: {other:?}")),
            }
        }
        if round.is_multiple_of(ROUNDS) {
            println!("verified {round}, lost {}", disk.lost());
        }
    }
}

/// Writes `data` to each of the places, or reads them. How many requests failed with the disk gone, if it went.
fn batch(disk: &mut Disk, data: Option<&[u8]>) -> Result<Option<usize>, String> {
    let mut tickets = Vec::new();
    for place in 0..DEPTH as u64 {
        let buffer = disk.buffer(BYTES).map_err(|error| format!("{error:?}"))?;
        let submitted = match data {
            Some(data) => {
                let _ = buffer.window().write(0, data);
                disk.submit_write(place * SECTORS, buffer, BYTES)
            }
            None => disk.submit_read(place * SECTORS, buffer, BYTES),
        };
        tickets.push(submitted.map_err(|(error, _)| format!("{error:?}"))?);
    }
    let mut failed = 0;
    while !tickets.is_empty() {
        let done = disk.wait(DEADLINE_NEVER).map_err(|error| format!("with {} waiting: {error:?}", tickets.len()))?;
        let at = tickets.iter().position(|ticket| *ticket == done.ticket).ok_or("an answer to nothing")?;
        tickets.swap_remove(at);
        done.buffer.into_iter().for_each(|buffer| disk.free(buffer));
        match done.result {
            Ok(()) => {}
            Err(BlockError::Device(GONE)) => failed += 1,
            Err(other) => return Err(format!("{other:?}")),
        }
    }
    Ok((failed > 0).then_some(failed))
}
