//! Moves frames between interfaces and the uplink.

use crate::offload::{Cut, Offload};
use crate::switch::{Kind, Reason, Switch, Verdict};
use crate::vif::{Hold, Room, Settings, Vif};
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
    /// Puts a frame into its queue that is made of another: number `index`. Without room it is lost.
    fn put_cut(&mut self, cut: &Cut, index: usize);
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
    /// Whose turn begins the next round.
    first: u16,
    /// There was an interface that has to be looked at again at some time.
    is_any_late: bool,
}

#[derive(Debug)]
struct Ports<U> {
    switch: Switch,
    vifs: Vec<Vif>,
    uplink: Option<U>,
    dirty: Dirty,
    bell: Doorbell,
}

/// Ports to which something was put: mostly one.
#[derive(Debug, Default)]
struct Dirty {
    one: Option<u16>,
    more: Vec<u16>,
}

impl Dirty {
    #[inline(always)]
    fn add(&mut self, port: u16) {
        match self.one {
            None => self.one = Some(port),
            Some(one) if one == port => {}
            Some(_) => self.add_more(port),
        }
    }

    #[inline(never)]
    fn add_more(&mut self, port: u16) {
        if !self.more.contains(&port) {
            self.more.push(port);
        }
    }

    #[inline]
    fn take(&mut self) -> Option<u16> {
        self.one.take().or_else(|| self.more.pop())
    }
}

/// What became of a guest's frame.
enum Outcome {
    /// It has gone, or was dropped; so many copies were made.
    Done(usize),
    /// It is dropped after all.
    Dropped(Reason),
    /// It waits.
    Held(Hold),
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
        let (dirty, bell) = (Dirty::default(), Doorbell::new());
        let ports = Ports { switch: Switch::new(&ports), vifs, uplink, dirty, bell };
        Traffic { ports, frame: Incoming::default(), first: 0, is_any_late: false }
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
        let Traffic { ports, frame, first, is_any_late } = self;
        let mut has_more = false;
        let mut from = *first;
        *is_any_late = false;
        for _ in 0..ports.vifs.len() {
            // One that has nothing to do waits for nothing either.
            if let Some(vif) = ports.vifs.get_mut(usize::from(from))
                && vif.is_awake()
            {
                let is_ready = vif.is_ready(now_ns);
                let hold = vif.held();
                if is_ready && hold.is_none_or(|hold| ports.is_over(&hold, now_ns)) {
                    has_more |= ports.serve(from, frame, now_ns);
                }
                let vif = ports.vifs.get(usize::from(from));
                if vif.is_some_and(|vif| vif.due().is_some()) {
                    *is_any_late = true;
                    // Who had to wait is the next to be served.
                    *first = from;
                }
            }
            from += 1;
            if usize::from(from) == ports.vifs.len() {
                from = 0;
            }
        }
        if ports.uplink.as_mut().is_some_and(Uplink::is_ready) {
            has_more |= ports.serve_uplink(frame, now_ns);
        }
        has_more
    }

    /// When it has to turn again though nobody notifies, in nanoseconds.
    #[inline]
    pub fn due(&self) -> Option<u64> {
        if self.is_any_late { self.ports.vifs.iter().filter_map(Vif::due).min() } else { None }
    }
}

impl<U: Uplink> Ports<U> {
    fn serve(&mut self, from: u16, frame: &mut Incoming, now_ns: impl Fn() -> u64 + Copy) -> bool {
        let (mut copies, mut bytes) = (0, 0);
        let mut hold = self.vifs.get_mut(usize::from(from)).and_then(Vif::let_go);
        while copies < COPIES_PER_TURN && bytes < BYTES_PER_TURN {
            let Some(vif) = self.vifs.get_mut(usize::from(from)) else { break };
            if !vif.look_at(frame) {
                break;
            }
            let length = frame.span.len();
            let outcome = if frame.head.is_plain() {
                match self.switch.judge(from, &frame.head, length, now_ns) {
                    // Nearly all.
                    Verdict::Forward(to) if self.put(to, frame) => Outcome::Done(1),
                    Verdict::Forward(to) => self.put_later(to, frame, now_ns),
                    verdict => self.obey(verdict, from, frame, now_ns),
                }
            } else {
                let large = vif.large();
                self.obey_offload(from, frame, large, hold.take(), now_ns)
            };
            let Some(vif) = self.vifs.get_mut(usize::from(from)) else { break };
            match outcome {
                Outcome::Held(hold) => {
                    vif.hold(hold);
                    break;
                }
                Outcome::Dropped(why) => {
                    vif.count_dropped(why);
                    copies += 1;
                }
                Outcome::Done(count) => {
                    vif.count_sent(length);
                    copies += count.max(1);
                }
            }
            vif.take(frame);
            bytes += length;
            // What came since the first look is found at the end of the turn.
            if !vif.has_more() {
                break;
            }
        }
        self.publish();
        self.vifs.get_mut(usize::from(from)).is_some_and(|vif| vif.end_turn(bytes, now_ns))
    }

