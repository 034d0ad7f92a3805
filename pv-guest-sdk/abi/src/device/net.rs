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
//! *What a sender leaves to others*: with [`feature::CHECKSUM`] a frame of TCP or UDP may come without its checksum, and with [`feature::SEGMENTS`] a frame
//! may stand for many segments of one TCP stream. Both hold in both directions. Who takes neither never sees such a frame: the back-end computes and
//! divides for it.
//!
//! *A side that lies*: a header whose slots are not all there, or with bits that mean nothing, closes the device. What fits the frame is checked by both
//! sides: the back-end drops a frame whose header does not, and so does a front-end.
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

/// Features of an interface.
pub mod feature {
    /// Frames may have [`super::frame::PARTIAL`].
    pub const CHECKSUM: u64 = 1 << 0;
    /// Frames may have [`super::frame::TCP4`] or [`super::frame::TCP6`], and are then up to `max_large` bytes long. Not without `CHECKSUM`.
    pub const SEGMENTS: u64 = 1 << 1;
}

/// Flags of a frame: bits of [`FrameHeader::flags`].
pub mod frame {
    /// The checksum of TCP or UDP, `checksum_offset` behind `checksum_start`, is that of the pseudo-header alone; the rest, from `checksum_start`
    /// to the frame's end, is still to be added. The frame has no VLAN tag, and is IPv4 without fragments or IPv6 without extension headers.
    pub const PARTIAL: u32 = 1 << 0;
    /// Segments of TCP over IPv4 in one: `header_bytes` of headers, which each of them has, and `segment_bytes` of payload for each but
    /// the last. Only with `PARTIAL`.
    pub const TCP4: u32 = 1 << 1;
    /// As `TCP4`, over IPv6.
    pub const TCP6: u32 = 1 << 2;
}

/// Longest frame that stands for segments: an Ethernet header, and the longest IPv4 packet.
pub const LARGE: u32 = 14 + 65535;
/// Most segments that a frame stands for.
pub const MAX_SEGMENTS: u32 = 64;

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
    /// Largest frame that stands for segments, in bytes; 0 without [`feature::SEGMENTS`]. Never more than half of a ring holds.
    pub max_large: u32,
    /// Zero.
    pub _reserved: [u32; 3],
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
    /// Frames for the guest that were dropped: its receive ring was full, or it was not there, or they were longer than it takes.
    pub no_room: u64,
    /// How often the transmit ring had to wait, since the guest was above its rate. Nothing is dropped then.
    pub waited: u64,
    /// Sent frames that were dropped: the header does not fit the frame, or a group was to get segments.
    pub bad_offload: u64,
    /// How often the transmit ring had to wait, since the receiver's ring was full.
    pub held: u64,
    /// Zero.
    pub _reserved: [u64; 3],
}

/// Bytes of [`Statistics`].
pub const STATISTICS_BYTES: usize = size_of::<Statistics>();

/// First bytes of a frame in a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FrameHeader {
    /// Bytes of the frame, without this header.
    pub bytes: u32,
    /// Bits of [`frame`]. Without any, what follows is zero.
    pub flags: u32,
    /// With `PARTIAL`: where the header of TCP or UDP begins, from the frame's beginning.
    pub checksum_start: u16,
    /// With `PARTIAL`: where the checksum is, from there.
    pub checksum_offset: u16,
    /// With `TCP4` or `TCP6`: bytes of payload of each segment but the last; else zero.
    pub segment_bytes: u16,
    /// With `TCP4` or `TCP6`: bytes of all headers together; else zero.
    pub header_bytes: u16,
}

/// Bytes of [`FrameHeader`].
pub const HEADER: usize = size_of::<FrameHeader>();

const _: () = assert!(size_of::<Interface>() == 32 && offset_of!(Interface, max_frame) == 8 && HEADER == 16);
const _: () = assert!(offset_of!(Interface, max_large) == 16 && offset_of!(FrameHeader, checksum_start) == 8);
const _: () = assert!(size_of::<Statistics>() == 128 && STATISTICS == 768);
const _: () = assert!(STATISTICS + STATISTICS_BYTES <= (CONTROL_PAGES * PAGE_SIZE) as usize);
const _: () = assert!(super::OFFER + size_of::<super::Offer>() + size_of::<Interface>() <= super::ACCEPT);

impl FrameHeader {
    /// Its bytes, as in the ring.
    pub fn to_bytes(&self) -> [u8; HEADER] {
        let [first, second] = self.words();
        let mut bytes = [0; HEADER];
        if let Some(low) = bytes.first_chunk_mut::<8>() {
            *low = first.to_le_bytes();
        }
        if let Some(high) = bytes.last_chunk_mut::<8>() {
            *high = second.to_le_bytes();
        }
        bytes
    }

