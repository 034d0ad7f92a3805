//! Which part of which disk of the machine a guest's disk is.

use crate::disk::Disk;
use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};
use portico_abi::device::block::{SECTOR, Shape};
use portico_abi::dt::service as property;
use portico_block::claims::{Claim, Claims};
use portico_block::gpt::{self, Which};
use portico_block::request::Limits;
use portico_sdk::dtb::DeviceNode;

/// Most sectors of a read or write, if the data area is larger.
const MAX_SECTORS: u32 = 2048;

/// A part of a disk of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Number of the disk.
    pub disk: usize,
    /// Its first sector there.
    pub first: u64,
    /// What requests are held against.
    pub limits: Limits,
    /// Bytes of the disk's own blocks.
    pub block_bytes: u32,
}

/// Finds the disk, partition or range that the manager named, and takes it for the guest.
///
/// # Errors
/// Why the guest does not get it, in words.
pub fn find(
    node: &DeviceNode,
    disks: &mut [Disk],
    shape: &Shape,
    claims: &mut Claims<'static>,
) -> Result<Target, String> {
    let name = node.text(property::DISK).unwrap_or("?");
    let found = disks.iter_mut().enumerate().find(|(_, disk)| disk.is_named(name));
    let (index, disk) = found.ok_or_else(|| format!("the machine has no disk {name:?}"))?;
    let part = part_of(node, disk).ok_or_else(|| format!("disk {name:?} has not that part"))?;
    let is_read_only = disk.abilities.is_read_only || node.bytes(property::READ_ONLY).is_some();
    let abilities = disk.abilities;
    let claim = |(first, sectors), is_written| Claim { disk: index, first, sectors, is_written };
    let mut wanted = vec![claim(part.range, !is_read_only)];
    wanted.extend(part.table.iter().map(|table| claim(*table, false)));
    claims.give(node.peer, &wanted).map_err(|other| {
        format!(
            "a part of it, or the partition table that says where it is, is {other:?}'s too, and one of them can write"
        )
    })?;
    let limits = Limits {
        sectors: part.range.1,
        is_read_only,
        features: if is_read_only { 0 } else { abilities.features },
        max_sectors: MAX_SECTORS.min((shape.data_bytes as u64 / SECTOR) as u32),
        max_segments: abilities.max_segments,
        max_discard: abilities.max_discard,
        max_zeroes: abilities.max_zeroes,
    };
    Ok(Target { disk: index, first: part.range.0, limits, block_bytes: abilities.block_bytes })
}

/// A part: first sector and number of sectors, of it and of what says where it is.
struct Part {
    range: (u64, u64),
    table: Vec<(u64, u64)>,
}

fn part_of(node: &DeviceNode, disk: &mut Disk) -> Option<Part> {
    let all = disk.abilities.sectors;
    let plain = |range| Part { range, table: Vec::new() };
    let part = match (node.number(property::PARTITION), node.text(property::LABEL), node.number(property::FIRST)) {
        (Some(number), ..) => partition(disk, Which::Number(number as u32))?,
        (_, Some(label), _) => partition(disk, Which::Label(label))?,
        (_, _, Some(first)) => plain((first / SECTOR, node.number(property::BYTES)? / SECTOR)),
        _ => plain((0, all)),
    };
    let (first, sectors) = part.range;
    let is_inside = sectors > 0 && first.checked_add(sectors).is_some_and(|end| end <= all);
    is_inside.then_some(part)
}

fn partition(disk: &mut Disk, which: Which<'_>) -> Option<Part> {
    let sectors = disk.abilities.sectors;
    let mut sector = [0_u8; gpt::SECTOR];
    disk.read(1, &mut sector)?;
    let header = gpt::header(&sector, sectors)?;
    let mut entries = vec![0_u8; header.bytes];
    disk.read(header.entries, &mut entries)?;
    let found = gpt::find(&header, &entries, which)?;
    let table = vec![(1, 1), (header.entries, header.bytes.div_ceil(gpt::SECTOR) as u64)];
    Some(Part { range: (found.first, found.sectors), table })
}
