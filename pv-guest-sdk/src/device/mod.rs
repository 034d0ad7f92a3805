//! Paravirtual devices: disks ([`block`]), network interfaces ([`net`]), and the link under them.
//!
//! A [`Link`] is one side of a device's channel, as [`portico_abi::device`] describes it: it finds its port, shakes hands, notices that the
//! other side is gone or began anew, and shakes hands again, without ever blocking. Both a guest's front-end and a service's back-end are
//! built on it; `PORTING.md` tells how to write either.

pub mod block;
pub mod frames;
pub mod net;
#[cfg(feature = "smoltcp")]
pub mod stack;

use crate::dtb::DeviceNode;
use crate::port::Port;
use crate::window::Window;
use crate::{hvc, time, vcpu};
use core::mem::{offset_of, size_of};
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use portico_abi::channel::{ChannelHeader, ChannelState};
use portico_abi::device::{ACCEPT, Accept, BACK, FRONT, OFFER, Offer, refusal};
use portico_abi::handle::SELF_DOMAIN;
use portico_abi::{Handle, ObjectType, Status};

/// How often a front-end that lost its back-end looks for the next one.
pub const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Why a device cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceError {
    /// The device tree names no such device.
    NotFound,
    /// The window is not as the ABI says.
    BadWindow,
    /// The back-end offers another kind of device, or another major version.
    Incompatible,
    /// The back-end refused: one of [`portico_abi::device::refusal`].
    Refused(u32),
    /// A call failed.
    Call(Status),
    /// Not within the deadline.
    TimedOut,
}

impl From<Status> for DeviceError {
    fn from(status: Status) -> Self {
        if status == Status::TimedOut { Self::TimedOut } else { Self::Call(status) }
    }
}

/// Where a link is in its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No port whose other end is there.
    Unplugged,
    /// This side has begun an epoch, and waits for the other.
    Waiting,
    /// The front-end has accepted the back-end of this epoch, and waits until that is seen.
    Accepted(u32),
    /// Both have seen each other; the other side's epoch.
    Connected(u32),
    /// Refused in this epoch of the other side: nothing happens until it begins anew.
    Refused(u32),
}

/// What a step of a link found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing new.
    Nothing,
    /// The other side is ready for what comes next: a front-end reads the offer and calls [`Link::accept`]; a back-end reads what was accepted and calls
    /// [`Link::welcome`] or [`Link::refuse`].
    Peer,
    /// Connected now: the rings may be used.
    Connected,
    /// The other side is gone or began anew. What is under way must be ended before the next step.
    Lost,
}

/// One side of a device's channel.
#[derive(Debug)]
pub struct Link {
    window: Window,
    cookie: u64,
    side: u32,
    port: Option<Port>,
    /// The bit of the port, kept over its lives.
    bit: Option<u16>,
    vcpu: u32,
    epoch: u32,
    phase: Phase,
    /// Notifications made.
    told: u64,
    /// Ticks after which a side that waits for a notification looks whether its port still lives.
    look_ticks: u64,
}

impl Link {
    /// Takes the device that the tree describes. Nothing is said to the other side before the first step.
    ///
    /// # Errors
    /// `BadWindow`.
    ///
    /// # Safety
    /// The window must be mapped as Normal memory for ever, and hold no Rust object.
    pub unsafe fn new(node: &DeviceNode) -> Result<Link, DeviceError> {
        // SAFETY: the caller's promise.
        let window =
            unsafe { Window::new(node.window.base, node.window.len as usize) }.ok_or(DeviceError::BadWindow)?;
        let magic = window.word(offset_of!(ChannelHeader, magic)).map(|word| word.load(Ordering::Acquire));
        if magic != Some(ChannelHeader::MAGIC) || node.side > 1 {
            return Err(DeviceError::BadWindow);
        }
        let epoch_at =
            if node.side == BACK { offset_of!(ChannelHeader, epoch0) } else { offset_of!(ChannelHeader, epoch1) };
        let epoch = window.word(epoch_at).map_or(0, |word| word.load(Ordering::Relaxed));
        let link = Link {
            window,
            cookie: node.cookie,
            side: node.side,
            port: None,
            bit: None,
            vcpu: vcpu::index(),
            epoch,
            phase: Phase::Unplugged,
            told: 0,
            look_ticks: time::Scale::read().ticks(LOOK_AGAIN.as_nanos() as u64 * 50),
        };
        Ok(link)
    }

    /// As if it had been made on another vCPU.
    #[cfg(not(target_os = "none"))]
    pub(crate) fn on_vcpu(mut self, vcpu: u32) -> Link {
        self.vcpu = vcpu;
        self
    }

    /// Its window.
    pub fn window(&self) -> Window {
        self.window
    }

    /// Its port, if it has one that lives.
    #[inline]
    pub fn port(&self) -> Option<Port> {
        self.port
    }

