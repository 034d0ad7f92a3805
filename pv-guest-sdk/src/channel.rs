//! Channels: a window shared with another domain, a port, and the convention of [`portico_abi::channel`].
//!
//! Both sides write a state and an epoch into the window's header, each its own. A side that (re)starts adds 1 to its epoch
//! and begins with empty rings; a side whose peer's epoch changed must begin anew too: whatever it had in flight is
//! unanswered, and it alone decides what to send again. So a ring is disposable, and survives neither end's restart.
//!
//! [`Channel::queues`] gives one typed ring for each direction. Words, not Rust types, cross it: a message is a fixed number
//! of bytes that each side decodes from its private copy.

use crate::dtb::{self, ChannelNode};
use crate::port::{self, Port};
use crate::window::Window;
use crate::{hvc, time, vcpu};
use core::marker::PhantomData;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use portico_abi::channel::{ChannelHeader, ChannelState};
use portico_abi::handle::SELF_DOMAIN;
use portico_abi::ring::{self, Control, Layout, QueuePair, Slots};
use portico_abi::{Handle, ObjectType, Status};

/// Why a channel cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelError {
    /// The device tree names no such channel.
    NotFound,
    /// The window or its header is not as the ABI says.
    BadWindow,
    /// A call failed.
    Call(Status),
    /// The peer broke the ring protocol.
    Corrupt,
    /// The peer closed, vanished or began anew: close, and open again.
    Lost,
    /// Not within the deadline.
    TimedOut,
}

impl From<Status> for ChannelError {
    fn from(status: Status) -> Self {
        match status {
            Status::TimedOut => Self::TimedOut,
            Status::PeerGone => Self::Lost,
            other => Self::Call(other),
        }
    }
}

impl From<ring::Corrupt> for ChannelError {
    fn from(_: ring::Corrupt) -> Self {
        Self::Corrupt
    }
}

/// One side of a channel.
#[derive(Debug)]
pub struct Channel {
    window: Window,
    port: Port,
    side: u32,
    epoch: u32,
    /// The peer's epoch when we connected.
    peer_epoch: AtomicU32,
}

impl Channel {
    /// Opens the channel `name` of the device tree: binds its port and begins a new epoch in state `Init`.
    ///
    /// # Errors
    /// `NotFound`, `BadWindow`, those of binding a port, and `TimedOut` if the peer does not exist for [`PATIENCE`].
    pub fn open(name: &str) -> Result<Channel, ChannelError> {
        let node = dtb::channels().find(|node| node.name == name).ok_or(ChannelError::NotFound)?;
        // SAFETY: the manager mapped the window for the life of the domain, and nothing else of the guest is there.
        unsafe { Self::open_node(&node) }
    }

    /// As [`Channel::open`], without waiting for a peer: for who waits in a way of its own.
    ///
    /// # Errors
    /// `NotFound`, `BadWindow`, those of binding a port, and `Lost` if the peer does not exist now.
    pub fn try_open(name: &str) -> Result<Channel, ChannelError> {
        let node = dtb::channels().find(|node| node.name == name).ok_or(ChannelError::NotFound)?;
        let handle = find_port(&node).ok_or(ChannelError::Lost)?;
        // SAFETY: as in `open`.
        unsafe { Self::begin(&node, handle, vcpu::index()) }
    }

    /// Opens a channel that was described by other means than the device tree.
    ///
    /// # Errors
    /// As [`Channel::open`].
    ///
    /// # Safety
    /// The window must be mapped as Normal memory for as long as the channel is used, and hold no Rust object.
    pub unsafe fn open_node(node: &ChannelNode) -> Result<Channel, ChannelError> {
        // SAFETY: the caller's promise.
        unsafe { Self::open_node_on(node, vcpu::index()) }
    }

    /// As [`Channel::open_node`], notified on vCPU `vcpu`.
    ///
    /// # Errors
    /// As [`Channel::open`].
    ///
    /// # Safety
    /// As [`Channel::open_node`].
    pub unsafe fn open_node_on(node: &ChannelNode, vcpu: u32) -> Result<Channel, ChannelError> {
        let handle = live_port(node)?;
        // SAFETY: the caller's promise.
        unsafe { Self::begin(node, handle, vcpu) }
    }

