//! The network front-end: an interface.
//!
//! [`Interface`] sends and receives Ethernet frames, without checksum (FCS), through the window. When the back-end goes and comes back it
//! shakes hands again; frames that were on their way then are lost, as on every Ethernet. While the back-end is away
//! there is no room to send, and nothing arrives.
//!
//! ```ignore
//! let mut net = Interface::open("net0", time::deadline(Duration::from_secs(10)))?;
//! net.try_send(&frame)?;
//! net.publish();
//! while net.receive(&mut buffer)?.is_none() {
//!     net.wait(DEADLINE_NEVER)?;
//! }
//! ```
//!
//! A guest whose own TCP leaves checksums and segments to others says so by [`Interface::take_features`], sends by [`Interface::try_send_as`], and receives by
//! [`Interface::receive_with`], where the head has the header. For all others the back-end does what senders left.
//!
//! Sending and taking only move bytes; the back-end hears of it with [`Interface::publish`], which [`Interface::wait`] does too: once for many frames, and only
//! if the back-end sleeps.

use super::frames::{FrameReceiver, FrameSender, Incoming, Span, capacity};
use super::{DeviceError, Event, Link, wait};
use crate::doorbell::Doorbell;
use crate::dtb::{self, DeviceNode};
use crate::port::Port;
use core::mem::offset_of;
use portico_abi::device::net::{
    FrameHeader, Interface as Details, LARGE, MIN_FRAME, STATISTICS, Shape, Statistics, VERSION, feature, flag,
    flags_of, frame, shape_of_window,
};
use portico_abi::device::{Accept, kind, refusal};
use portico_abi::dt;
use portico_abi::ring::Corrupt;

/// Bytes of a frame besides its payload: an Ethernet header.
const ETHERNET_HEADER: u32 = 14;

/// Why a frame was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetError {
    /// It is shorter than an Ethernet header, or longer than the interface takes.
    Size,
    /// The device cannot be used.
    Device(DeviceError),
}

impl From<DeviceError> for NetError {
    fn from(error: DeviceError) -> Self {
        Self::Device(error)
    }
}

/// What an interface is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// Its address. Frames from any other are dropped.
    pub mac: [u8; 6],
    /// Largest payload of a frame, in bytes.
    pub mtu: u16,
    /// Largest frame, in bytes.
    pub max_frame: u32,
    /// The bridge has an uplink that is up.
    pub has_uplink: bool,
    /// Features that are used.
    pub features: u64,
    /// Longest frame that stands for segments, in bytes.
    pub max_large: u32,
}

impl Info {
    /// Longest frame with these flags; 0 if one of them is not to be used.
    fn longest(&self, flags: u32) -> u32 {
        if flags & !flags_of(self.features) != 0 {
            0
        } else if flags & (frame::TCP4 | frame::TCP6) != 0 {
            self.max_large
        } else {
            self.max_frame
        }
    }
}

#[derive(Debug)]
struct Rings {
    transmit: FrameSender,
    receive: FrameReceiver,
    /// The frame that is looked at.
    frame: Incoming,
}

/// A network interface.
#[derive(Debug)]
pub struct Interface {
    link: Link,
    shape: Shape,
    info: Info,
    rings: Option<Rings>,
    /// Features that are taken if they are offered.
    wanted: u64,
    /// An offer was accepted: a refusal that is read now is the answer to that.
    has_accepted: bool,
    /// Times that the back-end was lost.
    lost: u64,
    bell: Doorbell,
}

impl Interface {
    /// Opens the interface `name` and waits for its back-end until `deadline` (a value of CNTVCT_EL0).
    ///
    /// # Errors
    /// Any of [`DeviceError`].
    pub fn open(name: &str, deadline: u64) -> Result<Interface, DeviceError> {
        let node = dtb::devices(dt::NET).find(|node| node.name == name).ok_or(DeviceError::NotFound)?;
        let mut interface = Self::new(&node)?;
        interface.connect(deadline)?;
        Ok(interface)
    }

    /// Takes an interface that the tree describes, without waiting for its back-end.
    ///
    /// # Errors
    /// `BadWindow`.
    pub fn new(node: &DeviceNode) -> Result<Interface, DeviceError> {
        // SAFETY: the manager mapped the window for the life of the domain, and nothing else of the guest is there.
        let link = unsafe { Link::new(node) }?;
        let shape = shape_of_window(link.window().len()).ok_or(DeviceError::BadWindow)?;
        Ok(Interface {
            link,
            shape,
            info: Info::default(),
            rings: None,
            wanted: 0,
            has_accepted: false,
            lost: 0,
            bell: Doorbell::new(),
        })
    }

