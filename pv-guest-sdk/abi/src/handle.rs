//! Handles: how a domain names an object, and what it may do with it.

use crate::enumeration::enumeration;
use bitflags::bitflags;

/// Names an entry of the calling domain's handle table.
///
/// Bits 15:0 are the slot, bits 31:16 its generation, which changes at each reuse so that a stale
/// handle is refused. Zero names nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Handle(u32);

impl Handle {
    /// Names nothing.
    pub const NONE: Handle = Handle(0);

    /// Wraps a raw value, as it stands in a register or in the device tree.
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// Composes a handle from slot and generation.
    pub const fn new(slot: u16, generation: u16) -> Self {
        Self((generation as u32) << 16 | slot as u32)
    }

    /// The value for a register.
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// Slot in the table.
    pub const fn slot(self) -> u16 {
        (self.0 & 0xffff) as u16
    }

    /// Generation of the slot at the time the handle was made.
    pub const fn generation(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

enumeration! {
    /// What a handle names, as in the type field of `handle_info`.
    ObjectType: u8 {
        /// The machine: pool, pCPUs, power. One handle exists at boot, with the manager.
        System = 1,
        /// A domain.
        Domain = 2,
        /// A vCPU of a domain.
        Vcpu = 3,
        /// One end of a notification link.
        Port = 4,
        /// A range of physical memory, or a grant of a part of one.
        Extent = 5,
        /// A physical interrupt.
        Irq = 6,
    }
}

bitflags! {
    /// What the holder of a handle may do. A copy never has more than its original.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[repr(transparent)]
    pub struct Rights: u16 {
        /// Read state, list, `handle_info` of the object.
        const INSPECT = 1 << 0;
        /// Copy the handle, to its own table or another domain's.
        const COPY = 1 << 1;
        /// Port: notify the other end.
        const NOTIFY = 1 << 2;
        /// Port, irq: bind to a vCPU.
        const BIND = 1 << 3;
        /// Domain: create objects on its budget (ports, vCPUs, handles).
        const CREATE = 1 << 4;
        /// Domain, vCPU: configure; map memory into the domain.
        const CONFIG = 1 << 5;
        /// Domain, vCPU: start, pause, resume, stop.
        const RUN = 1 << 6;
        /// Domain: destroy.
        const DESTROY = 1 << 7;
        /// vCPU: scheduling parameters.
        const SCHED = 1 << 8;
        /// vCPU: read and reply to faults; read and write register state.
        const FAULT = 1 << 9;
        /// Extent: owner's operations (split, merge, scrub, revoke).
        const OWN = 1 << 10;
        /// Extent: map.
        const MAP = 1 << 11;
        /// Extent: map writable.
        const WRITE = 1 << 12;
        /// Extent: lend to another domain.
        const SHARE = 1 << 13;
        /// Extent: hand over to another domain for good.
        const DONATE = 1 << 14;
        /// System: pool, pCPUs, devices, power.
        const ROOT = 1 << 15;
    }
}

/// The `domain` argument that means "the calling domain" wherever a domain handle is taken.
/// It carries the rights [`SELF_RIGHTS`].
pub const SELF_DOMAIN: Handle = Handle(0xffff_ffff);

/// Rights that every domain has over itself.
pub const SELF_RIGHTS: Rights =
    Rights::from_bits_truncate(Rights::INSPECT.bits() | Rights::CREATE.bits() | Rights::BIND.bits());
