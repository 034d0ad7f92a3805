//! Moves frames between interfaces and the uplink.

use crate::switch::{Kind, Reason, Switch, Verdict};
use crate::vif::{Settings, Vif};
use alloc::vec::Vec;
use portico_sdk::device::frames::{Head, Incoming, Span};
use portico_sdk::device::{DeviceError, Link};
use portico_sdk::doorbell::Doorbell;

/// Copies that one interface may cause in a turn: nobody waits long behind another.
const COPIES_PER_TURN: usize = 32;
/// Bytes that are taken from one interface in a turn, and one frame.
const BYTES_PER_TURN: usize = 32 << 10;

/// The machine's network device.
pub trait Uplink {
    /// Sets `frame` to the next one that it received, if there is one.
    fn look_at(&mut self, frame: &mut Incoming) -> bool;
    /// Passes over the frame that was looked at.
    fn take(&mut self);
    /// Puts a frame into its queue. Without room it is lost.
    fn put(&mut self, head: &Head, span: &Span);
    /// Tells the device of what was put in and of the room that was made.
    fn publish(&mut self);
    /// Whether frames may have come since it was last empty.
    fn is_ready(&mut self) -> bool;
    /// Longest frame that it sends and receives.
    fn longest(&self) -> usize;
    /// Counts a frame that it received and that was dropped.
    fn count_dropped(&mut self, why: Reason);
}

/// All ports, and the switch between them.
#[derive(Debug)]
pub struct Traffic<U> {
    ports: Ports<U>,
    /// The frame that is looked at.
    frame: Incoming,
}

#[derive(Debug)]
struct Ports<U> {
    switch: Switch,
    vifs: Vec<Vif>,
    uplink: Option<U>,
    /// Ports to which something was put.
    dirty: Vec<u16>,
    bell: Doorbell,
}

impl<U: Uplink> Traffic<U> {
    /// Connects interfaces, each to its bridge, and the uplink to the bridge that is said to have it. Interfaces that cannot be used are told of
    /// to `refuse`, with their number; nothing ever comes from or goes to them.
    pub fn new(
        interfaces: Vec<(Link, Settings)>,
        uplink: Option<U>,
        mut refuse: impl FnMut(usize, DeviceError),
    ) -> Traffic<U> {
        let mut bridges: Vec<&str> = Vec::new();
        let mut ports = Vec::new();
        let mut vifs = Vec::new();
        let mut uplink_bridge = None;
        for (number, (link, settings)) in interfaces.into_iter().enumerate() {
            let vif = match Vif::new(number, link, &settings, uplink.is_some()) {
                Ok(vif) => vif,
                Err(error) => {
                    refuse(number, error);
                    continue;
                }
            };
            let bridge = bridges.iter().position(|name| *name == settings.bridge).unwrap_or_else(|| {
                bridges.push(settings.bridge);
                bridges.len() - 1
            }) as u16;
            if settings.has_uplink {
                uplink_bridge = Some(bridge);
            }
            ports.push((bridge, Kind::Station(settings.address()), settings.longest() as usize));
            vifs.push(vif);
        }
        if let Some(uplink) = &uplink {
            // One that no bridge has is on a bridge of its own.
            let bridge = uplink_bridge.unwrap_or(bridges.len() as u16);
            ports.push((bridge, Kind::Trunk, uplink.longest()));
        }
        let ports = Ports { switch: Switch::new(&ports), vifs, uplink, dirty: Vec::new(), bell: Doorbell::new() };
        Traffic { ports, frame: Incoming::default() }
    }

    /// The interfaces.
    pub fn vifs(&mut self) -> &mut [Vif] {
        &mut self.ports.vifs
    }

    /// What is owed: to be rung, or waited with, after each turn.
    pub fn bell(&mut self) -> &mut Doorbell {
        &mut self.ports.bell
    }

    /// The uplink.
    pub fn uplink(&mut self) -> Option<&mut U> {
        self.ports.uplink.as_mut()
    }

    /// Takes a bounded number of frames from each port. Returns whether there is more to do at once. The time, in nanoseconds, is asked
    /// where there are limits only.
    #[inline]
    pub fn turn(&mut self, now_ns: impl Fn() -> u64 + Copy) -> bool {
        let Traffic { ports, frame } = self;
        let mut has_more = false;
        for from in 0..ports.vifs.len() as u16 {
            if ports.vifs.get_mut(usize::from(from)).is_some_and(|vif| vif.is_ready(now_ns)) {
                has_more |= ports.serve(from, frame, now_ns);
            }
        }
        if ports.uplink.as_mut().is_some_and(Uplink::is_ready) {
            has_more |= ports.serve_uplink(frame, now_ns);
        }
        has_more
    }

