//! `mode=durable`: writes and flushes, and says what must be on the disk whatever happens next.
//!
//! Round N writes its number as the generation of some blocks, all in flight at once, waits for the answers, flushes, and prints
//! `flushed N`. Which blocks a round writes [`first_of`] says: the test computes it too, and looks into the disk's file.

use crate::{PATIENCE, open, sector};
use alloc::format;
use alloc::string::String;
use portico_sdk::device::block::Disk;
use portico_sdk::{println, time};

/// Blocks of 4 KiB on the disk that are written.
pub const BLOCKS: u64 = 64;
/// Blocks that a round writes.
pub const PER_ROUND: u64 = 8;
/// Sectors of a block.
const SECTORS: u64 = 8;

/// The first block of a round; the others follow, round the end.
pub const fn first_of(round: u64) -> u64 {
    round * 5 % BLOCKS
}

/// Runs until the machine ends.
///
/// # Errors
/// What failed.
pub fn run() -> Result<(), String> {
    let mut disk = open("disk0")?;
    for round in 1.. {
        write(&mut disk, round).map_err(|error| format!("round {round}: {error}"))?;
        disk.flush().map_err(|error| format!("flush {round}: {error:?}"))?;
        println!("flushed {round}");
    }
    Ok(())
}

fn write(disk: &mut Disk, round: u64) -> Result<(), String> {
    for number in 0..PER_ROUND {
        let first = (first_of(round) + number) % BLOCKS * SECTORS;
        let buffer = disk.buffer(4096).map_err(|error| format!("{error:?}"))?;
        for at in 0..SECTORS {
            sector::fill(&buffer.window(), at as usize * sector::BYTES, first + at, round);
        }
        disk.submit_write(first, buffer, 4096).map_err(|(error, _)| format!("{error:?}"))?;
    }
    for left in (1..=PER_ROUND as u32).rev() {
        let done = disk.wait_for(left, time::deadline(PATIENCE)).map_err(|error| format!("{error:?}"))?;
        done.result.map_err(|error| format!("{error:?}"))?;
        done.buffer.into_iter().for_each(|buffer| disk.free(buffer));
    }
    Ok(())
}
