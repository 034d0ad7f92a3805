//! What each part of the machine's memory is for.

use super::stop;
use crate::sched::queue::QUEUES;
use portico_abi::BLOCK_SIZE;
use portico_arch::{mmu, window};
use portico_boards::ram::FreeRam;
use portico_boards::{Machine, Range};
use portico_core::addr::Pa;

/// All that boot found out.
#[derive(Default)]
pub struct Boot {
    /// The machine.
    pub machine: Machine<'static>,
    /// The device tree, physical.
    pub dtb: Range,
    /// EL2's first pool block, from which the manager's own objects come.
    pub pool: Range,
    /// All other memory, for the manager.
    pub free: FreeRam,
}

/// Decides what is EL2's, which drives `pcpus` pCPUs, and what is free. Stops, saying why, if there is too little.
#[inline(never)]
pub fn plan_memory(boot: &mut Boot, pcpus: usize) {
    let Boot { machine, free, .. } = boot;
    if machine.bundle.len == 0 {
        stop("no bundle: the boot loader gave no initial RAM disk");
    }
    for range in machine.memory.iter() {
        free.add(*range);
    }
    let (image, image_bytes) = mmu::image_range();
    free.remove(Range { start: image.raw(), len: image_bytes });
    let gibs = machine.memory.iter().map(|range| ((range.end() - 1) >> 30) - (range.start >> 30) + 1).sum::<u64>();
    let mut add = |start: Pa, len| {
        // Zeros for whoever gets it, and no cache has a line of it to write later.
        for page in (start.raw()..start.raw() + len).step_by(window::PAGE) {
            window::zero_page_clean(Pa::new(page));
        }
        free.add(Range { start: start.raw(), len });
    };
    // SAFETY: the other pCPUs have not been started, and only so many are.
    unsafe { mmu::give_up_unneeded(pcpus, gibs as usize, &mut add) };
    // SAFETY: as above.
    unsafe { mmu::give_up(&QUEUES, pcpus, &mut add) };
    free.remove(boot.dtb);
    free.remove(machine.bundle);
    for range in machine.reserved.iter() {
        free.remove(*range);
    }
    // The pCPUs that are off poll these, and the code that polls is near.
    for address in machine.cpus.iter().filter_map(|cpu| cpu.release_address) {
        free.remove(Range { start: address, len: 8 });
    }
    let Some(pool) = free.take(BLOCK_SIZE, BLOCK_SIZE) else { stop("no free block of memory for EL2") };
    boot.pool = pool;
}
