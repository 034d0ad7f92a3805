//! Virtio disks. (VIRTIO 1.2, "Block Device")

use crate::disk::{Abilities, Tag, Work};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use portico_abi::device::block::{MAX_SEGMENTS, feature, op, status};
use portico_sdk::{sync, time};
use portico_service::machine::{Interrupt, MachineDevice};
use portico_virtio::{Area, Device, DeviceError, Dma, Kind, Part, Queue, config::block};

/// Feature bits.
const SEG_MAX: u64 = 1 << 2;
const RO: u64 = 1 << 5;
const BLK_SIZE: u64 = 1 << 6;
const FLUSH: u64 = 1 << 9;
const DISCARD: u64 = 1 << 13;
const WRITE_ZEROES: u64 = 1 << 14;
/// Request types.
const IN: u32 = 0;
const OUT: u32 = 1;
const TYPE_FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const TYPE_DISCARD: u32 = 11;
const TYPE_WRITE_ZEROES: u32 = 13;
/// Descriptors of the queue.
const QUEUE_SIZE: u16 = 256;
/// What a request needs beside its data, in memory for devices: header (16 bytes), range of a discard (16), status (1).
const SLOT: usize = 64;
const RANGE: usize = 16;
const STATUS: usize = 32;
/// Bytes of the name that GET_ID answers, and of the sector buffer.
const ID_BYTES: usize = 20;
/// How long the device may take while it is set up.
const PATIENCE: core::time::Duration = core::time::Duration::from_secs(5);

/// A disk.
#[derive(Debug)]
pub struct VirtioDisk {
    device: Device,
    queue: Queue,
    interrupt: Interrupt,
    slots: Area,
    /// For use while it is set up: 16 KiB.
    scratch: Area,
    tags: Vec<Tag>,
    in_flight: u32,
    has_flush: bool,
    /// What it can do.
    pub abilities: Abilities,
    /// Its name.
    pub name: [u8; ID_BYTES],
}

impl VirtioDisk {
    /// Resets and starts the disk behind a transport, if it is one.
    ///
    /// # Errors
    /// Any of [`DeviceError`].
    pub fn open(device: &MachineDevice, dma: &mut Dma) -> Result<VirtioDisk, DeviceError> {
        let wanted = SEG_MAX | RO | BLK_SIZE | FLUSH | DISCARD | WRITE_ZEROES;
        let registers = device.registers.base as usize;
        // SAFETY: the manager mapped the registers for the life of the domain, and gave them to nobody else.
        let mut virtio = unsafe { Device::open(registers, Kind::Block, wanted) }?;
        let size = virtio.max_queue(0).min(QUEUE_SIZE);
        if size < 4 {
            return Err(DeviceError::Queue);
        }
        let queue = Queue::new(dma, size, virtio.has_event_index()).ok_or(DeviceError::Queue)?;
        let slots = dma.take(SLOT * usize::from(size), 64).ok_or(DeviceError::Queue)?;
        let scratch = dma.take(16384, 512).ok_or(DeviceError::Queue)?;
        virtio.set_queue(0, &queue);
        virtio.start();
        let interrupt = Interrupt::bind(device.interrupt).map_err(|_| DeviceError::Queue)?;
        let abilities = abilities(&virtio, size);
        let has_flush = virtio.features() & FLUSH != 0;
        let mut disk = VirtioDisk {
            device: virtio,
            queue,
            interrupt,
            slots,
            scratch,
            tags: (0..size).map(|_| Tag::default()).collect(),
            in_flight: 0,
            has_flush,
            abilities,
            name: [0; ID_BYTES],
        };
        disk.name = disk.read_name();
        Ok(disk)
    }

    /// Whether its name, as the machine was started with, is `name`.
    pub fn is_named(&self, name: &str) -> bool {
        let len = self.name.iter().position(|byte| *byte == 0).unwrap_or(ID_BYTES);
        self.name.get(..len) == Some(name.as_bytes())
    }

    /// Begins a request. `false`: there is no room now.
    #[inline]
    pub fn submit(&mut self, work: &Work<'_>, tag: Tag) -> bool {
        let kind = match work.op {
            op::READ => IN,
            op::WRITE => OUT,
            op::FLUSH => TYPE_FLUSH,
            op::DISCARD => TYPE_DISCARD,
            _ => TYPE_WRITE_ZEROES,
        };
        let is_written = kind == IN;
        let data = work.segments.iter().map(|segment| Part {
            machine: work.machine + u64::from(segment.offset),
            bytes: segment.bytes,
            is_written,
        });
        self.begin(kind, work.sector, work.sectors, data, tag).is_some()
    }

    /// Whether a FLUSH has to go to the device: one without a cache of its own is always durable.
    pub fn has_flush(&self) -> bool {
        self.has_flush
    }

