//! Rings of frames whose other end writes anything: the switch with a guest that does, and a guest with a switch that does.
//!
//! The input is steps of four bytes. Between well-formed frames of both ends there are words and slots of the window that become something
//! else, also while the other end works on what it found before.

use core::sync::atomic::Ordering;
use core::time::Duration;
use portico_abi::channel::ChannelHeader;
use portico_abi::device::net::{FrameHeader, MAX_SEGMENTS, MIN_FRAME, Shape, VERSION, feature, frame, shape_of_window};
use portico_abi::device::{ACCEPT, OFFER, Offer, kind};
use portico_abi::{dt, ring};
use portico_net::offload::Cut;
use portico_net::switch::Reason;
use portico_net::traffic::{Traffic, Uplink};
use portico_net::vif::{Settings, Vif};
use portico_sdk::device::frames::{FrameReceiver, FrameSender, Head, Incoming, Span};
use portico_sdk::device::net::{Interface, NetError};
use portico_sdk::device::{DeviceError, Event, Link};
use portico_sdk::fake::Machine;
use portico_sdk::window::Window;
use portico_sdk::{dtb, time};
use std::mem::offset_of;
use std::sync::{Arc, Mutex, PoisonError};

/// Pages of a window: two rings of 64 slots, of which one frame may take 24.
const PAGES: usize = 3;
/// Most steps.
const STEPS: usize = 200;
/// Payload of a frame.
const MTU: u16 = 1500;
/// Longest frame.
const LONGEST: usize = MTU as usize + 18;
/// Longest frame that stands for segments: half of a ring.
const LARGEST: usize = 2048 - 16;
/// Turns in which the switch takes everything that there can be in rings so small.
const TURNS: usize = 64;
/// Lives after which an end that keeps to the protocol must be served.
const LIVES: usize = 3;
/// Type of the frames that are checked. (IEEE 802, "Local Experimental EtherTypes")
const KIND: [u8; 2] = [0x88, 0xb5];

/// The words of the header, of the negotiation and of the rings, at which ends look.
fn words(shape: &Shape) -> [usize; 21] {
    let (transmit, receive) = (shape.transmit.offset, shape.receive.offset);
    [
        offset_of!(ChannelHeader, state0),
        offset_of!(ChannelHeader, epoch0),
        offset_of!(ChannelHeader, seen0),
        offset_of!(ChannelHeader, state1),
        offset_of!(ChannelHeader, epoch1),
        offset_of!(ChannelHeader, seen1),
        OFFER + offset_of!(Offer, kind),
        OFFER + offset_of!(Offer, version),
        OFFER + offset_of!(Offer, refusal),
        // Address and MTU; longest frame.
        OFFER + size_of::<Offer>() + 4,
        OFFER + size_of::<Offer>() + 8,
        ACCEPT,
        ACCEPT + 8,
        transmit + ring::HEAD,
        transmit + ring::SPACE_EVENT,
        transmit + ring::TAIL,
        transmit + ring::DATA_EVENT,
        receive + ring::HEAD,
        receive + ring::SPACE_EVENT,
        receive + ring::TAIL,
        receive + ring::DATA_EVENT,
    ]
}

/// A window of which somebody writes any words.
struct Victim {
    window: Window,
    shape: Shape,
    /// What the manager and the back-end wrote once and for all: the beginning of the header, and the offer.
    header: [u64; 2],
    offer: [u64; 8],
}

impl Victim {
    fn new(link: &Link) -> Victim {
        let window = link.window();
        let Some(shape) = shape_of_window(window.len()) else { unreachable!("the window has a legal size") };
        Victim { window, shape, header: [0; 2], offer: [0; 8] }
    }

    /// Remembers what is there now, before anything is damaged.
    fn remember(&mut self) {
        self.header = core::array::from_fn(|at| self.window.load(at * 8).unwrap_or(0));
        self.offer = core::array::from_fn(|at| self.window.load(OFFER + at * 8).unwrap_or(0));
    }

