//! What each part of the machine's memory is for.

use super::stop;
use crate::sched::queue::QUEUES;
use portico_arch::mmu;
use portico_boards::machine::argument;
use portico_boards::ram::FreeRam;
use portico_boards::{Machine, Range};
use portico_core::addr::Pa;

/// Bytes of the first pool block, from which the manager's own objects come.
const POOL_BYTES: u64 = 2 << 20;

/// Bytes of memory of the manager unless the boot arguments say otherwise: this, and a part of what the bundle has, since it keeps
/// something for each guest. Rounded up to a block, which is what it needs for a bundle of small guests.
const MANAGER_BYTES: u64 = 1 << 20;
/// See [`MANAGER_BYTES`].
const MANAGER_PART_OF_BUNDLE: u64 = 4;

/// Alignment of both: they are mapped by blocks.
const BLOCK: u64 = 2 << 20;

/// All that boot found out.
#[derive(Default)]
pub struct Boot {
    /// The machine.
    pub machine: Machine<'static>,
    /// The device tree, physical.
    pub dtb: Range,
    /// The bundle, physical.
    pub bundle: Range,
    /// EL2's first pool block.
    pub pool: Range,
    /// The manager's memory.
    pub manager: Range,
    /// All other memory, for the manager to give out: each range is a multiple of 2 MiB, or lies within one.
    pub free: FreeRam,
}

/// Decides what is EL2's, which drives `pcpus` pCPUs, what the manager's, and what is free. Stops, saying why, if there is too little.
#[cold]
#[inline(never)]
pub fn plan_memory(boot: &mut Boot, pcpus: usize) {
    let Boot { machine, free, .. } = boot;
    let Some(bundle) = machine.bundle else { stop("no bundle: the boot loader gave no initial RAM disk") };
    boot.bundle = bundle;
    for range in machine.memory.iter() {
        free.add(*range);
    }
    let (image, image_bytes) = mmu::image_range();
    free.remove(Range { start: image.raw(), len: image_bytes });
    let gibs = machine.memory.iter().map(|range| ((range.end() - 1) >> 30) - (range.start >> 30) + 1).sum::<u64>();
    let mut add = |start: Pa, len| free.add(Range { start: start.raw(), len });
    // SAFETY: the other pCPUs have not been started, and only so many are.
    unsafe { mmu::give_up_unneeded(pcpus, gibs as usize, &mut add) };
    // SAFETY: as above.
    unsafe { mmu::give_up(&QUEUES, pcpus, &mut add) };
    free.remove(boot.dtb);
    free.remove(bundle);
    for range in machine.reserved.iter() {
        free.remove(*range);
    }
    // The pCPUs that are off poll these, and the code that polls is near.
    for address in machine.cpus.iter().filter_map(|cpu| cpu.release_address) {
        free.remove(Range { start: address, len: 8 });
    }
    let usual = MANAGER_BYTES + bundle.len / MANAGER_PART_OF_BUNDLE;
    let manager_bytes = argument(machine.bootargs, b"portico.manager_memory").map_or(Some(usual), parse_number);
    let Some(manager_bytes) = manager_bytes else {
        stop("portico.manager_memory: write a number of bytes with K, M or G")
    };
    let Some(pool) = free.take(POOL_BYTES, BLOCK) else { stop("no free block of memory for EL2") };
    let Some(manager) = free.take(manager_bytes.next_multiple_of(BLOCK), BLOCK) else {
        stop("too little memory for the manager")
    };
    (boot.pool, boot.manager) = (pool, manager);
    free.split(BLOCK);
}

/// Reads a number with an optional K, M or G behind it; below 1 TiB.
pub fn parse_number(text: &[u8]) -> Option<u64> {
    let mut number: u64 = 0;
    let mut shift = 0;
    for &byte in text {
        match byte {
            b'0'..=b'9' if shift == 0 => number = number.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?,
            b'K' if shift == 0 => shift = 10,
            b'M' if shift == 0 => shift = 20,
            b'G' if shift == 0 => shift = 30,
            _ => return None,
        }
    }
    (number < 1 << (40 - shift)).then(|| number << shift)
}
