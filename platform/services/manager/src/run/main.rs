//! The manager: builds, starts, watches and restarts the domains of a machine.
//!
//! It is a guest on the SDK, privileged by nothing but its handles: the machine's, and all free memory's. It reads
//! the bundle, builds the guests of the system description in the order of `depends`, restarts those that crash, and obeys the person at the prompt. What it decides is in the library
//! beside this; here are the calls.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod again;
#[cfg(target_os = "none")]
mod alarm;
#[cfg(target_os = "none")]
mod balloon;
#[cfg(target_os = "none")]
mod channels;
#[cfg(target_os = "none")]
mod clock;
#[cfg(target_os = "none")]
mod commands;
#[cfg(target_os = "none")]
mod console;
#[cfg(target_os = "none")]
mod control;
#[cfg(target_os = "none")]
mod cookie;
#[cfg(target_os = "none")]
mod desk;
#[cfg(target_os = "none")]
mod devices;
#[cfg(target_os = "none")]
mod disks;
#[cfg(target_os = "none")]
mod guest;
#[cfg(target_os = "none")]
mod heap;
#[cfg(target_os = "none")]
mod hv;
#[cfg(target_os = "none")]
mod keeper;
#[cfg(target_os = "none")]
mod lifecycle;
#[cfg(target_os = "none")]
mod load;
#[cfg(target_os = "none")]
mod place;
#[cfg(target_os = "none")]
mod power;
#[cfg(target_os = "none")]
mod report;
#[cfg(target_os = "none")]
mod requests;
#[cfg(target_os = "none")]
mod start;
#[cfg(target_os = "none")]
mod supervisor;

#[cfg(target_os = "none")]
portico_sdk::entry!(start::manager);

#[cfg(not(target_os = "none"))]
fn main() {
    // The manager runs on the hypervisor only; on a host its library is tested.
}
