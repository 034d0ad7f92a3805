//! Channels between guests.
//!
//! A channel's window belongs to the manager and outlives both guests. Each new instance of a guest gets the window lent,
//! and a fresh pair of ports with every peer that has a domain. The cookie of both handles is [`cookie`] of
//! the channel: by it a guest finds its new port after its peer was restarted.

use alloc::vec::Vec;
use core::mem::offset_of;
use core::sync::atomic::Ordering;
use portico_abi::call::extent_flags;
use portico_abi::channel::{ChannelHeader, ChannelState};
use portico_abi::{Handle, PAGE_SIZE, Status, dt};
use portico_bundle::description::{Channel as Description, MAX_CHANNEL_PAGES};
use portico_manager::memory::Piece;
use portico_sdk::hvc;
use portico_sdk::window::Window;

use crate::hv::{self, Machine};

/// IPA from which channel windows are mapped in the manager, each at a place of its own.
const WINDOWS: u64 = 0x8_0000_0000;
/// Bytes between them: the largest window.
const STRIDE: u64 = MAX_CHANNEL_PAGES as u64 * PAGE_SIZE;

/// A channel.
#[derive(Debug)]
pub struct Channel {
    /// What it is to be.
    pub description: Description,
    window: Option<(Piece<Handle>, Window)>,
    /// Ports of side 0 and 1, in their guests' tables; stale when the peer is gone.
    pub ports: [Handle; 2],
}

/// Cookie of the ports of channel `index`.
pub fn cookie(index: usize) -> u64 {
    u64::from_le_bytes(*b"channel\0") ^ (index as u64) << 56
}

/// The channels of the description.
#[derive(Debug, Default)]
pub struct Channels {
    list: Vec<Channel>,
}

impl Channels {
    /// Takes the description's channels.
    pub fn new(descriptions: Vec<Description>) -> Self {
        let fresh = |description| Channel { description, window: None, ports: [Handle::NONE; 2] };
        Self { list: descriptions.into_iter().map(fresh).collect() }
    }

    /// Channels of a guest: number, its side, and the channel.
    pub fn of(&self, guest: u16) -> impl Iterator<Item = (usize, usize, &Channel)> {
        self.list
            .iter()
            .enumerate()
            .filter_map(move |(index, channel)| side_of(&channel.description, guest).map(|side| (index, side, channel)))
    }

    /// Pages of all windows of a guest.
    pub fn pages_of(&self, guest: u16) -> u64 {
        self.of(guest).map(|(_, _, channel)| u64::from(channel.description.pages)).sum()
    }

    /// IPA of the window of channel `index` in a guest: they stand one behind the other after the console.
    pub fn ipa_in(&self, guest: u16, index: usize) -> u64 {
        let before = self.of(guest).take_while(|&(other, ..)| other < index);
        let pages: u64 = before.map(|(_, _, channel)| u64::from(channel.description.pages)).sum();
        dt::WINDOWS + (crate::console::PAGES + pages) * PAGE_SIZE
    }

    /// Lends all windows of a guest to its new domain, and makes ports with the peers that have one.
    ///
    /// # Errors
    /// What went wrong, as memory or call error.
    pub fn connect(
        &mut self,
        machine: &mut Machine,
        guest: u16,
        domain: Handle,
        domain_of: impl Fn(u16) -> Option<Handle>,
    ) -> Result<(), Status> {
        let mine: Vec<(usize, usize)> = self.of(guest).map(|(index, side, _)| (index, side)).collect();
        for (index, side) in mine {
            let ipa = self.ipa_in(guest, index);
            self.open(machine, index)?;
            let Some(channel) = self.list.get_mut(index) else { continue };
            let Some((piece, _)) = channel.window else { continue };
            hv::lend(piece.extent, piece.pages, domain, ipa)?;
            let peer = if side == 0 { channel.description.b } else { channel.description.a };
            let Some(other) = domain_of(peer) else { continue };
            let (first, second) = if side == 0 { (domain, other) } else { (other, domain) };
            let (first, second) = hvc::port_pair_create(first, second, cookie(index), cookie(index))?;
            channel.ports = [first, second];
        }
        Ok(())
    }

