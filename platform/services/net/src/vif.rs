//! The back-end of one guest's interface.

use crate::header::Mac;
use crate::offload::{Cut, Offload};
use crate::switch::Reason;
use portico_abi::device::control::Counters;
use portico_abi::device::net::{
    Interface as Details, LARGE, STATISTICS, Shape, Statistics, VERSION, feature, flag, flags_of, shape_of_window,
};
use portico_abi::device::{Offer, kind, refusal};
use portico_abi::dt::service as property;
use portico_sdk::device::frames::{FrameReceiver, FrameSender, Incoming, half_capacity};
use portico_sdk::device::{DeviceError, Event, Link};
use portico_sdk::doorbell::Doorbell;
use portico_sdk::dtb::DeviceNode;
use portico_service::limit::Limit;

/// Bytes of a frame besides its payload: an Ethernet header, and a VLAN tag.
const OVERHEAD: u32 = 18;
/// Features that are offered.
const FEATURES: u64 = feature::CHECKSUM | feature::SEGMENTS;
/// How long senders wait for room in a guest's ring, in nanoseconds: long enough for a guest that has to wait for its processor.
pub const PATIENCE_NS: u64 = 10_000_000;
/// Payload of a frame where nothing is said.
const DEFAULT_MTU: u16 = 1500;

/// What the description says of an interface.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Name of its bridge.
    pub bridge: &'static str,
    /// Its address.
    pub mac: [u8; 6],
    /// Largest payload of a frame.
    pub mtu: u16,
    /// Bytes a second that the guest may send; 0 for no limit.
    pub rate: u64,
    /// Bytes that may exceed the rate at once.
    pub burst: u64,
    /// Its bridge has the uplink.
    pub has_uplink: bool,
}

impl Settings {
    /// Reads them from the node of the interface. `None` if it has no address.
    pub fn read(node: &DeviceNode) -> Option<Settings> {
        let number = |name| node.number(name);
        Some(Settings {
            bridge: node.text(property::BRIDGE).unwrap_or(""),
            mac: *node.bytes(property::MAC)?.first_chunk()?,
            mtu: number(property::MTU).and_then(|mtu| u16::try_from(mtu).ok()).unwrap_or(DEFAULT_MTU),
            rate: number(property::RATE).unwrap_or(0),
            burst: number(property::BURST).unwrap_or(0),
            has_uplink: node.bytes(property::UPLINK).is_some(),
        })
    }

    /// Its longest frame.
    pub fn longest(&self) -> u32 {
        u32::from(self.mtu) + OVERHEAD
    }

    /// Its address.
    pub fn address(&self) -> Mac {
        Mac::new(self.mac)
    }
}

/// Whether there is room in a guest's ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There is.
    Now,
    /// Not yet: until this time, in nanoseconds, it is worth waiting for. The guest notifies when it has made some.
    Until(u64),
    /// Nobody waits for it.
    Never,
}

/// A frame of the guest's that waits for room.
#[derive(Clone, Copy, Debug)]
pub struct Hold {
    /// In whose ring.
    pub to: u16,
    /// For so many bytes.
    pub bytes: u32,
    /// Segments of it that had room.
    pub done: usize,
    /// Until then, in nanoseconds.
    pub until_ns: u64,
}

#[derive(Debug)]
struct Rings {
    from_guest: FrameReceiver,
    to_guest: FrameSender,
    /// Features that the guest took.
    features: u64,
}

/// An interface.
#[derive(Debug)]
pub struct Vif {
    /// Its place in the device tree.
    number: usize,
    link: Link,
    shape: Shape,
    rings: Option<Rings>,
    /// Longest frame that the guest takes, and longest one that stands for segments.
    longest: usize,
    large: usize,
    /// What the guest's next frame waits for.
    hold: Option<Hold>,
    /// Since when, in nanoseconds, senders have found the guest's ring too full, and half of it has not been free.
    full_since: Option<u64>,
    rate: Limit,
    /// Not before this time, in nanoseconds: above its rate.
    not_before: u64,
    /// Notified, or not done with its ring.
    is_active: bool,
    counts: Statistics,
    /// The guest has not been shown what was counted last.
    is_unshown: bool,
}

