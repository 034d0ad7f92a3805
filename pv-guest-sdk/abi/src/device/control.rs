//! The control page: between the manager (side 0) and a domain (side 1). Every domain but the manager has one.
//!
//! A channel of one page, of single words: whoever owns a word stores it, the other one reads it, and each side looks at its own leisure or when it
//! is notified. The manager asks the domain for something by [`ASK`], and tells the time of day by [`WALL_NS`]. The domain shows
//! that it lives by [`BEAT`]. A service is told by [`CHANGES`] that ports of its devices have changed (a guest was started
//! afresh, and the service finds the new port by its cookie), says by [`READY`] that it is up, and counts what each device has moved, in records of
//! [`Counters`]. A domain whose memory can change finds in [`TARGET_PAGES`] how much it should have, and gives back and takes it, a
//! [`BLOCK_SIZE`](crate::BLOCK_SIZE) or more at once, by [`REQUEST`].

use core::mem::size_of;

/// Counts changes of a service's ports; the manager adds 1 and notifies.
pub const CHANGES: usize = 256;
/// What the manager asks for: an [`ask`] in bits 7:0, and above them a number that differs from the last one's. The manager notifies.
pub const ASK: usize = 260;
/// Time of day at which the domain's CNTVCT_EL0 was 0: 8 bytes, nanoseconds since 1970-01-01 00:00 UTC; 0 if it is not known. Written by the manager,
/// which notifies when it changes.
pub const WALL_NS: usize = 264;
/// Which device the manager asks for by `RELEASE`: 8 bytes, the cookie of its first channel.
pub const DEVICE: usize = 272;
/// Pages that the domain should have now, and more than which it is not given; 0 if its memory is fixed. Written by the manager, which notifies when it changes.
pub const TARGET_PAGES: usize = 280;
/// Pages that the domain has now. Written by the manager.
pub const PRESENT_PAGES: usize = 284;
/// The last value of `REQUEST` that was answered. Written by the manager, after `RESULT` and `DONE_PAGES`; it notifies.
pub const ANSWER: usize = 288;
/// What became of the request: a `memory_result`. Written by the manager.
pub const RESULT: usize = 292;
/// So many of the request's pages, from its first on, are as it asks. Written by the manager.
pub const DONE_PAGES: usize = 296;
/// 1 as soon as a service serves. Written by the service.
pub const READY: usize = 320;
/// Adds 1 now and then, from the main loop. Written by the domain.
pub const BEAT: usize = 324;
/// What the domain does if it is asked for: bit `1 << ask` for each. Written by the domain.
pub const ABLE: usize = 328;
/// The last value of `ASK` that the domain has begun to act on. Written by the domain.
pub const TAKEN: usize = 332;
/// Milliseconds within which `BEAT` must change, 0 for never: else the domain counts as crashed. Written by the domain, unless it is a service.
pub const WATCHDOG_MS: usize = 336;
/// 1 while the domain sleeps: its devices are at rest, and it does nothing before it is notified; else 0. Written by the domain, unless it is a service.
pub const ASLEEP: usize = 340;
/// IPA of the first page of a request: 8 bytes. Written by the domain.
pub const FIRST: usize = 344;
/// Pages of a request. Written by the domain.
pub const PAGES: usize = 352;
/// What the domain asks for: a `memory_op` in bits 7:0, and above them a number that differs from the last one's. Written by the domain, after `FIRST` and
/// `PAGES`; it notifies.
pub const REQUEST: usize = 356;
/// First record of [`Counters`], one for each device in the order of the device tree. Written by the service.
pub const COUNTERS: usize = 384;
/// Most records that fit.
pub const MAX_DEVICES: usize = (crate::PAGE_SIZE as usize - COUNTERS) / size_of::<Counters>();

/// What a domain can be asked for.
pub mod ask {
    /// Nothing.
    pub const NOTHING: u32 = 0;
    /// To end in order, as by PSCI SYSTEM_OFF.
    pub const POWER_OFF: u32 = 1;
    /// To end in order and be started afresh, as by PSCI SYSTEM_RESET.
    pub const REBOOT: u32 = 2;
    /// To bring its devices to rest and to sleep, until it is notified.
    pub const SUSPEND: u32 = 3;
    /// To give up the device `DEVICE`, if nobody uses it.
    pub const RELEASE: u32 = 4;
}

/// What a domain can do with a range of its memory.
pub mod memory_op {
    /// To give it back: it is no longer there.
    pub const RELEASE: u32 = 1;
    /// To have it again: it is there, and what was not is zero.
    pub const POPULATE: u32 = 2;
}

/// What became of a request for memory.
pub mod memory_result {
    /// All is as it asks.
    pub const OK: u32 = 0;
    /// It asks for nothing that there is: its memory is fixed, the range is empty, not of whole blocks, or not in its memory.
    pub const INVALID: u32 = 1;
    /// It may not give more back.
    pub const MINIMUM: u32 = 2;
    /// It would have more than `TARGET_PAGES`.
    pub const TARGET: u32 = 3;
    /// The machine has no more now.
    pub const EXHAUSTED: u32 = 4;
}

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
const _: () = assert!(REQUEST + 4 <= COUNTERS && FIRST.is_multiple_of(8));
