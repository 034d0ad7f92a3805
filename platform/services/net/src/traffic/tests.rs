//! Frames between guests of a fake machine.

use super::{BYTES_PER_TURN, COPIES_PER_TURN, Incoming, Traffic, Uplink};
use crate::offload::Cut;
use crate::switch::Reason;
use crate::vif::{PATIENCE_NS, Settings};
use portico_abi::device::net::FrameHeader;
use portico_abi::dt;
use portico_sdk::device::frames::{Head, Span};
use portico_sdk::device::net::Interface;
use portico_sdk::fake::{self, Machine};
use portico_sdk::time;
use portico_sdk::window::Window;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A network that remembers what was sent to it.
struct Outside {
    received: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    dropped: Vec<Reason>,
    buffer: Window,
}

impl Uplink for Outside {
    fn look_at(&mut self, frame: &mut Incoming) -> bool {
        let Some(next) = self.received.front() else { return false };
        self.buffer.write(16, next).unwrap();
        frame.set(Span::flat(self.buffer, 16, next.len() as u32).unwrap()).unwrap();
        true
    }

    fn take(&mut self) {
        self.received.pop_front();
    }

    fn put(&mut self, head: &Head, span: &Span) {
        let mut frame = vec![0; span.len()];
        Incoming { head: head.clone(), span: *span }.read(&mut frame);
        self.sent.push(frame);
    }

    fn put_cut(&mut self, cut: &Cut, index: usize) {
        let bytes = cut.length(index);
        let span = Span::flat(self.buffer, 2064, bytes as u32).unwrap();
        cut.make(index, &span).unwrap();
        let mut frame = vec![0; bytes];
        span.read(0, &mut frame).unwrap();
        self.sent.push(frame);
    }

    fn publish(&mut self) {}

    fn is_ready(&mut self) -> bool {
        !self.received.is_empty()
    }

    fn longest(&self) -> usize {
        1518
    }

    fn count_dropped(&mut self, why: Reason) {
        self.dropped.push(why);
    }
}

struct Net {
    machine: Machine,
    traffic: Arc<Mutex<Traffic<Outside>>>,
    guests: Vec<Interface>,
}

fn mac(last: usize) -> [u8; 6] {
    [2, 0, 0, 0, 0, last as u8]
}

fn soon() -> u64 {
    time::deadline(Duration::from_secs(1))
}

fn frame(to: [u8; 6], from: [u8; 6], bytes: usize) -> Vec<u8> {
    let mut frame = [&to[..], &from, &[0x88, 0xb5]].concat();
    frame.extend((0..bytes - 14).map(|byte| byte as u8));
    frame
}

/// A frame that stands for segments, with a payload of `bytes` bytes, and its header. `number` counts segments.
fn segments(to: [u8; 6], from: [u8; 6], segment: u16, bytes: usize, number: u32) -> (FrameHeader, Vec<u8>) {
    let mut frame = [&to[..], &from, &[8, 0, 0x45, 0]].concat();
    frame.extend(((bytes + 40) as u16).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 1, 2, 3, 4]);
    frame.extend((number * u32::from(segment)).to_be_bytes());
    frame.extend([0, 0, 0, 0, 0x50, 0x10, 1, 1, 0, 0, 0, 0]);
    frame.extend((0..bytes).map(|byte| byte as u8));
    let header = FrameHeader {
        bytes: frame.len() as u32,
        flags: 3,
        checksum_start: 34,
        checksum_offset: 16,
        segment_bytes: segment,
        header_bytes: 54,
    };
    (header, frame)
}

