//! Disks.
//!
//! A disk has one channel for each queue. The front-end puts a [`Request`] into the request ring and gets a [`Response`], in any order. A request moves
//! sectors between the disk and segments of the window's data area.
//!
//! *Order*: requests in flight at the same time may be done in any order. [`op::FLUSH`] is about those that were answered before it was put into the
//! ring, in whichever queue: when it is answered they are durable.
//!
//! *Limits*: a front-end has at most [`slots`] requests in flight; the back-end takes no more from the ring than it has room to answer. What is over
//! the disk's rate waits in the ring.
//!
//! *A front-end that lies*: a request whose fields make no sense is answered with [`status::INVALID`] and nothing is done; indices that make
//! no sense close the device. *A back-end that lies*: an answer to what was not asked closes the device.

use super::RINGS;
use crate::PAGE_SIZE;
use crate::ring::{self, Layout};
use core::mem::{offset_of, size_of};

/// Version of this protocol.
pub const VERSION: u32 = 1 << 16;
/// Bytes of a sector: the unit of `sector`, whatever the disk's own blocks are.
pub const SECTOR: u64 = 512;
/// Segments that a request holds itself.
pub const INLINE_SEGMENTS: usize = 5;
/// Most segments of a request.
pub const MAX_SEGMENTS: usize = 64;
/// Smallest data area, in pages.
pub const MIN_PAGES: u64 = 8;
/// Largest data area, in pages.
pub const MAX_PAGES: u64 = 4096;

/// Operations.
pub mod op {
    /// Reads into the segments.
    pub const READ: u8 = 0;
    /// Writes from the segments.
    pub const WRITE: u8 = 1;
    /// Makes everything durable that was answered before.
    pub const FLUSH: u8 = 2;
    /// Says that the sectors are not needed: what they hold is undefined afterwards. Needs `DISCARD`.
    pub const DISCARD: u8 = 3;
    /// Fills the sectors with zeros, without data. Needs `WRITE_ZEROES`.
    pub const WRITE_ZEROES: u8 = 4;
}

/// Features.
pub mod feature {
    /// [`super::op::DISCARD`].
    pub const DISCARD: u64 = 1 << 0;
    /// [`super::op::WRITE_ZEROES`].
    pub const WRITE_ZEROES: u64 = 1 << 1;
}

/// Flags of a disk.
pub mod flag {
    /// Writes are refused.
    pub const READ_ONLY: u32 = 1 << 0;
}

/// Status of a response.
pub mod status {
    /// Done.
    pub const OK: u32 = 0;
    /// The device failed.
    pub const IO: u32 = 1;
    /// The request makes no sense: reserved bits, segments outside the data area, lengths that are not whole sectors.
    pub const INVALID: u32 = 2;
    /// The operation is not offered.
    pub const UNSUPPORTED: u32 = 3;
    /// The disk is read-only.
    pub const READ_ONLY: u32 = 4;
    /// Beyond the end of the disk.
    pub const RANGE: u32 = 5;
}

/// What a disk's back-end adds to the [`super::Offer`], behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Disk {
    /// Size in sectors.
    pub sectors: u64,
    /// Bytes of the smallest piece that the device writes at once: 512 or 4096.
    pub block_bytes: u32,
    /// Bits of [`flag`].
    pub flags: u32,
    /// Most sectors of a read or write.
    pub max_sectors: u32,
    /// Most segments of a request, up to [`MAX_SEGMENTS`].
    pub max_segments: u32,
    /// Most sectors of a discard; 0 if it is not offered.
    pub max_discard: u32,
    /// Most sectors of a write-zeroes; 0 if it is not offered.
    pub max_zeroes: u32,
    /// Queues of this disk, each a channel.
    pub queues: u32,
    /// Which of them this is.
    pub queue: u32,
    /// Zero.
    pub _reserved: [u32; 6],
}

