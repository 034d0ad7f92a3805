//! Lives and ends as its arguments say, for what the manager does about it:
//!
//! * `watch=MS`: asks the manager to watch it;
//! * `beats=N`: that many heartbeats, 10 ms apart, before it ends;
//! * `then=exit|panic|fault|reboot|hang|obey|promise`: how it ends; in good order if not told. `obey`: when the manager asks, and
//!   until then it tells the time of day, and sleeps if it is asked to; `promise`: it says that it would, and does not.
//!
//! It tells first what RAM disk it was given, if any.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::time::Duration;
use portico_sdk::abi::port::DEADLINE_NEVER;
use portico_sdk::control::Ask;
use portico_sdk::{control, dtb, exit, hvc, port, println, time};

portico_sdk::entry!(life);

fn number(name: &str) -> Option<u64> {
    dtb::bootarg(name).and_then(|text| text.parse().ok())
}

fn life() -> u64 {
    println!("born, {} vCPUs", dtb::cpus().count());
    show_disk();
    if let Some(ms) = number("watch") {
        control::watchdog(Duration::from_millis(ms));
    }
    for _ in 0..number("beats").unwrap_or(0) {
        time::sleep(Duration::from_millis(10));
        control::heartbeat();
    }
    println!("ending");
    match dtb::bootarg("then") {
        Some("exit") => 3,
        Some("panic") => exit::panic(4),
        Some("fault") => {
            // SAFETY: none: nothing is there, and it must end this domain.
            unsafe { core::ptr::with_exposed_provenance_mut::<u32>(0x0a00_0000).write_volatile(1) };
            5
        }
        Some("reboot") => exit::reboot(),
        Some("obey") => obey(),
        Some("promise") => {
            control::able(&[Ask::PowerOff, Ask::Suspend]);
            port::idle()
        }
        Some("hang") => loop {
            // It wakes for nothing that it would do.
            let _ = hvc::vcpu_block(time::deadline(Duration::from_secs(1)));
        },
        _ => 0,
    }
}

/// Ends when it is asked to.
fn obey() -> u64 {
    let Ok(port) = control::port() else { return 6 };
    control::able(&[Ask::PowerOff, Ask::Reboot, Ask::Suspend]);
    let mut next = None;
    loop {
        match next.take().or_else(control::asked) {
            Some(Ask::PowerOff) => {
                println!("asked to stop");
                return 0;
            }
            Some(Ask::Reboot) => {
                println!("asked to restart");
                exit::reboot()
            }
            Some(Ask::Suspend) => {
                println!("asked to sleep");
                // Who sleeps shows no heartbeat.
                control::watchdog(Duration::from_secs(1));
                let Ok(ask) = control::sleep() else { return 7 };
                control::watchdog(Duration::ZERO);
                println!("awake for {ask:?}");
                next = Some(ask);
                continue;
            }
            Some(other) => println!("asked for {other:?}"),
            None => println!("the time is {}", control::wall_time().map_or(0, |time| time.as_secs())),
        }
        let _ = port.wait(DEADLINE_NEVER);
    }
}

/// Prints length, first line and sum of all bytes, each weighted by its place.
fn show_disk() {
    let Some(range) = dtb::initrd() else { return };
    // SAFETY: the device tree names RAM of ours that the heap left out, and nobody writes to it.
    let disk = unsafe {
        core::slice::from_raw_parts(core::ptr::with_exposed_provenance::<u8>(range.base as usize), range.len as usize)
    };
    let sum = disk.iter().zip(1_u64..).fold(0_u64, |sum, (&byte, at)| sum.wrapping_add(u64::from(byte) * at));
    let first = disk.split(|&byte| byte == b'\n').next().and_then(|line| core::str::from_utf8(line).ok());
    println!("RAM disk of {} bytes, sum {sum}: {}", disk.len(), first.unwrap_or("no text"));
}
