//! The manager's end of a domain's control page.

use core::mem::{offset_of, size_of};
use core::sync::atomic::Ordering;
use portico_abi::channel::ChannelHeader;
use portico_abi::device::control::{
    ABLE, ANSWER, ASK, ASLEEP, BEAT, CHANGES, COUNTERS, Counters, DEVICE, DONE_PAGES, FIRST, PAGES, PRESENT_PAGES,
    READY, REQUEST, RESULT, TARGET_PAGES, WALL_NS, WATCHDOG_MS,
};
use portico_abi::handle::SELF_DOMAIN;
use portico_abi::{Handle, PAGE_SIZE, Status, dt};
use portico_manager::balloon::Words;
use portico_manager::memory::Piece;
use portico_sdk::hvc;
use portico_sdk::port::Port;
use portico_sdk::window::Window;

use crate::again::Left;
use crate::hv::{self, Machine};
use crate::{console, cookie, place};

/// Cookie of a guest's port in its own table.
const GUESTS_COOKIE: u64 = u64::from_le_bytes(*b"control\0");

/// Where a domain has its control page: after its console.
pub const IPA: u64 = dt::WINDOWS + console::PAGES * PAGE_SIZE;

/// A service that does not show a beat for so many milliseconds hangs.
pub const PATIENCE_MS: u32 = 2000;

/// The same before it serves: its devices may take their time. An SD card alone has a second to come up, and one for each read of its partitions.
pub const START_PATIENCE_MS: u32 = 10_000;

/// The manager's end of the port.
#[derive(Debug)]
enum End {
    /// Of a service, or of a guest whose memory can change: it has something to tell.
    Heard(Port),
    /// Of any other guest. It is not bound: a guest that notifies without end must not wake the manager.
    Unheard(Handle),
}

impl End {
    fn new(port: Handle, is_heard: bool) -> Result<Self, Status> {
        if is_heard { Port::bind(port).map(Self::Heard) } else { Ok(Self::Unheard(port)) }
    }

    fn handle(&self) -> Handle {
        match self {
            Self::Heard(port) => port.handle(),
            Self::Unheard(port) => *port,
        }
    }

    fn heard(&self) -> Option<&Port> {
        match self {
            Self::Heard(port) => Some(port),
            Self::Unheard(_) => None,
        }
    }
}

/// The control page of a domain. It outlives the domain's instances.
#[derive(Debug)]
pub struct Control {
    id: usize,
    is_heard: bool,
    piece: Piece<Handle>,
    window: Window,
    end: Option<End>,
}

impl Control {
    /// Takes `piece`, a page, as the control page of guest `id`.
    ///
    /// # Errors
    /// Those of mapping.
    pub fn open(piece: Piece<Handle>, id: usize) -> Result<Self, Status> {
        hv::map_here(piece.extent, place::control(id), hv::READ_WRITE)?;
        Self::over(piece, id, false).ok_or(Status::Invalid)
    }

    /// Takes over the page and the port that the manager's last life had, if the domain has them.
    pub fn adopt(left: &mut Left, id: usize, is_heard: bool) -> Option<Self> {
        let mut control = Self::over(left.window(place::control(id), 1)?, id, is_heard)?;
        let port = left.port(cookie::control(id));
        // One that is heard is bound to a bit of the last life, which may be another one's now.
        control.end = port.and_then(|port| End::new(port, is_heard).ok());
        Some(control)
    }

    fn over(piece: Piece<Handle>, id: usize, is_heard: bool) -> Option<Self> {
        // SAFETY: the extent is mapped there, for good, as RAM that no Rust object is in.
        let window = unsafe { Window::new(place::control(id), PAGE_SIZE as usize) }?;
        Some(Self { id, is_heard, piece, window, end: None })
    }

    /// Whether an instance can be told something.
    pub fn is_connected(&self) -> bool {
        self.end.is_some()
    }

    /// Begins anew for an instance of the domain: lends the page, mapped at `ipa` there, and makes the ports. Returns the domain's port. Its
    /// notifications wake the manager if it `is_heard`.
    ///
    /// # Errors
    /// Those of lending, mapping and making ports.
    pub fn connect(
        &mut self,
        machine: &mut Machine,
        domain: Handle,
        ipa: u64,
        is_heard: bool,
    ) -> Result<Handle, Status> {
        self.disconnect();
        self.is_heard = is_heard;
        hv::scrub_mapped(self.piece.extent, self.window.address())?;
        let set = |at: usize, value: u32| {
            self.window.word(at).map(|word| word.store(value, Ordering::Release)).ok_or(Status::Invalid)
        };
        for at in (0..PAGE_SIZE as usize).step_by(4) {
            set(at, 0)?;
        }
        set(offset_of!(ChannelHeader, version), 1)?;
        set(offset_of!(ChannelHeader, size), PAGE_SIZE as u32)?;
        set(offset_of!(ChannelHeader, magic), ChannelHeader::MAGIC)?;
        portico_sdk::mem::clean(self.window.address() as usize, PAGE_SIZE as usize);
        machine.lend(self.piece.extent, self.piece.pages, domain, ipa, hv::READ_WRITE)?;
        let pair = || hvc::port_pair_create(SELF_DOMAIN, domain, cookie::control(self.id), GUESTS_COOKIE);
        let (ours, theirs) = machine.with_budget(domain, pair)?;
        self.end = Some(End::new(ours, self.is_heard).inspect_err(|_| {
            let _ = hvc::handle_close(ours);
        })?);
        Ok(theirs)
    }

