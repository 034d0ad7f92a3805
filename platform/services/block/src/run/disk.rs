//! A disk of the machine, whatever drives it.

use crate::sd::SdCard;
use crate::virtio::VirtioDisk;
use portico_abi::device::block::Segment;
use portico_sdk::window::Window;

/// What a disk can do.
#[derive(Clone, Copy, Debug)]
pub struct Abilities {
    /// Size in sectors of 512 bytes.
    pub sectors: u64,
    /// Bytes of its own blocks.
    pub block_bytes: u32,
    /// It takes no writes.
    pub is_read_only: bool,
    /// Bits of [`portico_abi::device::block::feature`].
    pub features: u64,
    /// Most segments of a request.
    pub max_segments: u32,
    /// Most sectors of a discard.
    pub max_discard: u32,
    /// Most sectors of a write-zeroes.
    pub max_zeroes: u32,
}

/// Who asked: comes back with the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// Number of the queue of a guest.
    pub queue: u32,
    /// Counts the connections of that queue: answers to an older one are dropped.
    pub connection: u32,
    /// The guest's own number.
    pub id: u32,
    /// Bytes to the guest, bytes from it.
    pub bytes_in: u32,
    /// Bytes from the guest.
    pub bytes_out: u32,
}

/// A request that was checked.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// One of [`portico_abi::device::block::op`].
    pub op: u8,
    /// First sector of the disk of the machine.
    pub sector: u64,
    /// Number of sectors.
    pub sectors: u32,
    /// Where the data is, in the window.
    pub segments: &'a [Segment],
    /// Machine address of the window.
    pub machine: u64,
    /// The window.
    pub window: Window,
}

/// A disk of the machine.
#[derive(Debug)]
pub struct Disk {
    driver: Driver,
    /// What it can do.
    pub abilities: Abilities,
}

#[derive(Debug)]
enum Driver {
    Virtio(VirtioDisk),
    Sd(SdCard),
}

impl From<VirtioDisk> for Disk {
    fn from(disk: VirtioDisk) -> Self {
        Disk { abilities: disk.abilities, driver: Driver::Virtio(disk) }
    }
}

impl From<SdCard> for Disk {
    fn from(card: SdCard) -> Self {
        Disk { abilities: card.abilities(), driver: Driver::Sd(card) }
    }
}

impl Disk {
    /// Whether the machine calls it `name`.
    pub fn is_named(&self, name: &str) -> bool {
        match &self.driver {
            Driver::Virtio(disk) => disk.is_named(name),
            Driver::Sd(card) => card.is_named(name),
        }
    }

    /// Begins a request. `false`: there is no room now.
    #[inline]
    pub fn submit(&mut self, work: &Work<'_>, tag: Tag) -> bool {
        match &mut self.driver {
            Driver::Virtio(disk) => disk.submit(work, tag),
            Driver::Sd(card) => card.submit(work, tag),
        }
    }

    /// Whether a FLUSH has to go to the disk: one without a cache of its own is always durable.
    #[inline]
    pub fn has_flush(&self) -> bool {
        match &self.driver {
            Driver::Virtio(disk) => disk.has_flush(),
            Driver::Sd(_) => false,
        }
    }

    /// Lets it go on with what was begun. Returns whether it did something that the processor has to do.
    #[inline]
    pub fn publish(&mut self) -> bool {
        match &mut self.driver {
            Driver::Virtio(disk) => {
                disk.publish();
                false
            }
            Driver::Sd(card) => card.turn(),
        }
    }

    /// Takes the interrupt, if there was one.
    #[inline]
    pub fn take_interrupt(&mut self) {
        match &mut self.driver {
            Driver::Virtio(disk) => disk.take_interrupt(),
            Driver::Sd(card) => card.take_interrupt(),
        }
    }

    /// Takes a request that has ended, with one of [`portico_abi::device::block::status`].
    #[inline]
    pub fn pop(&mut self) -> Option<(Tag, u32)> {
        match &mut self.driver {
            Driver::Virtio(disk) => disk.pop(),
            Driver::Sd(card) => card.pop(),
        }
    }

    /// Asks for an interrupt when `count` requests have ended, or all if there are fewer, or sooner. `true`: they have not, and the caller
    /// may sleep.
    #[inline]
    pub fn arm(&mut self, count: u32) -> bool {
        match &mut self.driver {
            Driver::Virtio(disk) => disk.arm(count),
            Driver::Sd(card) => card.arm(),
        }
    }

    /// Asks for no interrupts.
    #[inline]
    pub fn disarm(&mut self) {
        match &mut self.driver {
            Driver::Virtio(disk) => disk.disarm(),
            Driver::Sd(card) => card.disarm(),
        }
    }

    /// Reads sectors while the service begins, up to 16 KiB. `None` if the disk fails.
    pub fn read(&mut self, sector: u64, to: &mut [u8]) -> Option<()> {
        match &mut self.driver {
            Driver::Virtio(disk) => disk.read(sector, to),
            Driver::Sd(card) => card.read(sector, to),
        }
    }
}