    /// Whether both sides have seen each other, as far as the last step knew.
    #[inline]
    pub fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Connected(_))
    }

    /// Whether it waits for something that nothing announces: the port of the other side's next life.
    pub fn is_unplugged(&self) -> bool {
        self.phase == Phase::Unplugged
    }

    /// Does what can be done now. To be called after each notification, and from time to time while the link is unplugged.
    #[inline]
    pub fn step(&mut self) -> Event {
        if let Phase::Connected(epoch) = self.phase {
            // Two loads: all that a healthy link costs.
            if self.peer_epoch() == epoch && self.peer_state() == ChannelState::Connected as u32 {
                return Event::Nothing;
            }
        }
        self.step_slow()
    }

    #[cold]
    fn step_slow(&mut self) -> Event {
        match self.phase {
            Phase::Connected(_) => {
                self.lose();
                Event::Lost
            }
            Phase::Unplugged => {
                if self.plug() {
                    self.begin();
                    return self.step_slow();
                }
                Event::Nothing
            }
            Phase::Waiting | Phase::Accepted(_) | Phase::Refused(_) if !self.is_plugged() => {
                self.lose();
                Event::Nothing
            }
            Phase::Waiting => {
                let is_there = self.peer_state() == ChannelState::Connected as u32 && self.peer_epoch() != 0;
                // A back-end waits for an answer to its own offer, a front-end for any.
                if is_there && (self.side == FRONT || self.peer_seen() == self.epoch) {
                    Event::Peer
                } else {
                    Event::Nothing
                }
            }
            Phase::Accepted(epoch) => {
                // The refusal is read before a new epoch of ours makes the back-end forget it.
                if self.side == FRONT && self.peer_epoch() == epoch && self.is_refused() {
                    self.phase = Phase::Waiting;
                    return Event::Peer;
                }
                if self.peer_epoch() != epoch || self.peer_state() != ChannelState::Connected as u32 {
                    self.begin();
                    return Event::Nothing;
                }
                if self.peer_seen() != self.epoch {
                    return Event::Nothing;
                }
                self.phase = Phase::Connected(epoch);
                Event::Connected
            }
            Phase::Refused(epoch) => {
                if self.peer_epoch() != epoch {
                    if self.side == BACK {
                        self.store(OFFER + offset_of!(Offer, refusal), refusal::NONE);
                    }
                    self.begin();
                }
                Event::Nothing
            }
        }
    }

    /// The front-end's answer to an offer: to be called after it has set its words of the rings.
    pub fn accept(&mut self, accept: &Accept) {
        let epoch = self.peer_epoch();
        let _ = self.window.store(ACCEPT, u64::from(accept.version));
        let _ = self.window.store(ACCEPT + offset_of!(Accept, features), accept.features);
        self.store(self.seen_at(self.side), epoch);
        self.set_state(ChannelState::Connected);
        self.phase = Phase::Accepted(epoch);
        self.tell();
    }

    /// The back-end's agreement: to be called after it has set its words of the rings.
    pub fn welcome(&mut self) {
        let epoch = self.peer_epoch();
        self.store(self.seen_at(self.side), epoch);
        self.phase = Phase::Connected(epoch);
        self.tell();
    }

    /// Ends this epoch: the other side does not keep to the protocol, or asks for what is not there. It can begin anew. A back-end says why.
    pub fn refuse(&mut self, why: u32) {
        if self.side == BACK {
            self.store(OFFER + offset_of!(Offer, refusal), why);
        }
        self.phase = Phase::Refused(self.peer_epoch());
        self.set_state(ChannelState::Closed);
        self.tell();
    }

    /// Begins anew, though the other side did not.
    pub fn restart(&mut self) {
        self.lose();
    }

    /// Writes the back-end's offer and what follows it. To be called before the first step, and again if it changes.
    pub fn offer(&self, offer: &Offer, details: &[u8]) {
        let _ = self.window.store(OFFER, u64::from(offer.kind) | u64::from(offer.version) << 32);
        let _ = self.window.store(OFFER + offset_of!(Offer, features), offer.features);
        let _ = self.window.store(OFFER + offset_of!(Offer, refusal), u64::from(offer.refusal));
        let _ = self.window.write(OFFER + size_of::<Offer>(), details);
    }

    /// Copies the back-end's offer; what follows it goes to `details`.
    pub fn read_offer(&self, details: &mut [u8]) -> Offer {
        let _ = self.window.read(OFFER + size_of::<Offer>(), details);
        let word = |at: usize| self.window.load(OFFER + at).unwrap_or(0);
        let head = word(0);
        Offer {
            kind: head as u32,
            version: (head >> 32) as u32,
            features: word(offset_of!(Offer, features)),
            refusal: word(offset_of!(Offer, refusal)) as u32,
            ..Offer::default()
        }
    }

    /// Copies what the front-end accepted.
    pub fn read_accept(&self) -> Accept {
        let word = |at: usize| self.window.load(ACCEPT + at).unwrap_or(0);
        Accept { version: word(0) as u32, features: word(offset_of!(Accept, features)), ..Accept::default() }
    }

    /// Notifies the other side. That it is gone shows in the next step.
    #[inline]
    pub fn tell(&mut self) {
        if let Some(port) = self.port {
            self.told += 1;
            let _ = port.notify();
        }
    }

    /// How often it has notified the other side.
    pub fn told(&self) -> u64 {
        self.told
    }

    fn lose(&mut self) {
        self.set_state(ChannelState::Init);
        self.phase = Phase::Unplugged;
    }

    /// Begins an epoch.
    fn begin(&mut self) {
        self.set_state(ChannelState::Init);
        self.store(self.seen_at(self.side), 0);
        // An epoch of 0 is nobody's: a side that never began.
        self.epoch = self.epoch.wrapping_add(1).max(1);
        self.store(self.epoch_at(self.side), self.epoch);
        if self.side == BACK {
            self.set_state(ChannelState::Connected);
        }
        self.phase = Phase::Waiting;
        self.tell();
    }

    /// Whether the back-end has closed its epoch and says why. The manager closes that of one that ended, and says nothing.
    fn is_refused(&self) -> bool {
        self.peer_state() == ChannelState::Closed as u32
            && self.load(OFFER + offset_of!(Offer, refusal)) != refusal::NONE
    }

    fn is_plugged(&self) -> bool {
        self.port.is_some_and(|port| hvc::handle_info(port.handle()).is_ok_and(|info| info.state == 0))
    }

    /// Finds the port by its cookie and binds it, if its other end is there.
    fn plug(&mut self) -> bool {
        if self.is_plugged() {
            return true;
        }
        if let Some(port) = self.port.take() {
            // It will never notify anyone again; the other side's next life gets another.
            let _ = hvc::handle_close(port.handle());
        }
        let Some(handle) = find(self.cookie) else { return false };
        let port = match self.bit {
            Some(bit) => Port::bind_at(handle, self.vcpu, bit),
            None => Port::bind_on(handle, self.vcpu),
        };
        self.port = port.ok();
        self.bit = self.port.map(|port| port.bit());
        self.port.is_some()
    }

    fn set_state(&self, state: ChannelState) {
        let at = if self.side == BACK { offset_of!(ChannelHeader, state0) } else { offset_of!(ChannelHeader, state1) };
        self.store(at, state as u32);
    }

    fn peer_state(&self) -> u32 {
        let at = if self.side == BACK { offset_of!(ChannelHeader, state1) } else { offset_of!(ChannelHeader, state0) };
        self.load(at)
    }

    fn peer_epoch(&self) -> u32 {
        self.load(self.epoch_at(1 - self.side))
    }

    fn peer_seen(&self) -> u32 {
        self.load(self.seen_at(1 - self.side))
    }

    fn epoch_at(&self, side: u32) -> usize {
        if side == BACK { offset_of!(ChannelHeader, epoch0) } else { offset_of!(ChannelHeader, epoch1) }
    }

    fn seen_at(&self, side: u32) -> usize {
        if side == BACK { offset_of!(ChannelHeader, seen0) } else { offset_of!(ChannelHeader, seen1) }
    }

    fn word(&self, at: usize) -> Option<&AtomicU32> {
        self.window.word(at)
    }

    fn load(&self, at: usize) -> u32 {
        self.word(at).map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn store(&self, at: usize, value: u32) {
        if let Some(word) = self.word(at) {
            word.store(value, Ordering::Release);
        }
    }
}

