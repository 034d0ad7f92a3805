//! Network interfaces.
//!
//! Two rings of frames, one in each direction, with the index rules and notifications of every ring ([`crate::ring`]). A slot has [`SLOT`] bytes. A frame
//! takes as many slots, one behind the other and round the end of the ring, as its [`FrameHeader`] and its bytes need; what is left of
//! the last one means nothing. There are no answers: a frame has left when its slots are free again.
//!
//! *Loss*: as on every Ethernet a frame may be lost: when the receiver's ring is full, or when a side begins
//! anew. Over its rate a guest loses nothing: its frames wait in the transmit ring.
//!
//! *Who may send what*: the back-end drops frames whose source address is not the interface's own. Frames of less than [`MIN_FRAME`] bytes
//! or more than the interface's `max_frame` are dropped too.
//!
//! *A side that lies*: a header whose slots are not all there, or with bits that mean nothing, closes the device.
//!
//! *Statistics*: the back-end writes what it counted to [`STATISTICS`], now and then, for the guest to read. It never reads them there.

use super::RINGS;
use crate::PAGE_SIZE;
use crate::ring::{self, Layout};
use core::mem::{offset_of, size_of};

/// Version of this protocol.
pub const VERSION: u32 = 1 << 16;
/// Bytes of a slot.
pub const SLOT: usize = 64;
/// Shortest frame: an Ethernet header. Frames are without checksum (FCS) and need no padding.
pub const MIN_FRAME: u32 = 14;
/// Smallest data area of both rings together, in pages.
pub const MIN_PAGES: u64 = 2;
/// Largest data area of both rings together, in pages.
pub const MAX_PAGES: u64 = 4096;
/// Pages before the rings' slots.
pub const CONTROL_PAGES: u64 = 1;

/// Offset of the [`Statistics`]: behind the control words of both rings. Written by the back-end.
pub const STATISTICS: usize = RINGS + 2 * ring::SLOTS;

/// Flags of an interface.
pub mod flag {
    /// The bridge has an uplink that is up.
    pub const UPLINK: u32 = 1 << 0;
}

/// What a network back-end adds to the [`super::Offer`], behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Interface {
    /// Its address.
    pub mac: [u8; 6],
    /// Largest payload of a frame (MTU), in bytes.
    pub mtu: u16,
    /// Largest frame, in bytes: `mtu`, an Ethernet header, and a VLAN tag.
    pub max_frame: u32,
    /// Bits of [`flag`].
    pub flags: u32,
    /// Zero.
    pub _reserved: [u32; 4],
}

/// What the back-end counted at an interface since it started; directions are the guest's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Statistics {
    /// Frames that the guest sent and that were passed on.
    pub sent: u64,
    /// Bytes of these.
    pub sent_bytes: u64,
    /// Frames that were put into the receive ring.
    pub received: u64,
    /// Bytes of these.
    pub received_bytes: u64,
    /// Sent frames that were dropped: too short, too long, or cut off inside what had to be looked at.
    pub bad_size: u64,
    /// Sent frames that were dropped: from an address that is not the interface's, in the frame or in its ARP message.
    pub spoofed: u64,
    /// Sent frames that were dropped: to an address that no bridge forwards (01:80:C2:00:00:00 to 0F).
    pub reserved: u64,
    /// Sent frames that were dropped: broadcasts and multicasts above the limit.
    pub limited: u64,
    /// Sent frames that were dropped: nobody has the address.
    pub unknown: u64,
    /// Frames for the guest that were dropped: its receive ring was full, or it was not there.
    pub no_room: u64,
    /// How often the transmit ring had to wait, since the guest was above its rate. Nothing is dropped then.
    pub waited: u64,
    /// Zero.
    pub _reserved: [u64; 5],
}

/// Bytes of [`Statistics`].
pub const STATISTICS_BYTES: usize = size_of::<Statistics>();

/// First bytes of a frame in a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FrameHeader {
    /// Bytes of the frame, without this header.
    pub bytes: u32,
    /// Zero.
    pub flags: u32,
    /// Zero.
    pub _reserved: u64,
}

/// Bytes of [`FrameHeader`].
pub const HEADER: usize = size_of::<FrameHeader>();

const _: () = assert!(size_of::<Interface>() == 32 && offset_of!(Interface, max_frame) == 8 && HEADER == 16);
const _: () = assert!(size_of::<Statistics>() == 128 && STATISTICS == 768);
const _: () = assert!(STATISTICS + STATISTICS_BYTES <= (CONTROL_PAGES * PAGE_SIZE) as usize);
const _: () = assert!(super::OFFER + size_of::<super::Offer>() + size_of::<Interface>() <= super::ACCEPT);

