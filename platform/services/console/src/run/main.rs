//! The console service: the machine's UART as one terminal for the manager and all guests.
//!
//! It owns the UART's registers and interrupt. It keeps nothing: what waits for the terminal and what was kept of each guest's output is in
//! windows of the manager, and the next instance goes on with the next byte.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod receive;
#[cfg(target_os = "none")]
mod registers;
#[cfg(target_os = "none")]
mod send;
#[cfg(target_os = "none")]
mod server;
#[cfg(target_os = "none")]
mod terminal;

#[cfg(target_os = "none")]
portico_sdk::entry!(server::serve);

#[cfg(not(target_os = "none"))]
fn main() {
    // The service runs on the hypervisor only; on a host its library is tested.
}
