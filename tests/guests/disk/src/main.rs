//! Loads a disk and verifies what it holds. The first word of the command line says how.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::vec;
use portico_sdk::device::block::Disk;
use portico_sdk::{dtb, println, time};

portico_sdk::entry!(disk);

/// How long a guest waits for its disk.
const PATIENCE: core::time::Duration = core::time::Duration::from_secs(10);

fn disk() -> u64 {
    for name in Disk::names() {
        if let Err(why) = check(name) {
            println!("disk {name}: FAIL {why}");
            return 1;
        }
        println!("disk {name}: PASS");
    }
    println!("DISK END {}", dtb::bootargs());
    0
}

fn check(name: &str) -> Result<(), alloc::string::String> {
    use alloc::format;
    let mut disk = Disk::open(name, time::deadline(PATIENCE)).map_err(|error| format!("{error:?}"))?;
    let info = disk.info();
    println!("disk {name}: {info:?}");
    let mut data = vec![0_u8; 64 << 10];
    for (at, byte) in data.iter_mut().enumerate() {
        *byte = (at * 7 + at / 512) as u8;
    }
    if !info.is_read_only {
        disk.write_at(16, &data).map_err(|error| format!("write: {error:?}"))?;
        disk.flush().map_err(|error| format!("flush: {error:?}"))?;
    }
    let mut back = vec![0_u8; data.len()];
    disk.read_at(16, &mut back).map_err(|error| format!("read: {error:?}"))?;
    if !info.is_read_only && back != data {
        return Err("what was read is not what was written".into());
    }
    Ok(())
}
