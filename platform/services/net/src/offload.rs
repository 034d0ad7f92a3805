//! What a sender left to others: the checksum of TCP or UDP, and to divide a frame into segments.
//!
//! [`Offload::read`] checks all that the frame's header says against the private copy of the frame's first bytes. To an interface that takes such frames the frame
//! goes as it is. For all others [`Cut`] does what was left: it copies the headers once more, privately, and makes each segment of them, with the
//! payload copied from window to window. (RFC 791, RFC 8200, RFC 9293, RFC 768, RFC 1071)
//!
//! Everything else that a segment says, addresses among it, is the frame's: what the switch judged is what is sent. That is why the
//! checksum may only be where a header of TCP or UDP has it: it is written into the frame after it was judged.

use portico_abi::device::net::{FrameHeader, MAX_SEGMENTS, feature, frame};
use portico_sdk::device::frames::{Head, Incoming, Span};

/// Bytes of an Ethernet header without tags; where the type is in it.
const ETHERNET: usize = 14;
const TYPE: usize = 12;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// In IPv4: total length, identification, flags and offset of fragments, protocol, checksum, addresses.
const V4_LENGTH: usize = ETHERNET + 2;
const V4_ID: usize = ETHERNET + 4;
const V4_FRAGMENT: usize = ETHERNET + 6;
const V4_PROTOCOL: usize = ETHERNET + 9;
const V4_CHECKSUM: usize = ETHERNET + 10;
const V4_ADDRESSES: usize = ETHERNET + 12;
/// More fragments, and the offset of this one.
const IS_FRAGMENT: u16 = 0x3fff;
/// In IPv6: length of the payload, next header, addresses; the header's end.
const V6_LENGTH: usize = ETHERNET + 4;
const V6_NEXT: usize = ETHERNET + 6;
const V6_ADDRESSES: usize = ETHERNET + 8;
const V6_END: usize = ETHERNET + 40;
/// Protocols.
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Headers of them without options, and the longest of TCP's.
const TCP_HEADER: usize = 20;
const TCP_LONGEST: usize = 60;
const UDP_HEADER: usize = 8;
/// In TCP: sequence number, length of the header, flags, checksum.
const TCP_SEQUENCE: usize = 4;
const TCP_LENGTH: usize = 12;
const TCP_FLAGS: usize = 13;
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
/// Flags of TCP: those that only the last segment has, and the one that only the first has. (RFC 3168)
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;
/// Longest headers: Ethernet, IPv4 and TCP with all options.
const LONGEST_HEADERS: usize = ETHERNET + 60 + TCP_LONGEST;

/// What is left to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offload {
    is_v6: bool,
    protocol: u8,
    /// Where the header of TCP or UDP begins, and where the payload does.
    start: usize,
    payload: usize,
    /// Length of the frame.
    bytes: usize,
    /// Payload of a segment; 0 if the frame is one.
    segment: usize,
}

