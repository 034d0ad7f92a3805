//! Leaves to others what makes no sense: headers that do not fit their frames, headers that break the protocol, and headers that change while they are read.

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;

use portico_sdk::abi::device::net::{FrameHeader, MAX_SEGMENTS, Shape, feature, frame, shape_of_window};
use portico_sdk::abi::{dt, ring};
use portico_sdk::device::net::Interface;
use portico_sdk::window::Window;
use portico_sdk::{dtb, println, smp, time};
use test_kit::Random;

use crate::check::{fold, sum};
use crate::talk::{Failure, parse_mac};

/// Frames of each kind, to each peer.
const EACH: u64 = 10;
/// Headers of Ethernet, IPv4 and TCP.
const IP: usize = 14;
const TCP: usize = 34;
const HEADERS: usize = 54;
/// Payload of a good frame, and of its segments.
const PAYLOAD: usize = 3000;
const SEGMENT: u16 = 1000;
/// How long headers change while they are read.
const RACES: Duration = Duration::from_millis(1500);
/// How long the service may take to leave, and to come again.
const PATIENCE: Duration = Duration::from_secs(10);

static IS_RACING: AtomicU32 = AtomicU32::new(0);

/// The sender.
struct Twister {
    net: Interface,
    window: Window,
    shape: Shape,
    frame: [u8; HEADERS + PAYLOAD],
}

/// A good frame with segments, and its header.
fn good() -> FrameHeader {
    FrameHeader {
        bytes: (HEADERS + PAYLOAD) as u32,
        flags: frame::PARTIAL | frame::TCP4,
        checksum_start: TCP as u16,
        checksum_offset: 16,
        segment_bytes: SEGMENT,
        header_bytes: HEADERS as u16,
    }
}

/// One that is a single frame.
fn single() -> FrameHeader {
    FrameHeader { bytes: 1000, flags: frame::PARTIAL, segment_bytes: 0, header_bytes: 0, ..good() }
}

/// A header that does not fit, or a byte of the frame by which it does not: what is changed in the good ones.
type Twist = (fn() -> FrameHeader, Option<(usize, u8)>);

const TWISTS: [Twist; 24] = [
    // Where the checksum is: nowhere, in Ethernet's or IP's header, elsewhere in TCP's, behind the frame.
    (|| FrameHeader { checksum_start: 0, ..single() }, None),
    (|| FrameHeader { checksum_start: IP as u16, ..single() }, None),
    (|| FrameHeader { checksum_start: TCP as u16 + 2, ..single() }, None),
    (|| FrameHeader { checksum_start: 990, ..single() }, None),
    (|| FrameHeader { checksum_start: u16::MAX, ..single() }, None),
    (|| FrameHeader { checksum_offset: 14, ..single() }, None),
    (|| FrameHeader { checksum_offset: u16::MAX, ..single() }, None),
    (|| FrameHeader { checksum_offset: 6, ..single() }, None),
    // The frame ends before TCP's header does.
    (|| FrameHeader { bytes: HEADERS as u32 - 1, ..single() }, None),
    (|| FrameHeader { bytes: TCP as u32, ..single() }, None),
    // Segments without the flag; the flags of both, or without the checksum's.
    (|| FrameHeader { segment_bytes: SEGMENT, ..single() }, None),
    (|| FrameHeader { header_bytes: HEADERS as u16, ..single() }, None),
    (|| FrameHeader { flags: frame::PARTIAL | frame::TCP4 | frame::TCP6, ..good() }, None),
    (|| FrameHeader { flags: frame::TCP4, ..good() }, None),
    (|| FrameHeader { flags: frame::PARTIAL | frame::TCP6, ..good() }, None),
    // Sizes of segments and headers.
    (|| FrameHeader { segment_bytes: 0, ..good() }, None),
    (|| FrameHeader { segment_bytes: (PAYLOAD / (MAX_SEGMENTS as usize + 1)) as u16, ..good() }, None),
    (|| FrameHeader { header_bytes: HEADERS as u16 + 4, ..good() }, None),
    (|| FrameHeader { header_bytes: TCP as u16, ..good() }, None),
    (|| FrameHeader { header_bytes: u16::MAX, ..good() }, None),
    // A frame that is no IP, none of TCP or UDP, a fragment, or has a header of IP too short.
    (single, Some((13, 6))),
    (single, Some((IP + 9, 1))),
    (good, Some((IP + 6, 0x20))),
    (single, Some((IP, 0x44))),
];

