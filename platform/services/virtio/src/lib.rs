//! Virtio devices of the machine, for services (Virtual I/O Device (VIRTIO) Version 1.2).
//!
//! The transport is the crate `virtio-drivers`'. The queues are our own: theirs takes Rust slices as buffers, and ours are windows that a
//! hostile guest writes to at the same time, named by machine addresses, since no IOMMU translates for the device.
#![cfg_attr(target_os = "none", no_std)]

extern crate alloc;

mod device;
mod dma;
mod queue;

pub use device::{Device, DeviceError, Kind, config};
pub use dma::{Area, Dma};
pub use queue::{Part, Queue};
