//! A device behind the MMIO transport. (VIRTIO 1.2, "Virtio Over MMIO")

use crate::queue::Queue;
use core::ptr::NonNull;
use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};
use virtio_drivers::transport::{DeviceStatus, DeviceType, Transport};

/// Bytes of the registers of a device.
pub const REGISTERS: usize = 0x200;
/// Offsets of the first registers, read before anything is known of the device.
const MAGIC: usize = 0;
const VERSION: usize = 4;
const DEVICE_ID: usize = 8;
/// Feature bits of every device. (VIRTIO 1.2, "Reserved Feature Bits")
const EVENT_INDEX: u64 = 1 << 29;
const VERSION_1: u64 = 1 << 32;

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A network card.
    Net,
    /// A disk.
    Block,
}

/// Why a device cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceError {
    /// There is none at that address, or of another kind.
    Absent,
    /// It knows only the legacy interface.
    Legacy,
    /// It refused the features that it offered.
    Features,
    /// A queue is missing, or there is no memory for it.
    Queue,
}

/// A device.
pub struct Device {
    transport: MmioTransport<'static>,
    features: u64,
}

impl core::fmt::Debug for Device {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Device").field("features", &self.features).finish_non_exhaustive()
    }
}

/// Reads a register of a device that is not open.
///
/// # Safety
/// `registers` must be the mapped registers of a virtio-mmio transport.
unsafe fn register(registers: usize, offset: usize) -> u32 {
    let at = core::ptr::with_exposed_provenance::<u32>(registers + offset);
    // SAFETY: the caller's promise; the first registers can be read at any time.
    unsafe { at.read_volatile() }
}

impl Device {
    /// What stands behind a transport.
    ///
    /// # Safety
    /// `registers` must be the mapped registers of a virtio-mmio transport.
    pub unsafe fn probe(registers: usize) -> Option<Kind> {
        // SAFETY: the caller's promise.
        let [magic, id] = [MAGIC, DEVICE_ID].map(|offset| unsafe { register(registers, offset) });
        match (magic, id) {
            (0x7472_6976, 1) => Some(Kind::Net),
            (0x7472_6976, 2) => Some(Kind::Block),
            _ => None,
        }
    }

    /// Resets a device and agrees on features: of `wanted` those that it offers. It does nothing before [`Device::start`].
    ///
    /// # Errors
    /// Any of [`DeviceError`].
    ///
    /// # Safety
    /// `registers` must be the mapped registers of a virtio-mmio transport, for ever, and nobody else may use it.
    pub unsafe fn open(registers: usize, kind: Kind, wanted: u64) -> Result<Device, DeviceError> {
        // SAFETY: the caller's promise.
        if unsafe { Self::probe(registers) } != Some(kind) {
            return Err(DeviceError::Absent);
        }
        // SAFETY: as above.
        if unsafe { register(registers, VERSION) } != 2 {
            return Err(DeviceError::Legacy);
        }
        let header = NonNull::new(core::ptr::with_exposed_provenance_mut::<VirtIOHeader>(registers))
            .ok_or(DeviceError::Absent)?;
        // SAFETY: the caller's promise.
        let mut transport = unsafe { MmioTransport::new(header, REGISTERS) }.map_err(|_| DeviceError::Absent)?;
        let is_it = matches!(
            (transport.device_type(), kind),
            (DeviceType::Block, Kind::Block) | (DeviceType::Network, Kind::Net)
        );
        if !is_it {
            return Err(DeviceError::Absent);
        }
        transport.set_status(DeviceStatus::empty());
        // A reset is done when the status reads 0. (VIRTIO 1.2, "Device Reset")
        while !transport.get_status().is_empty() {
            portico_sdk::sync::relax();
        }
        transport.set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER);
        let features = transport.read_device_features() & (wanted | EVENT_INDEX | VERSION_1);
        transport.write_driver_features(features);
        transport.set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER | DeviceStatus::FEATURES_OK);
        if features & VERSION_1 == 0 || !transport.get_status().contains(DeviceStatus::FEATURES_OK) {
            return Err(DeviceError::Features);
        }
        Ok(Device { transport, features })
    }

    /// The features agreed on.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Whether notifications are suppressed by event index.
    pub fn has_event_index(&self) -> bool {
        self.features & EVENT_INDEX != 0
    }

    /// Most descriptors of a queue; 0 if there is no such queue.
    pub fn max_queue(&mut self, queue: u16) -> u16 {
        self.transport.max_queue_size(queue).min(u32::from(u16::MAX)) as u16
    }

    /// Gives a queue to the device.
    pub fn set_queue(&mut self, index: u16, queue: &Queue) {
        let [descriptors, available, used] = queue.addresses();
        self.transport.queue_set(index, u32::from(queue.size()), descriptors, available, used);
    }

    /// Lets the device work.
    pub fn start(&mut self) {
        self.transport.finish_init();
    }

    /// Tells the device of new chains.
    pub fn notify(&mut self, queue: u16) {
        self.transport.notify(queue);
    }

    /// Acknowledges its interrupt; whether it had one.
    pub fn acknowledge(&mut self) -> bool {
        !self.transport.ack_interrupt().is_empty()
    }

    /// Bytes of the device's configuration.
    pub fn config<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut bytes = [0; N];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = self.transport.read_config_space::<u8>(offset + at).unwrap_or(0);
        }
        bytes
    }
}

/// Where devices keep what.
pub mod config {
    /// Of a disk (VIRTIO 1.2, "Block Device", "Device configuration layout").
    pub mod block {
        /// 64 bits: sectors of 512 bytes.
        pub const CAPACITY: usize = 0;
        /// 32 bits: most segments.
        pub const SEG_MAX: usize = 12;
        /// 32 bits: block size.
        pub const BLK_SIZE: usize = 20;
        /// 32 bits: most sectors of a discard.
        pub const MAX_DISCARD: usize = 36;
        /// 32 bits: most sectors of a write-zeroes.
        pub const MAX_ZEROES: usize = 48;
    }

    /// Of a network card (VIRTIO 1.2, "Network Device", "Device configuration layout").
    pub mod net {
        /// 6 bytes: its address.
        pub const MAC: usize = 0;
        /// 16 bits: bit 0, the link is up.
        pub const STATUS: usize = 6;
        /// 16 bits: most payload of a frame.
        pub const MTU: usize = 10;
    }
}
