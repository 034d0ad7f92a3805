//! `mode=features`: what a disk must do and must refuse, as points of a report.

use crate::{open, sector};
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use portico_sdk::abi::device::block::status;
use portico_sdk::device::DeviceError;
use portico_sdk::device::block::{BlockError, Disk, Piece, Transfer, feature};
use portico_sdk::time;
use test_kit::Tap;

/// Prints a report on the disks `main`, `part` and `same` (one partition, by number and by name), `range`, `read-only`, `absent`, `taken`.
pub fn run() -> u64 {
    let mut tap = Tap::new();
    for (name, check) in
        [("main", main as fn(&mut Tap, &mut Disk)), ("part", part), ("range", range), ("read-only", read_only)]
    {
        match open(name) {
            Ok(mut disk) => check(&mut tap, &mut disk),
            Err(why) => tap.none(name, Some(why)),
        }
    }
    for name in ["absent", "taken"] {
        let refused = Disk::open(name, time::deadline(crate::PATIENCE)).map(drop);
        tap.is(&format!("disk {name} is refused"), refused, Err(DeviceError::Refused(4)));
    }
    tap.is("a disk that is not described", Disk::open("nobody", 0).map(drop), Err(DeviceError::NotFound));
    tap.finish()
}

fn status_of(result: Result<(), BlockError>) -> u32 {
    match result {
        Ok(()) => status::OK,
        Err(BlockError::Status(status)) => status,
        Err(_) => u32::MAX,
    }
}

fn main(tap: &mut Tap, disk: &mut Disk) {
    let info = disk.info();
    tap.is("its size", info.sectors, 32768);
    let mut data = vec![0x5a_u8; 1 << 20];
    for (at, byte) in data.iter_mut().enumerate() {
        *byte = (at ^ at >> 9) as u8;
    }
    // Longer than a request can be.
    tap.is("a mebibyte is written", disk.write_at(512, &data), Ok(()));
    let mut back = vec![0_u8; data.len()];
    tap.is("and read", disk.read_at(512, &mut back), Ok(()));
    tap.holds("and is the same", back == data);
    tap.is("flush", disk.flush(), Ok(()));
    if info.features & feature::WRITE_ZEROES != 0 {
        tap.is("write-zeroes", disk.write_zeroes(520, 8), Ok(()));
        tap.is("read", disk.read_at(512, &mut back), Ok(()));
        let is_zero = back.get(4096..8192).is_some_and(|piece| piece.iter().all(|byte| *byte == 0));
        tap.holds("are zeros", is_zero && back.get(..4096) == data.get(..4096) && back.get(8192..) == data.get(8192..));
    }
    if info.features & feature::DISCARD != 0 {
        tap.is("discard", disk.discard(4096, 2048), Ok(()));
    }
    let mut one = [0; 512];
    tap.is("the last sector", disk.read_at(info.sectors - 1, &mut one), Ok(()));
    tap.is("behind the end", disk.read_at(info.sectors, &mut one).map_err(|e| status_of(Err(e))), Err(status::RANGE));
    tap.is("far behind", disk.read_at(u64::MAX, &mut one).map_err(|e| status_of(Err(e))), Err(status::RANGE));
    tap.is("half a sector", disk.write_at(0, &[0; 100]).is_err(), true);
    pieces(tap, disk);
}

/// Requests of 1, 5, 6 and as many pieces as there can be, in reverse order in memory.
fn pieces(tap: &mut Tap, disk: &mut Disk) {
    let most = disk.info().max_segments as usize;
    for count in [1, 2, 5, 6, 33, most] {
        let result = scatter(disk, count);
        tap.is(&format!("{count} pieces"), result, Ok(()));
    }
    let Ok(buffer) = disk.buffer(4096) else { return };
    let too_many: Vec<Piece> = (0..=most).map(|_| Piece { buffer: 0, range: 0..512 }).collect();
    let refused = disk.submit_pieces(Transfer::Read, 0, vec![buffer], &too_many);
    tap.is("more pieces than it takes", refused.as_ref().err().map(|(error, _)| *error), Some(BlockError::Shape));
    let mut buffers = refused.err().map(|(_, buffers)| buffers).unwrap_or_default();
    for range in [0..100, 512..512, 4096..4608, 100..612] {
        let refused = disk.submit_pieces(Transfer::Read, 0, buffers, &[Piece { buffer: 0, range }]);
        tap.is("a piece that is none", refused.as_ref().err().map(|(error, _)| *error), Some(BlockError::Shape));
        buffers = refused.err().map(|(_, buffers)| buffers).unwrap_or_default();
    }
    buffers.into_iter().for_each(|buffer| disk.free(buffer));
}

