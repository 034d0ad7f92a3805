//! Receives, and judges what senders have left to do: by the rules of the ABI (section 11), written down here once more.

use core::time::Duration;

use portico_sdk::abi::device::net::{FrameHeader, MAX_SEGMENTS, feature, frame};
use portico_sdk::device::DeviceError;
use portico_sdk::device::frames::Incoming;
use portico_sdk::device::net::{Info, Interface};
use portico_sdk::{control, println, time};

use crate::talk::Failure;

const ETHERNET: usize = 14;
/// Bytes of a frame that are looked at.
const LOOKS_AT: usize = 2048;

/// Receives for ever. With `takes` it takes what was left to it, else it must see nothing of that. Says each second what has come, and at once what must not.
///
/// # Errors
/// If the interface fails.
pub fn check(takes: bool) -> Result<(), Failure> {
    let mut net = Interface::new(&portico_sdk::dtb::devices(portico_sdk::abi::dt::NET).next().ok_or(Failure::Role)?)?;
    net.take_features(if takes { feature::CHECKSUM | feature::SEGMENTS } else { 0 });
    net.connect(time::deadline(Duration::from_secs(20)))?;
    let info = net.info();
    println!("net0 is up, features {}", info.features);
    let (mut frames, mut left, mut wrong) = (0_u64, 0_u64, 0_u64);
    let mut bytes = [0; LOOKS_AT];
    loop {
        let deadline = time::deadline(Duration::from_millis(500));
        loop {
            let judged = net.receive_with(|incoming| {
                let header = incoming.head.header();
                (header, if takes { judge(&info, incoming) } else { whole(&info, incoming, &mut bytes) })
            })?;
            match judged {
                Some((header, complaint)) => {
                    frames += 1;
                    left += u64::from(header.flags != 0);
                    if let Some(complaint) = complaint {
                        wrong += 1;
                        if wrong <= 20 {
                            println!("NOTICED: {complaint}: {header:?}");
                        }
                    }
                }
                None => match net.wait(deadline) {
                    Ok(()) => {}
                    Err(DeviceError::TimedOut) => break,
                    Err(error) => return Err(error.into()),
                },
            }
            if time::passed(deadline) {
                break;
            }
        }
        control::heartbeat();
        println!("checked {frames} frames, {left} with something left, {wrong} wrong");
    }
}

/// What is wrong with a frame of which something may be left to do; only what its private copy says, which nobody changes.
fn judge(info: &Info, incoming: &Incoming) -> Option<&'static str> {
    let FrameHeader { bytes, flags, checksum_start, checksum_offset, segment_bytes, header_bytes } =
        incoming.head.header();
    let head = incoming.head.bytes();
    let bytes = bytes as usize;
    let start = usize::from(checksum_start);
    if flags == 0 {
        let is_plain = (checksum_start, checksum_offset, segment_bytes, header_bytes) == (0, 0, 0, 0);
        return (!is_plain || bytes > info.max_frame as usize).then_some("a plain frame says more, or is too long");
    }
    let segments = match flags {
        frame::PARTIAL => 0,
        flags if flags == frame::PARTIAL | frame::TCP4 => frame::TCP4,
        flags if flags == frame::PARTIAL | frame::TCP6 => frame::TCP6,
        _ => return Some("no such flags"),
    };
    let (ip_end, protocol, is_v6) = match head[12..14] {
        [8, 0] => {
            if head[14] >> 4 != 4 || head[14] & 0xf < 5 || head[20] & 0x3f != 0 || head[21] != 0 {
                return Some("no header of IPv4, or a fragment");
            }
            (ETHERNET + usize::from(head[14] & 0xf) * 4, head[23], false)
        }
        [0x86, 0xdd] if head[14] >> 4 == 6 => (ETHERNET + 40, head[20], true),
        _ => return Some("no IP"),
    };
    let (offset, least) = match protocol {
        6 => (16, 20),
        17 => (6, 8),
        _ => return Some("neither TCP nor UDP"),
    };
    if start != ip_end || checksum_offset != offset || start + least > bytes {
        return Some("the checksum is not there");
    }
    if segments == 0 {
        let is_one = segment_bytes == 0 && header_bytes == 0 && bytes <= info.max_frame as usize;
        return (!is_one).then_some("segments of one, or too long");
    }
    let (headers, segment) = (usize::from(header_bytes), usize::from(segment_bytes));
    if protocol != 6 || is_v6 != (segments == frame::TCP6) {
        return Some("segments of another protocol");
    }
    if headers < start + 20 || headers > start + 60 || headers >= bytes || segment == 0 {
        return Some("no headers, or no payload");
    }
    // Where its own header of TCP ends, if the copy goes so far.
    if head.get(start + 12).is_some_and(|length| start + usize::from(length >> 4) * 4 != headers) {
        return Some("the headers end elsewhere");
    }
    if bytes > info.max_large as usize
        || (bytes - headers).div_ceil(segment) > MAX_SEGMENTS as usize
        || bytes.min(headers + segment) > info.max_frame as usize
    {
        return Some("too long, or too many");
    }
    None
}

/// What is wrong with a frame of which nothing is left to do: it says something, is too long, or its checksum of TCP or UDP is not right.
fn whole(info: &Info, incoming: &Incoming, to: &mut [u8]) -> Option<&'static str> {
    let header = incoming.head.header();
    if header != (FrameHeader { bytes: header.bytes, ..FrameHeader::default() }) {
        return Some("something is left");
    }
    if header.bytes > info.max_frame || header.bytes as usize > to.len() {
        return Some("too long");
    }
    let count = incoming.read(to);
    let bytes = to.get(..count)?;
    if bytes.get(12..14) != Some(&[8, 0]) {
        return None;
    }
    let start = ETHERNET + usize::from(bytes.get(14)? & 0xf) * 4;
    let rest = bytes.get(start..).unwrap_or_default();
    let protocol = *bytes.get(23)?;
    let pseudo = sum(bytes.get(26..34)?) + u32::from(protocol) + rest.len() as u32;
    if matches!(protocol, 6 | 17) && fold(pseudo + sum(rest)) != 0xffff {
        return Some("the checksum is wrong");
    }
    None
}

/// The sum of 16-bit words; an odd byte counts as if a 0 followed. (RFC 1071)
pub fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from)).sum()
}

/// A sum as 16 bits.
pub fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}