impl Net {
    /// Guests on a bridge each, as `bridges` says; the uplink is on `up`.
    fn new(bridges: &[&'static str], rates: &[u64]) -> Net {
        let names: Vec<String> = (0..bridges.len()).map(|index| format!("net{index}")).collect();
        let builder = names.iter().fold(Machine::builder(), |builder, name| builder.device(dt::NET, name, 17));
        let machine = builder.start();
        let interfaces = names.iter().enumerate().map(|(index, name)| {
            let rate = rates.get(index).copied().unwrap_or(0);
            let (bridge, has_uplink) = (bridges[index], bridges[index] == "up");
            let settings = Settings { bridge, mac: mac(index), mtu: 1500, rate, burst: 0, has_uplink };
            (machine.back_end(name).unwrap(), settings)
        });
        let buffer = fake::window(4096);
        let outside = Outside { received: VecDeque::new(), sent: vec![], dropped: vec![], buffer };
        let refused = |number, error| panic!("{number}: {error:?}");
        let traffic = Arc::new(Mutex::new(Traffic::new(interfaces.collect(), Some(outside), refused)));
        let server = traffic.clone();
        machine.on_block(move || while server.lock().unwrap().turn(time::now_ns) {});
        let guests = names.iter().map(|name| Interface::open(name, soon()).unwrap()).collect();
        Net { machine, traffic, guests }
    }

    fn send(&mut self, from: usize, frame: &[u8]) {
        self.guests[from].send(frame, soon()).unwrap();
        while self.turn() {}
    }

    /// Lets a guest take all features.
    fn offload(&mut self, guest: usize) {
        let name = format!("net{guest}");
        self.machine.replug(&name).unwrap();
        self.traffic.lock().unwrap().vifs().iter_mut().for_each(super::Vif::ports_have_changed);
        let node = portico_sdk::dtb::devices(dt::NET).find(|node| node.name == name).unwrap();
        self.guests[guest] = Interface::new(&node).unwrap();
        self.guests[guest].take_features(3);
        self.guests[guest].connect(soon()).unwrap();
    }

    /// Guest 0 sends a frame with something left to do.
    fn send_as(&mut self, header: &FrameHeader, frame: &[u8]) {
        assert!(self.guests[0].try_send_as(header, |span| span.write(0, frame).unwrap()).unwrap());
        self.guests[0].publish();
        while self.turn() {}
    }

    /// Turns until there is nothing to do, also for what waits.
    fn settle(&mut self) {
        while self.turn() {}
        let due = |net: &Net| net.traffic.lock().unwrap().due();
        while let Some(due) = due(self) {
            time::sleep_until(time::deadline(Duration::from_nanos(due.saturating_sub(time::now_ns()))));
            while self.turn() {}
        }
    }

    fn turn(&self) -> bool {
        self.traffic.lock().unwrap().turn(time::now_ns)
    }

    fn received(&mut self, guest: usize) -> Vec<Vec<u8>> {
        let mut buffer = [0; 2000];
        let mut frames = Vec::new();
        while let Some(bytes) = self.guests[guest].receive(&mut buffer).unwrap() {
            frames.push(buffer[..bytes].to_vec());
        }
        frames
    }

    fn sent_out(&self) -> Vec<Vec<u8>> {
        core::mem::take(&mut self.traffic.lock().unwrap().uplink().unwrap().sent)
    }
}

#[test]
fn frames_go_where_they_belong() {
    let mut net = Net::new(&["up", "up", "up", "other"], &[]);
    for bytes in [14, 48, 49, 60, 1514, 1518] {
        let sent = frame(mac(1), mac(0), bytes);
        net.send(0, &sent);
        assert_eq!(net.received(1), [sent]);
    }
    assert!([0, 2, 3].iter().all(|&guest| net.received(guest).is_empty()) && net.sent_out().is_empty());
    let everyone = frame([0xff; 6], mac(2), 100);
    net.send(2, &everyone);
    for guest in [0, 1] {
        assert_eq!(net.received(guest), core::slice::from_ref(&everyone));
    }
    assert_eq!((net.sent_out(), net.received(2).len(), net.received(3).len()), (vec![everyone], 0, 0));
    let far = frame([0x52; 6], mac(2), 100);
    net.send(2, &far);
    assert_eq!(net.sent_out(), [far]);
    net.send(3, &frame(mac(0), mac(3), 100));
    assert!(net.received(0).is_empty());
    let inward = frame(mac(1), [0x52; 6], 333);
    net.traffic.lock().unwrap().uplink().unwrap().received.push_back(inward.clone());
    net.turn();
    assert_eq!(net.received(1), [inward]);
    let counts = *net.traffic.lock().unwrap().vifs()[3].counts();
    assert_eq!((counts.unknown, counts.sent), (1, 0));
    assert!(net.machine.calls() > 0);
}

#[test]
fn what_is_forbidden_is_counted_and_shown() {
    let mut net = Net::new(&["up", "up"], &[]);
    net.send(0, &frame(mac(1), mac(1), 60));
    net.send(0, &frame(mac(1), [9; 6], 60));
    net.send(0, &frame([1, 0x80, 0xc2, 0, 0, 0], mac(0), 60));
    net.send(0, &frame(mac(1), mac(0), 60));
    for _ in 0..500 {
        net.send(0, &frame([0xff; 6], mac(0), 60));
    }
    let counters = net.traffic.lock().unwrap().vifs()[0].show().unwrap();
    let counts = net.guests[0].statistics();
    assert_eq!((counts.spoofed, counts.reserved), (2, 1));
    assert!(counts.limited > 300 && counts.sent + counts.limited == 501, "{counts:?}");
    assert_eq!((counters.requests, counters.failed), (counts.sent, counts.dropped()));
    assert_eq!(net.received(1).len() as u64, counts.sent);
    assert!(net.traffic.lock().unwrap().vifs()[0].show().is_none(), "nothing new");
}

#[test]
fn who_does_not_take_loses_alone() {
    let mut net = Net::new(&["up", "up", "up"], &[]);
    let begin = time::now_ns();
    for round in 0..300 {
        net.send(0, &frame(mac(1), mac(0), 1514));
        net.send(0, &frame(mac(2), mac(0), 60 + round));
        net.settle();
        assert_eq!(net.received(2).len(), 1);
    }
    let counts = *net.traffic.lock().unwrap().vifs()[1].counts();
    assert!(counts.no_room > 250 && counts.received + counts.no_room == 300, "{counts:?}");
    let held = net.traffic.lock().unwrap().vifs()[0].counts().held;
    let waited = time::now_ns() - begin;
    assert!((1..5).contains(&held) && (PATIENCE_NS..2 * PATIENCE_NS).contains(&waited), "{held} waits, {waited} ns");
    assert_eq!(net.received(1).len() as u64, counts.received);
    net.send(0, &frame(mac(1), mac(0), 1514));
    assert_eq!(net.received(1).len(), 1);
}

/// Who takes little by little costs a sender patience once for each half of the ring.
#[test]
fn who_takes_little_is_not_waited_for_again_and_again() {
    let mut net = Net::new(&["up", "up"], &[]);
    let begin = time::now_ns();
    let mut taken = 0;
    for _ in 0..2000 {
        net.send(0, &frame(mac(1), mac(0), 1514));
        net.settle();
        let mut buffer = [0; 2000];
        taken += net.guests[1].receive(&mut buffer).unwrap().map_or(0, |_| 1_u64);
        net.guests[1].arm().unwrap();
    }
    let (waited, counts) = (time::now_ns() - begin, *net.traffic.lock().unwrap().vifs()[1].counts());
    // It takes each frame at once and gives its room back, but is one ring behind.
    assert_eq!(counts.received + counts.no_room, 2000);
    assert!(waited <= (2 + taken / 10) * PATIENCE_NS, "{waited} ns, {taken} taken");
}

#[test]
fn nothing_is_lost_between_guests_that_are_served() {
    for is_large in [false, true] {
        let mut net = Net::new(&["up", "up", "up"], &[]);
        if is_large {
            net.offload(0);
        }
        // Two senders, of which neither starves the other, and one receiver that takes now and then.
        let (mut sent, mut got) = ([0_u32; 2], [0_u32; 2]);
        let mut largest = 0;
        for _ in 0..400 {
            for (from, sent) in [0, 2].into_iter().zip(&mut sent) {
                for _ in 0..20 {
                    let done = if is_large && from == 0 {
                        let (header, bytes) = segments(mac(1), mac(0), 1000, 13_000, *sent);
                        net.guests[0].try_send_as(&header, |span| span.write(0, &bytes).unwrap()).unwrap()
                    } else {
                        let mut frame = frame(mac(1), mac(from), 1514);
                        frame[14..18].copy_from_slice(&sent.to_le_bytes());
                        net.guests[from].try_send(&frame).unwrap()
                    };
                    *sent += u32::from(done) * if is_large && from == 0 { 13 } else { 1 };
                }
                net.guests[from].publish();
            }
            while net.turn() {}
            let before = got;
            for frame in net.received(1) {
                let from = usize::from(frame[11] == 2);
                if is_large && from == 0 {
                    assert_eq!(frame[38..42], (got[0] * 1000).to_be_bytes());
                } else {
                    assert_eq!(frame[14..18], got[from].to_le_bytes());
                }
                got[from] += 1;
            }
            largest = largest.max((got[0] - before[0]).max(got[1] - before[1]));
        }
        net.settle();
        while let frames = net.received(1)
            && !frames.is_empty()
        {
            frames.iter().for_each(|frame| got[usize::from(frame[11] == 2)] += 1);
            net.settle();
        }
        assert_eq!(sent, got);
        assert!(sent[0] > 1000 && sent[1] > 1000, "{sent:?}");
        let vifs = [0, 1, 2].map(|index| *net.traffic.lock().unwrap().vifs()[index].counts());
        assert!(vifs[0].held > 50 && vifs[2].held > 50 && vifs[1].no_room == 0, "{vifs:?}");
    }
}

#[test]
fn what_is_left_is_done_for_those_who_do_not() {
    let mut net = Net::new(&["up", "up", "up"], &[]);
    net.offload(0);
    net.offload(1);
    let info = net.guests[0].info();
    assert_eq!((info.features, info.max_large), (3, 16 * 1024 - 16));
    // To one who does it himself: as it is.
    let (header, bytes) = segments(mac(1), mac(0), 1400, 10_000, 0);
    net.send_as(&header, &bytes);
    let seen = net.guests[1].receive_with(|frame| {
        let mut got = vec![0; frame.span.len()];
        frame.read(&mut got);
        (frame.head.header(), got)
    });
    assert_eq!(seen.unwrap(), Some((header, bytes)));
    // To one who does not, and to the world: eight frames, with their checksums.
    for (to, is_up) in [(mac(2), false), ([0x52; 6], true)] {
        let (header, bytes) = segments(to, mac(0), 1400, 10_000, 0);
        net.send_as(&header, &bytes);
        let frames = if is_up { net.sent_out() } else { net.received(2) };
        assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [1454, 1454, 1454, 1454, 1454, 1454, 1454, 254]);
        let payload: Vec<u8> = frames.iter().flat_map(|frame| frame[54..].to_vec()).collect();
        assert_eq!(payload, bytes[54..]);
    }
    // To everyone: no segments, but a frame without checksum.
    let (header, bytes) = segments([0xff; 6], mac(0), 1400, 10_000, 0);
    net.send_as(&header, &bytes);
    let (mut header, bytes) = segments([0xff; 6], mac(0), 1400, 500, 0);
    (header.flags, header.segment_bytes, header.header_bytes) = (1, 0, 0);
    net.send_as(&header, &bytes);
    for frames in [net.received(1), net.received(2), net.sent_out()] {
        assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [554]);
    }
    // Of another, too long for this bridge, and what makes no sense.
    let (header, bytes) = segments(mac(1), mac(2), 1400, 10_000, 0);
    net.send_as(&header, &bytes);
    let (header, bytes) = segments(mac(1), mac(0), 1500, 10_000, 0);
    net.send_as(&header, &bytes);
    let (mut header, bytes) = segments(mac(1), mac(0), 1400, 10_000, 0);
    header.checksum_start = 12;
    net.send_as(&header, &bytes);
    assert!([1, 2].iter().all(|&guest| net.received(guest).is_empty()) && net.sent_out().is_empty());
    let counts = *net.traffic.lock().unwrap().vifs()[0].counts();
    assert_eq!((counts.sent, counts.spoofed, counts.bad_size, counts.bad_offload), (4, 1, 1, 2), "{counts:?}");
    assert_eq!((net.guests[0].lost(), net.guests[1].lost()), (0, 0));
}