impl Vif {
    /// Takes the service's side of interface `number` of the device tree, and offers it.
    ///
    /// # Errors
    /// `BadWindow`.
    pub fn new(number: usize, link: Link, settings: &Settings, is_uplink_up: bool) -> Result<Vif, DeviceError> {
        let shape = shape_of_window(link.window().len()).ok_or(DeviceError::BadWindow)?;
        let large = LARGE.min(half_capacity(&shape.receive));
        let details = Details {
            mac: settings.mac,
            mtu: settings.mtu,
            max_frame: settings.longest(),
            flags: if settings.has_uplink && is_uplink_up { flag::UPLINK } else { 0 },
            max_large: large,
            ..Details::default()
        };
        let offer = Offer { kind: kind::NET, version: VERSION, features: FEATURES, ..Offer::default() };
        link.offer(&offer, &bytes_of(&details));
        Ok(Vif {
            number,
            link,
            shape,
            rings: None,
            longest: settings.longest() as usize,
            large: large as usize,
            hold: None,
            full_since: None,
            rate: Limit::new(settings.rate, settings.burst),
            not_before: 0,
            is_active: true,
            counts: Statistics::default(),
            is_unshown: true,
        })
    }

    /// Its place in the device tree.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Lets it look for a new port in the next turn.
    pub fn ports_have_changed(&mut self) {
        self.is_active = true;
    }

    /// Whether it was notified, or is not done with the guest's ring.
    #[inline]
    pub fn is_awake(&mut self) -> bool {
        if self.link.port().is_some_and(|port| port.take()) {
            self.is_active = true;
        }
        self.is_active
    }

    /// Whether there may be frames of the guest's to take now, if it [is awake](Vif::is_awake). Keeps the link alive.
    #[inline]
    pub fn is_ready(&mut self, now_ns: impl Fn() -> u64) -> bool {
        if self.not_before > 0 && now_ns() < self.not_before {
            return false;
        }
        match self.link.step() {
            Event::Nothing => {}
            event => self.step_slow(event),
        }
        self.is_active = self.rings.is_some();
        self.is_active
    }

    #[cold]
    fn step_slow(&mut self, event: Event) {
        match event {
            Event::Nothing | Event::Connected => {}
            Event::Lost => {
                self.rings = None;
                let event = self.link.step();
                self.step_slow(event);
            }
            Event::Peer => self.greet(),
        }
    }

    /// Reads what the front-end accepted, and agrees or not.
    fn greet(&mut self) {
        let accept = self.link.read_accept();
        if accept.version >> 16 != VERSION >> 16 {
            return self.link.refuse(refusal::VERSION);
        }
        let is_known = accept.features & !FEATURES == 0;
        if !is_known || accept.features & FEATURES == feature::SEGMENTS {
            return self.link.refuse(refusal::FEATURES);
        }
        let window = self.link.window();
        let from_guest = FrameReceiver::start(window, self.shape.transmit);
        let to_guest = FrameSender::start(window, self.shape.receive);
        let Some((mut from_guest, to_guest)) = from_guest.zip(to_guest) else {
            return self.link.refuse(refusal::PROTOCOL);
        };
        from_guest.allow(flags_of(accept.features));
        self.rings = Some(Rings { from_guest, to_guest, features: accept.features });
        (self.hold, self.full_since) = (None, None);
        self.link.welcome();
    }

    /// Sets `frame` to the next one of the guest's, if there is one.
    #[inline]
    pub fn look_at(&mut self, frame: &mut Incoming) -> bool {
        let Some(rings) = &mut self.rings else { return false };
        match rings.from_guest.look_at(frame) {
            Ok(is_there) => is_there,
            Err(_) => {
                self.give_up();
                false
            }
        }
    }

    /// Passes over the frame that was looked at.
    #[inline]
    pub fn take(&mut self, frame: &Incoming) {
        if let Some(rings) = &mut self.rings {
            rings.from_guest.take(&frame.span);
        }
    }

    /// Whether there are frames of the guest's that were seen and not taken.
    #[inline]
    pub fn has_more(&self) -> bool {
        self.rings.as_ref().is_some_and(|rings| rings.from_guest.has_more())
    }

