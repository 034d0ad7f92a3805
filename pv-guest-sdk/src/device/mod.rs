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

use crate::doorbell::Doorbell;
use crate::dtb::DeviceNode;
use crate::port::Port;
use crate::window::Window;
use crate::{hvc, time, vcpu};
use core::mem::{offset_of, size_of};
use core::sync::atomic::Ordering;
use core::time::Duration;
use portico_abi::channel::{ChannelHeader, ChannelState};
use portico_abi::device::handshake::{Handshake, Phase, Side, Words};
use portico_abi::device::{ACCEPT, Accept, BACK, OFFER, Offer, refusal};
use portico_abi::handle::SELF_DOMAIN;
use portico_abi::{Handle, ObjectType, Status};

pub use portico_abi::device::handshake::Event;

/// How often a front-end that lost its back-end looks for the next one, at most: see [`Link::step`].
pub const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// After a look it waits so many times as long as that took. All looks on a machine wait for each other, and the manager, which is to bring the
/// back-end back, for them.
const LOOK_SHARE: u64 = 16;
/// It waits no longer than so many times [`LOOK_AGAIN`].
const LOOK_MOST: u64 = 50;

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

/// One side of a device's channel.
#[derive(Debug)]
pub struct Link {
    window: Window,
    cookie: u64,
    port: Option<Port>,
    /// The bit of the port, kept over its lives.
    bit: Option<u16>,
    vcpu: u32,
    words: Words<'static>,
    handshake: Handshake,
    /// Notifications made.
    told: u64,
    is_front: bool,
    /// Ticks of [`LOOK_AGAIN`].
    look_ticks: u64,
    /// When a front-end may look for its port again, a value of CNTVCT_EL0.
    look_at: u64,
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
        let words = words_of(&window, node.side).ok_or(DeviceError::BadWindow)?;
        let link = Link {
            window,
            cookie: node.cookie,
            port: None,
            bit: None,
            vcpu: vcpu::index(),
            words,
            handshake: Handshake::new(node.side, &words),
            told: 0,
            is_front: node.side != BACK,
            look_ticks: time::Scale::read().ticks(LOOK_AGAIN.as_nanos() as u64),
            look_at: 0,
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
        matches!(self.handshake.phase(), Phase::Connected(_))
    }

    /// Whether it waits for something that nothing announces: the port of the other side's next life.
    pub fn is_unplugged(&self) -> bool {
        self.handshake.phase() == Phase::Unplugged
    }

    /// Whether a front-end's back-end is gone for good, by the word of the manager: nothing is behind the device until something is added.
    #[cold]
    pub fn is_removed(&self) -> bool {
        !self.is_connected()
            && self.words.peer.state.load(Ordering::Acquire) == ChannelState::Closed as u32
            && self.words.refusal.load(Ordering::Acquire) == refusal::REMOVED
    }

    /// Says, of a device that [`Link::is_removed`], that nothing of it is in use: no other is put behind the channel before.
    pub fn leave(&self) {
        self.words.own.state.store(ChannelState::Closed as u32, Ordering::Release);
    }

    /// By which its ports are found.
    pub fn cookie(&self) -> u64 {
        self.cookie
    }

    /// Does what can be done now. To be called after each notification, and from time to time while the link is unplugged: a front-end looks for its
    /// port no more often than each [`LOOK_AGAIN`], and more seldom where looking takes long; a back-end, which is told when to, each time.
    #[inline]
    pub fn step(&mut self) -> Event {
        if self.handshake.is_well(&self.words) { Event::Nothing } else { self.step_slow() }
    }

    #[cold]
    fn step_slow(&mut self) -> Event {
        match self.handshake.phase() {
            Phase::Unplugged if !self.plug() => return Event::Nothing,
            Phase::Unplugged => {
                self.handshake.begin(&self.words);
                self.tell();
            }
            Phase::Waiting | Phase::Accepted(_) | Phase::Refused(_) if !self.is_plugged() => {
                self.handshake.lose(&self.words);
                return Event::Nothing;
            }
            Phase::Waiting | Phase::Accepted(_) | Phase::Refused(_) | Phase::Connected(_) => {}
        }
        let (event, has_begun) = self.handshake.step(&self.words);
        if has_begun {
            self.tell();
        }
        event
    }