    /// Writes again what nobody else would.
    fn mend(&self) {
        for (place, words) in [(0, &self.header[..]), (OFFER, &self.offer)] {
            for (at, word) in words.iter().enumerate() {
                let _ = self.window.store(place + at * 8, *word);
            }
        }
    }

    /// Changes a word: to a number, or by one.
    fn damage_word(&self, which: u8, value: u8, how: u8) {
        let words = words(&self.shape);
        let Some(word) = self.window.word(words[usize::from(which) % words.len()]) else { return };
        let small = u32::from(value.cast_signed().cast_unsigned());
        let old = word.load(Ordering::Relaxed);
        let signed = i32::from(value.cast_signed()).cast_unsigned();
        let new = match how % 5 {
            0 => small,
            1 => old.wrapping_add(signed),
            2 => small << 16,
            3 => signed,
            _ => old ^ 1 << (value % 32),
        };
        word.store(new, Ordering::Relaxed);
    }

    /// Changes what a slot begins with to a header, sane or not.
    fn damage_header(&self, slot: u8, value: u8, how: u8) {
        let ring = if how & 1 == 0 { self.shape.transmit } else { self.shape.receive };
        let bytes = u64::from(value) * if how & 2 == 0 { 1 } else { 16 };
        let flags = if how & 12 == 12 { u64::from(value % 16) << 32 } else { 0 };
        let at = ring.slot(u32::from(slot));
        let _ = self.window.store(at, bytes | flags);
        let _ = self.window.store(at + 8, u64::from(how & 48 == 48) << (value % 64));
    }

    /// Changes eight bytes anywhere.
    fn damage_bytes(&self, page: u8, slot: u8, value: u8) {
        let at = usize::from(page) % PAGES * 4096 + usize::from(slot) * 16 % 4096;
        let _ = self.window.store(at, u64::from(value).wrapping_mul(0x0101_0101_0101_0101));
    }
}

/// No network device.
enum NoUplink {}

impl Uplink for NoUplink {
    fn look_at(&mut self, _: &mut Incoming) -> bool {
        match *self {}
    }

    fn take(&mut self) {
        match *self {}
    }

    fn put(&mut self, _: &Head, _: &Span) {
        match *self {}
    }

    fn put_cut(&mut self, _: &Cut, _: usize) {
        match *self {}
    }

    fn publish(&mut self) {
        match *self {}
    }

    fn is_ready(&mut self) -> bool {
        match *self {}
    }

    fn longest(&self) -> usize {
        match *self {}
    }

    fn count_dropped(&mut self, _: Reason) {
        match *self {}
    }
}

/// Addresses of the guests; that of the last one nobody has.
fn mac(guest: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, guest % 4]
}

fn soon() -> u64 {
    time::deadline(Duration::from_secs(2))
}

/// A frame whose bytes follow from its first ones and its length.
fn frame(to: [u8; 6], from: [u8; 6], kind: [u8; 2], bytes: usize) -> Vec<u8> {
    let mut frame = [&to[..], &from, &kind].concat();
    frame.extend((frame.len()..bytes.max(MIN_FRAME as usize)).map(|at| content(at, bytes)));
    frame
}

fn content(at: usize, bytes: usize) -> u8 {
    (at * 7 + bytes) as u8
}

/// The switch, and three guests at it of which the first writes anything.
struct Bridge {
    machine: Machine,
    traffic: Arc<Mutex<Traffic<NoUplink>>>,
    guests: [Interface; 3],
    victim: Victim,
}

const NAMES: [&str; 3] = ["net0", "net1", "net2"];

