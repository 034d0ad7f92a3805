use super::{Cut, ETHERNET, Offload};
use portico_abi::device::net::{FrameHeader, LARGE, SLOT, frame};
use portico_sdk::device::frames::{FrameReceiver, FrameSender, Incoming, Span};
use portico_sdk::fake;
use portico_sdk::window::Window;
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};

const PAGES: u64 = 64;

/// A frame of TCP or UDP, with a checksum of which only the pseudo-header's part is there.
#[derive(Clone, Debug)]
struct Made {
    bytes: Vec<u8>,
    start: usize,
    payload: usize,
    is_v6: bool,
    is_tcp: bool,
}

/// The one's complement sum by its definition.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    sum as u16
}

impl Made {
    fn new(is_v6: bool, is_tcp: bool, ip_options: usize, tcp_options: usize, payload: &[u8]) -> Made {
        let transport = if is_tcp { 20 + tcp_options } else { 8 };
        let length = transport + payload.len();
        let protocol = if is_tcp { 6 } else { 17 };
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0];
        if is_v6 {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            bytes.extend((length as u16).to_be_bytes());
            bytes.extend([protocol, 64]);
            bytes.extend((1..=32).map(|byte| byte * 7));
        } else {
            let header = 20 + ip_options;
            bytes.extend([8, 0, 0x40 | (header / 4) as u8, 0]);
            bytes.extend(((header + length) as u16).to_be_bytes());
            bytes.extend([0xff, 0xfe, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            bytes.extend(std::iter::repeat_n(1, ip_options));
            let check = !sum(&[&bytes[ETHERNET..]]);
            bytes[24..26].copy_from_slice(&check.to_be_bytes());
        }
        let start = bytes.len();
        if is_tcp {
            bytes.extend([0x12, 0x34, 0, 80, 0xff, 0xff, 0xff, 0, 0, 0, 0, 9]);
            // All flags are set.
            bytes.extend([(transport as u8 / 4) << 4, 0xff, 1, 2, 0, 0, 0, 7]);
            bytes.extend(std::iter::repeat_n(1, tcp_options));
        } else {
            bytes.extend([0x12, 0x34, 0, 53]);
            bytes.extend((length as u16).to_be_bytes());
            bytes.extend([0, 0]);
        }
        let end = bytes.len();
        bytes.extend(payload);
        Made { bytes, start, payload: end, is_v6, is_tcp }
    }

    fn header(&self, segment: u16) -> FrameHeader {
        let flag = if self.is_v6 { frame::TCP6 } else { frame::TCP4 };
        FrameHeader {
            bytes: self.bytes.len() as u32,
            flags: frame::PARTIAL | if segment > 0 { flag } else { 0 },
            checksum_start: self.start as u16,
            checksum_offset: if self.is_tcp { 16 } else { 6 },
            segment_bytes: segment,
            header_bytes: if segment > 0 { self.payload as u16 } else { 0 },
        }
    }
}

/// A ring in which frames come that have something left to do.
struct Ring {
    window: Window,
    sender: FrameSender,
    receiver: FrameReceiver,
    next: u32,
}

impl Ring {
    fn new() -> Ring {
        let layout = portico_abi::device::net::shape(PAGES).unwrap().transmit;
        let window = fake::window((PAGES as usize + 1) * 4096);
        let sender = FrameSender::start(window, layout).unwrap();
        let mut receiver = FrameReceiver::start(window, layout).unwrap();
        receiver.allow(frame::PARTIAL | frame::TCP4 | frame::TCP6);
        Ring { window, sender, receiver, next: 0 }
    }

