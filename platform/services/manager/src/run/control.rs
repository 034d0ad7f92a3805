//! The manager's end of a service's control page.

use core::mem::{offset_of, size_of};
use core::sync::atomic::Ordering;
use portico_abi::channel::ChannelHeader;
use portico_abi::device::control::{BEAT, CHANGES, COUNTERS, Counters, READY};
use portico_abi::handle::SELF_DOMAIN;
use portico_abi::{Handle, PAGE_SIZE, Status};
use portico_manager::memory::Piece;
use portico_sdk::hvc;
use portico_sdk::port::Port;
use portico_sdk::window::Window;

use crate::again::Left;
use crate::{cookie, hv, place};

/// A service that does not show a beat for so many milliseconds hangs.
pub const PATIENCE_MS: u32 = 2000;

/// The control page of a service. It outlives the service's instances.
#[derive(Debug)]
pub struct Control {
    id: usize,
    piece: Piece<Handle>,
    window: Window,
    port: Option<Port>,
}

impl Control {
    /// Takes `piece`, a page, as the control page of service `id`.
    ///
    /// # Errors
    /// Those of mapping.
    pub fn open(piece: Piece<Handle>, id: usize) -> Result<Self, Status> {
        hv::map_here(piece.extent, place::control(id), hv::READ_WRITE)?;
        Self::over(piece, id).ok_or(Status::Invalid)
    }

    /// Takes over the page and the port that the manager's last life had, if the service has them.
    pub fn adopt(left: &mut Left, id: usize) -> Option<Self> {
        let mut control = Self::over(left.window(place::control(id), 1)?, id)?;
        let port = left.port(cookie::control(id));
        // It is bound to a bit of the last life, which may be another one's now.
        control.port = port.and_then(|port| Port::bind(port).ok());
        Some(control)
    }

    fn over(piece: Piece<Handle>, id: usize) -> Option<Self> {
        // SAFETY: the extent is mapped there, for good, as RAM that no Rust object is in.
        let window = unsafe { Window::new(place::control(id), PAGE_SIZE as usize) }?;
        Some(Self { id, piece, window, port: None })
    }

    /// Whether an instance can be told something.
    pub fn is_connected(&self) -> bool {
        self.port.is_some()
    }

    /// Begins anew for an instance of the service: lends the page, mapped at `ipa` there, and makes the ports. Returns the service's port.
    ///
    /// # Errors
    /// Those of lending, mapping and making ports.
    pub fn connect(&mut self, domain: Handle, ipa: u64) -> Result<Handle, Status> {
        self.disconnect();
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
        hv::lend(self.piece.extent, self.piece.pages, domain, ipa)?;
        let (ours, theirs) = hvc::port_pair_create(SELF_DOMAIN, domain, cookie::control(self.id), 0)?;
        self.port = Some(Port::bind(ours).inspect_err(|_| {
            let _ = hvc::handle_close(ours);
        })?);
        Ok(theirs)
    }

    /// Ends the channel with an instance that no longer exists.
    pub fn disconnect(&mut self) {
        if let Some(port) = self.port.take() {
            let handle = port.handle();
            let _ = port.unbind();
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

    /// Notifies the service.
    pub fn notify(&self) {
        if let Some(port) = &self.port {
            let _ = port.notify();
        }
    }

    /// Takes the service's notification.
    pub fn take(&self) -> bool {
        self.port.as_ref().is_some_and(Port::take)
    }

    /// Whether the service notified; does not forget it.
    pub fn is_told(&self) -> bool {
        self.port.as_ref().is_some_and(Port::is_pending)
    }

    /// How often the service's main loop has shown that it turns.
    pub fn beat(&self) -> u32 {
        self.word(BEAT)
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

    fn word(&self, at: usize) -> u32 {
        self.window.word(at).map_or(0, |word| word.load(Ordering::Acquire))
    }
}