impl Bridge {
    fn new() -> Bridge {
        let builder = NAMES.iter().fold(Machine::builder(), |builder, name| builder.device(dt::NET, name, PAGES));
        let machine = builder.start();
        let mut interfaces = Vec::new();
        for (guest, name) in (0..).zip(NAMES) {
            let Ok(link) = machine.back_end(name) else { unreachable!("the machine has it") };
            let settings = Settings { bridge: "lan", mac: mac(guest), mtu: MTU, rate: 0, burst: 0, has_uplink: false };
            interfaces.push((link, settings));
        }
        let mut victim = Victim::new(&interfaces[0].0);
        let refused = |number, error| panic!("{number}: {error:?}");
        let traffic = Arc::new(Mutex::new(Traffic::new(interfaces, None, refused)));
        let server = traffic.clone();
        machine.on_block(move || turn(&server));
        let guests = NAMES.map(|name| match open(name) {
            Ok(guest) => guest,
            Err(error) => panic!("{error:?}"),
        });
        victim.remember();
        Bridge { machine, traffic, guests, victim }
    }

    /// The guest that writes anything asks to be looked at: a notification is all that it takes.
    fn notify(&mut self) {
        if let Some(port) = self.guests[0].port() {
            let _ = port.notify();
        }
    }

    /// Begins another life of the first guest, as the manager does. Whether it is served: not if the last one left the number of this one's epoch behind.
    fn live_anew(&mut self) -> bool {
        if self.machine.replug(NAMES[0]).is_err() {
            unreachable!("the machine has it");
        }
        let mut traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        traffic.vifs().iter_mut().for_each(Vif::ports_have_changed);
        drop(traffic);
        let Ok(guest) = interface(NAMES[0]) else { unreachable!("it was there before") };
        self.guests[0] = guest;
        let sent = frame(mac(1), mac(0), KIND, 444);
        let c = self.guests[0].connect(soon());
        let d = self.guests[0].send(&sent, soon());
        if c.is_err() || d.is_err() {
            return false;
        }
        turn(&self.traffic);
        let mut buffer = [0; LONGEST];
        self.guests[1].receive(&mut buffer) == Ok(Some(sent.len())) && buffer[..sent.len()] == sent
    }

    /// Takes all frames of a guest that does what it should, and looks at them.
    fn drain(&mut self, guest: u8) {
        let mut buffer = [0xaa; LARGEST + 8];
        loop {
            let taken =
                self.guests[usize::from(guest)].receive_with(|frame| (frame.head.header(), frame.read(&mut buffer)));
            let (header, bytes) = match taken {
                Ok(Some(taken)) => taken,
                Ok(None) => return,
                Err(error) => panic!("guest {guest} lost the switch by another's doing: {error:?}"),
            };
            assert!((MIN_FRAME as usize..=LARGEST).contains(&bytes), "{bytes}");
            let frame = &buffer[..bytes];
            check_header(&header, frame, guest == 2);
            assert!(frame[..6] == mac(guest) || frame[0] & 1 == 1, "{frame:x?}");
            assert!(frame[..5] != [1, 0x80, 0xc2, 0, 0] || frame[5] > 15, "{frame:x?}");
            let from = frame[6..12].first_chunk().copied().unwrap_or_default();
            assert!((0..3).any(|other| other != guest && mac(other) == from), "spoofed: {frame:x?}");
            if frame[12..14] == [8, 6] {
                assert_eq!(frame[22..28], from, "spoofed ARP: {frame:x?}");
            }
            if from != mac(0) {
                assert!((14..bytes).all(|at| frame[at] == content(at, bytes)), "damaged: {frame:x?}");
            }
        }
    }
}

/// Opens an interface: the first and the last guest do themselves what others leave to them.
fn open(name: &'static str) -> Result<Interface, DeviceError> {
    let mut interface = interface(name)?;
    interface.connect(soon())?;
    Ok(interface)
}

fn interface(name: &str) -> Result<Interface, DeviceError> {
    let node = dtb::devices(dt::NET).find(|node| node.name == name).ok_or(DeviceError::NotFound)?;
    let mut interface = Interface::new(&node)?;
    if name != NAMES[1] {
        interface.take_features(feature::CHECKSUM | feature::SEGMENTS);
    }
    Ok(interface)
}