/// A piece of the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    /// Offset in the window, a multiple of [`SECTOR`], in the data area.
    pub offset: u32,
    /// Bytes, a multiple of [`SECTOR`], not 0.
    pub bytes: u32,
}

/// A request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Request {
    /// Comes back with the answer.
    pub id: u32,
    /// One of [`op`].
    pub op: u8,
    /// Zero.
    pub flags: u8,
    /// Number of segments: up to [`INLINE_SEGMENTS`] are in `segment`; if there are more, all of them are a table of [`Segment`]s in the data area.
    pub segments: u16,
    /// First sector.
    pub sector: u64,
    /// Number of sectors. For a read or write it is what the segments hold together.
    pub sectors: u32,
    /// Offset in the window of the table of segments, a multiple of 8, if there are more than [`INLINE_SEGMENTS`]; else 0.
    pub table: u32,
    /// Segments.
    pub segment: [Segment; INLINE_SEGMENTS],
}

/// An answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Response {
    /// `id` of the request.
    pub id: u32,
    /// One of [`status`].
    pub status: u32,
    /// Zero.
    pub _reserved: u64,
}

const _: () =
    assert!(size_of::<Request>() == 64 && offset_of!(Request, sector) == 8 && offset_of!(Request, segment) == 24);
const _: () = assert!(size_of::<Response>() == 16 && size_of::<Disk>() == 64 && size_of::<Segment>() == 8);
const _: () = assert!(super::OFFER + size_of::<super::Offer>() + size_of::<Disk>() <= super::ACCEPT);

impl Request {
    /// Its words, as in the ring, where each is little-endian.
    #[inline]
    pub const fn to_words(&self) -> [u64; 8] {
        let head = self.id as u64 | (self.op as u64) << 32 | (self.flags as u64) << 40 | (self.segments as u64) << 48;
        let rest = self.sectors as u64 | (self.table as u64) << 32;
        let [a, b, c, d, e] = self.segment;
        [head, self.sector, rest, a.to_word(), b.to_word(), c.to_word(), d.to_word(), e.to_word()]
    }

    /// Takes a request out of its words. Every pattern is one: whether it makes sense the reader checks.
    #[inline]
    pub const fn from_words(words: &[u64; 8]) -> Request {
        let [head, sector, rest, a, b, c, d, e] = *words;
        Request {
            id: head as u32,
            op: (head >> 32) as u8,
            flags: (head >> 40) as u8,
            segments: (head >> 48) as u16,
            sector,
            sectors: rest as u32,
            table: (rest >> 32) as u32,
            segment: [
                Segment::from_word(a),
                Segment::from_word(b),
                Segment::from_word(c),
                Segment::from_word(d),
                Segment::from_word(e),
            ],
        }
    }

    /// Its bytes, as in the ring.
    pub fn to_bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        for (to, word) in bytes.as_chunks_mut().0.iter_mut().zip(self.to_words()) {
            *to = word.to_le_bytes();
        }
        bytes
    }

    /// Takes a request out of its bytes, as [`Request::from_words`].
    pub fn from_bytes(bytes: &[u8; 64]) -> Request {
        let mut words = [0; 8];
        for (word, from) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*from);
        }
        Self::from_words(&words)
    }
}

impl Segment {
    /// From its 8 bytes as a little-endian number.
    pub const fn from_word(word: u64) -> Segment {
        Segment { offset: word as u32, bytes: (word >> 32) as u32 }
    }

    /// Its 8 bytes as a little-endian number.
    pub const fn to_word(self) -> u64 {
        self.offset as u64 | (self.bytes as u64) << 32
    }
}

impl Response {
    /// Its words, as in the ring, where each is little-endian.
    #[inline]
    pub const fn to_words(&self) -> [u64; 2] {
        [self.id as u64 | (self.status as u64) << 32, 0]
    }

    /// Takes an answer out of its words.
    #[inline]
    pub const fn from_words(words: &[u64; 2]) -> Response {
        Response { id: words[0] as u32, status: (words[0] >> 32) as u32, _reserved: 0 }
    }

