//! Channels: a lent window, a port pair, and a convention.
//!
//! A channel is made by the manager from an extent lent to both sides and a pair of ports. EL2 does not
//! know of channels. The window begins with a [`ChannelHeader`]; what follows depends on the protocol.

use core::mem::{offset_of, size_of};

/// State that a side writes into its own word of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ChannelState {
    /// Not there.
    Closed = 0,
    /// Setting itself up.
    Init = 1,
    /// Ready.
    Connected = 2,
    /// Leaving.
    Closing = 3,
}

/// First cache lines of every channel window.
#[repr(C)]
pub struct ChannelHeader {
    /// [`ChannelHeader::MAGIC`]. Written by the manager.
    pub magic: u32,
    /// Layout version, 1. Written by the manager.
    pub version: u32,
    /// Size of the window in bytes. Written by the manager; a side trusts its device tree, not this.
    pub size: u32,
    /// Zero.
    pub _reserved0: [u32; 13],
    /// [`ChannelState`] of side 0. Written by side 0 only.
    pub state0: u32,
    /// Epoch of side 0: it adds 1 at each (re)start.
    pub epoch0: u32,
    /// Epoch of side 1 for which side 0 set its rings up. Written by side 0 only.
    pub seen0: u32,
    /// Zero.
    pub _reserved1: [u32; 13],
    /// [`ChannelState`] of side 1. Written by side 1 only.
    pub state1: u32,
    /// Epoch of side 1.
    pub epoch1: u32,
    /// Epoch of side 0 for which side 1 set its rings up. Written by side 1 only.
    pub seen1: u32,
    /// Zero.
    pub _reserved2: [u32; 29],
}

impl ChannelHeader {
    /// "PCHN", little-endian.
    pub const MAGIC: u32 = u32::from_le_bytes(*b"PCHN");
}

const _: () = assert!(size_of::<ChannelHeader>() == 256);
const _: () = assert!(offset_of!(ChannelHeader, state0) == 64);
const _: () = assert!(offset_of!(ChannelHeader, state1) == 128);

/// Console channel: bytes from the guest (side 1) to the console (side 0) and back, two byte rings.
///
/// Offsets in the window. Each ring is free-running 32-bit indices: `head` counts bytes written and is written by
/// the producer; `tail` counts bytes read and is written by the consumer; each on a cache line of its own.
pub mod console {
    /// `head` of the output ring (guest writes).
    pub const OUT_HEAD: usize = 256;
    /// `tail` of the output ring (console writes).
    pub const OUT_TAIL: usize = 320;
    /// `head` of the input ring (console writes).
    pub const IN_HEAD: usize = 384;
    /// `tail` of the input ring (guest writes).
    pub const IN_TAIL: usize = 448;
    /// Non-zero if the console wants a notification when output comes; `WANT_LINES` if not of all (console writes).
    pub const OUT_WANT: usize = 324;
    /// Value of `OUT_WANT`: only when a line feed comes, or output that leaves less than half of the ring free. A guest may still tell of all.
    pub const WANT_LINES: u32 = 2;
    /// Non-zero if the guest wants a notification when output space comes free (guest writes).
    pub const OUT_SPACE_WANT: usize = 260;
    /// Counts break conditions of the line that came while the guest had the keyboard (console writes).
    pub const BREAKS: usize = 388;
    /// Bytes of the input ring.
    pub const IN_OFFSET: usize = 512;
    /// Size of the input ring.
    pub const IN_BYTES: usize = 512;
    /// Bytes of the output ring, to the end of the window.
    pub const OUT_OFFSET: usize = 1024;
    /// Size of a console window, in bytes.
    pub const WINDOW_BYTES: usize = 4096 * 5;
    /// Size of the output ring: a power of two.
    pub const OUT_BYTES: usize = 16384;
}

const _: () = assert!(console::OUT_OFFSET + console::OUT_BYTES <= console::WINDOW_BYTES);