    /// Binds the port, and begins a new epoch.
    ///
    /// # Safety
    /// As [`Channel::open_node`].
    unsafe fn begin(node: &ChannelNode, handle: Handle, vcpu: u32) -> Result<Channel, ChannelError> {
        // SAFETY: the caller's promise.
        let window =
            unsafe { Window::new(node.window.base, node.window.len as usize) }.ok_or(ChannelError::BadWindow)?;
        let magic = window.word(offset_of!(ChannelHeader, magic)).ok_or(ChannelError::BadWindow)?;
        if magic.load(Ordering::Acquire) != ChannelHeader::MAGIC
            || node.side > 1
            || window.len() < size_of::<ChannelHeader>()
        {
            return Err(ChannelError::BadWindow);
        }
        let port = Port::bind_on(handle, vcpu)?;
        let mut channel = Channel { window, port, side: node.side, epoch: 0, peer_epoch: AtomicU32::new(0) };
        channel.epoch = channel.load(channel.epoch_at(channel.side)).wrapping_add(1);
        // An epoch of 0 is nobody's: a side that never began.
        channel.epoch = channel.epoch.max(1);
        channel.set_state(ChannelState::Init);
        channel.store(channel.seen_at(channel.side), 0);
        channel.store(channel.epoch_at(channel.side), channel.epoch);
        Ok(channel)
    }

    /// Its window.
    pub fn window(&self) -> Window {
        self.window
    }

    /// Its port.
    pub fn port(&self) -> Port {
        self.port
    }

    /// Which side the caller is.
    pub fn side(&self) -> u32 {
        self.side
    }

    /// The caller's epoch.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The peer's state; what is none counts as `Closed`.
    pub fn peer_state(&self) -> ChannelState {
        match self.load(self.state_at(1 - self.side)) {
            1 => ChannelState::Init,
            2 => ChannelState::Connected,
            3 => ChannelState::Closing,
            _ => ChannelState::Closed,
        }
    }

    /// The peer's epoch.
    pub fn peer_epoch(&self) -> u32 {
        self.load(self.epoch_at(1 - self.side))
    }

    /// Says that this side is ready (its rings are set up), and waits until the peer is, for this epoch.
    ///
    /// A peer of an older epoch of ours may still say `Connected`; so each side also says which epoch of the
    /// other it set its rings up for, and both must match.
    ///
    /// # Errors
    /// `TimedOut` at `deadline` (a value of CNTVCT_EL0); `Lost` if the peer's domain is gone.
    pub fn connect(&self, deadline: u64) -> Result<(), ChannelError> {
        self.set_state(ChannelState::Connected);
        self.tell()?;
        port::wait_until(deadline, || {
            let _ = self.port.take();
            self.is_met()
        })?;
        Ok(())
    }

    /// One step of [`Channel::connect`], without waiting: answers the peer's epoch and says whether it has answered ours.
    pub fn try_connect(&self) -> bool {
        self.set_state(ChannelState::Connected);
        self.is_met()
    }

    fn is_met(&self) -> bool {
        let theirs = self.peer_epoch();
        if self.load(self.seen_at(self.side)) != theirs {
            // Our rings are empty and unused since `open`: they fit any epoch of the peer.
            self.store(self.seen_at(self.side), theirs);
            let _ = self.tell();
        }
        self.peer_epoch.store(theirs, Ordering::Relaxed);
        theirs != 0
            && self.peer_state() == ChannelState::Connected
            && self.load(self.seen_at(1 - self.side)) == self.epoch
            && self.peer_epoch() == theirs
    }

    /// Whether the peer is still the one that [`Channel::connect`] met.
    ///
    /// # Errors
    /// `Lost` if not.
    pub fn check(&self) -> Result<(), ChannelError> {
        if self.peer_state() == ChannelState::Connected && self.peer_epoch() == self.peer_epoch.load(Ordering::Relaxed)
        {
            Ok(())
        } else {
            Err(ChannelError::Lost)
        }
    }

    /// What indices that make no sense mean: a peer that began anew has set its own back, and is `Lost`; else it lies.
    fn broken(&self) -> ChannelError {
        self.check().err().unwrap_or(ChannelError::Corrupt)
    }

    /// Notifies the peer.
    ///
    /// # Errors
    /// `Lost` if it is gone.
    pub fn tell(&self) -> Result<(), ChannelError> {
        self.port.notify().map_err(ChannelError::from)
    }

    /// Closes this side and unbinds the port.
    pub fn close(self) {
        self.set_state(ChannelState::Closed);
        let is_gone = self.tell() == Err(ChannelError::Lost);
        let _ = self.port.unbind();
        if is_gone {
            // It will never notify anyone again; the peer's next life gets another.
            let _ = hvc::handle_close(self.port.handle());
        }
    }