impl Offload {
    /// Reads what is left to do with a frame of `bytes` bytes, from the private copy of its header and first bytes; `longest` is what frames that stand for
    /// segments may have. `None` if the header does not fit the frame.
    pub fn read(head: &Head, bytes: usize, longest: usize) -> Option<Offload> {
        let FrameHeader { flags, checksum_start, checksum_offset, segment_bytes, header_bytes, .. } = head.header();
        let start = usize::from(checksum_start);
        let frame = head.bytes();
        let (is_v6, protocol, ip_end) = match u16_at(frame, TYPE)? {
            IPV4 => {
                let first = *frame.get(ETHERNET)?;
                let length = usize::from(first & 0xf) * 4;
                if first >> 4 != 4 || length < 20 || u16_at(frame, V4_FRAGMENT)? & IS_FRAGMENT != 0 {
                    return None;
                }
                (false, *frame.get(V4_PROTOCOL)?, ETHERNET + length)
            }
            IPV6 if frame.get(ETHERNET)? >> 4 == 6 => (true, *frame.get(V6_NEXT)?, V6_END),
            _ => return None,
        };
        let (checksum, least) = match protocol {
            TCP => (TCP_CHECKSUM, TCP_HEADER),
            UDP => (UDP_CHECKSUM, UDP_HEADER),
            _ => return None,
        };
        if flags & frame::PARTIAL == 0
            || start != ip_end
            || usize::from(checksum_offset) != checksum
            || bytes < start + least
        {
            return None;
        }
        let plain = Offload { is_v6, protocol, start, payload: start + least, bytes, segment: 0 };
        match flags & !frame::PARTIAL {
            0 => (segment_bytes == 0 && header_bytes == 0).then_some(plain),
            flag if flag == if is_v6 { frame::TCP6 } else { frame::TCP4 } => {
                let (segment, payload) = (usize::from(segment_bytes), usize::from(header_bytes));
                let is_sane = protocol == TCP
                    && (start + TCP_HEADER..=start + TCP_LONGEST).contains(&payload)
                    && (payload + 1..=longest).contains(&bytes)
                    && segment > 0
                    && (bytes - payload).div_ceil(segment) <= MAX_SEGMENTS as usize;
                is_sane.then_some(Offload { payload, segment, ..plain })
            }
            _ => None,
        }
    }

    /// Whether the headers of a frame that goes as it is end where its header says: its header of TCP says so too. Where that is behind the private copy of the
    /// frame's beginning it can still change, and whoever gets the frame looks for itself.
    pub fn has_its_headers(&self, frame: &Incoming) -> bool {
        let at = self.start + TCP_LENGTH;
        let mut length = [0];
        let is_there = match frame.head.bytes().get(at) {
            Some(&copied) => {
                length = [copied];
                true
            }
            None => frame.span.read(at, &mut length).is_some(),
        };
        !self.has_segments() || is_there && self.start + usize::from(length[0] >> 4) * 4 == self.payload
    }

    /// Features that whoever gets the frame as it is must have taken.
    pub fn needs(&self) -> u64 {
        if self.has_segments() { feature::CHECKSUM | feature::SEGMENTS } else { feature::CHECKSUM }
    }

    /// Whether it stands for segments.
    pub fn has_segments(&self) -> bool {
        self.segment > 0
    }

    /// Length of the longest frame that becomes of it.
    pub fn longest(&self) -> usize {
        if self.has_segments() { self.bytes.min(self.payload + self.segment) } else { self.bytes }
    }

    /// How many frames become of it.
    pub fn count(&self) -> usize {
        if self.has_segments() { (self.bytes - self.payload).div_ceil(self.segment) } else { 1 }
    }
}

/// A frame of which others are made.
#[derive(Debug)]
pub struct Cut {
    offload: Offload,
    /// All headers, a private copy; of a frame that is one they may go on as payload.
    headers: [u8; LONGEST_HEADERS],
    from: Span,
}

impl Cut {
    /// Copies the headers. `None` if that of TCP has another length than the frame's header says.
    pub fn new(frame: &Incoming, offload: &Offload) -> Option<Cut> {
        let mut headers = [0; LONGEST_HEADERS];
        // What was judged comes from the copy that was judged.
        frame.read(headers.get_mut(..offload.payload)?);
        let length = usize::from(headers.get(offload.start + TCP_LENGTH)? >> 4) * 4;
        if offload.has_segments() && offload.start + length != offload.payload {
            return None;
        }
        Some(Cut { offload: *offload, headers, from: frame.span })
    }

    /// How many frames are made of it.
    pub fn count(&self) -> usize {
        self.offload.count()
    }

    /// Where the payload of one of them begins, and how long it is.
    fn payload(&self, index: usize) -> (usize, usize) {
        let Offload { payload, bytes, segment, .. } = self.offload;
        if segment == 0 {
            return (payload, bytes - payload);
        }
        let at = payload + index.min(self.count() - 1) * segment;
        (at, segment.min(bytes - at))
    }