    /// Counts a frame of the guest's that was passed on.
    #[inline]
    pub fn count_sent(&mut self, bytes: usize) {
        self.counts.sent += 1;
        self.counts.sent_bytes += bytes as u64;
        self.is_unshown = true;
    }

    /// Counts a frame of the guest's that was dropped.
    pub fn count_dropped(&mut self, why: Reason) {
        let count = match why {
            Reason::Size => &mut self.counts.bad_size,
            Reason::Spoofed => &mut self.counts.spoofed,
            Reason::Reserved => &mut self.counts.reserved,
            Reason::Limited => &mut self.counts.limited,
            Reason::Unknown => &mut self.counts.unknown,
            Reason::Offload => &mut self.counts.bad_offload,
        };
        *count += 1;
        self.is_unshown = true;
    }

    /// Longest frame of the guest's that stands for segments.
    pub fn large(&self) -> usize {
        self.large
    }

    /// Puts a frame into the guest's ring, for [`Vif::publish`]. `false` if there is no room for it.
    #[inline]
    pub fn put(&mut self, frame: &Incoming) -> bool {
        self.is_unshown = true;
        if self.full_since.is_some() {
            self.look_whether_free();
        }
        // Its length was judged where it comes from: another interface, or the uplink, may have longer ones.
        if frame.span.len() > self.longest && frame.head.is_plain() {
            self.counts.no_room += 1;
            return true;
        }
        match self.rings.as_mut().map(|rings| rings.to_guest.forward(&frame.head, &frame.span)) {
            Some(Ok(true)) => {
                self.counts.received += 1;
                self.counts.received_bytes += frame.span.len() as u64;
                true
            }
            Some(Ok(false)) => false,
            None => {
                self.counts.no_room += 1;
                true
            }
            Some(Err(_)) => {
                self.give_up();
                true
            }
        }
    }

    /// Whether the guest does itself what is left to do with a frame.
    pub fn does(&self, offload: &Offload, bytes: usize) -> bool {
        let needs = offload.needs();
        let longest = if offload.has_segments() { self.large } else { self.longest };
        self.rings.as_ref().is_some_and(|rings| rings.features & needs == needs) && bytes <= longest
    }

    /// Puts the frames that are made of one into the guest's ring, from number `first` on, as far as there is room. Returns the number of the next.
    pub fn put_cut(&mut self, cut: &Cut, first: usize) -> usize {
        self.is_unshown = true;
        if self.full_since.is_some() {
            self.look_whether_free();
        }
        for index in first..cut.count() {
            let bytes = cut.length(index);
            let claimed = match &mut self.rings {
                Some(rings) if bytes <= self.longest => rings.to_guest.claim(bytes as u32),
                _ => {
                    self.counts.no_room += (cut.count() - index) as u64;
                    return cut.count();
                }
            };
            match claimed {
                Ok(Some(span)) => {
                    let _ = cut.make(index, &span);
                    self.counts.received += 1;
                    self.counts.received_bytes += bytes as u64;
                }
                Ok(None) => return index,
                Err(_) => {
                    self.give_up();
                    return cut.count();
                }
            }
        }
        cut.count()
    }

    /// Counts frames for the guest that are lost, since it had no room.
    pub fn lose(&mut self, frames: usize) {
        self.counts.no_room += frames as u64;
    }

    /// Whether it is worth waiting for room for `bytes` bytes in the guest's ring. What was put in must be published.
    #[cold]
    pub fn room(&mut self, bytes: u32, now_ns: u64) -> Room {
        let Some(rings) = &mut self.rings else { return Room::Never };
        // More than half is not sure to be free when it is said that half is.
        if bytes > half_capacity(&self.shape.receive) {
            return Room::Never;
        }
        match rings.to_guest.arm(bytes) {
            Ok(false) => Room::Now,
            Ok(true) => {
                let until = self.full_since.get_or_insert(now_ns).saturating_add(PATIENCE_NS);
                if now_ns < until { Room::Until(until) } else { Room::Never }
            }
            Err(_) => {
                self.give_up();
                Room::Never
            }
        }
    }