    /// The two rings of a symmetric protocol with messages of `N` bytes: what this side sends, what it receives.
    ///
    /// To be called between [`Channel::open`] and [`Channel::connect`]: the rings begin empty.
    ///
    /// # Errors
    /// `BadWindow` if the window is too small for them.
    pub fn queues<const N: usize>(&self) -> Result<(Sender<'_, N>, Receiver<'_, N>), ChannelError> {
        let pair = QueuePair::fitting(self.window.len(), N, N).ok_or(ChannelError::BadWindow)?;
        let (mine, theirs) =
            if self.side == 0 { (pair.requests, pair.responses) } else { (pair.responses, pair.requests) };
        Ok((Sender::new(self, mine)?, Receiver::new(self, theirs)?))
    }

    /// The sending end of the ring at `layout`.
    ///
    /// # Errors
    /// `BadWindow` if it is not inside the window.
    pub fn sender<const N: usize>(&self, layout: Layout) -> Result<Sender<'_, N>, ChannelError> {
        Sender::new(self, layout)
    }

    /// The receiving end of the ring at `layout`.
    ///
    /// # Errors
    /// `BadWindow` if it is not inside the window.
    pub fn receiver<const N: usize>(&self, layout: Layout) -> Result<Receiver<'_, N>, ChannelError> {
        Receiver::new(self, layout)
    }

    fn control(&self, layout: Layout) -> Option<Control<'_>> {
        if layout.offset < size_of::<ChannelHeader>() || layout.end() > self.window.len() {
            return None;
        }
        Some(Control {
            head: self.window.word(layout.offset + ring::HEAD)?,
            space_event: self.window.word(layout.offset + ring::SPACE_EVENT)?,
            tail: self.window.word(layout.offset + ring::TAIL)?,
            data_event: self.window.word(layout.offset + ring::DATA_EVENT)?,
        })
    }

    fn set_state(&self, state: ChannelState) {
        self.store(self.state_at(self.side), state as u32);
    }

    fn state_at(&self, side: u32) -> usize {
        if side == 0 { offset_of!(ChannelHeader, state0) } else { offset_of!(ChannelHeader, state1) }
    }

    fn epoch_at(&self, side: u32) -> usize {
        if side == 0 { offset_of!(ChannelHeader, epoch0) } else { offset_of!(ChannelHeader, epoch1) }
    }

    fn seen_at(&self, side: u32) -> usize {
        if side == 0 { offset_of!(ChannelHeader, seen0) } else { offset_of!(ChannelHeader, seen1) }
    }

    fn load(&self, at: usize) -> u32 {
        self.window.word(at).map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn store(&self, at: usize, value: u32) {
        if let Some(word) = self.window.word(at) {
            word.store(value, Ordering::Release);
        }
    }
}

/// How long [`Channel::open`] waits for the peer to exist.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks for a port.
const NAP: Duration = Duration::from_millis(20);

/// The port of the tree, or, if its peer is gone, the one that was made since: it has the same cookie. `None` if there is no peer now.
fn find_port(node: &ChannelNode) -> Option<Handle> {
    if node.cookie == 0 {
        return Some(node.port);
    }
    let mut cursor = 0;
    while let Ok((handle, next)) = hvc::handle_next(SELF_DOMAIN, cursor) {
        cursor = next;
        let is_it = |info: hvc::HandleInfo| {
            info.object == Some(ObjectType::Port) && info.cookie == node.cookie && info.state == 0
        };
        if hvc::handle_info(handle).is_ok_and(is_it) {
            return Some(handle);
        }
    }
    None
}

/// [`find_port`], which waits for a peer.
fn live_port(node: &ChannelNode) -> Result<Handle, ChannelError> {
    let limit = time::deadline(PATIENCE);
    loop {
        if let Some(handle) = find_port(node) {
            return Ok(handle);
        }
        if time::passed(limit) {
            return Err(ChannelError::TimedOut);
        }
        time::sleep(NAP);
    }
}

/// Payload of a ring in a window.
#[derive(Clone, Copy, Debug)]
struct WindowSlots {
    window: Window,
    layout: Layout,
}

impl Slots for WindowSlots {
    fn put(&self, index: u32, message: &[u8]) {
        // Inside: `control` checked the whole ring, and a message is no longer than a slot.
        let _ = self.window.write(self.layout.slot(index), message);
    }

    fn get(&self, index: u32, message: &mut [u8]) {
        let _ = self.window.read(self.layout.slot(index), message);
    }
}