    /// Takes these features ([`feature`]) when the back-end is met, if it offers them. To be called before [`Interface::connect`].
    pub fn take_features(&mut self, features: u64) {
        self.wanted = features;
    }

    /// The names of all interfaces.
    pub fn names() -> impl Iterator<Item = &'static str> {
        dtb::devices(dt::NET).map(|node| node.name)
    }

    /// What the interface is, as the back-end said when it was last met.
    pub fn info(&self) -> Info {
        self.info
    }

    /// Its address.
    pub fn mac(&self) -> [u8; 6] {
        self.info.mac
    }

    /// Largest payload of a frame, in bytes.
    pub fn mtu(&self) -> u16 {
        self.info.mtu
    }

    /// How often the back-end was lost.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Whether the back-end is there.
    pub fn is_connected(&self) -> bool {
        self.rings.is_some()
    }

    /// The port by which the back-end notifies, if it is there.
    pub fn port(&self) -> Option<Port> {
        self.link.port()
    }

    /// How often the back-end was notified.
    pub fn told(&self) -> u64 {
        self.link.told()
    }

    /// What the back-end counted, as it said last.
    pub fn statistics(&self) -> Statistics {
        let window = self.link.window();
        Statistics::from_words(core::array::from_fn(|index| window.load(STATISTICS + index * 8).unwrap_or(0)))
    }

    /// Waits until the back-end is there.
    ///
    /// # Errors
    /// Any of [`DeviceError`].
    pub fn connect(&mut self, deadline: u64) -> Result<(), DeviceError> {
        loop {
            self.step()?;
            if self.rings.is_some() {
                return Ok(());
            }
            wait(&self.link, &mut self.bell, deadline)?;
        }
    }

    /// Puts a frame into the ring, for [`Interface::publish`] to tell. `false`: there is no room now.
    ///
    /// # Errors
    /// `Size`, and those of a back-end that came back and is not what it was.
    #[inline]
    pub fn try_send(&mut self, frame: &[u8]) -> Result<bool, NetError> {
        self.try_send_with(frame.len(), |span| {
            let _ = span.write(0, frame);
        })
    }

    /// As [`Interface::try_send`], for a frame of `bytes` bytes that is written in place: by [`Span::write`], or into its [`Span::pieces`].
    ///
    /// # Errors
    /// As [`Interface::try_send`].
    #[inline]
    pub fn try_send_with(&mut self, bytes: usize, fill: impl FnOnce(&Span)) -> Result<bool, NetError> {
        let bytes = u32::try_from(bytes).map_err(|_| NetError::Size)?;
        self.try_send_as(&FrameHeader { bytes, ..FrameHeader::default() }, fill)
    }

    /// As [`Interface::try_send_with`], for a frame whose header says what is left to do with it. Whether that fits the frame the back-end sees.
    ///
    /// # Errors
    /// As [`Interface::try_send`]; `Size` also if its features were not taken.
    #[inline]
    pub fn try_send_as(&mut self, header: &FrameHeader, fill: impl FnOnce(&Span)) -> Result<bool, NetError> {
        self.step()?;
        let Some(rings) = &mut self.rings else { return Ok(false) };
        let longest = if header.flags == 0 { self.info.max_frame } else { self.info.longest(header.flags) };
        if header.bytes < MIN_FRAME || header.bytes > longest {
            return Err(NetError::Size);
        }
        match rings.transmit.claim_as(header) {
            Ok(Some(span)) => {
                fill(&span);
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(_) => {
                self.abandon();
                Ok(false)
            }
        }
    }

    /// Whether a frame of `bytes` bytes could be sent now.
    ///
    /// # Errors
    /// As [`Interface::try_send`].
    #[inline]
    pub fn has_room(&mut self, bytes: usize) -> Result<bool, DeviceError> {
        self.step()?;
        let Some(rings) = &mut self.rings else { return Ok(false) };
        match rings.transmit.has_room(u32::try_from(bytes).unwrap_or(u32::MAX)) {
            Ok(has_room) => Ok(has_room),
            Err(_) => {
                self.abandon();
                Ok(false)
            }
        }
    }

    /// Sends a frame, waits for room if there is none, and publishes.
    ///
    /// # Errors
    /// As [`Interface::try_send`], and `TimedOut` at `deadline`.
    pub fn send(&mut self, frame: &[u8], deadline: u64) -> Result<(), NetError> {
        while !self.try_send(frame)? {
            self.wait_for_room(frame.len(), deadline)?;
        }
        self.publish();
        Ok(())
    }

    /// Tells the back-end of what was sent, if it wants to know.
    #[inline]
    pub fn publish(&mut self) {
        if let Some(rings) = &mut self.rings
            && rings.transmit.publish()
        {
            self.link.tell();
        }
    }

    /// As [`Interface::publish`], with the notification owed.
    #[inline]
    fn publish_later(&mut self) {
        if let Some(rings) = &mut self.rings
            && rings.transmit.publish()
        {
            self.link.tell_later(&mut self.bell);
        }
    }

    /// Takes the next frame, if there is one: as many of its bytes as `to` holds. The answer is its length, which may be more.
    ///
    /// # Errors
    /// `Incompatible` or `Refused`: the back-end that came back is not what it was.
    #[inline]
    pub fn receive(&mut self, to: &mut [u8]) -> Result<Option<usize>, DeviceError> {
        self.step()?;
        let Some(rings) = &mut self.rings else { return Ok(None) };
        let looked = rings.receive.next_span().map(|span| {
            let span = span?;
            let bytes = span.len().min(to.len());
            let _ = span.read(0, to.get_mut(..bytes)?);
            rings.receive.take(&span);
            Some(span.len())
        });
        self.received(looked)
    }

    /// As [`Interface::receive`], for a frame that is looked at where it is. Its head is a private copy; the rest is in the window, and
    /// what is read there twice may differ.
    ///
    /// # Errors
    /// As [`Interface::receive`].
    #[inline]
    pub fn receive_with<T>(&mut self, take: impl FnOnce(&Incoming) -> T) -> Result<Option<T>, DeviceError> {
        self.step()?;
        let Some(rings) = &mut self.rings else { return Ok(None) };
        let looked = rings.receive.look_at(&mut rings.frame).map(|is_there| {
            is_there.then(|| {
                let taken = take(&rings.frame);
                rings.receive.take(&rings.frame.span);
                taken
            })
        });
        self.received(looked)
    }

    /// Gives slots back after a look at the ring, at the latest when it is empty.
    #[inline]
    fn received<T>(&mut self, looked: Result<Option<T>, Corrupt>) -> Result<Option<T>, DeviceError> {
        match looked {
            Ok(taken) => {
                if taken.is_none() || self.rings.as_ref().is_some_and(|rings| rings.receive.wants_release()) {
                    self.release();
                }
                Ok(taken)
            }
            Err(Corrupt) => {
                self.abandon();
                Ok(None)
            }
        }
    }

    /// Asks for a notification of the next frame. `true`: there is none, and the caller may sleep until its port is notified.
    ///
    /// # Errors
    /// As [`Interface::receive`].
    #[inline]
    pub fn arm(&mut self) -> Result<bool, DeviceError> {
        self.step()?;
        self.release();
        let Some(rings) = &mut self.rings else { return Ok(true) };
        match rings.receive.arm() {
            Ok(is_empty) => Ok(is_empty),
            Err(_) => {
                self.abandon();
                Ok(false)
            }
        }
    }

    /// Publishes, and waits until there may be a frame, or the back-end came back.
    ///
    /// # Errors
    /// As [`Interface::receive`], and `TimedOut` at `deadline`.
    pub fn wait(&mut self, deadline: u64) -> Result<(), DeviceError> {
        self.publish_later();
        let sleeps = self.arm();
        self.sleep_if(sleeps, deadline)
    }

    fn sleep_if(&mut self, sleeps: Result<bool, DeviceError>, deadline: u64) -> Result<(), DeviceError> {
        if sleeps == Ok(true) {
            return wait(&self.link, &mut self.bell, deadline);
        }
        self.bell.ring();
        sleeps.map(|_| ())
    }

    /// Publishes, and waits until a frame of `bytes` bytes may have room.
    ///
    /// # Errors
    /// As [`Interface::wait`].
    pub fn wait_for_room(&mut self, bytes: usize, deadline: u64) -> Result<(), DeviceError> {
        self.publish_later();
        let sleeps = self.arm_for_room(bytes);
        self.sleep_if(sleeps, deadline)
    }

    /// Asks for a notification of room. `true`: there is none, and the caller may sleep.
    fn arm_for_room(&mut self, bytes: usize) -> Result<bool, DeviceError> {
        self.step()?;
        let Some(rings) = &mut self.rings else { return Ok(true) };
        match rings.transmit.arm(u32::try_from(bytes).unwrap_or(u32::MAX)) {
            Ok(is_full) => Ok(is_full),
            Err(_) => {
                self.abandon();
                Ok(false)
            }
        }
    }

    /// Gives the slots of what was taken back.
    #[inline]
    fn release(&mut self) {
        if let Some(rings) = &mut self.rings
            && rings.receive.release()
        {
            self.link.tell();
        }
    }

    /// Keeps the link alive.
    #[inline]
    fn step(&mut self) -> Result<(), DeviceError> {
        match self.link.step() {
            Event::Nothing => Ok(()),
            event => self.step_slow(event),
        }
    }

    #[cold]
    fn step_slow(&mut self, event: Event) -> Result<(), DeviceError> {
        match event {
            Event::Nothing => Ok(()),
            Event::Lost => {
                self.rings = None;
                self.lost += 1;
                self.step()
            }
            Event::Peer => {
                self.greet()?;
                self.step()
            }
            Event::Connected => {
                // `greet` set the words; here only the private indices are made again.
                self.rings = Some(self.start_rings()?);
                Ok(())
            }
        }
    }

    fn start_rings(&self) -> Result<Rings, DeviceError> {
        let window = self.link.window();
        let transmit = FrameSender::start(window, self.shape.transmit).ok_or(DeviceError::BadWindow)?;
        let mut receive = FrameReceiver::start(window, self.shape.receive).ok_or(DeviceError::BadWindow)?;
        receive.allow(flags_of(self.info.features));
        Ok(Rings { transmit, receive, frame: Incoming::default() })
    }

    /// Reads the back-end's offer, and accepts it.
    fn greet(&mut self) -> Result<(), DeviceError> {
        let mut raw = [0; size_of::<Details>()];
        let offer = self.link.read_offer(&mut raw);
        // What was refused before this life is not for us.
        if core::mem::take(&mut self.has_accepted) && offer.refusal != refusal::NONE {
            self.link.refuse(refusal::NONE);
            return Err(DeviceError::Refused(offer.refusal));
        }
        if offer.kind != kind::NET || offer.version >> 16 != VERSION >> 16 {
            self.link.refuse(refusal::NONE);
            return Err(DeviceError::Incompatible);
        }
        self.info = self.read_info(offer.features & self.wanted, &raw);
        self.start_rings()?;
        self.has_accepted = true;
        self.link.accept(&Accept { version: VERSION, features: self.info.features, ..Accept::default() });
        Ok(())
    }

    /// What the offer says, as far as it can be.
    fn read_info(&self, features: u64, raw: &[u8; size_of::<Details>()]) -> Info {
        let [m0, m1, m2, m3, m4, m5, t0, t1, ..] = *raw;
        let number =
            |at: usize| raw.get(at..).and_then(|raw| raw.first_chunk()).map_or(0, |raw| u32::from_le_bytes(*raw));
        let max_frame = number(offset_of!(Details, max_frame)).min(capacity(&self.shape.transmit));
        let max_large = number(offset_of!(Details, max_large)).min(LARGE).min(capacity(&self.shape.transmit));
        let payload = u16::try_from(max_frame.saturating_sub(ETHERNET_HEADER)).unwrap_or(u16::MAX);
        // Segments without checksums are nothing that anybody offers.
        let features = if features & feature::CHECKSUM != 0 { features } else { features & !feature::SEGMENTS };
        Info {
            mac: [m0, m1, m2, m3, m4, m5],
            mtu: u16::from_le_bytes([t0, t1]).min(payload),
            max_frame,
            has_uplink: number(offset_of!(Details, flags)) & flag::UPLINK != 0,
            features,
            max_large: if features & feature::SEGMENTS != 0 { max_large } else { 0 },
        }
    }

    #[cold]
    fn abandon(&mut self) {
        self.rings = None;
        self.has_accepted = false;
        self.lost += 1;
        self.link.restart();
    }
}

#[cfg(test)]
mod tests;
