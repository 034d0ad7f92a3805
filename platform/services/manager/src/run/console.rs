//! The manager's end of one guest's console channel.

use core::mem::offset_of;
use core::sync::atomic::Ordering;
use portico_abi::channel::{ChannelHeader, ChannelState, console as layout};
use portico_abi::handle::SELF_DOMAIN;
use portico_abi::{Handle, PAGE_SIZE, Status};
use portico_manager::memory::Piece;
use portico_sdk::hvc;
use portico_sdk::pipe::{Consumer, Pipe, Producer, Want};
use portico_sdk::port::Port;
use portico_sdk::window::Window;

use crate::hv;

/// Pages of a console window.
pub const PAGES: u64 = (layout::WINDOW_BYTES as u64).div_ceil(PAGE_SIZE);

/// A console channel. The window outlives the instances of its guest; the pipes are set up for each.
#[derive(Debug)]
pub struct Console {
    piece: Piece<Handle>,
    ipa: u64,
    window: Window,
    out: Consumer,
    input: Producer,
    out_want: Want,
    space_want: Want,
    port: Option<Port>,
    /// More may be in the output pipe without a notification.
    is_ready: bool,
}

impl Console {
    /// Takes `piece` as the window of a console, mapped at `ipa` in the manager.
    ///
    /// # Errors
    /// Those of mapping; `Invalid` if the window is too small.
    pub fn open(piece: Piece<Handle>, ipa: u64) -> Result<Self, Status> {
        hv::map_here(piece.extent, ipa, hv::READ_WRITE)?;
        Self::on(piece, ipa).ok_or(Status::Invalid).inspect_err(|_| {
            let _ = hv::unmap_here(piece.extent);
        })
    }

    /// Begins anew on a mapped window.
    fn on(piece: Piece<Handle>, ipa: u64) -> Option<Self> {
        // SAFETY: the extent is mapped there, as RAM that no Rust object is in, and `close` ends the use before it unmaps.
        let window = unsafe { Window::new(ipa, layout::WINDOW_BYTES) }?;
        reset(window)?;
        Some(Self {
            piece,
            ipa,
            window,
            out: Consumer::new(Pipe::console_out(window)?),
            input: Producer::new(Pipe::console_in(window)?),
            out_want: Want::new(window, layout::OUT_WANT),
            space_want: Want::new(window, layout::OUT_SPACE_WANT),
            port: None,
            is_ready: false,
        })
    }

    /// Sets the channel up for a new instance of its guest: lends the window, mapped at `ipa` there, and makes the
    /// ports. Returns the guest's port.
    ///
    /// # Errors
    /// Those of lending, mapping and making ports.
    pub fn connect(&mut self, domain: Handle, ipa: u64, cookie: u64) -> Result<Handle, Status> {
        self.disconnect();
        hv::scrub_mapped(self.piece.extent, self.ipa)?;
        *self = Self::on(self.piece, self.ipa).ok_or(Status::Invalid)?;
        hv::lend(self.piece.extent, self.piece.pages, domain, ipa)?;
        let (ours, theirs) = hvc::port_pair_create(SELF_DOMAIN, domain, cookie, cookie)?;
        match Port::bind(ours) {
            Ok(port) => self.port = Some(port),
            Err(status) => {
                let _ = hvc::handle_close(ours);
                return Err(status);
            }
        }
        self.out_want.set();
        Ok(theirs)
    }

    /// Ends the channel with an instance that no longer exists.
    pub fn disconnect(&mut self) {
        self.drop_port();
        let _ = hvc::complete(|| hvc::extent_revoke(self.piece.extent));
    }

    /// Gives the window's memory back.
    pub fn close(mut self) -> Piece<Handle> {
        self.disconnect();
        let _ = hv::unmap_here(self.piece.extent);
        self.piece
    }

    /// Whether the guest may have written something: takes its notification.
    pub fn poll(&mut self) -> bool {
        if self.port.as_ref().is_some_and(Port::take) {
            self.is_ready = true;
        }
        self.is_ready
    }

    /// Reads at most what `buffer` holds. When there is nothing left it asks for a notification.
    pub fn read<'a>(&mut self, buffer: &'a mut [u8]) -> &'a [u8] {
        let count = match self.out.read(buffer) {
            Ok(0) => {
                self.out_want.set();
                // Whatever came before the guest could see that we want to hear of it.
                match self.out.read(buffer) {
                    Ok(count) => count,
                    Err(_) => self.give_up_lies(),
                }
            }
            Ok(count) => count,
            Err(_) => self.give_up_lies(),
        };
        self.is_ready = count > 0;
        if count > 0 && self.space_want.is_set() {
            self.notify();
        }
        buffer.get(..count).unwrap_or_default()
    }

    /// Gives the guest a byte from the keyboard. False if its pipe is full.
    pub fn write(&mut self, byte: u8) -> bool {
        let written = match self.input.write(&[byte]) {
            Ok(count) => count == 1,
            Err(_) => {
                self.input.resynchronize();
                false
            }
        };
        self.notify();
        written
    }

    /// The guest's heartbeat, and within how many milliseconds it promises the next.
    pub fn heartbeat(&self) -> (u32, u32) {
        let word = |at| self.window.word(at).map_or(0, |word| word.load(Ordering::Relaxed));
        (word(offset_of!(ChannelHeader, heartbeat)), word(offset_of!(ChannelHeader, watchdog_ms)))
    }

    fn give_up_lies(&mut self) -> usize {
        self.out.resynchronize();
        0
    }

    fn notify(&self) {
        if let Some(port) = &self.port {
            let _ = port.notify();
        }
    }

    fn drop_port(&mut self) {
        if let Some(port) = self.port.take() {
            let handle = port.handle();
            let _ = port.unbind();
            let _ = hvc::handle_close(handle);
        }
    }
}

/// Writes a fresh header and empty pipes.
fn reset(window: Window) -> Option<()> {
    window.write(0, &[0; layout::OUT_OFFSET])?;
    let magic = window.word(offset_of!(ChannelHeader, magic))?;
    window.word(offset_of!(ChannelHeader, version))?.store(1, Ordering::Relaxed);
    window.word(offset_of!(ChannelHeader, size))?.store(layout::WINDOW_BYTES as u32, Ordering::Relaxed);
    window.word(offset_of!(ChannelHeader, epoch0))?.store(1, Ordering::Relaxed);
    let state = window.word(offset_of!(ChannelHeader, state0))?;
    state.store(ChannelState::Connected as u32, Ordering::Relaxed);
    magic.store(ChannelHeader::MAGIC, Ordering::Release);
    // The guest may look with its caches off.
    portico_sdk::mem::clean(window.address() as usize, layout::OUT_OFFSET);
    Some(())
}
