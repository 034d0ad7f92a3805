//! The net service: a switch between guests' interfaces and the machine's network device.
//!
//! It owns the device's registers, its interrupt and the memory that it may reach. Guests' windows the device never reaches: frames are copied
//! between them and that memory. The service keeps nothing but what it learned and counted: when it dies some frames are lost.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod server;
#[cfg(target_os = "none")]
mod uplink;

#[cfg(target_os = "none")]
portico_sdk::entry!(server::serve);

#[cfg(not(target_os = "none"))]
fn main() {
    // The service runs on the hypervisor only; on a host its library is tested.
}