    /// Ends the channel with an instance that no longer exists.
    pub fn disconnect(&mut self) {
        if let Some(end) = self.end.take() {
            let handle = end.handle();
            if let End::Heard(port) = end {
                let _ = port.unbind();
            }
            let _ = hvc::handle_close(handle);
        }
        let _ = hvc::complete(|| hvc::extent_revoke(self.piece.extent));
    }

    /// Tells the service that ports of its devices have changed.
    pub fn tell_changes(&self) {
        if let Some(changes) = self.window.word(CHANGES) {
            // The word is the manager's; a service that writes it too must not be able to hold up an exclusive pair.
            changes.store(changes.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        }
        self.notify();
    }

    /// Notifies the domain.
    pub fn notify(&self) {
        if let Some(end) = &self.end {
            let _ = hvc::port_notify(end.handle());
        }
    }

    /// Tells the domain how many pages it has, and should have.
    pub fn set_memory(&self, present: u32, target: u32) {
        self.set(PRESENT_PAGES, present);
        self.set(TARGET_PAGES, target);
    }

    /// What the domain asks for of its memory, copied.
    pub fn memory_request(&self) -> Words {
        // First the word that was written last.
        let request = self.word(REQUEST);
        Words { request, first: self.window.load(FIRST).unwrap_or(0), pages: self.word(PAGES) }
    }

    /// The last request for memory that was answered.
    pub fn answered(&self) -> u32 {
        self.word(ANSWER)
    }

    /// Answers a request for memory.
    pub fn answer(&self, request: u32, result: u32, done_pages: u32) {
        self.set(RESULT, result);
        self.set(DONE_PAGES, done_pages);
        self.set(ANSWER, request);
        self.notify();
    }

    /// Lets the domain's notifications wait.
    pub fn mask(&self) {
        self.heard().into_iter().for_each(Port::mask);
    }

    /// Ends [`Control::mask`]; [`Control::take`] tells what waited.
    pub fn unmask(&self) {
        let _ = self.heard().map(Port::unmask);
    }

    /// Takes the domain's notification.
    pub fn take(&self) -> bool {
        self.heard().is_some_and(Port::take)
    }

    /// Whether the domain notified and that is not masked; does not forget it.
    pub fn is_told(&self) -> bool {
        self.heard().is_some_and(Port::is_pending)
    }

    fn heard(&self) -> Option<&Port> {
        self.end.as_ref().and_then(End::heard)
    }

    /// How often the domain's main loop has shown that it turns.
    pub fn beat(&self) -> u32 {
        self.word(BEAT)
    }

    /// Milliseconds within which a guest promises the next beat, 0 for never.
    pub fn watchdog_ms(&self) -> u32 {
        self.word(WATCHDOG_MS)
    }

    /// Whether the domain says that it does what [`Control::ask`] asks for.
    pub fn is_able(&self, what: u32) -> bool {
        self.is_connected() && self.word(ABLE) >> what & 1 != 0
    }

    /// Whether the domain says that it sleeps.
    pub fn is_asleep(&self) -> bool {
        self.is_connected() && self.word(ASLEEP) == 1
    }

    /// Tells which device is asked for next.
    pub fn set_device(&self, cookie: u64) {
        let _ = self.window.store(DEVICE, cookie);
    }

    /// Asks the domain for something, one of [`ask`](portico_abi::device::control::ask).
    pub fn ask(&self, what: u32) {
        if let Some(word) = self.window.word(ASK) {
            // A domain that writes the manager's word spoils what it is asked for itself, and no more.
            let number = (word.load(Ordering::Relaxed) >> 8).wrapping_add(1);
            word.store(number << 8 | what, Ordering::Release);
        }
        self.notify();
    }

    /// What the domain was asked for last.
    pub fn last_asked(&self) -> u32 {
        self.word(ASK) & 0xff
    }

    /// Tells the domain at which time of day its counter was 0, in nanoseconds since 1970.
    pub fn set_wall(&self, at_zero_ns: u64) {
        let _ = self.window.store(WALL_NS, at_zero_ns);
        self.notify();
    }

    /// Whether the service said that it serves.
    pub fn is_ready(&self) -> bool {
        self.word(READY) == 1
    }

    /// What device number `index` of the service has moved.
    pub fn counters(&self, index: usize) -> Counters {
        let word = |field: usize| self.window.load(COUNTERS + index * size_of::<Counters>() + field * 8).unwrap_or(0);
        Counters { requests: word(0), bytes_in: word(1), bytes_out: word(2), failed: word(3), notified: word(4) }
    }

    fn set(&self, at: usize, value: u32) {
        self.window.word(at).into_iter().for_each(|word| word.store(value, Ordering::Release));
    }

    fn word(&self, at: usize) -> u32 {
        self.window.word(at).map_or(0, |word| word.load(Ordering::Acquire))
    }
}