    /// Its bytes, as in the ring.
    pub fn to_bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        if let Some(low) = bytes.first_chunk_mut::<8>() {
            *low = self.to_words()[0].to_le_bytes();
        }
        bytes
    }

    /// Takes an answer out of its bytes.
    pub fn from_bytes(bytes: &[u8; 16]) -> Response {
        Self::from_words(&[bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word)), 0])
    }
}

/// Where everything is in the window of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Requests: the front-end produces.
    pub requests: Layout,
    /// Responses: the back-end produces.
    pub responses: Layout,
    /// Offset of the data area.
    pub data: usize,
    /// Bytes of the data area.
    pub data_bytes: usize,
}

/// Slots of each ring, and most requests in flight, of a queue with so many pages of data.
pub const fn slots(data_pages: u64) -> u32 {
    let pages = if data_pages < MIN_PAGES { MIN_PAGES } else { data_pages };
    let slots = 1 << pages.ilog2();
    if slots > 256 { 256 } else { slots }
}

/// Pages before the data area: header, offer, rings.
pub const fn control_pages(data_pages: u64) -> u64 {
    let slots = slots(data_pages) as u64;
    let bytes = RINGS as u64 + 2 * ring::SLOTS as u64 + slots * (size_of::<Request>() + size_of::<Response>()) as u64;
    bytes.div_ceil(PAGE_SIZE)
}

/// The shape of a window with so many pages of data. `None` if that is out of range.
pub const fn shape(data_pages: u64) -> Option<Shape> {
    if data_pages < MIN_PAGES || data_pages > MAX_PAGES {
        return None;
    }
    let slots = slots(data_pages);
    let Some(requests) = Layout::new(RINGS, slots, size_of::<Request>()) else { return None };
    let Some(responses) = Layout::new(requests.end(), slots, size_of::<Response>()) else { return None };
    let data = (control_pages(data_pages) * PAGE_SIZE) as usize;
    Some(Shape { requests, responses, data, data_bytes: (data_pages * PAGE_SIZE) as usize })
}

/// The shape of a window of so many bytes in all. `None` if there is none.
pub const fn shape_of_window(bytes: usize) -> Option<Shape> {
    let pages = bytes as u64 / PAGE_SIZE;
    let mut control = control_pages(MIN_PAGES);
    while control < pages && control <= control_pages(MAX_PAGES) {
        if control_pages(pages - control) == control {
            return shape(pages - control);
        }
        control += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{MAX_PAGES, MIN_PAGES, Request, Response, Segment, control_pages, shape, shape_of_window, slots};

    #[test]
    fn shapes_fit_and_are_found_again() {
        for pages in MIN_PAGES..=MAX_PAGES {
            let shape = shape(pages).unwrap();
            assert!(shape.requests.end() <= shape.responses.offset && shape.responses.end() <= shape.data);
            let bytes = ((pages + control_pages(pages)) * 4096) as usize;
            assert_eq!(shape_of_window(bytes), Some(shape), "{pages} pages");
            assert_eq!(shape.data + shape.data_bytes, bytes);
        }
        assert_eq!((slots(64), control_pages(64)), (64, 2));
        assert_eq!(shape(7), None);
        assert_eq!(shape_of_window(4096), None);
    }

    #[test]
    fn bytes_hold_everything() {
        let segment = [1, 2, 3, 4, 5].map(|n| Segment { offset: n << 9, bytes: n << 12 });
        let request = Request { id: 7, op: 1, flags: 2, segments: 5, sector: 1 << 40, sectors: 9, table: 8, segment };
        assert_eq!(Request::from_bytes(&request.to_bytes()), request);
        let response = Response { id: 7, status: 5, _reserved: 0 };
        assert_eq!(Response::from_bytes(&response.to_bytes()), response);
    }
}
