//! The windows between domains: channels of guests, and the devices that services serve.
//!
//! A window belongs to the manager and outlives both its ends. Each new instance of a domain gets the window lent,
//! and a fresh pair of ports with every peer that has a domain. The cookie of both handles is [`cookie`] of
//! the channel: by it a domain finds its new port after its peer was restarted.

use alloc::vec::Vec;
use core::mem::offset_of;
use core::sync::atomic::Ordering;
use portico_abi::call::extent_flags;
use portico_abi::channel::{ChannelHeader, ChannelState};
use portico_abi::device::{ACCEPT, BACK, FRONT, OFFER, Offer, refusal};
use portico_abi::{Handle, PAGE_SIZE, Status, dt};
use portico_bundle::description::Disk;
use portico_manager::fdt::{DeviceNode, Value};
use portico_manager::links::{Link, Purpose, is_service};
use portico_manager::memory::Piece;
use portico_manager::saved::Plugged;
use portico_sdk::hvc;
use portico_sdk::window::Window;

use crate::again::Left;
use crate::hv::{self, Machine};
use crate::place;

/// IPA of the first window in a domain: after its control page.
const FIRST_WINDOW: u64 = crate::control::IPA + PAGE_SIZE;

/// A window and its ports.
#[derive(Debug)]
pub struct Channel {
    /// What it is to be.
    pub link: Link,
    /// In which order it was added, of those that were; 0 if it is as described.
    added: u32,
    /// It is not as in the bundle.
    is_changed: bool,
    window: Option<(Piece<Handle>, Window)>,
    /// Ports of side 0 and 1, in their domains' tables; stale when the peer is gone.
    pub ports: [Handle; 2],
}

/// Cookie of the ports of channel `index`.
pub fn cookie(index: usize) -> u64 {
    u64::from_le_bytes(*b"channel\0") ^ (index as u64) << 56 ^ (index as u64 >> 8) << 40
}

/// All channels of the system.
#[derive(Debug, Default)]
pub struct Channels {
    list: Vec<Channel>,
}

impl Channels {
    /// Takes the system's links.
    pub fn new(links: Vec<Link>) -> Self {
        let fresh = |link| Channel { link, added: 0, is_changed: false, window: None, ports: [Handle::NONE; 2] };
        Self { list: links.into_iter().map(fresh).collect() }
    }

    /// Channels of a domain: number, its side, and the channel.
    pub fn of(&self, number: u16) -> impl Iterator<Item = (usize, usize, &Channel)> {
        self.list
            .iter()
            .enumerate()
            .filter_map(move |(index, channel)| side_of(&channel.link, number).map(|side| (index, side, channel)))
    }

    /// Channels of a service that it serves, in the order of its device tree. Those that were added come last: of two that want the same part of the
    /// machine's disk the service refuses the later one.
    pub fn served(&self, service: u16) -> Vec<(usize, usize, &Channel)> {
        let mut served: Vec<_> = self.of(service).filter(|(_, _, channel)| !channel.link.is_empty()).collect();
        served.sort_by_key(|(.., channel)| channel.added);
        served
    }

    /// The queues of a disk of a guest, by number.
    pub fn queues(&self, number: u16, name: &str) -> Vec<usize> {
        let is_it = |link: &Link| link.name == name && link.disk().is_some();
        self.of(number).filter(|(_, _, channel)| is_it(&channel.link)).map(|(index, ..)| index).collect()
    }

    /// The channel of that number.
    pub fn get(&self, index: usize) -> Option<&Channel> {
        self.list.get(index)
    }

    /// Changes what is behind the queues of a disk, for the block service's next life.
    pub fn change(&mut self, queues: &[usize], change: impl Fn(&mut Disk)) {
        let next = self.list.iter().map(|channel| channel.added).max().unwrap_or(0).saturating_add(1);
        for &index in queues {
            let Some(channel) = self.list.get_mut(index) else { continue };
            if let Purpose::Disk(disk, _) = &mut channel.link.purpose {
                change(disk);
                (channel.added, channel.is_changed) = (next, true);
            }
        }
    }