    /// When it has to turn again though nobody notifies, in nanoseconds.
    pub fn due(&self) -> Option<u64> {
        self.ports.vifs.iter().filter_map(Vif::due).min()
    }
}

impl<U: Uplink> Ports<U> {
    fn serve(&mut self, from: u16, frame: &mut Incoming, now_ns: impl Fn() -> u64 + Copy) -> bool {
        let (mut copies, mut bytes) = (0, 0);
        while copies < COPIES_PER_TURN && bytes < BYTES_PER_TURN {
            let Some(vif) = self.vifs.get_mut(usize::from(from)) else { break };
            if !vif.look_at(frame) {
                break;
            }
            let verdict = self.switch.judge(from, &frame.head, frame.span.len(), now_ns);
            // Its slots stay the guest's frame until the end of the turn.
            vif.take(frame);
            match verdict {
                Verdict::Drop(why) => vif.count_dropped(why),
                _ => vif.count_sent(frame.span.len()),
            }
            let has_more = vif.has_more();
            copies += self.obey(verdict, from, frame).max(1);
            bytes += frame.span.len();
            // What came since the first look is found at the end of the turn.
            if !has_more {
                break;
            }
        }
        self.publish();
        self.vifs.get_mut(usize::from(from)).is_some_and(|vif| vif.end_turn(bytes, now_ns))
    }

    fn serve_uplink(&mut self, frame: &mut Incoming, now_ns: impl Fn() -> u64 + Copy) -> bool {
        let from = self.vifs.len() as u16;
        let mut copies = 0;
        let mut has_more = true;
        while copies < COPIES_PER_TURN {
            if !self.uplink.as_mut().is_some_and(|uplink| uplink.look_at(frame)) {
                has_more = false;
                break;
            }
            let verdict = self.switch.judge(from, &frame.head, frame.span.len(), now_ns);
            copies += self.obey(verdict, from, frame).max(1);
            if let Some(uplink) = &mut self.uplink {
                uplink.take();
                if let Verdict::Drop(why) = verdict {
                    uplink.count_dropped(why);
                }
            }
        }
        if let Some(uplink) = &mut self.uplink {
            uplink.publish();
        }
        self.publish();
        has_more
    }

    /// Copies a frame to where it goes. Returns how often.
    #[inline]
    fn obey(&mut self, verdict: Verdict, from: u16, frame: &Incoming) -> usize {
        let Ports { switch, vifs, uplink, dirty, .. } = self;
        let mut put = |to: u16| {
            match vifs.get_mut(usize::from(to)) {
                Some(vif) => vif.put(&frame.head, &frame.span),
                None => {
                    if let Some(uplink) = uplink {
                        uplink.put(&frame.head, &frame.span);
                    }
                }
            }
            if !dirty.contains(&to) {
                dirty.push(to);
            }
        };
        let others = match verdict {
            Verdict::Drop(_) => return 0,
            Verdict::Forward(to) => {
                put(to);
                return 1;
            }
            Verdict::Flood => switch.members(from),
            Verdict::FloodTrunks => switch.trunks(from),
        };
        others.iter().filter(|&&to| to != from).for_each(|&to| put(to));
        others.len()
    }

    /// Tells everyone of what was put into their rings; the last one is owed it.
    #[inline]
    fn publish(&mut self) {
        while let Some(port) = self.dirty.pop() {
            match self.vifs.get_mut(usize::from(port)) {
                Some(vif) => vif.publish(&mut self.bell),
                None => {
                    if let Some(uplink) = &mut self.uplink {
                        uplink.publish();
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BYTES_PER_TURN, COPIES_PER_TURN, Incoming, Traffic, Uplink};
    use crate::switch::Reason;
    use crate::vif::Settings;
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
        for round in 0..300 {
            net.send(0, &frame(mac(1), mac(0), 1514));
            net.send(0, &frame(mac(2), mac(0), 60 + round));
            assert_eq!(net.received(2).len(), 1);
        }
        let counts = *net.traffic.lock().unwrap().vifs()[1].counts();
        assert!(counts.no_room > 250 && counts.received + counts.no_room == 300, "{counts:?}");
        assert_eq!(net.received(1).len() as u64, counts.received);
        net.send(0, &frame(mac(1), mac(0), 1514));
        assert_eq!(net.received(1).len(), 1);
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
}
