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
                    if !offload.has_its_headers(frame) {
                        return Outcome::Dropped(Reason::Offload);
                    }
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
mod tests;