/// Writes `count` sectors from as many places, and reads them into one.
fn scatter(disk: &mut Disk, count: usize) -> Result<(), alloc::string::String> {
    let generation = count as u64;
    let sector = 8192;
    let fail = |error: &dyn core::fmt::Debug| format!("{error:?}");
    let buffer = disk.buffer(count * 512).map_err(|error| fail(&error))?;
    let other = disk.buffer(count * 512).map_err(|error| fail(&error))?;
    let mut pieces = Vec::new();
    for at in 0..count {
        // In turns from two buffers, from the end of each to its beginning.
        let place = (count - 1 - at) * 512;
        let window = if at % 2 == 0 { buffer.window() } else { other.window() };
        sector::fill(&window, place, sector + at as u64, generation);
        pieces.push(Piece { buffer: at % 2, range: place..place + 512 });
    }
    let submitted = disk.submit_pieces(Transfer::Write, sector, vec![buffer, other], &pieces);
    submitted.map_err(|(error, _)| fail(&error))?;
    let done = disk.wait(time::deadline(crate::PATIENCE)).map_err(|error| fail(&error))?;
    done.result.map_err(|error| fail(&error))?;
    done.buffers.into_iter().for_each(|buffer| disk.free(buffer));
    let buffer = disk.buffer(count * 512).map_err(|error| fail(&error))?;
    disk.submit_read(sector, buffer, count * 512).map_err(|(error, _)| fail(&error))?;
    let done = disk.wait(time::deadline(crate::PATIENCE)).map_err(|error| fail(&error))?;
    done.result.map_err(|error| fail(&error))?;
    let Some(buffer) = done.buffer else { return Err(fail(&"no buffer")) };
    for at in 0..count {
        sector::check(&buffer.window(), at * 512, sector + at as u64, generation).map_err(|wrong| fail(&wrong))?;
    }
    disk.free(buffer);
    Ok(())
}

fn part(tap: &mut Tap, disk: &mut Disk) {
    tap.is("the size of a partition", disk.info().sectors, 4096);
    tap.is("a partition is written", disk.write_at(4095, &[7; 512]), Ok(()));
    let mut one = [0; 512];
    tap.is("behind a partition", disk.read_at(4096, &mut one).map_err(|e| status_of(Err(e))), Err(status::RANGE));
    match open("same") {
        Ok(mut same) => {
            tap.is("the same by its name", same.read_at(4095, &mut one), Ok(()));
            tap.is("holds the same", one, [7; 512]);
        }
        Err(why) => tap.none("the same by its name", Some(why)),
    }
}

fn range(tap: &mut Tap, disk: &mut Disk) {
    tap.is("the size of a range", disk.info().sectors, 2048);
    tap.is("a range is written", disk.write_at(0, &[9; 1024]), Ok(()));
    let mut one = [0; 512];
    tap.is("behind a range", disk.read_at(2048, &mut one).map_err(|e| status_of(Err(e))), Err(status::RANGE));
}

fn read_only(tap: &mut Tap, disk: &mut Disk) {
    let mut one = [0; 512];
    tap.holds("it says that it is read-only", disk.info().is_read_only);
    tap.is("it can be read", disk.read_at(0, &mut one), Ok(()));
    tap.is("but not written", status_of(disk.write_at(0, &one)), status::READ_ONLY);
    // Nor by what it does not offer.
    tap.is("nor discarded", disk.discard(0, 8).is_err(), true);
    tap.is("nor zeroed", disk.write_zeroes(0, 8).is_err(), true);
    tap.is("flush of what is read-only", disk.flush(), Ok(()));
}