/// The port in the caller's table with this cookie whose other end is there.
fn find(cookie: u64) -> Option<Handle> {
    let mut cursor = 0;
    while let Ok((handle, next)) = hvc::handle_next(SELF_DOMAIN, cursor) {
        cursor = next;
        let is_it =
            |info: hvc::HandleInfo| info.object == Some(ObjectType::Port) && info.cookie == cookie && info.state == 0;
        if hvc::handle_info(handle).is_ok_and(is_it) {
            return Some(handle);
        }
    }
    None
}

/// Waits for the other side, until `deadline`: for its notification, or for its next life.
///
/// # Errors
/// `TimedOut`.
fn wait(link: &Link, deadline: u64) -> Result<(), DeviceError> {
    match link.port().filter(|_| !link.is_unplugged()) {
        Some(port) => {
            // Its next life notifies by another port: so it is looked for now and then.
            let look = deadline.min(time::now().saturating_add(link.look_ticks));
            match port.wait(look) {
                Err(Status::TimedOut) if look < deadline => Ok(()),
                other => Ok(other?),
            }
        }
        None if time::passed(deadline) => Err(DeviceError::TimedOut),
        None => {
            time::sleep_until(deadline.min(time::deadline(LOOK_AGAIN)));
            Ok(())
        }
    }
}