    /// Length of one of them.
    pub fn length(&self, index: usize) -> usize {
        self.offload.payload + self.payload(index).1
    }

    /// Makes one of them in `to`. `None` if that has another length.
    pub fn make(&self, index: usize, to: &Span) -> Option<()> {
        let Offload { start, payload, .. } = self.offload;
        let (at, bytes) = self.payload(index);
        if to.len() != payload + bytes {
            return None;
        }
        self.from.copy_part(at, to, payload, bytes)?;
        let mut headers = self.headers;
        let headers = headers.get_mut(..payload)?;
        if self.offload.has_segments() {
            self.patch(headers, index, at, bytes)?;
        }
        let checksum = start + if self.offload.protocol == TCP { TCP_CHECKSUM } else { UDP_CHECKSUM };
        put_u16(headers, checksum, 0)?;
        let mut sum = u32::from(u16::from_be(to.sum(payload, bytes)?));
        // The headers are as long as an even number of bytes: what is behind them is where it was.
        sum += u32::from(sum_of(headers.get(start..)?));
        sum += u32::from(self.pseudo(headers, payload - start + bytes)?);
        // No checksum is 0: that means that there is none.
        put_u16(
            headers,
            checksum,
            match !fold(sum) {
                0 => u16::MAX,
                sum => sum,
            },
        )?;
        to.write(0, headers)
    }

    /// Makes the headers those of a segment.
    fn patch(&self, headers: &mut [u8], index: usize, at: usize, bytes: usize) -> Option<()> {
        let Offload { is_v6, start, payload, bytes: all, .. } = self.offload;
        if is_v6 {
            put_u16(headers, V6_LENGTH, u16::try_from(payload - V6_END + bytes).ok()?)?;
        } else {
            put_u16(headers, V4_LENGTH, u16::try_from(payload - ETHERNET + bytes).ok()?)?;
            let id = u16_at(headers, V4_ID)?.wrapping_add(index as u16);
            put_u16(headers, V4_ID, id)?;
            put_u16(headers, V4_CHECKSUM, 0)?;
            let sum = !sum_of(headers.get(ETHERNET..start)?);
            put_u16(headers, V4_CHECKSUM, sum)?;
        }
        let sequence: &mut [u8; 4] = headers.get_mut(start + TCP_SEQUENCE..)?.first_chunk_mut()?;
        *sequence = u32::from_be_bytes(*sequence).wrapping_add((at - payload) as u32).to_be_bytes();
        let flags = headers.get_mut(start + TCP_FLAGS)?;
        if at + bytes < all {
            *flags &= !FIN_PSH;
        }
        if index > 0 {
            *flags &= !CWR;
        }
        Some(())
    }

    /// The sum of the pseudo-header of so many bytes of TCP or UDP.
    fn pseudo(&self, headers: &[u8], bytes: usize) -> Option<u16> {
        let addresses = if self.offload.is_v6 {
            headers.get(V6_ADDRESSES..V6_END)?
        } else {
            headers.get(V4_ADDRESSES..V4_ADDRESSES + 8)?
        };
        Some(fold(u32::from(sum_of(addresses)) + u32::from(self.offload.protocol) + bytes as u32))
    }
}

/// The 16-bit number at `at`, big-endian as all in these headers.
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

fn put_u16(bytes: &mut [u8], at: usize, value: u16) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut()? = value.to_be_bytes();
    Some(())
}

/// The one's complement sum of big-endian 16-bit words.
fn sum_of(bytes: &[u8]) -> u16 {
    let (pairs, odd) = bytes.as_chunks();
    let sum: u32 = pairs.iter().map(|pair| u32::from(u16::from_be_bytes(*pair))).sum();
    fold(sum + odd.first().map_or(0, |byte| u32::from(*byte) << 8))
}

/// A sum of words as one word: 2^16 is 1.
fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests;
