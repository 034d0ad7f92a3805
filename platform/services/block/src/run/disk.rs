//! A disk of the machine, whatever drives it.

use portico_abi::device::block::Segment;

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
}