    /// Ends what [`Vif::room`] began, if half of the ring is free.
    #[cold]
    fn look_whether_free(&mut self) {
        if self.rings.as_mut().is_some_and(|rings| rings.to_guest.is_half_free() == Ok(true)) {
            self.full_since = None;
        }
    }

    /// Lets the guest's next frame wait.
    pub fn hold(&mut self, hold: Hold) {
        self.counts.held += 1;
        self.hold = Some(hold);
        self.is_unshown = true;
    }

    /// What the guest's next frame waits for.
    #[inline]
    pub fn held(&self) -> Option<Hold> {
        self.hold
    }

    /// Lets it wait no longer.
    #[inline]
    pub fn let_go(&mut self) -> Option<Hold> {
        self.hold.take()
    }

    /// Publishes what was put in, and owes the guest a notification if it wants to know.
    #[inline]
    pub fn publish(&mut self, bell: &mut Doorbell) {
        if let Some(rings) = &mut self.rings
            && rings.to_guest.publish()
        {
            self.link.tell_later(bell);
        }
    }

    /// Ends a turn in which so many bytes were taken: gives the slots back, and sees to it that the guest notifies. Returns whether there is
    /// more to take at once.
    #[inline]
    pub fn end_turn(&mut self, bytes: usize, now_ns: impl Fn() -> u64) -> bool {
        let Some(rings) = &mut self.rings else { return false };
        if rings.from_guest.release() {
            self.link.tell();
        }
        if !self.rate.is_none() {
            let now_ns = now_ns();
            let _ = self.rate.take(bytes as u64, now_ns);
            if let Err(at) = self.rate.check(now_ns) {
                // What is in the ring waits there, and whoever put it there waits for room.
                self.not_before = at;
                self.counts.waited += 1;
                self.is_unshown = true;
                return false;
            }
        }
        if self.hold.is_some() {
            return false;
        }
        if rings.from_guest.has_more() {
            return true;
        }
        match rings.from_guest.arm() {
            Ok(is_empty) => {
                self.is_active = !is_empty;
                !is_empty
            }
            Err(_) => {
                self.give_up();
                false
            }
        }
    }

    /// When it has to be looked at again though nobody notifies, in nanoseconds.
    pub fn due(&self) -> Option<u64> {
        let at = self.hold.map_or(0, |hold| hold.until_ns).max(self.not_before);
        (self.is_active && self.rings.is_some()).then_some(at)
    }

    /// An index or a header makes no sense: the front-end has begun anew meanwhile, or it lies.
    #[cold]
    fn give_up(&mut self) {
        self.rings = None;
        self.is_active = true;
        match self.link.step() {
            Event::Nothing => self.link.refuse(refusal::PROTOCOL),
            event => self.step_slow(event),
        }
    }

    /// What was counted, for the guest: to be called now and then.
    pub fn show(&mut self) -> Option<Counters> {
        if !core::mem::take(&mut self.is_unshown) {
            return None;
        }
        let window = self.link.window();
        for (offset, word) in (STATISTICS..).step_by(8).zip(self.counts.words()) {
            let _ = window.store(offset, word);
        }
        let Statistics { sent, sent_bytes, received_bytes, no_room, .. } = self.counts;
        let failed = self.counts.dropped().wrapping_add(no_room);
        Some(Counters {
            requests: sent,
            bytes_in: received_bytes,
            bytes_out: sent_bytes,
            failed,
            notified: self.link.told(),
        })
    }

    /// Whether something was counted that was not shown.
    #[inline]
    pub fn is_unshown(&self) -> bool {
        self.is_unshown
    }

    /// What was counted.
    pub fn counts(&self) -> &Statistics {
        &self.counts
    }
}

fn bytes_of(details: &Details) -> [u8; 32] {
    let mut bytes = [0; 32];
    let Details { mac, mtu, max_frame, flags, max_large, .. } = details;
    let mtu = mtu.to_le_bytes();
    let numbers = [max_frame, flags, max_large].map(|number| number.to_le_bytes());
    let fields = [&mac[..], &mtu].into_iter().chain(numbers.iter().map(|number| &number[..]));
    for (to, from) in bytes.iter_mut().zip(fields.flatten()) {
        *to = *from;
    }
    bytes
}