    fn pass(&mut self, header: FrameHeader, bytes: &[u8]) -> Incoming {
        let span = self.sender.claim(bytes.len() as u32).unwrap().unwrap();
        span.write(0, bytes).unwrap();
        let at = portico_abi::device::net::shape(PAGES).unwrap().transmit.slot(self.next);
        self.window.store_words(at, header.words()).unwrap();
        self.next += (bytes.len() + 16).div_ceil(SLOT) as u32;
        let _ = self.sender.publish();
        let frame = self.receiver.look().unwrap().unwrap();
        self.receiver.take(&frame.span);
        let _ = self.receiver.release();
        frame
    }
}

fn read(frame: &Incoming) -> Option<Offload> {
    Offload::read(&frame.head, frame.span.len(), LARGE as usize)
}

/// What is made, by its bytes.
fn made(cut: &Cut) -> Vec<Vec<u8>> {
    let window = fake::window(65_600);
    (0..cut.count())
        .map(|index| {
            let span = Span::flat(window, 16, cut.length(index) as u32).unwrap();
            cut.make(index, &span).unwrap();
            let mut bytes = vec![0; span.len()];
            span.read(0, &mut bytes).unwrap();
            bytes
        })
        .collect()
}

/// Looks at all that a receiver of one frame looks at, and returns its payload.
fn check(frame: &[u8], whole: &Made) -> Vec<u8> {
    let (start, payload) = (whole.start, whole.payload);
    let length = ((frame.len() - start) as u16).to_be_bytes();
    let addresses = if whole.is_v6 {
        assert_eq!(frame[18..20], length);
        &frame[22..54]
    } else {
        assert_eq!(frame[16..18], ((frame.len() - ETHERNET) as u16).to_be_bytes());
        assert_eq!(sum(&[&frame[ETHERNET..start]]), 0xffff, "sum of the IP header");
        &frame[26..34]
    };
    let protocol = if whole.is_tcp { 6 } else { 17 };
    assert_eq!(sum(&[addresses, &[0, protocol], &length, &frame[start..]]), 0xffff, "sum of TCP or UDP");
    // What is not a segment's own is as it was.
    let mut same = frame[..payload].to_vec();
    let own: &[_] = if whole.is_v6 { &[(18, 20)] } else { &[(16, 20), (24, 26)] };
    let rest: &[_] = if whole.is_tcp { &[(4, 8), (13, 14), (16, 18)] } else { &[(6, 8)] };
    for (from, to) in own.iter().copied().chain(rest.iter().map(|(from, to)| (start + from, start + to))) {
        same[from..to].copy_from_slice(&whole.bytes[from..to]);
    }
    assert_eq!(same, whole.bytes[..payload]);
    frame[payload..].to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Segments are what a sender would have sent, for whatever headers, sizes and places in the ring.
    #[test]
    fn segments_are_right(is_v6 in any::<bool>(), ip in 0_usize..11, tcp in 0_usize..11, segment in 1_u16..1500, bytes in 1_usize..40_000, skew in 0_usize..60_000) {
        let bytes = bytes.min(usize::from(segment) * 64);
        let payload: Vec<u8> = (0..bytes as u32).map(|at| (at * 7 + at / 251) as u8).collect();
        let whole = Made::new(is_v6, true, ip * 4, tcp * 4, &payload);
        let mut ring = Ring::new();
        ring.pass(FrameHeader { bytes: skew as u32, ..FrameHeader::default() }, &vec![0; skew]);
        let frame = ring.pass(whole.header(segment), &whole.bytes);
        let offload = read(&frame).unwrap();
        let cut = Cut::new(&frame, &offload).unwrap();
        let frames = made(&cut);
        prop_assert_eq!(frames.len(), bytes.div_ceil(usize::from(segment)));
        prop_assert_eq!(frames.iter().map(Vec::len).max(), Some(offload.longest()));
        let mut joined = Vec::new();
        for (index, frame) in frames.iter().enumerate() {
            let tcp = &frame[whole.start..];
            let sequence = 0xffff_ff00_u32.wrapping_add(joined.len() as u32);
            prop_assert_eq!(&tcp[4..8], &sequence.to_be_bytes());
            let (is_first, is_last) = (index == 0, index + 1 == frames.len());
            let flags = if is_first { 0xff } else { 0x7f } & if is_last { 0xff } else { 0xf6 };
            prop_assert_eq!(tcp[13], flags);
            if !is_v6 {
                prop_assert_eq!(&frame[18..20], &0xfffe_u16.wrapping_add(index as u16).to_be_bytes());
            }
            joined.extend(check(frame, &whole));
        }
        prop_assert_eq!(joined, payload);
    }

    /// A frame that is one gets its checksum.
    #[test]
    fn checksums_are_right(is_v6 in any::<bool>(), is_tcp in any::<bool>(), ip in 0_usize..11, bytes in 0_usize..1400) {
        let payload: Vec<u8> = (0..bytes as u32).map(|at| (at * 11) as u8).collect();
        let whole = Made::new(is_v6, is_tcp, ip * 4, 0, &payload);
        let frame = Ring::new().pass(whole.header(0), &whole.bytes);
        let cut = Cut::new(&frame, &read(&frame).unwrap()).unwrap();
        let frames = made(&cut);
        prop_assert_eq!(frames.len(), 1);
        prop_assert_eq!(check(&frames[0], &whole), payload);
        prop_assert_eq!(&frames[0][..whole.start], &whole.bytes[..whole.start]);
    }

    /// Whatever a header and a frame say: what is made of it are few frames, none longer than was judged, from whom and to whom it was.
    #[test]
    fn lies_are_bounded(
        damage in proptest::collection::vec((0_usize..80, any::<u8>()), 0..6),
        header in proptest::collection::vec((0_usize..12, any::<u8>()), 0..4),
        segment in 0_u16..3000, bytes in 0_usize..9000, is_v6 in any::<bool>(), is_tcp in any::<bool>()
    ) {
        let mut whole = Made::new(is_v6, is_tcp, 0, 0, &vec![3; bytes]);
        let mut lie = whole.header(segment).to_bytes();
        for (at, byte) in header {
            lie[at + 4] = byte;
        }
        lie[4] &= 7;
        lie[5..8].fill(0);
        for (at, byte) in damage {
            if let Some(to) = whole.bytes.get_mut(at) {
                *to = byte;
            }
        }
        let words = [0, 8].map(|at| u64::from_le_bytes(*lie[at..].first_chunk().unwrap()));
        let mut lie = FrameHeader::from_words(words);
        if lie.flags == 0 {
            lie = FrameHeader { bytes: lie.bytes, ..FrameHeader::default() };
        }
        let frame = Ring::new().pass(lie, &whole.bytes);
        let Some(offload) = read(&frame) else { return Ok(()) };
        prop_assert!(offload.longest() <= whole.bytes.len() && offload.count() <= 64 && offload.count() > 0);
        let Some(cut) = Cut::new(&frame, &offload) else { return Ok(()) };
        for made in made(&cut) {
            prop_assert!(made.len() <= offload.longest());
            // Addresses, type, and addresses of IP: nothing that was judged is written over.
            prop_assert_eq!(&made[..ETHERNET], &whole.bytes[..ETHERNET]);
            prop_assert_eq!(&made[26..34], &whole.bytes[26..34]);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let whole = Made::new(false, true, 0, 12, &[5; 5000]);
    let good = whole.header(1000);
    let sane = |header: FrameHeader, bytes: &[u8]| read(&Ring::new().pass(header, bytes)).is_some();
    assert!(sane(good, &whole.bytes) && sane(whole.header(0), &whole.bytes));
    type Damage = fn(&mut FrameHeader);
    let wrong: [(&str, Damage); 12] = [
        ("no PARTIAL", |header| header.flags = frame::TCP4),
        ("the other IP", |header| header.flags = frame::PARTIAL | frame::TCP6),
        ("both", |header| header.flags |= frame::TCP6),
        ("start", |header| header.checksum_start += 2),
        ("start in the Ethernet header", |header| header.checksum_start = 0),
        ("offset", |header| header.checksum_offset = 6),
        ("offset behind the frame", |header| header.checksum_offset = 60_000),
        ("no segments", |header| header.segment_bytes = 0),
        ("too many segments", |header| header.segment_bytes = 78),
        ("headers too short", |header| header.header_bytes = 53),
        ("headers too long", |header| header.header_bytes = 95),
        ("segments without a flag", |header| header.flags = frame::PARTIAL),
    ];
    for (what, damage) in wrong {
        let mut header = good;
        damage(&mut header);
        assert!(!sane(header, &whole.bytes), "{what}");
    }
    let wrong: [(&str, usize, u8); 6] = [
        ("ARP", 13, 6),
        ("a VLAN tag", 12, 0x81),
        ("a fragment", 20, 0x20),
        ("the offset of one", 21, 1),
        ("another protocol", 23, 1),
        ("a longer IP header", 14, 0x46),
    ];
    for (what, at, byte) in wrong {
        let mut bytes = whole.bytes.clone();
        bytes[at] = byte;
        assert!(!sane(good, &bytes), "{what}");
    }
    // Shorter than its headers, and without payload.
    for bytes in [20, 40, 60, whole.payload] {
        let header = FrameHeader { bytes: bytes as u32, ..good };
        assert!(!sane(header, &whole.bytes[..bytes]), "{bytes}");
    }
    assert!(Offload::read(&Ring::new().pass(good, &whole.bytes).head, whole.bytes.len(), 5000).is_none(), "too long");
    // UDP has no segments.
    let udp = Made::new(false, false, 0, 0, &[5; 5000]);
    assert!(!sane(FrameHeader { header_bytes: 54, ..udp.header(1000) }, &udp.bytes));
    // The length that TCP says of its header is looked at when it matters.
    let mut bytes = whole.bytes.clone();
    bytes[whole.start + 12] = 0x50;
    let frame = Ring::new().pass(good, &bytes);
    assert!(Cut::new(&frame, &read(&frame).unwrap()).is_none());
}