    /// Marks a guest's sides closed. To be done when its domain no longer runs and before its ports go, so that a peer that is
    /// told of that finds it.
    pub fn disconnect(&mut self, guest: u16) {
        for channel in &mut self.list {
            let Some(side) = side_of(&channel.description, guest) else { continue };
            let at = if side == 0 { offset_of!(ChannelHeader, state0) } else { offset_of!(ChannelHeader, state1) };
            channel.ports = [Handle::NONE; 2];
            if let Some(word) = channel.window.as_ref().and_then(|(_, window)| window.word(at)) {
                word.store(ChannelState::Closed as u32, Ordering::Release);
            }
        }
    }

    /// Gives back the windows that no guest has any more.
    pub fn release(&mut self, machine: &mut Machine) {
        for channel in &mut self.list {
            let is_unused = |piece: &Piece<Handle>| {
                hvc::extent_info(piece.extent).is_ok_and(|info| info.flags & extent_flags::LENT == 0)
            };
            if let Some((piece, _)) = channel.window.take_if(|(piece, _)| is_unused(piece)) {
                let _ = hv::unmap_here(piece.extent);
                machine.memory.put_dirty(piece);
            }
        }
    }

    /// Makes the window of a channel, the first time that one of its guests is built.
    fn open(&mut self, machine: &mut Machine, index: usize) -> Result<(), Status> {
        let ipa = WINDOWS + index as u64 * STRIDE;
        let Some(channel) = self.list.get_mut(index) else { return Ok(()) };
        if let Some((piece, window)) = channel.window {
            return renew(&piece, window);
        }
        let pages = u64::from(channel.description.pages);
        let piece = machine.take(pages).map_err(|_| Status::NoBudget)?;
        if let Err(status) = hv::map_here(piece.extent, ipa, hv::READ_WRITE) {
            machine.memory.put_dirty(piece);
            return Err(status);
        }
        let bytes = (pages * PAGE_SIZE) as usize;
        // SAFETY: the extent was just mapped there, as RAM that no Rust object is in, and `release` ends the use before it unmaps.
        let window = unsafe { Window::new(ipa, bytes) }.ok_or(Status::Invalid)?;
        initialize(window, bytes).ok_or(Status::Invalid)?;
        channel.window = Some((piece, window));
        Ok(())
    }
}

/// Begins a window anew if neither guest is there.
fn renew(piece: &Piece<Handle>, window: Window) -> Result<(), Status> {
    let flags = hvc::extent_info(piece.extent)?.flags;
    if flags & extent_flags::LENT != 0 || flags & extent_flags::DIRTY == 0 {
        return Ok(());
    }
    hv::scrub_mapped(piece.extent, window.address())?;
    initialize(window, window.len()).ok_or(Status::Invalid)
}

fn side_of(channel: &Description, guest: u16) -> Option<usize> {
    match guest {
        guest if guest == channel.a => Some(0),
        guest if guest == channel.b => Some(1),
        _ => None,
    }
}

fn initialize(window: Window, bytes: usize) -> Option<()> {
    let page = [0u8; PAGE_SIZE as usize];
    for offset in (0..bytes).step_by(page.len()) {
        window.write(offset, &page)?;
    }
    window.word(offset_of!(ChannelHeader, version))?.store(1, Ordering::Relaxed);
    window.word(offset_of!(ChannelHeader, size))?.store(u32::try_from(bytes).ok()?, Ordering::Relaxed);
    window.word(offset_of!(ChannelHeader, magic))?.store(ChannelHeader::MAGIC, Ordering::Release);
    portico_sdk::mem::clean(window.address() as usize, bytes);
    Some(())
}
