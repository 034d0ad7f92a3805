//! Measures what the hypervisor costs, for `cargo xtask bench`.
//!
//! The argument `bench=` says which part of a measurement this guest plays; the system descriptions in `tests/systems/bench*.toml`
//! put the parts together. The machine counts instructions (`-icount shift=0`, counter at 1 GHz), so that a tick is an instruction.
//! Results are printed as `BENCH name median min max` only after all was measured: printing wakes the manager.
//!
//! What each figure begins and ends at is written where it is taken, in [`alone`] and [`pingpong`].
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod alone;
#[cfg(target_os = "none")]
mod block;
#[cfg(target_os = "none")]
mod console;
#[cfg(target_os = "none")]
mod cpu;
#[cfg(target_os = "none")]
mod mark;
#[cfg(target_os = "none")]
mod pingpong;
#[cfg(target_os = "none")]
mod sample;

#[cfg(target_os = "none")]
portico_sdk::entry!(bench);

#[cfg(target_os = "none")]
fn bench() -> u64 {
    let results = match portico_sdk::dtb::bootarg("bench") {
        Some("alone") => alone::measure(false),
        Some("shared") => alone::measure(true),
        // It is crashed by its own word.
        Some("fail") => portico_sdk::exit::panic(1),
        // It is only there.
        Some("nothing") => Ok(alloc::vec::Vec::new()),
        Some("load") => alone::load(),
        Some("block") => block::measure(),
        Some("console") => console::measure(),
        Some("idle") => block::idle(),
        Some("ping") => pingpong::ping(pingpong::Wait::Native),
        Some("pong") => pingpong::pong(pingpong::Wait::Native),
        Some("ping-call") => pingpong::ping(pingpong::Wait::Call),
        Some("pong-call") => pingpong::pong(pingpong::Wait::Call),
        _ => Err(portico_sdk::Status::Invalid),
    };
    match results {
        Ok(results) => {
            for result in &results {
                result.print();
            }
            portico_sdk::println!("BENCH end");
            // It stays, so that what it costs in memory can be looked at.
            portico_sdk::port::idle()
        }
        Err(status) => {
            portico_sdk::println!("BENCH failed: {}", status.describe());
            1
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    // There is nothing to measure on a host.
}
