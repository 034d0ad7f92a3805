//! Loads disks and verifies what they hold. `mode=` on the command line says how; without it each disk is written and read once.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![cfg_attr(not(target_os = "none"), allow(unused, reason = "a guest for the target only"))]

extern crate alloc;

mod durable;
#[cfg(target_os = "none")]
mod features;
#[cfg(target_os = "none")]
mod hot;
#[cfg(target_os = "none")]
mod limits;
mod load;
#[cfg(target_os = "none")]
mod raw;
mod sector;

use alloc::format;
use alloc::string::String;
use alloc::vec;
use portico_sdk::device::block::Disk;
use portico_sdk::{dtb, println, time};

portico_sdk::entry!(disk);

/// How long a guest waits for its disk.
const PATIENCE: core::time::Duration = core::time::Duration::from_secs(20);

#[cfg(not(target_os = "none"))]
fn disk() -> u64 {
    0
}

#[cfg(target_os = "none")]
fn disk() -> u64 {
    let done = match dtb::bootarg("mode").unwrap_or("once") {
        "once" => once(),
        "load" => load::run(),
        "durable" => durable::run(),
        "features" => return features::run(),
        "hot" => hot::run(),
        "limits" => return limits::run(),
        "raw" => return raw::run(),
        "victim" => return raw::victim(),
        mode => Err(format!("no mode {mode}")),
    };
    match done {
        Ok(()) => 0,
        Err(why) => {
            println!("FAIL {why}");
            1
        }
    }
}

/// A number of the command line.
fn number(name: &str, otherwise: u64) -> u64 {
    dtb::bootarg(name).and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn open(name: &str) -> Result<Disk, String> {
    Disk::open(name, time::deadline(PATIENCE)).map_err(|error| format!("{name}: {error:?}"))
}

fn once() -> Result<(), String> {
    for name in Disk::names() {
        check(name).map_err(|why| format!("{name}: {why}"))?;
        println!("disk {name}: PASS");
    }
    Ok(())
}

fn check(name: &str) -> Result<(), String> {
    let mut disk = open(name)?;
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
        return Err(String::from("what was read is not what was written"));
    }
    Ok(())
}
