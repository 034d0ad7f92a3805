//! The control page: between the manager (side 0) and a service (side 1).
//!
//! A channel of one page. The manager tells by [`CHANGES`] that ports of the service's devices have changed: a guest was started afresh, and the service
//! finds the new port by its cookie. The service says by [`READY`] that it is up, shows by [`BEAT`] that its main loop turns, and counts what each
//! device has moved, in records of [`Counters`].

use core::mem::size_of;

/// Counts changes of the service's ports; the manager adds 1 and notifies.
pub const CHANGES: usize = 256;
/// 1 as soon as the service serves. Written by the service.
pub const READY: usize = 320;
/// Adds 1 now and then, from the main loop. Written by the service.
pub const BEAT: usize = 324;
/// First record of [`Counters`], one for each device in the order of the device tree. Written by the service.
pub const COUNTERS: usize = 384;
/// Most records that fit.
pub const MAX_DEVICES: usize = (crate::PAGE_SIZE as usize - COUNTERS) / size_of::<Counters>();

/// What a device has moved since its service started. Words are stored one by one: a reader may see a record between two of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Requests, or frames from the guest.
    pub requests: u64,
    /// Bytes to the guest: read, or received.
    pub bytes_in: u64,
    /// Bytes from the guest: written, or sent.
    pub bytes_out: u64,
    /// Requests that failed, or frames that were dropped.
    pub failed: u64,
    /// How often the guest was notified.
    pub notified: u64,
}

const _: () = assert!(size_of::<Counters>() == 40);