/// Sends to the peers of `peer=` and `other=`: what does not fit, or with `breaks` what breaks the protocol and what changes while it is read.
///
/// # Errors
/// If the interface cannot be used again.
pub fn twist(breaks: bool) -> Result<(), Failure> {
    let mac = |name| dtb::bootarg(name).and_then(parse_mac).ok_or(Failure::Role);
    let peers = [mac("peer")?, mac("other")?];
    let node = dtb::devices(dt::NET).next().ok_or(Failure::Role)?;
    // SAFETY: the window is mapped for the life of the domain, and holds no Rust object.
    let window = unsafe { Window::new(node.window.base, node.window.len as usize) }.ok_or(Failure::Role)?;
    let shape = shape_of_window(window.len()).ok_or(Failure::Role)?;
    let mut net = Interface::new(&node)?;
    net.take_features(feature::CHECKSUM | feature::SEGMENTS);
    net.connect(time::deadline(PATIENCE))?;
    let mut twister = Twister { net, window, shape, frame: [0; HEADERS + PAYLOAD] };
    if !breaks {
        return twister.does_not_fit(&peers);
    }
    twister.breaks(&peers)?;
    twister.races(&peers)?;
    println!("twisting is done");
    Ok(())
}

impl Twister {
    /// Makes a frame for a peer: TCP over IPv4, with the checksum left.
    fn make(&mut self, peer: [u8; 6], bytes: usize) {
        let mac = self.net.mac();
        let out = &mut self.frame;
        for (at, byte) in out.iter_mut().enumerate() {
            *byte = at as u8;
        }
        out[..6].copy_from_slice(&peer);
        out[6..12].copy_from_slice(&mac);
        out[12..TCP].copy_from_slice(&[8, 0, 0x45, 0, 0, 0, 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        out[16..18].copy_from_slice(&(bytes.saturating_sub(IP) as u16).to_be_bytes());
        let checksum = !fold(sum(&out[IP..TCP]));
        out[24..26].copy_from_slice(&checksum.to_be_bytes());
        // 20 bytes of TCP, ACK.
        out[TCP + 12..TCP + 14].copy_from_slice(&[0x50, 0x10]);
        let pseudo = fold(sum(&out[26..TCP]) + 6 + bytes.saturating_sub(TCP) as u32);
        out[TCP + 16..TCP + 18].copy_from_slice(&pseudo.to_be_bytes());
    }

    fn send(&mut self, peer: [u8; 6], header: FrameHeader, change: Option<(usize, u8)>) -> Result<(), Failure> {
        self.make(peer, header.bytes as usize);
        if let Some((at, value)) = change {
            self.frame[at] = value;
        }
        let bytes = self.frame.get(..header.bytes as usize).ok_or(Failure::Role)?;
        while !self.net.try_send_as(&header, |span| {
            let _ = span.write(0, bytes);
        })? {
            self.net.wait_for_room(bytes.len(), time::deadline(PATIENCE))?;
        }
        self.net.publish();
        Ok(())
    }

    /// Headers that do not fit, each behind one that does.
    fn does_not_fit(&mut self, peers: &[[u8; 6]]) -> Result<(), Failure> {
        let mut wanted = 0;
        for _ in 0..EACH {
            for &peer in peers {
                self.send(peer, good(), None)?;
                self.send(peer, single(), None)?;
                for (header, change) in TWISTS {
                    self.send(peer, header(), change)?;
                    wanted += 1;
                }
            }
        }
        // Groups get no segments.
        self.send([0xff; 6], good(), None)?;
        wanted += 1;
        let end = time::deadline(PATIENCE);
        while self.net.statistics().bad_offload < wanted && !time::passed(end) {
            let _ = self.net.wait(time::deadline(Duration::from_millis(20)));
        }
        time::sleep(Duration::from_millis(100));
        let counts = self.net.statistics();
        println!("twisted {wanted}: {} refused, {} sent", counts.bad_offload, counts.sent);
        Ok(())
    }

    /// What breaks the protocol: the service leaves. Each is the first frame of a connection, so that its place is known.
    fn breaks(&mut self, peers: &[[u8; 6]]) -> Result<(), Failure> {
        let word = |bytes: u32, flags: u32| u64::from(bytes) | u64::from(flags) << 32;
        let slots = self.shape.transmit.slots;
        let lies = [
            // Flags that there are not.
            (word(100, 8), 0, 2),
            (word(100, 1 << 31), 0, 2),
            // Something behind no flags.
            (word(100, 0), 1, 2),
            (word(100, 0), 1 << 63, 2),
            // Longer than what is there: by a slot, than all there can be, than any ring, with a large frame's flags and without.
            (word(129, 0), 0, 2),
            (word(0xffff, 0), 0, 2),
            (word(0xffff, frame::PARTIAL | frame::TCP4), 0x0036_03e8_0010_0022, 9),
            (word(u32::MAX, 0), 0, 2),
            (word(u32::MAX, frame::PARTIAL), 0x0010_0022, slots),
            (word(slots * 64, 0), 0, slots),
            // More slots than there are.
            (word(100, 0), 0, slots + 1),
        ];
        let mut left = 0;
        for (first, second, head) in lies {
            self.make(*peers.first().ok_or(Failure::Role)?, 100);
            let slot = self.shape.transmit.slot(0);
            self.reconnect()?;
            let _ = (self.window.store(slot, first), self.window.store(slot + 8, second));
            let _ = self.window.write(slot + 16, &self.frame[..100]);
            let lost = self.net.lost();
            if let Some(word) = self.window.word(self.shape.transmit.offset + ring::HEAD) {
                word.store(head, Ordering::SeqCst);
            }
            left += u64::from(self.is_left(lost)?);
        }
        println!("broke {} times, was left {left} times", lies.len());
        // Whatever it was, the next connection is as good as any.
        self.reconnect()?;
        for &peer in peers {
            self.send(peer, single(), None)?;
        }
        Ok(())
    }

    /// Whether the service leaves now that it is told.
    fn is_left(&mut self, lost: u64) -> Result<bool, Failure> {
        if let Some(port) = self.net.port() {
            let _ = port.notify();
        }
        let limit = time::deadline(Duration::from_millis(500));
        let mut nothing = [0; 64];
        while self.net.lost() == lost && !time::passed(limit) {
            let _ = self.net.receive(&mut nothing)?;
            let _ = self.net.wait(time::deadline(Duration::from_millis(10)));
        }
        let is_left = self.net.lost() > lost;
        self.net.connect(time::deadline(PATIENCE))?;
        Ok(is_left)
    }

    /// Begins a new connection, by a lie that is always found: an index that is nowhere.
    fn reconnect(&mut self) -> Result<(), Failure> {
        if let Some(word) = self.window.word(self.shape.transmit.offset + ring::HEAD) {
            word.store(0x8000_0000, Ordering::SeqCst);
        }
        let lost = self.net.lost();
        self.is_left(lost).map(drop)
    }

    /// Another vCPU changes the headers between any two looks at them, among such as break nothing by themselves.
    fn races(&mut self, peers: &[[u8; 6]]) -> Result<(), Failure> {
        IS_RACING.store(1, Ordering::SeqCst);
        let racer = smp::start(1, race, self.window.address() as usize);
        let end = time::deadline(RACES);
        let mut count = 0_u64;
        while !time::passed(end) {
            for &peer in peers {
                self.send(peer, good(), None)?;
                self.send(peer, single(), None)?;
                count += 2;
            }
        }
        IS_RACING.store(0, Ordering::SeqCst);
        let refused = self.net.statistics().bad_offload;
        println!("raced with {count} frames, {refused} refused, {}", if racer.is_ok() { "two vCPUs" } else { "alone" });
        Ok(())
    }
}

/// What vCPU 1 does meanwhile.
fn race(address: usize) {
    let Some(node) = dtb::devices(dt::NET).next() else { return };
    // SAFETY: the address is the interface's window, which is mapped for the life of the domain, and holds no Rust object.
    let Some(window) = (unsafe { Window::new(address as u64, node.window.len as usize) }) else { return };
    let Some(shape) = shape_of_window(window.len()) else { return };
    let mut random = Random::new(3);
    while IS_RACING.load(Ordering::SeqCst) != 0 {
        let slot = shape.transmit.slot(random.next() as u32 % shape.transmit.slots);
        // Only of a slot that a header is in: the frame's bytes are at liberty anyway.
        let is_header =
            window.load(slot + 8).is_some_and(|second| matches!(second, 0x0010_0022 | 0x0036_03e8_0010_0022));
        if !is_header {
            continue;
        }
        let first = window.load(slot).unwrap_or_default();
        let bytes = first & 0xffff_ffff;
        for _ in 0..8 {
            let any = random.next();
            let flags = [frame::PARTIAL, frame::PARTIAL | frame::TCP4][any as usize % 2];
            let second = [0x0010_0022, 0x0036_03e8_0010_0022, 0x0036_03e8_0010_0026, 0x0054_ffff_0006_0022]
                [any as usize / 2 % 4];
            let _ = (window.store(slot, bytes | u64::from(flags) << 32), window.store(slot + 8, second));
            // The version and length of IP's header; its protocol.
            let _ = window.write(slot + 16 + IP, &[[0x45, 0x46, 0x65, 0x40][any as usize / 8 % 4]]);
            let _ = window.write(slot + 16 + IP + 9, &[[6, 17, 1, 6][any as usize / 32 % 4]]);
            let _ = window.write(slot + 16 + TCP + 12, &[[0x50, 0xf0][any as usize / 128 % 2]]);
        }
    }
}
