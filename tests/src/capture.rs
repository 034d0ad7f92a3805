//! Looks whether captured frames are well-formed: lengths and checksums of ARP, IPv4, UDP and TCP.
//! (pcap file format; RFC 826, 791, 768, 9293)

use anyhow::{Context, Result, ensure};

/// What was in a capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// ARP messages.
    pub arp: usize,
    /// TCP segments.
    pub tcp: usize,
    /// UDP datagrams.
    pub udp: usize,
    /// Anything else.
    pub other: usize,
}

/// Bytes of the header of a file and of that of a frame.
const FILE: usize = 24;
const FRAME: usize = 16;

/// Checks every frame of a capture. What was being written when the machine was ended is passed over.
///
/// # Errors
/// The first frame that is wrong, and why.
pub fn check(file: &[u8]) -> Result<Counts> {
    ensure!(file.get(..4) == Some(&[0xd4, 0xc3, 0xb2, 0xa1]), "not a capture");
    let mut rest = file.get(FILE..).context("a capture without header")?;
    let mut counts = Counts::default();
    let mut number = 1;
    while let Some(header) = rest.get(..FRAME) {
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
        let (kept, length) = (word(8), word(12));
        let Some(frame) = rest.get(FRAME..FRAME + kept) else { break };
        ensure!(kept == length, "frame {number} was cut off");
        check_frame(frame, &mut counts).with_context(|| format!("frame {number}: {frame:02x?}"))?;
        rest = &rest[FRAME + kept..];
        number += 1;
    }
    Ok(counts)
}

fn check_frame(frame: &[u8], counts: &mut Counts) -> Result<()> {
    ensure!((14..=1514).contains(&frame.len()), "{} bytes", frame.len());
    ensure!(frame[6] & 1 == 0, "from a group");
    let payload = &frame[14..];
    match &frame[12..14] {
        [8, 0] => check_ipv4(payload, counts),
        [8, 6] => {
            counts.arp += 1;
            ensure!(payload.len() >= 28, "an ARP message of {} bytes", payload.len());
            ensure!(payload[..6] == [0, 1, 8, 0, 6, 4], "an ARP message, not for Ethernet and IPv4");
            ensure!(payload[8..14] == frame[6..12], "an ARP message from another than the frame");
            Ok(())
        }
        _ => {
            counts.other += 1;
            Ok(())
        }
    }
}

fn check_ipv4(packet: &[u8], counts: &mut Counts) -> Result<()> {
    ensure!(packet.len() >= 20 && packet[0] >> 4 == 4, "no IPv4 header");
    let (header, total) = (usize::from(packet[0] & 15) * 4, usize::from(u16::from_be_bytes([packet[2], packet[3]])));
    ensure!(header >= 20 && header <= total && total <= packet.len(), "lengths {header}, {total}, {}", packet.len());
    ensure!(sum(&packet[..header], 0) == 0xffff, "checksum of the IPv4 header");
    let (kind, body) = (packet[9], &packet[header..total]);
    // Addresses, protocol and length count in the checksums of what IPv4 carries.
    let pseudo = u32::from(kind) + body.len() as u32;
    let is_right = || sum(&[&packet[12..20], body].concat(), pseudo) == 0xffff;
    match kind {
        6 => {
            counts.tcp += 1;
            ensure!(body.len() >= 20 && usize::from(body[12] >> 4) * 4 <= body.len(), "TCP header");
            ensure!(is_right(), "checksum of TCP");
        }
        17 => {
            counts.udp += 1;
            ensure!(body.len() >= 8 && usize::from(u16::from_be_bytes([body[4], body[5]])) == body.len(), "UDP length");
            ensure!(body[6..8] == [0, 0] || is_right(), "checksum of UDP");
        }
        _ => counts.other += 1,
    }
    Ok(())
}

/// The sum of all pairs of bytes in ones' complement.
fn sum(bytes: &[u8], start: u32) -> u32 {
    let pair = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    let mut sum = bytes.chunks(2).map(pair).sum::<u32>() + start;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}