/// A message buffer that is aligned for wide copies.
#[repr(align(8))]
struct Aligned<const N: usize>([u8; N]);

/// The sending end of a ring of messages of `N` bytes.
#[derive(Debug)]
pub struct Sender<'a, const N: usize> {
    channel: &'a Channel,
    producer: ring::Producer<'a>,
    slots: WindowSlots,
    _not_sync: PhantomData<core::cell::Cell<()>>,
}

impl<'a, const N: usize> Sender<'a, N> {
    fn new(channel: &'a Channel, layout: Layout) -> Result<Self, ChannelError> {
        let control = channel.control(layout).filter(|_| layout.slot_bytes == N).ok_or(ChannelError::BadWindow)?;
        let producer = ring::Producer::start(control, layout.slots, 0);
        let slots = WindowSlots { window: channel.window, layout };
        Ok(Self { channel, producer, slots, _not_sync: PhantomData })
    }

    /// Puts a message into the ring without telling the peer. `false` if there is no room.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn push(&mut self, message: &[u8; N]) -> Result<bool, ChannelError> {
        self.producer.push(&self.slots, message).map_err(|_| self.channel.broken())
    }

    /// Publishes what was pushed and notifies the peer if it wants that.
    ///
    /// # Errors
    /// `Lost` if the peer is gone.
    pub fn publish(&mut self) -> Result<(), ChannelError> {
        if self.producer.publish() { self.channel.tell() } else { Ok(()) }
    }

    /// Sends a message. `false` if there is no room.
    ///
    /// # Errors
    /// `Corrupt`, `Lost`.
    pub fn try_send(&mut self, message: &[u8; N]) -> Result<bool, ChannelError> {
        let pushed = self.push(message)?;
        if pushed {
            self.publish()?;
        }
        Ok(pushed)
    }

    /// Sends a message, and waits for room until `deadline`.
    ///
    /// # Errors
    /// `Corrupt`, `Lost`, `TimedOut`.
    pub fn send(&mut self, message: &[u8; N], deadline: u64) -> Result<(), ChannelError> {
        loop {
            if self.try_send(message)? {
                return Ok(());
            }
            self.channel.check()?;
            if self.arm()? {
                self.channel.port.wait(deadline)?;
            }
        }
    }

    /// Asks for a notification of room. `true`: there is none yet, and the caller may sleep.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn arm(&mut self) -> Result<bool, ChannelError> {
        self.producer.arm().map_err(|_| self.channel.broken())
    }
}

/// The receiving end of a ring of messages of `N` bytes.
#[derive(Debug)]
pub struct Receiver<'a, const N: usize> {
    channel: &'a Channel,
    consumer: ring::Consumer<'a>,
    slots: WindowSlots,
    _not_sync: PhantomData<core::cell::Cell<()>>,
}

impl<'a, const N: usize> Receiver<'a, N> {
    fn new(channel: &'a Channel, layout: Layout) -> Result<Self, ChannelError> {
        let control = channel.control(layout).filter(|_| layout.slot_bytes == N).ok_or(ChannelError::BadWindow)?;
        let consumer = ring::Consumer::start(control, layout.slots, 0);
        let slots = WindowSlots { window: channel.window, layout };
        Ok(Self { channel, consumer, slots, _not_sync: PhantomData })
    }

    /// Takes the next message, if there is one, and gives its slot back.
    ///
    /// # Errors
    /// `Corrupt`, `Lost`.
    pub fn try_receive(&mut self) -> Result<Option<[u8; N]>, ChannelError> {
        let mut message = Aligned([0; N]);
        if !self.consumer.pop(&self.slots, &mut message.0).map_err(|_| self.channel.broken())? {
            return Ok(None);
        }
        if self.consumer.release() {
            self.channel.tell()?;
        }
        Ok(Some(message.0))
    }

    /// Takes the next message, and waits for it until `deadline`.
    ///
    /// # Errors
    /// `Corrupt`, `Lost`, `TimedOut`.
    pub fn receive(&mut self, deadline: u64) -> Result<[u8; N], ChannelError> {
        loop {
            if let Some(message) = self.try_receive()? {
                return Ok(message);
            }
            self.channel.check()?;
            if self.arm()? {
                self.channel.port.wait(deadline)?;
            }
        }
    }

    /// Asks for a notification of the next message. `true`: there is none yet, and the caller may sleep.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn arm(&mut self) -> Result<bool, ChannelError> {
        self.consumer.arm().map_err(|_| self.channel.broken())
    }
}