/// Whoever gets a frame can do what its header leaves to him, and only one who said so is left anything.
fn check_header(header: &FrameHeader, frame: &[u8], has_features: bool) {
    let FrameHeader { flags, checksum_start, checksum_offset, segment_bytes, header_bytes, .. } = *header;
    if flags == 0 {
        assert!(frame.len() <= LONGEST && header.words()[1] == 0, "{header:?}");
        return;
    }
    let is_segmented = flags != frame::PARTIAL;
    assert!(has_features && flags & frame::PARTIAL != 0 && flags < 8 && flags != 7, "{header:?}");
    assert!(frame[12..14] == [8, 0] || frame[12..14] == [0x86, 0xdd], "{frame:x?}");
    let (start, payload) = (usize::from(checksum_start), usize::from(header_bytes));
    assert!((34..=74).contains(&start) && start + usize::from(checksum_offset) + 2 <= frame.len(), "{header:?}");
    assert!(is_segmented || (frame.len() <= LONGEST && segment_bytes == 0 && header_bytes == 0), "{header:?}");
    if is_segmented {
        assert!(payload >= start + 20 && payload < frame.len() && segment_bytes > 0, "{header:?}");
        assert!((frame.len() - payload).div_ceil(usize::from(segment_bytes)) <= MAX_SEGMENTS as usize, "{header:?}");
        assert!(frame.len().min(payload + usize::from(segment_bytes)) <= LONGEST, "{header:?}");
    }
}