    #[inline]
    fn begin(
        &mut self,
        kind: u32,
        sector: u64,
        sectors: u32,
        data: impl ExactSizeIterator<Item = Part>,
        tag: Tag,
    ) -> Option<u16> {
        let is_range = matches!(kind, TYPE_DISCARD | TYPE_WRITE_ZEROES);
        let count = data.len() + if is_range { 3 } else { 2 };
        if self.queue.room() < count {
            return None;
        }
        // What a request needs beside its data stands in the slot of the chain's head.
        let head = self.queue.next_head()?;
        let slot = self.slots.part(SLOT * usize::from(head), SLOT)?;
        slot.window.store_words(0, [u64::from(kind), if is_range { 0 } else { sector }])?;
        slot.window.store(STATUS, 0xff)?;
        if is_range {
            slot.window.store_words(RANGE, [sector, u64::from(sectors)])?;
        }
        let part = |at: usize, bytes, is_written| Part { machine: slot.machine + at as u64, bytes, is_written };
        let head = core::iter::once(part(0, 16, false));
        let range = is_range.then(|| part(RANGE, 16, false));
        let added = self.queue.add(count, head.chain(data).chain(range).chain([part(STATUS, 1, true)]))?;
        *self.tags.get_mut(usize::from(added))? = tag;
        self.in_flight += 1;
        Some(added)
    }

    /// Tells the device of what was begun.
    #[inline]
    pub fn publish(&mut self) {
        if self.queue.publish() {
            self.device.notify(0);
        }
    }

    /// Takes the interrupt, if there was one.
    pub fn take_interrupt(&mut self) {
        if self.interrupt.take() {
            self.device.acknowledge();
            self.interrupt.complete();
        }
    }

    /// Takes a request that has ended, with one of [`status`].
    #[inline]
    pub fn pop(&mut self) -> Option<(Tag, u32)> {
        let (head, _) = self.queue.pop()?;
        self.in_flight = self.in_flight.saturating_sub(1);
        let tag = self.tags.get(usize::from(head)).copied()?;
        let byte =
            self.slots.window.word(SLOT * usize::from(head) + STATUS).map_or(0xff, |word| word.load(Ordering::Relaxed));
        let answer = match byte & 0xff {
            0 => status::OK,
            2 => status::UNSUPPORTED,
            _ => status::IO,
        };
        Some((tag, answer))
    }

    /// Asks for an interrupt when `count` requests have ended, or all if there are fewer. `true`: they have not, and the caller may sleep.
    pub fn arm(&mut self, count: u32) -> bool {
        let most = self.in_flight.max(1);
        self.queue.arm(count.min(most) as u16)
    }

    /// Asks for no interrupts.
    pub fn disarm(&mut self) {
        self.queue.disarm();
    }

    /// Reads sectors while the service begins, up to 16 KiB. `None` if the disk fails.
    pub fn read(&mut self, sector: u64, to: &mut [u8]) -> Option<()> {
        let bytes = to.len().next_multiple_of(512);
        if bytes > 16384 {
            return None;
        }
        let data = [Part { machine: self.scratch.machine, bytes: bytes as u32, is_written: true }];
        self.begin(IN, sector, 0, data.into_iter(), Tag::default())?;
        self.finish()?;
        self.scratch.window.read(0, to)
    }

    fn read_name(&mut self) -> [u8; ID_BYTES] {
        let mut name = [0; ID_BYTES];
        let data = [Part { machine: self.scratch.machine, bytes: ID_BYTES as u32, is_written: true }];
        if self.begin(GET_ID, 0, 0, data.into_iter(), Tag::default()).is_some() && self.finish().is_some() {
            let _ = self.scratch.window.read(0, &mut name);
        }
        name
    }

    /// Waits for the one request that is in flight.
    fn finish(&mut self) -> Option<()> {
        self.publish();
        let limit = time::deadline(PATIENCE);
        loop {
            if let Some((_, answer)) = self.pop() {
                return (answer == status::OK).then_some(());
            }
            if time::passed(limit) {
                return None;
            }
            sync::relax();
        }
    }
}

fn abilities(device: &Device, size: u16) -> Abilities {
    let has = |bit: u64| device.features() & bit != 0;
    let number = |at: usize| u32::from_le_bytes(device.config(at));
    let most = u32::from(size) - 3;
    let max_segments = if has(SEG_MAX) { number(block::SEG_MAX).clamp(1, most) } else { 1 };
    let mut features = 0;
    if has(DISCARD) {
        features |= feature::DISCARD;
    }
    if has(WRITE_ZEROES) {
        features |= feature::WRITE_ZEROES;
    }
    Abilities {
        sectors: u64::from_le_bytes(device.config(block::CAPACITY)),
        block_bytes: if has(BLK_SIZE) { number(block::BLK_SIZE) } else { 512 },
        is_read_only: has(RO),
        features,
        max_segments: max_segments.min(MAX_SEGMENTS as u32),
        max_discard: if has(DISCARD) { number(block::MAX_DISCARD) } else { 0 },
        max_zeroes: if has(WRITE_ZEROES) { number(block::MAX_ZEROES) } else { 0 },
    }
}
