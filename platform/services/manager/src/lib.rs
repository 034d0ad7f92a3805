//! What the manager decides, apart from the hypervisor it decides it for.
//!
//! Everything here is pure and tested on a host: no module makes a call, touches a device or reads a clock. The
//! binary beside it does that, and asks this library what to do.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod balloon;
pub mod calendar;
pub mod disks;
pub mod event;
pub mod fdt;
pub mod links;
pub mod loader;
pub mod memory;
pub mod restart;
pub mod saved;
pub mod shell;
pub mod table;
pub mod watchdog;
