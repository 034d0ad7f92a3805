//! The block service: disks of the machine as paravirtual disks of guests.
//!
//! It owns the disks' registers and interrupts and moves data straight between a disk and a guest's window: a virtio disk does so by
//! itself, for an SD card the processor does. It keeps nothing: what a disk has answered is answered to the guest, and what was in flight when it dies the guest makes again.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod disk;
#[cfg(target_os = "none")]
mod queue;
#[cfg(target_os = "none")]
mod sd;
#[cfg(target_os = "none")]
mod server;
#[cfg(target_os = "none")]
mod target;
#[cfg(target_os = "none")]
mod virtio;

#[cfg(target_os = "none")]
portico_sdk::entry!(server::serve);

#[cfg(not(target_os = "none"))]
fn main() {
    // The service runs on the hypervisor only; on a host its library is tested.
}