impl FrameHeader {
    /// Its bytes, as in the ring.
    pub fn to_bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        if let Some(low) = bytes.first_chunk_mut::<8>() {
            *low = (u64::from(self.bytes) | u64::from(self.flags) << 32).to_le_bytes();
        }
        bytes
    }

    /// Takes a header out of its bytes.
    pub fn from_bytes(bytes: &[u8; HEADER]) -> FrameHeader {
        let word = bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        let reserved = bytes.last_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        FrameHeader { bytes: word as u32, flags: (word >> 32) as u32, _reserved: reserved }
    }

    /// Takes the length out of the bytes of a header. `None` if bits are set that mean nothing.
    #[inline]
    pub fn length_of(bytes: &[u8; HEADER]) -> Option<u32> {
        let FrameHeader { bytes, flags, _reserved } = Self::from_bytes(bytes);
        (flags == 0 && _reserved == 0).then_some(bytes)
    }

    /// As [`FrameHeader::length_of`], of the header's two little-endian words.
    #[inline]
    pub fn length_of_words(first: u64, second: u64) -> Option<u32> {
        u32::try_from(first).ok().filter(|_| second == 0)
    }
}

impl Statistics {
    /// Its words, in the order of the fields.
    pub fn words(&self) -> [u64; STATISTICS_BYTES / 8] {
        let [a, b, c, d, e] = self._reserved;
        [
            self.sent,
            self.sent_bytes,
            self.received,
            self.received_bytes,
            self.bad_size,
            self.spoofed,
            self.reserved,
            self.limited,
            self.unknown,
            self.no_room,
            self.waited,
            a,
            b,
            c,
            d,
            e,
        ]
    }

    /// Makes it of its words.
    pub fn from_words(words: [u64; STATISTICS_BYTES / 8]) -> Statistics {
        let [sent, sent_bytes, received, received_bytes, bad_size, spoofed, reserved, limited, unknown, rest @ ..] =
            words;
        let [no_room, waited, _reserved @ ..] = rest;
        Statistics {
            sent,
            sent_bytes,
            received,
            received_bytes,
            bad_size,
            spoofed,
            reserved,
            limited,
            unknown,
            no_room,
            waited,
            _reserved,
        }
    }

    /// Frames that the guest sent and that were dropped.
    pub fn dropped(&self) -> u64 {
        [self.bad_size, self.spoofed, self.reserved, self.limited, self.unknown].into_iter().fold(0, u64::wrapping_add)
    }
}

/// Slots that a frame of so many bytes takes.
pub const fn slots_of(bytes: u32) -> u32 {
    (bytes as u64 + HEADER as u64).div_ceil(SLOT as u64) as u32
}

/// Where everything is in the window of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// From the guest: the front-end produces.
    pub transmit: Layout,
    /// To the guest: the back-end produces.
    pub receive: Layout,
}

/// The shape of a window with so many pages of data, in equal halves. `None` if that is out of range or no power of two.
pub const fn shape(data_pages: u64) -> Option<Shape> {
    if data_pages < MIN_PAGES || data_pages > MAX_PAGES || !data_pages.is_power_of_two() {
        return None;
    }
    let half = (data_pages / 2 * PAGE_SIZE) as usize;
    let data = (CONTROL_PAGES * PAGE_SIZE) as usize;
    let slots = (half / SLOT) as u32;
    let Some(transmit) = Layout::apart(RINGS, data, slots, SLOT) else { return None };
    let Some(receive) = Layout::apart(RINGS + ring::SLOTS, data + half, slots, SLOT) else { return None };
    Some(Shape { transmit, receive })
}

/// The shape of a window of so many bytes in all. `None` if there is none.
pub const fn shape_of_window(bytes: usize) -> Option<Shape> {
    let pages = bytes as u64 / PAGE_SIZE;
    if pages <= CONTROL_PAGES { None } else { shape(pages - CONTROL_PAGES) }
}

#[cfg(test)]
mod tests {
    use super::{FrameHeader, Statistics, shape, shape_of_window, slots_of};

    #[test]
    fn frames_take_whole_slots() {
        assert_eq!([slots_of(14), slots_of(48), slots_of(49), slots_of(64), slots_of(1514)], [1, 1, 2, 2, 24]);
        assert_eq!(slots_of(u32::MAX), (1 << 26) + 1);
        let header = FrameHeader { bytes: 1514, flags: 0, _reserved: 0 };
        assert_eq!(FrameHeader::from_bytes(&header.to_bytes()), header);
        assert_eq!(FrameHeader::length_of(&header.to_bytes()), Some(1514));
        for byte in 4..16 {
            let mut bytes = header.to_bytes();
            bytes[byte] = 1;
            assert_eq!(FrameHeader::length_of(&bytes), None);
        }
    }

    #[test]
    fn statistics_are_words() {
        let words = core::array::from_fn(|index| index as u64 + 1);
        let statistics = Statistics::from_words(words);
        assert_eq!((statistics.sent, statistics.no_room, statistics.waited), (1, 10, 11));
        assert_eq!(statistics.words(), words);
        assert_eq!(statistics.dropped(), 5 + 6 + 7 + 8 + 9);
    }

    #[test]
    fn both_rings_fit() {
        let shape = shape(32).unwrap();
        assert_eq!((shape.transmit.slots, shape.transmit.slot(0), shape.receive.slot(0)), (1024, 4096, 4096 + 65536));
        assert_eq!(shape_of_window(33 * 4096), Some(shape));
        assert_eq!(shape_of_window(32 * 4096), None);
        assert!(shape.transmit.offset + 128 <= shape.receive.offset);
    }
}
