//! Lists and prints the files of the FAT file system on the guest's first disk, and says what the disk is.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

mod volume;

use alloc::vec::Vec;
use core::time::Duration;
use embedded_sdmmc::{Mode, VolumeIdx, VolumeManager};
use portico_sdk::device::block::Disk;
use portico_sdk::{println, time};
use volume::{FileError, NoClock, Partition};

portico_sdk::entry!(files);

/// How long it waits for its disk.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most of a file that is printed.
const MOST: usize = 1024;

fn files() -> u64 {
    let Some(name) = Disk::names().next() else {
        println!("this guest has no disk: write `disk = [...]` in its description");
        return 1;
    };
    match Disk::open(name, time::deadline(PATIENCE)) {
        Ok(disk) => {
            let info = disk.info();
            let access = if info.is_read_only { "read-only" } else { "read and write" };
            println!("disk {name}: {} KiB, {access}", info.sectors / 2);
            match show(disk) {
                Ok(()) => 0,
                Err(error) => {
                    println!("disk {name}: {error:?}");
                    1
                }
            }
        }
        Err(error) => {
            println!("disk {name}: {error:?}");
            1
        }
    }
}

/// Prints names, sizes and text of all files of the root.
fn show(disk: Disk) -> Result<(), FileError> {
    let manager = VolumeManager::new(Partition::new(disk), NoClock);
    let volume = manager.open_volume(VolumeIdx(0))?;
    let root = volume.open_root_dir()?;
    let mut names = Vec::new();
    root.iterate_dir(|entry| {
        if !entry.attributes.is_directory() && !entry.attributes.is_volume() {
            names.push((entry.name.clone(), entry.size));
        }
    })?;
    for (name, size) in names {
        println!("{name}  {size} bytes");
        let file = root.open_file_in_dir(name, Mode::ReadOnly)?;
        let mut text = [0; MOST];
        let len = file.read(&mut text)?;
        for line in text.get(..len).unwrap_or_default().split(|byte| *byte == b'\n') {
            println!("  {}", core::str::from_utf8(line).unwrap_or("(not text)"));
        }
    }
    Ok(())
}
