//! The machines that Portico runs on: what their device tree says, and the console UARTs they have.
//!
//! Nothing here is specific to a board by name. [`Machine::read`] reads everything from the flattened device
//! tree; [`Uart`] drives the console by polling. Used by the hypervisor at boot and by the manager afterwards; each
//! maps the registers for itself and passes a virtual address. [`power`] is for boards without PSCI.
//!
//! The device tree comes from the boot loader, before any guest runs: a malformed one is an error, never a panic.
#![cfg_attr(not(test), no_std)]

pub mod devices;
pub mod list;
pub mod machine;
pub mod power;
pub mod ram;
pub mod rtc;
pub mod tree;
pub mod uart;

pub use list::List;
pub use machine::{Cpu, Gic, Machine, Psci, Range, UartInfo};
pub use uart::{Uart, UartKind};
