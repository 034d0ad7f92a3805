//! The manager's part in a guest's console: the windows, and the port. What is in the rings is the console service's.

use core::mem::offset_of;
use core::sync::atomic::Ordering;
use portico_abi::channel::{ChannelHeader, ChannelState, console as layout};
use portico_abi::handle::SELF_DOMAIN;
use portico_abi::{Handle, PAGE_SIZE, Rights, Status};
use portico_console::layout as service;
use portico_manager::memory::Piece;
use portico_sdk::hvc;
use portico_sdk::window::Window;

use crate::again::Left;
use crate::hv::{self, Machine};
use crate::{cookie, place};

/// Pages of a console window.
pub const PAGES: u64 = (layout::WINDOW_BYTES as u64).div_ceil(PAGE_SIZE);
/// Pages of a history.
const HISTORY_PAGES: u64 = (service::HISTORY_BYTES as u64).div_ceil(PAGE_SIZE);

/// Cookie of a guest's console port in its own table.
const GUESTS_COOKIE: u64 = u64::from_le_bytes(*b"console\0");

/// The console of a guest. Its windows are there as long as the guest is known.
#[derive(Debug)]
pub struct Console {
    source: usize,
    pieces: [Piece<Handle>; 2],
    window: Window,
    /// The service's end of the port: the manager's own handle, of which each instance of the service gets a copy. So the guest's end
    /// has a peer whatever becomes of the service.
    port: Option<Handle>,
}

impl Console {
    /// Pages of both windows.
    pub const ALL_PAGES: u64 = PAGES + HISTORY_PAGES;

    /// Takes memory for the console of guest `source`.
    ///
    /// # Errors
    /// Those of taking memory, lending and mapping.
    pub fn open(machine: &mut Machine, source: usize) -> Result<Self, Status> {
        let window = hv::shared(machine, PAGES, place::console(source))?;
        let history =
            hv::shared(machine, HISTORY_PAGES, place::history(source)).inspect_err(|_| machine.give_back(window))?;
        Self::over(source, [window, history]).ok_or(Status::Invalid)
    }

    /// Takes over the console that the manager's last life had for guest `source`, if the service knew it.
    pub fn adopt(machine: &mut Machine, left: &mut Left, source: usize) -> Option<Self> {
        let window = left.window(place::console(source), PAGES);
        let history = left.window(place::history(source), HISTORY_PAGES);
        let (Some(window), Some(history)) = (window, history) else {
            window.into_iter().chain(history).for_each(|piece| machine.give_back(piece));
            return None;
        };
        let mut console = Self::over(source, [window, history])?;
        console.port = left.port(cookie::console(source));
        Some(console)
    }

    /// Gives the windows back, of a console that the service does not know.
    pub fn close(mut self, machine: &mut Machine) {
        self.disconnect();
        for piece in self.pieces {
            machine.give_back(piece);
        }
    }

    fn over(source: usize, pieces: [Piece<Handle>; 2]) -> Option<Self> {
        // SAFETY: the extent is mapped there, as RAM that no Rust object is in, and `close` ends the use before it unmaps.
        let window = unsafe { Window::new(place::console(source), layout::WINDOW_BYTES) }?;
        Some(Self { source, pieces, window, port: None })
    }

    /// Begins a life of the guest: lends it the window, mapped at `ipa`, and makes the ports. Returns the guest's port.
    ///
    /// # Errors
    /// Those of lending, mapping and making ports.
    pub fn connect(&mut self, machine: &mut Machine, domain: Handle, ipa: u64) -> Result<Handle, Status> {
        self.disconnect();
        begin(self.window).ok_or(Status::Invalid)?;
        let [window, _] = self.pieces;
        machine.lend(window.extent, window.pages, domain, ipa, hv::READ_WRITE)?;
        let ours = cookie::console(self.source);
        let pair = || hvc::port_pair_create(SELF_DOMAIN, domain, ours, GUESTS_COOKIE);
        let (ours, theirs) = machine.with_budget(domain, pair)?;
        self.port = Some(ours);
        Ok(theirs)
    }

    /// Ends the port with a life of the guest that is over.
    pub fn disconnect(&mut self) {
        if let Some(port) = self.port.take() {
            let _ = hvc::handle_close(port);
        }
    }

    /// Lends an instance of the service the windows.
    ///
    /// # Errors
    /// Those of lending and mapping.
    pub fn lend(&self, machine: &mut Machine, domain: Handle) -> Result<(), Status> {
        let [window, history] = self.pieces;
        let ipa = service::console_ipa(self.source);
        machine.lend(window.extent, window.pages, domain, ipa, hv::READ_WRITE)?;
        machine.lend(history.extent, history.pages, domain, service::history_ipa(self.source), hv::READ_WRITE)
    }

    /// Gives an instance of the service the port, if the guest has one.
    ///
    /// # Errors
    /// Those of copying handles.
    pub fn plug(&self, machine: &mut Machine, domain: Handle) -> Result<(), Status> {
        let Some(port) = self.port else { return Ok(()) };
        let rights = Rights::INSPECT | Rights::NOTIFY | Rights::BIND;
        let copy = || hvc::handle_copy(port, domain, rights, service::cookie(self.source));
        machine.with_budget(domain, copy).map(drop)
    }

    /// How many bytes the guest has ever written.
    pub fn written(&self) -> u32 {
        self.load(layout::OUT_HEAD)
    }

    fn load(&self, at: usize) -> u32 {
        self.window.word(at).map_or(0, |word| word.load(Ordering::Acquire))
    }
}

/// Begins a life of the guest in its window: writes the header, over which the last life or a service may have written anything, and takes back what the
/// last life said of itself and what was typed to it. What it wrote stays until it is shown.
fn begin(window: Window) -> Option<()> {
    let set = |at: usize, value: u32| window.word(at).map(|word| word.store(value, Ordering::Release));
    set(offset_of!(ChannelHeader, version), 1)?;
    set(offset_of!(ChannelHeader, size), layout::WINDOW_BYTES as u32)?;
    set(offset_of!(ChannelHeader, magic), ChannelHeader::MAGIC)?;
    set(offset_of!(ChannelHeader, state1), ChannelState::Closed as u32)?;
    set(layout::OUT_SPACE_WANT, 0)?;
    set(layout::IN_TAIL, window.word(layout::IN_HEAD)?.load(Ordering::Acquire))?;
    // The guest may look with its caches off.
    portico_sdk::mem::clean(window.address() as usize, layout::OUT_OFFSET);
    Some(())
}