    /// What is to be kept of changed disks.
    pub fn changed(&self) -> Vec<Plugged> {
        let changed = self.list.iter().enumerate().filter(|(_, channel)| channel.is_changed);
        let kept = changed.filter_map(|(index, channel)| {
            let disk = channel.link.disk()?.clone();
            Some(Plugged { link: u32::try_from(index).ok()?, added: channel.added, disk })
        });
        kept.collect()
    }

    /// Makes disks what the last life had made them.
    pub fn recall(&mut self, changed: Vec<Plugged>) {
        for Plugged { link, added, disk: kept } in changed {
            let Some(channel) = self.list.get_mut(link as usize) else { continue };
            if let Purpose::Disk(disk, _) = &mut channel.link.purpose {
                *disk = kept;
                (channel.added, channel.is_changed) = (added, true);
            }
        }
    }

    /// Whether the guest's side of a channel is closed: nothing of it is in flight.
    pub fn is_left(&self, index: usize) -> bool {
        let window = self.list.get(index).and_then(|channel| channel.window.as_ref());
        let state = window.and_then(|(_, window)| window.word(offset_of!(ChannelHeader, state1)));
        state.is_none_or(|state| state.load(Ordering::Acquire) == ChannelState::Closed as u32)
    }

    /// Pages of all windows that there are.
    pub fn held_pages(&self) -> u64 {
        self.list.iter().filter_map(|channel| channel.window.as_ref()).map(|(piece, _)| piece.pages).sum()
    }

    /// Pages of all windows of a domain.
    pub fn pages_of(&self, number: u16) -> u64 {
        self.of(number).map(|(_, _, channel)| channel.link.pages).sum()
    }

    /// IPA of the window of channel `index` in a domain: they stand one behind the other after the console and
    /// the control page.
    pub fn ipa_in(&self, number: u16, index: usize) -> u64 {
        let before = self.of(number).take_while(|&(other, ..)| other < index);
        let pages: u64 = before.map(|(_, _, channel)| channel.link.pages).sum();
        FIRST_WINDOW + pages * PAGE_SIZE
    }

    /// First IPA behind all windows of a domain.
    pub fn end_in(&self, number: u16) -> u64 {
        FIRST_WINDOW + self.pages_of(number) * PAGE_SIZE
    }

    /// Lends all windows of a domain to its new instance, and makes ports with the peers that have one.
    /// Returns the services among these, which are to be told.
    ///
    /// # Errors
    /// What went wrong, as memory or call error.
    pub fn connect(
        &mut self,
        machine: &mut Machine,
        number: u16,
        domain: Handle,
        domain_of: impl Fn(u16) -> Option<Handle>,
    ) -> Result<Vec<u16>, Status> {
        let mine: Vec<(usize, usize)> = self.of(number).map(|(index, side, _)| (index, side)).collect();
        let mut services = Vec::new();
        for (index, side) in mine {
            let ipa = self.ipa_in(number, index);
            self.open(machine, index)?;
            let Some(channel) = self.list.get_mut(index) else { continue };
            let Some((piece, window)) = channel.window else { continue };
            if side == FRONT as usize && channel.link.purpose != Purpose::Channel {
                forget(window).ok_or(Status::Invalid)?;
            }
            if side == BACK as usize && channel.link.disk().is_some() {
                // Nobody else writes there before this instance starts.
                let why = if channel.link.is_empty() { refusal::REMOVED } else { refusal::NONE };
                let word = window.word(OFFER + offset_of!(Offer, refusal)).ok_or(Status::Invalid)?;
                word.store(why, Ordering::Release);
            }
            machine.lend(piece.extent, piece.pages, domain, ipa, hv::READ_WRITE)?;
            let [a, b] = channel.link.sides;
            let peer = if side == 0 { b } else { a };
            let Some(other) = domain_of(peer) else { continue };
            let (first, second) = if side == 0 { (domain, other) } else { (other, domain) };
            let pair = || hvc::port_pair_create(first, second, cookie(index), cookie(index));
            let (first, second) = machine.with_budgets([domain, other], pair)?;
            channel.ports = [first, second];
            if is_service(peer) && !services.contains(&peer) {
                services.push(peer);
            }
        }
        Ok(services)
    }

