//! Pages that EL2 shares with a guest.

use crate::port::{PORT_BITS, SELECTORS};
use core::mem::{offset_of, size_of};

/// The page of one vCPU: written by EL2 and by its guest, Normal write-back memory.
///
/// This type gives sizes and offsets. Neither side makes a reference to one: both reach the
/// fields by volatile or atomic accesses of the field's own size.
#[repr(C, align(4096))]
pub struct VcpuPage {
    /// EL2 stores 1 when something is pending, the guest stores 0 before it scans.
    pub upcall_pending: u8,
    /// Zero.
    pub _reserved0: [u8; 63],
    /// A selector byte for each 64 port bits: EL2 stores 1, the guest stores 0 before it scans those bits.
    pub selectors: [u8; SELECTORS],
    /// Zero.
    pub _reserved1: [u8; 48],
    /// Time in each state. Written by EL2 only.
    pub run_state: RunState,
    /// Zero.
    pub _reserved2: [u8; 832],
    /// A byte for each port bit: EL2 stores 1, the guest stores 0.
    pub pending: [u8; PORT_BITS],
    /// A byte for each port bit: non-zero masks it. Written by the guest only.
    pub mask: [u8; PORT_BITS],
    /// Results of calls that need more than registers. Written by EL2 during such a call only.
    pub buffer: [u8; 1024],
}

/// Where a vCPU's time went, in nanoseconds, up to the last time it was entered.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct RunState {
    /// Odd while EL2 is writing; even otherwise. Written by EL2.
    pub seq: u32,
    /// Zero.
    pub _reserved: u32,
    /// Running.
    pub running_ns: u64,
    /// Ready to run but not running: stolen.
    pub ready_ns: u64,
    /// Blocked.
    pub blocked_ns: u64,
    /// Zero.
    pub _reserved1: [u64; 4],
}

const _: () = assert!(size_of::<VcpuPage>() == 4096);
const _: () = assert!(offset_of!(VcpuPage, upcall_pending) == 0);
const _: () = assert!(offset_of!(VcpuPage, selectors) == 64);
const _: () = assert!(offset_of!(VcpuPage, run_state) == 128);
const _: () = assert!(offset_of!(VcpuPage, pending) == 1024);
const _: () = assert!(offset_of!(VcpuPage, mask) == 2048);
const _: () = assert!(offset_of!(VcpuPage, buffer) == 3072);
const _: () = assert!(size_of::<RunState>() == 64);

/// Bytes of the buffer at the end of a vCPU page.
pub const BUFFER_BYTES: usize = 1024;

/// The information page of a domain: the guest can only read it.
#[repr(C, align(4096))]
pub struct InfoPage {
    /// [`InfoPage::MAGIC`].
    pub magic: u32,
    /// 1.
    pub version: u32,
    /// Odd while EL2 is writing; even otherwise.
    pub seq: u32,
    /// Frequency of the virtual counter, in Hz.
    pub counter_hz: u32,
    /// `ns = ticks * mult >> shift` (in 128 bits).
    pub mult: u32,
    /// See `mult`.
    pub shift: u32,
    /// Zero.
    pub _reserved0: [u32; 2],
    /// Changes when the domain was restored or cloned.
    pub generation: u64,
    /// Zero.
    pub _reserved1: [u8; 984],
    /// Stolen time of each vCPU, as PV_TIME_ST names it. (Arm DEN0057, "Stolen Time")
    pub stolen: [StolenTime; 48],
}

/// Stolen-time record. (Arm DEN0057, "Stolen Time")
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct StolenTime {
    /// 0.
    pub revision: u32,
    /// 0.
    pub attributes: u32,
    /// Nanoseconds for which the vCPU was ready and did not run.
    pub stolen_ns: u64,
    /// Zero.
    pub _reserved: [u64; 6],
}

impl InfoPage {
    /// "PTCO", little-endian.
    pub const MAGIC: u32 = u32::from_le_bytes(*b"PTCO");
    /// Offset of the first stolen-time record, in bytes.
    pub const STOLEN_OFFSET: usize = offset_of!(InfoPage, stolen);
}

const _: () = assert!(size_of::<InfoPage>() == 4096);
const _: () = assert!(offset_of!(InfoPage, generation) == 32);
const _: () = assert!(offset_of!(InfoPage, stolen) == 1024);
const _: () = assert!(size_of::<StolenTime>() == 64);

/// Highest number of vCPUs of a domain.
pub const MAX_VCPUS: usize = 48;