    /// The front-end's answer to the offer that it read since [`Event::Peer`]: to be called after it has set its words of the rings.
    pub fn accept(&mut self, accept: &Accept) {
        let _ = self.window.store(ACCEPT, u64::from(accept.version));
        let _ = self.window.store(ACCEPT + offset_of!(Accept, features), accept.features);
        self.handshake.accept(&self.words);
        self.tell();
    }

    /// The back-end's agreement to what it read since [`Event::Peer`]: to be called after it has set its words of the rings.
    pub fn welcome(&mut self) {
        self.handshake.welcome(&self.words);
        self.tell();
    }

    /// Ends this epoch: the other side does not keep to the protocol, or asks for what is not there. It can begin anew. A back-end says why.
    /// If it has begun anew already, it is met as the one that it is now.
    pub fn refuse(&mut self, why: u32) {
        self.handshake.refuse(&self.words, why);
        self.tell();
    }

    /// Begins anew, though the other side did not.
    pub fn restart(&mut self) {
        self.handshake.lose(&self.words);
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

    /// Owes the other side a notification: it is made with the next wait.
    #[inline]
    pub fn tell_later(&mut self, bell: &mut Doorbell) {
        if let Some(port) = &self.port {
            self.told += 1;
            bell.owe(port);
        }
    }

    /// How often it has notified the other side.
    pub fn told(&self) -> u64 {
        self.told
    }

    /// Ticks until the next look after one that took `ticks`.
    fn pause(&self, ticks: u64) -> u64 {
        ticks.saturating_mul(LOOK_SHARE).clamp(self.look_ticks, self.look_ticks * LOOK_MOST)
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
        let began = time::now();
        if self.is_front && began < self.look_at {
            return false;
        }
        let Some(handle) = find(self.cookie) else {
            let now = time::now();
            self.look_at = now.saturating_add(self.pause(now.saturating_sub(began)));
            return false;
        };
        let port = match self.bit {
            Some(bit) => Port::bind_at(handle, self.vcpu, bit),
            None => Port::bind_on(handle, self.vcpu),
        };
        self.port = port.ok();
        self.bit = self.port.map(|port| port.bit());
        self.port.is_some()
    }
}

/// The words of the handshake, as one side has them.
fn words_of(window: &Window, side: u32) -> Option<Words<'static>> {
    let back = Side {
        state: window.static_word(offset_of!(ChannelHeader, state0))?,
        epoch: window.static_word(offset_of!(ChannelHeader, epoch0))?,
        seen: window.static_word(offset_of!(ChannelHeader, seen0))?,
    };
    let front = Side {
        state: window.static_word(offset_of!(ChannelHeader, state1))?,
        epoch: window.static_word(offset_of!(ChannelHeader, epoch1))?,
        seen: window.static_word(offset_of!(ChannelHeader, seen1))?,
    };
    let (own, peer) = if side == BACK { (back, front) } else { (front, back) };
    Some(Words { own, peer, refusal: window.static_word(OFFER + offset_of!(Offer, refusal))? })
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

/// Makes what is owed, and waits for the other side, until `deadline`: for its notification, or for its next life.
///
/// # Errors
/// `TimedOut`.
fn wait(link: &Link, bell: &mut Doorbell, deadline: u64) -> Result<(), DeviceError> {
    match link.port().filter(|_| !link.is_unplugged()) {
        Some(port) => {
            // Its next life notifies by another port: so it is looked for now and then.
            let look = deadline.min(time::now().saturating_add(link.look_ticks * LOOK_MOST));
            match bell.wait_until(look, || port.take()) {
                Err(Status::TimedOut) if look < deadline => Ok(()),
                other => Ok(other?),
            }
        }
        None if time::passed(deadline) => Err(DeviceError::TimedOut),
        None => {
            time::sleep_until(deadline.min(link.look_at.max(time::deadline(LOOK_AGAIN))));
            Ok(())
        }
    }
}