    /// Nodes of the devices of a domain: at its side 0 they also tell the machine address of the window.
    pub fn device_nodes<'a>(
        &self,
        machine: &Machine,
        number: u16,
        name_of: impl Fn(u16) -> &'a str,
    ) -> Vec<DeviceNode> {
        let devices = match is_service(number) {
            true => self.served(number),
            false => self.of(number).collect(),
        };
        let devices = devices.into_iter().filter(|(_, _, channel)| channel.link.purpose != Purpose::Channel);
        let node = |(index, side, channel): (usize, usize, &Channel)| {
            let (node, compatible) = channel.link.node();
            let peer = channel.link.sides.get(1 - side).copied().unwrap_or(number);
            let mut properties = channel.link.properties(side, name_of(peer));
            properties.push((dt::PORT, Value::Word(channel.ports.get(side).map_or(0, |port| port.raw()))));
            properties.push((dt::COOKIE, Value::Long(cookie(index))));
            if side == 0
                && let Some((piece, _)) = &channel.window
                && let Ok(address) = hvc::extent_address(machine.system, piece.extent)
            {
                properties.push((dt::MACHINE_ADDRESS, Value::Long(address)));
            }
            let size = channel.link.pages * PAGE_SIZE;
            DeviceNode { node, compatible, ipa: self.ipa_in(number, index), size, properties }
        };
        devices.map(node).collect()
    }

    /// Marks a domain's sides closed. To be done when it no longer runs and before its ports go, so that a peer that is
    /// told of that finds it.
    pub fn disconnect(&mut self, number: u16) {
        for channel in &mut self.list {
            let Some(side) = side_of(&channel.link, number) else { continue };
            let at = if side == 0 { offset_of!(ChannelHeader, state0) } else { offset_of!(ChannelHeader, state1) };
            channel.ports = [Handle::NONE; 2];
            if let Some(word) = channel.window.as_ref().and_then(|(_, window)| window.word(at)) {
                word.store(ChannelState::Closed as u32, Ordering::Release);
            }
        }
    }

    /// Gives back the windows that no domain has any more.
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

    /// Takes over the windows that the manager's last life lent.
    pub fn adopt(&mut self, left: &mut Left) {
        for (index, channel) in self.list.iter_mut().enumerate() {
            let Some(ipa) = place::link(index) else { return };
            let Some(piece) = left.window(ipa, channel.link.pages) else { continue };
            // SAFETY: the extent is mapped there, as RAM that no Rust object is in, and `release` ends the use before it unmaps.
            let window = unsafe { Window::new(ipa, (piece.pages * PAGE_SIZE) as usize) };
            channel.window = window.map(|window| (piece, window));
        }
    }

    /// Makes the window of a channel, the first time that one of its ends is built.
    fn open(&mut self, machine: &mut Machine, index: usize) -> Result<(), Status> {
        let ipa = place::link(index).ok_or(Status::Limit)?;
        let Some(channel) = self.list.get_mut(index) else { return Ok(()) };
        if let Some((piece, window)) = channel.window {
            return renew(&piece, window);
        }
        let pages = channel.link.pages;
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

/// Begins a window anew if neither end is there.
fn renew(piece: &Piece<Handle>, window: Window) -> Result<(), Status> {
    let flags = hvc::extent_info(piece.extent)?.flags;
    if flags & extent_flags::LENT != 0 || flags & extent_flags::DIRTY == 0 {
        return Ok(());
    }
    hv::scrub_mapped(piece.extent, window.address())?;
    initialize(window, window.len()).ok_or(Status::Invalid)
}

/// Clears what the last instance of a guest left in the window of a device, while the service has it: all but the back-end's words. What
/// the service still does for that instance may land there afterwards: that is the guest's own too, and ends before the next handshake does.
fn forget(window: Window) -> Option<()> {
    for offset in (ACCEPT..window.len()).step_by(8) {
        window.store(offset, 0)?;
    }
    portico_sdk::mem::clean(window.address() as usize, window.len());
    Some(())
}

fn side_of(link: &Link, number: u16) -> Option<usize> {
    link.sides.iter().position(|side| *side == number)
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