/// A frame of TCP or UDP that leaves something to others, or says so: the bits of `how` say what is wrong with it.
fn left(to: [u8; 6], value: u8, how: u8) -> (FrameHeader, Vec<u8>) {
    let (is_v6, is_udp) = (how & 1 != 0, how & 2 != 0);
    let mut made = [&to[..], &mac(0)].concat();
    let next = if is_udp { 17 } else { 6 };
    if is_v6 {
        made.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, next, 64]);
        made.extend([7; 32]);
    } else {
        made.extend([8, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, next, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    }
    let start = made.len();
    made.extend([1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x18, 1, 1, 0, 0, 0, 0]);
    made.extend((0..usize::from(value) * 8).map(|at| at as u8));
    let flag = if is_v6 { frame::TCP6 } else { frame::TCP4 };
    let is_segmented = how & 4 != 0;
    let mut header = FrameHeader {
        bytes: made.len() as u32,
        flags: frame::PARTIAL | if is_segmented { flag } else { 0 },
        checksum_start: start as u16,
        checksum_offset: if is_udp { 6 } else { 16 },
        segment_bytes: if is_segmented { u16::from(value) * 4 } else { 0 },
        header_bytes: if is_segmented { start as u16 + 20 } else { 0 },
    };
    match how >> 3 {
        1 => header.flags ^= 1 << (value % 3),
        2 => header.checksum_start ^= 1 << (value % 16),
        3 => header.checksum_offset ^= 1 << (value % 16),
        4 => header.segment_bytes ^= 1 << (value % 16),
        5 => header.header_bytes ^= 1 << (value % 16),
        6 => made[usize::from(value) % 64] ^= 1 << (value % 8),
        7 => made[start + 12] = value,
        _ => {}
    }
    (header, made)
}

/// Lets the switch do all that there is to do.
fn turn(traffic: &Mutex<Traffic<NoUplink>>) {
    let mut traffic = traffic.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..TURNS {
        if !traffic.turn(time::now_ns) {
            return;
        }
    }
    panic!("the switch does not come to rest");
}

/// What a guest can do to the switch: nothing to the others but to send them frames that are its own.
pub fn of_guest(bytes: &[u8]) {
    let mut bridge = Bridge::new();
    for step in bytes.chunks_exact(4).take(STEPS) {
        let [what, a, b, c] = [step[0], step[1], step[2], step[3]];
        match what % 12 {
            0 | 1 => bridge.victim.damage_word(a, b, c),
            2 => bridge.victim.damage_header(a, b, c),
            3 => bridge.victim.damage_bytes(a, b, c),
            4 => bridge.notify(),
            5 => turn(&bridge.traffic),
            // A frame of its own, or not: it says whose.
            6 => {
                let kind = [KIND, [8, 6], [0x81, 0], [0x88, 0xa8]][usize::from(c) % 4];
                let to = if c & 64 == 0 { mac(a) } else { [1, 0x80, 0xc2, 0, 0, a] };
                let made = frame(to, mac(c >> 2), kind, usize::from(b) * 6 + 14);
                // Whatever it did before may have cost it its connection.
                let _ = bridge.guests[0].try_send(&made);
                bridge.guests[0].publish();
            }
            7 => {
                let _ = bridge.guests[0].receive(&mut [0; LONGEST]);
            }
            10 | 11 => {
                let (header, made) = left([mac(1), mac(2), [0xff; 6], mac(3)][usize::from(a) % 4], b, c);
                let _ = bridge.guests[0].try_send_as(&header, |span| {
                    let _ = span.write(0, &made);
                });
                bridge.guests[0].publish();
            }
            8 => {
                let to = [mac(0), mac(2), [0xff; 6]][usize::from(a) % 3];
                let sent = bridge.guests[1].try_send(&frame(to, mac(1), KIND, (usize::from(b) * 6 + 14).min(LONGEST)));
                assert!(sent.is_ok(), "{sent:?}");
                bridge.guests[1].publish();
            }
            _ => (1..3).for_each(|guest| bridge.drain(guest)),
        }
    }
    bridge.notify();
    turn(&bridge.traffic);
    (1..3).for_each(|guest| bridge.drain(guest));
    assert_eq!([bridge.guests[1].lost(), bridge.guests[2].lost()], [0, 0]);
    // The others go on.
    let sent = frame(mac(2), mac(1), KIND, 333);
    assert_eq!(bridge.guests[1].send(&sent, soon()), Ok(()));
    turn(&bridge.traffic);
    let mut buffer = [0; LONGEST];
    assert_eq!(bridge.guests[2].receive(&mut buffer), Ok(Some(sent.len())));
    assert_eq!(buffer[..sent.len()], sent);
    // And so may its next life, when that is there again which it may have destroyed.
    bridge.victim.mend();
    let served = (0..LIVES).any(|_| bridge.live_anew());
    assert!(served, "the first guest is never served again");
}

/// What a switch can do to a guest: it gets no frames, or other ones, but never more than it has room for, and it goes on with the next switch.
pub fn of_service(bytes: &[u8]) {
    let machine = Machine::builder().device(dt::NET, NAMES[0], PAGES).start();
    let echo = Arc::new(Mutex::new(Echo::new(&machine)));
    let server = echo.clone();
    machine.on_block(move || step(&server));
    let Ok(mut guest) = open(NAMES[0]) else { unreachable!("nobody has lied yet") };
    let mut victim = Victim::new(&echo.lock().unwrap_or_else(PoisonError::into_inner).link);
    victim.remember();
    for what in bytes.chunks_exact(4).take(STEPS) {
        let [what, a, b, c] = [what[0], what[1], what[2], what[3]];
        match what % 10 {
            0 | 1 => victim.damage_word(a, b, c),
            2 => victim.damage_header(a, b, c),
            3 => victim.damage_bytes(a, b, c),
            4 => step(&echo),
            5 => may_fail(guest.try_send(&frame(mac(9), guest.mac(), KIND, usize::from(b) * 6 + 14)).map(drop)),
            6 => take(&mut guest, usize::from(a) * 8),
            7 => may_fail(guest.has_room(usize::from(b) << (c % 16)).map(drop).map_err(NetError::Device)),
            8 => may_fail(guest.wait(time::deadline(Duration::from_millis(2))).map_err(NetError::Device)),
            _ => may_fail(
                guest
                    .wait_for_room(usize::from(b) * 6, time::deadline(Duration::from_millis(2)))
                    .map_err(NetError::Device),
            ),
        }
        // What it believes can be: no frame is longer than the ring.
        let info = guest.info();
        assert!(
            info.max_large as usize <= 4096 - 16
                && info.max_frame as usize <= 4096 - 16
                && usize::from(guest.mtu()) <= LONGEST * 3
        );
    }
    // The next life of the service is one that keeps to the protocol.
    victim.mend();
    for _ in 0..LIVES {
        if machine.replug(NAMES[0]).is_err() {
            unreachable!("the machine has it");
        }
        *echo.lock().unwrap_or_else(PoisonError::into_inner) = Echo::new(&machine);
        if is_served(&mut guest) {
            return;
        }
    }
    panic!("the guest is never served again");
}

/// Whether a frame comes back. What the guest still believes of the last life it may lose first.
fn is_served(guest: &mut Interface) -> bool {
    let sent = frame(mac(9), mac(0), KIND, 777);
    let mut buffer = [0; LONGEST];
    for _ in 0..LIVES {
        let end = time::deadline(Duration::from_millis(300));
        if guest.connect(soon()).is_err() || guest.send(&sent, soon()).is_err() {
            continue;
        }
        while guest.wait(end).is_ok() {
            while let Ok(Some(bytes)) = guest.receive(&mut buffer) {
                if buffer.get(..bytes) == Some(&sent[..]) {
                    return true;
                }
            }
        }
    }
    false
}

/// Receives with room for so many bytes, and looks whether any were written behind it.
fn take(guest: &mut Interface, room: usize) {
    let mut buffer = [0xaa; 2048 + 8];
    if let Ok(Some(bytes)) = guest.receive(&mut buffer[..room]) {
        assert!(bytes <= 4096 - 16, "{bytes} bytes came out of a ring of 4096");
    }
    assert!(buffer[room..].iter().all(|byte| *byte == 0xaa));
}

/// Of a switch that lies a guest may be told that, and nothing else.
fn may_fail(result: Result<(), NetError>) {
    match result {
        Ok(()) | Err(NetError::Size) => {}
        Err(NetError::Device(DeviceError::TimedOut | DeviceError::Incompatible | DeviceError::Refused(_))) => {}
        Err(error) => panic!("{error:?}"),
    }
}

/// A switch of one guest: it sends everything back.
struct Echo {
    link: Link,
    rings: Option<(FrameReceiver, FrameSender)>,
}

impl Echo {
    fn new(machine: &Machine) -> Echo {
        let Ok(link) = machine.back_end(NAMES[0]) else { unreachable!("the machine has it") };
        let mut details = [0; 32];
        details[..6].copy_from_slice(&mac(0));
        details[6..8].copy_from_slice(&MTU.to_le_bytes());
        details[8..12].copy_from_slice(&(LONGEST as u32).to_le_bytes());
        details[16..20].copy_from_slice(&(LARGEST as u32).to_le_bytes());
        let features = feature::CHECKSUM | feature::SEGMENTS;
        link.offer(&Offer { kind: kind::NET, version: VERSION, features, ..Offer::default() }, &details);
        Echo { link, rings: None }
    }
}

fn step(echo: &Mutex<Echo>) {
    let mut echo = echo.lock().unwrap_or_else(PoisonError::into_inner);
    let Echo { link, rings } = &mut *echo;
    match link.step() {
        Event::Nothing | Event::Connected => {}
        Event::Lost => *rings = None,
        Event::Peer => {
            let window = link.window();
            let Some(shape) = shape_of_window(window.len()) else { unreachable!("the window has a legal size") };
            *rings = FrameReceiver::start(window, shape.transmit).zip(FrameSender::start(window, shape.receive));
            if let Some((receiver, _)) = rings {
                receiver.allow(7);
            }
            link.welcome();
        }
    }
    let Some((receiver, sender)) = rings else { return };
    // As many as there can be: its own words may have been damaged.
    for _ in 0..TURNS {
        let Ok(Some(frame)) = receiver.look() else { break };
        let _ = sender.forward(&frame.head, &frame.span);
        receiver.take(&frame.span);
    }
    if receiver.release() | sender.publish() {
        link.tell();
    }
    let _ = receiver.arm();
}