    /// Whether what a frame waits for has come, or will not.
    #[cold]
    fn is_over(&mut self, hold: &Hold, now_ns: impl Fn() -> u64) -> bool {
        let receiver = self.vifs.get_mut(usize::from(hold.to));
        receiver.is_none_or(|vif| !matches!(vif.room(hold.bytes, now_ns()), Room::Until(_)))
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
            copies += self.spread(verdict, from, frame).max(1);
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

    /// Copies a guest's frame to where it goes.
    #[inline(never)]
    fn obey(&mut self, verdict: Verdict, from: u16, frame: &Incoming, now_ns: impl Fn() -> u64) -> Outcome {
        match verdict {
            Verdict::Drop(why) => Outcome::Dropped(why),
            Verdict::Forward(to) if self.put(to, frame) => Outcome::Done(1),
            Verdict::Forward(to) => self.put_later(to, frame, now_ns),
            _ => Outcome::Done(self.spread(verdict, from, frame)),
        }
    }

    /// Copies a frame to all to whom it goes, and who have room. Returns how often.
    fn spread(&mut self, verdict: Verdict, from: u16, frame: &Incoming) -> usize {
        if let Verdict::Forward(to) = verdict {
            self.put_or_lose(to, frame);
            return 1;
        }
        self.others(verdict, from, |ports, to| ports.put_or_lose(to, frame))
    }

    /// Does something with each port but `from` that a frame goes to. Returns how many there are.
    fn others(&mut self, verdict: Verdict, from: u16, mut with: impl FnMut(&mut Self, u16)) -> usize {
        let list = |ports: &Self| match verdict {
            Verdict::Flood => ports.switch.members(from).len(),
            Verdict::FloodTrunks => ports.switch.trunks(from).len(),
            Verdict::Drop(_) | Verdict::Forward(_) => 0,
        };
        let count = list(self);
        for index in 0..count {
            let list = if verdict == Verdict::Flood { self.switch.members(from) } else { self.switch.trunks(from) };
            if let Some(&to) = list.get(index).filter(|&&to| to != from) {
                with(self, to);
            }
        }
        count
    }

    /// Copies a frame to a port as it is. `false` if there is no room.
    #[inline]
    fn put(&mut self, to: u16, frame: &Incoming) -> bool {
        self.dirty.add(to);
        match self.vifs.get_mut(usize::from(to)) {
            Some(vif) => vif.put(frame),
            None => {
                if let Some(uplink) = &mut self.uplink {
                    uplink.put(&frame.head, &frame.span);
                }
                true
            }
        }
    }

    fn put_or_lose(&mut self, to: u16, frame: &Incoming) {
        if !self.put(to, frame) {
            self.lose(to, 1);
        }
    }

    /// As [`Ports::put`], for a guest that had no room: the frame waits, if it is worth it; else it is lost.
    #[cold]
    fn put_later(&mut self, to: u16, frame: &Incoming, now_ns: impl Fn() -> u64) -> Outcome {
        let bytes = frame.span.len() as u32;
        match self.room(to, bytes, now_ns()) {
            Room::Now => self.put_or_lose(to, frame),
            Room::Until(until_ns) => return Outcome::Held(Hold { to, bytes, done: 0, until_ns }),
            Room::Never => self.lose(to, 1),
        }
        Outcome::Done(1)
    }

    fn lose(&mut self, to: u16, frames: usize) {
        if let Some(vif) = self.vifs.get_mut(usize::from(to)) {
            vif.lose(frames);
        }
    }

    /// Publishes, and asks whether it is worth waiting for room in a guest's ring.
    #[cold]
    fn room(&mut self, to: u16, bytes: u32, now_ns: u64) -> Room {
        self.publish();
        self.vifs.get_mut(usize::from(to)).map_or(Room::Never, |vif| vif.room(bytes, now_ns))
    }

    /// Copies a guest's frame with something left to do to where it goes: as it is, or done. `hold` is what it waited for.
    fn obey_offload(
        &mut self,
        from: u16,
        frame: &Incoming,
        large: usize,
        hold: Option<Hold>,
        now_ns: impl Fn() -> u64 + Copy,
    ) -> Outcome {
        let Some(offload) = Offload::read(&frame.head, frame.span.len(), large) else {
            return Outcome::Dropped(Reason::Offload);
        };
        // What is longest of what becomes of it is what may be too long.
        let verdict = self.switch.judge(from, &frame.head, offload.longest(), now_ns);
        match verdict {
            Verdict::Drop(why) => Outcome::Dropped(why),
            Verdict::Forward(to) => {
                if self.vifs.get(usize::from(to)).is_some_and(|vif| vif.does(&offload, frame.span.len())) {
                    return self.obey(verdict, from, frame, now_ns);
                }
                let Some(cut) = Cut::new(frame, &offload) else { return Outcome::Dropped(Reason::Offload) };
                let first = hold.filter(|hold| hold.to == to).map_or(0, |hold| hold.done);
                match self.put_cut(to, &cut, first, now_ns) {
                    Some(hold) => Outcome::Held(hold),
                    None => Outcome::Done(cut.count()),
                }
            }
            // One frame would become many for everyone.
            Verdict::Flood if offload.has_segments() => Outcome::Dropped(Reason::Offload),
            Verdict::Flood | Verdict::FloodTrunks => {
                let Some(cut) = Cut::new(frame, &offload) else { return Outcome::Dropped(Reason::Offload) };
                let ports = self.others(verdict, from, |ports, to| ports.put_cut_or_lose(to, &cut));
                Outcome::Done(ports * cut.count())
            }
        }
    }

    /// Makes frames of one, from number `first` on, at a port. What to wait for, if that is worth it; else what has no room is lost.
    fn put_cut(&mut self, to: u16, cut: &Cut, first: usize, now_ns: impl Fn() -> u64) -> Option<Hold> {
        let mut next = first;
        loop {
            self.dirty.add(to);
            let Some(vif) = self.vifs.get_mut(usize::from(to)) else {
                self.put_cut_or_lose(to, cut);
                return None;
            };
            next = vif.put_cut(cut, next);
            if next >= cut.count() {
                return None;
            }
            let bytes = cut.length(next) as u32;
            match self.room(to, bytes, now_ns()) {
                // For one more at least.
                Room::Now => {}
                Room::Until(until_ns) => return Some(Hold { to, bytes, done: next, until_ns }),
                Room::Never => {
                    self.lose(to, cut.count() - next);
                    return None;
                }
            }
        }
    }

    fn put_cut_or_lose(&mut self, to: u16, cut: &Cut) {
        self.dirty.add(to);
        if let Some(vif) = self.vifs.get_mut(usize::from(to)) {
            let next = vif.put_cut(cut, 0);
            vif.lose(cut.count() - next);
        } else if let Some(uplink) = &mut self.uplink {
            (0..cut.count()).for_each(|index| uplink.put_cut(cut, index));
        }
    }

    /// Tells everyone of what was put into their rings; the last one is owed it.
    #[inline]
    fn publish(&mut self) {
        while let Some(port) = self.dirty.take() {
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
        assert!(
            (1..5).contains(&held) && (PATIENCE_NS..2 * PATIENCE_NS).contains(&waited),
            "{held} waits, {waited} ns"
        );
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
            assert_eq!(
                frames.iter().map(Vec::len).collect::<Vec<_>>(),
                [1454, 1454, 1454, 1454, 1454, 1454, 1454, 254]
            );
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
}