    /// Its two little-endian words.
    #[inline]
    pub const fn words(&self) -> [u64; 2] {
        let second = self.checksum_start as u64
            | (self.checksum_offset as u64) << 16
            | (self.segment_bytes as u64) << 32
            | (self.header_bytes as u64) << 48;
        [self.bytes as u64 | (self.flags as u64) << 32, second]
    }

    /// Takes a header out of its two words.
    #[inline]
    pub const fn from_words([first, second]: [u64; 2]) -> FrameHeader {
        FrameHeader {
            bytes: first as u32,
            flags: (first >> 32) as u32,
            checksum_start: second as u16,
            checksum_offset: (second >> 16) as u16,
            segment_bytes: (second >> 32) as u16,
            header_bytes: (second >> 48) as u16,
        }
    }

    /// Takes the length out of the two words of a header with no flags but these. `None` if it has others, or says something without a flag.
    #[inline]
    pub fn length_of_words(first: u64, second: u64, flags: u32) -> Option<u32> {
        let has = (first >> 32) as u32;
        (has & !flags == 0 && (has != 0 || second == 0)).then_some(first as u32)
    }
}

impl Statistics {
    /// Its words, in the order of the fields.
    pub fn words(&self) -> [u64; STATISTICS_BYTES / 8] {
        let [a, b, c] = self._reserved;
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
            self.bad_offload,
            self.held,
            a,
            b,
            c,
        ]
    }

    /// Makes it of its words.
    pub fn from_words(words: [u64; STATISTICS_BYTES / 8]) -> Statistics {
        let [sent, sent_bytes, received, received_bytes, bad_size, spoofed, reserved, limited, unknown, rest @ ..] =
            words;
        let [no_room, waited, bad_offload, held, _reserved @ ..] = rest;
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
            bad_offload,
            held,
            _reserved,
        }
    }

    /// Frames that the guest sent and that were dropped.
    pub fn dropped(&self) -> u64 {
        [self.bad_size, self.spoofed, self.reserved, self.limited, self.unknown, self.bad_offload]
            .into_iter()
            .fold(0, u64::wrapping_add)
    }
}

/// Flags that frames may have with these features.
pub const fn flags_of(features: u64) -> u32 {
    let checksum = if features & feature::CHECKSUM != 0 { frame::PARTIAL } else { 0 };
    let segments = if features & feature::SEGMENTS != 0 { frame::TCP4 | frame::TCP6 } else { 0 };
    checksum | segments
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
    use super::{FrameHeader, Statistics, frame, shape, shape_of_window, slots_of};

    #[test]
    fn frames_take_whole_slots() {
        assert_eq!([slots_of(14), slots_of(48), slots_of(49), slots_of(64), slots_of(1514)], [1, 1, 2, 2, 24]);
        assert_eq!(slots_of(u32::MAX), (1 << 26) + 1);
        let header = FrameHeader { bytes: 1514, ..FrameHeader::default() };
        assert_eq!(header.to_bytes(), [0xea, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let [first, second] = header.words();
        assert_eq!(FrameHeader::length_of_words(first, second, 0), Some(1514));
        for bit in 0..96 {
            let (first, second) =
                (first | 1_u64.unbounded_shl(32 + bit), second | 1_u64.unbounded_shl(bit.wrapping_sub(32)));
            assert_eq!(FrameHeader::length_of_words(first, second, 0), None);
            let is_known = bit < 3;
            assert_eq!(FrameHeader::length_of_words(first, second, 7), is_known.then_some(1514));
        }
    }

    #[test]
    fn headers_are_words() {
        let header = FrameHeader {
            bytes: 65_000,
            flags: frame::PARTIAL | frame::TCP4,
            checksum_start: 34,
            checksum_offset: 16,
            segment_bytes: 1448,
            header_bytes: 66,
        };
        assert_eq!(FrameHeader::from_words(header.words()), header);
        assert_eq!(header.to_bytes(), [0xe8, 0xfd, 0, 0, 3, 0, 0, 0, 34, 0, 16, 0, 0xa8, 5, 66, 0]);
    }

    #[test]
    fn statistics_are_words() {
        let words = core::array::from_fn(|index| index as u64 + 1);
        let statistics = Statistics::from_words(words);
        assert_eq!((statistics.sent, statistics.no_room, statistics.waited, statistics.held), (1, 10, 11, 13));
        assert_eq!(statistics.words(), words);
        assert_eq!(statistics.dropped(), 5 + 6 + 7 + 8 + 9 + 12);
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