#[test]
fn a_flood_takes_turns() {
    let mut net = Net::new(&["up", "up", "up"], &[]);
    let flood = frame(mac(2), mac(0), 60);
    while net.guests[0].try_send(&flood).unwrap() {}
    net.guests[0].publish();
    let own = frame(mac(2), mac(1), 77);
    net.guests[1].try_send(&own).unwrap();
    net.guests[1].publish();
    assert!(net.turn(), "there is more");
    let frames = net.received(2);
    let place = frames.iter().position(|frame| *frame == own).unwrap();
    assert!(place <= COPIES_PER_TURN && COPIES_PER_TURN * 1518 < 2 * BYTES_PER_TURN, "{place}");
}

#[test]
fn above_its_rate_a_guest_waits_and_loses_nothing() {
    let mut net = Net::new(&["up", "up"], &[100_000]);
    let begin = time::now_ns();
    let mut frames = 0;
    for number in 0..400 {
        let sent = frame(mac(1), mac(0), 1000 + number % 100);
        net.guests[0].send(&sent, time::deadline(Duration::from_secs(60))).unwrap();
        while net.guests[0].wait(time::deadline(Duration::from_millis(1))).is_ok() {}
        frames += net.received(1).len();
    }
    for _ in 0..10_000 {
        let _ = net.guests[0].wait(time::deadline(Duration::from_millis(1)));
        frames += net.received(1).len();
    }
    let counts = *net.traffic.lock().unwrap().vifs()[0].counts();
    let seconds = (time::now_ns() - begin) as f64 / 1e9;
    assert_eq!(frames, 400);
    assert!(counts.waited > 3 && counts.dropped() == 0, "{counts:?}");
    assert!(seconds > 4.0, "{seconds}");
}

#[test]
fn guests_come_and_go() {
    let mut net = Net::new(&["up", "up"], &[]);
    for life in 1..30 {
        // Frames in both directions when it dies.
        let _ = net.guests[0].try_send(&frame(mac(1), mac(0), 60 + life));
        let _ = net.guests[1].try_send(&frame(mac(0), mac(1), 60 + life));
        net.machine.replug("net1").unwrap();
        net.traffic.lock().unwrap().vifs().iter_mut().for_each(super::Vif::ports_have_changed);
        let node = portico_sdk::dtb::devices(dt::NET).find(|node| node.name == "net1").unwrap();
        net.guests[1] = Interface::new(&node).unwrap();
        net.guests[1].connect(soon()).unwrap();
        while net.turn() {}
        net.received(1);
        let sent = frame(mac(1), mac(0), 100 + life);
        net.send(0, &sent);
        // Before it may come what guest 0 had not published.
        assert_eq!(net.received(1).last(), Some(&sent));
        assert_eq!((net.guests[0].lost(), net.guests[1].lost()), (0, 0));
    }
}
