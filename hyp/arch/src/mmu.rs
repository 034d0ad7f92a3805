//! EL2's own stage-1 translation.
//!
//! | VA | what |
//! | --- | --- |
//! | `0x10_0000_0000 + pa` | pool blocks of 2 MiB, read-write, only those given by [`map_pool_block`] |
//! | `0x60_0000_0000` | the image: text read-execute, constants read-only, data read-write; a hole below each stack |
//! | `0x68_0000_0000` | boot time only: device tree and bundle, read-only ([`boot_map`]) |
//! | `0x70_0000_0000` | device pages ([`map_device`]) |
//! | `0x7f_c000_0000` | the copy window of this pCPU ([`crate::window`]) |
//!
//! Each pCPU has its own level 1 root; all but the window hangs below shared tables. Nothing maps guest memory.
//! Mapping functions run under the caller's lock or at boot on one pCPU; entries go from invalid to valid
//! only, so no other pCPU needs to be told; unmapping invalidates on all.
//! Attributes: DDI 0487, "VMSAv8-64 translation table format descriptors".

use crate::barrier::{dsb_ishst, isb};
use crate::pcpu::MAX_PCPUS;
use crate::tlb;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use portico_core::addr::Pa;

/// VA at which the image is linked.
pub const IMAGE_BASE: usize = 0x60_0000_0000;
/// VA of the direct map of pool blocks at physical address 0.
pub const POOL_BASE: usize = 0x10_0000_0000;
/// First VA of the boot-time read-only mappings.
const BOOT_MAP_BASE: usize = 0x68_0000_0000;
/// First VA of device mappings.
const DEVICE_BASE: usize = 0x70_0000_0000;
/// VA of the copy window.
pub const WINDOW_BASE: usize = 0x7f_c000_0000;
/// Bytes of a pool block.
pub const BLOCK_SIZE: u64 = 2 << 20;
/// Physical addresses above this are not used for pool blocks.
const POOL_LIMIT: u64 = 256 << 30;

const VALID: u64 = 1;
const TABLE_OR_PAGE: u64 = 1 << 1;
const ATTR_DEVICE: u64 = 1 << 2;
/// `AP[1]` is RES1 in a regime with one privilege level.
const AP_RES1: u64 = 1 << 6;
const READ_ONLY: u64 = 1 << 7;
const INNER_SHAREABLE: u64 = 3 << 8;
const ACCESSED: u64 = 1 << 10;
const EXECUTE_NEVER: u64 = 1 << 54;
const NORMAL_BLOCK: u64 = VALID | AP_RES1 | INNER_SHAREABLE | ACCESSED | EXECUTE_NEVER;
const DEVICE_PAGE: u64 = VALID | TABLE_OR_PAGE | ATTR_DEVICE | AP_RES1 | INNER_SHAREABLE | ACCESSED | EXECUTE_NEVER;

/// One translation table.
#[repr(C, align(4096))]
pub struct Table([AtomicU64; 512]);

impl Table {
    /// An empty table.
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 512])
    }

    /// The entry at `index`, taken modulo 512.
    #[inline(always)]
    pub fn entry(&self, index: usize) -> &AtomicU64 {
        &self.0[index & 511]
    }

    fn descriptor(&self) -> u64 {
        image_pa(core::ptr::from_ref(self) as usize).raw() | VALID | TABLE_OR_PAGE
    }
}

/// Level 2 tables for pool blocks: one for each GiB of physical memory that holds any.
const POOL_TABLES: usize = 8;

/// The tables that each pCPU has of its own: its root, and those of its copy window.
struct PcpuTables {
    root: Table,
    window_l2: Table,
    window_l3: Table,
}

static PCPU_TABLES: [PcpuTables; MAX_PCPUS] =
    [const { PcpuTables { root: Table::new(), window_l2: Table::new(), window_l3: Table::new() } }; MAX_PCPUS];
/// How many of those are in use.
static PCPUS: AtomicUsize = AtomicUsize::new(MAX_PCPUS);
static POOL_L2: [Table; POOL_TABLES] = [const { Table::new() }; POOL_TABLES];
/// How many of those, from the first, can still be taken.
static POOL_TABLES_LEFT: AtomicUsize = AtomicUsize::new(POOL_TABLES);
static DEVICE_L2: Table = Table::new();
static DEVICE_L3: Table = Table::new();
static DEVICE_PAGES: AtomicUsize = AtomicUsize::new(0);
static BOOT_L2: Table = Table::new();
static BOOT_BLOCKS: AtomicUsize = AtomicUsize::new(0);
static IMAGE_PA: AtomicU64 = AtomicU64::new(0);

/// Translates an address inside the image.
#[inline]
pub fn image_pa(va: usize) -> Pa {
    Pa::new((va - IMAGE_BASE) as u64 + IMAGE_PA.load(Relaxed))
}

/// Tells the physical range of the image, statics and stacks included: (start, bytes).
pub fn image_range() -> (Pa, u64) {
    (Pa::new(IMAGE_PA.load(Relaxed)), crate::boot::image_size_bytes())
}

/// Builds the roots of all pCPUs, takes the first into use, and opens a hole below each stack.
///
/// # Safety
/// Runs once, first thing on the boot pCPU, with `image_pa` where the image is and the exception level of entry.
pub unsafe fn init(image_pa: u64, level: u64) {
    IMAGE_PA.store(image_pa, Relaxed);
    DEVICE_L2.entry(0).store(DEVICE_L3.descriptor(), Relaxed);
    let image_l2 = crate::boot::image_l2_descriptor();
    for PcpuTables { root, window_l2, window_l3 } in &PCPU_TABLES {
        root.entry(l1_index(IMAGE_BASE)).store(image_l2, Relaxed);
        root.entry(l1_index(BOOT_MAP_BASE)).store(BOOT_L2.descriptor(), Relaxed);
        root.entry(l1_index(DEVICE_BASE)).store(DEVICE_L2.descriptor(), Relaxed);
        root.entry(l1_index(WINDOW_BASE)).store(window_l2.descriptor(), Relaxed);
        window_l2.entry(0).store(window_l3.descriptor(), Relaxed);
    }
    crate::boot::unmap_stack_guards();
    if level == 2 {
        // SAFETY: the root maps the image as the boot root does.
        unsafe { activate_root(0) };
    } else {
        let root = PCPU_TABLES[0].root.descriptor() & !(VALID | TABLE_OR_PAGE);
        dsb_ishst();
        // SAFETY: as above, in EL1's regime: all that will run is a message on the UART.
        unsafe { asm!("msr ttbr0_el1, {}", "isb", "tlbi vmalle1", "dsb nsh", "isb", in(reg) root, options(nostack)) };
    }
}

/// Gives up what this machine never needs: what belongs to pCPUs from number `pcpus` on, and tables for memory in more than `gibs` different
/// GiB. Tells `free` each range that is no longer EL2's: its start and bytes.
///
/// # Safety
/// Only the boot pCPU runs, and no other than those `pcpus` is started.
pub unsafe fn give_up_unneeded(pcpus: usize, gibs: usize, mut free: impl FnMut(Pa, u64)) {
    PCPUS.store(pcpus, Relaxed);
    POOL_TABLES_LEFT.store(gibs.min(POOL_TABLES), Relaxed);
    // SAFETY: by the counts above nobody looks at them.
    unsafe { give_up(&PCPU_TABLES, pcpus, &mut free) };
    // SAFETY: as above.
    unsafe { give_up(&POOL_L2, gibs, &mut free) };
    // SAFETY: those are of pCPUs that never run.
    unsafe { give_up(crate::boot::stacks(), pcpus, free) };
}

/// Takes the whole pages of elements from number `first` on out of EL2's map for good, and tells `free` where they are: the start and bytes.
///
/// # Safety
/// Only the boot pCPU runs, and nobody looks at those elements any more.
pub unsafe fn give_up<T>(elements: &'static [T], first: usize, free: impl FnOnce(Pa, u64)) {
    let range = elements.get(first..).unwrap_or_default().as_ptr_range();
    let start = (range.start as usize).next_multiple_of(4096);
    let bytes = (range.end as usize & !4095).saturating_sub(start);
    crate::boot::give_up(start, bytes);
    tlb::el2_all_local();
    free(image_pa(start), bytes as u64);
}

/// Switches this pCPU from the boot root to its own.
///
/// # Safety
/// `index` is this pCPU's, and [`init`] has run.
pub unsafe fn activate_root(index: usize) {
    let root = PCPU_TABLES[index & (MAX_PCPUS - 1)].root.descriptor() & !(VALID | TABLE_OR_PAGE);
    dsb_ishst();
    // SAFETY: the new root maps image, stack and devices at the same places.
    unsafe { asm!("msr ttbr0_el2, {}", "isb", in(reg) root, options(nostack, preserves_flags)) };
    // The identity mapping of the boot root must not linger.
    tlb::el2_all_local();
}

/// The private last-level table of a pCPU's copy window.
#[inline(always)]
pub(crate) fn window_table(index: usize) -> &'static Table {
    &PCPU_TABLES[index & (MAX_PCPUS - 1)].window_l3
}

/// The descriptor of a read-write page of normal memory.
#[inline(always)]
pub(crate) fn page_rw(pa: Pa) -> u64 {
    pa.raw() & !0xfff | NORMAL_BLOCK | TABLE_OR_PAGE
}

/// Maps the 2 MiB pool block at `pa` and returns its address. The caller owns the memory. `None` if it is not aligned or above 256 GiB, or lies
/// in a GiB for which no table is left.
pub fn map_pool_block(pa: Pa) -> Option<usize> {
    if !pa.is_aligned(BLOCK_SIZE) || pa.raw() >= POOL_LIMIT {
        return None;
    }
    let va = pool_va(pa);
    pool_table(va)?.entry(l2_index(va)).store(pa.raw() | NORMAL_BLOCK, Relaxed);
    // Walkers of all pCPUs see the entry before anyone learns the address.
    dsb_ishst();
    isb();
    Some(va)
}

/// Takes the pool block at `pa` out of EL2's map, on all pCPUs; complete on return.
pub fn unmap_pool_block(pa: Pa) {
    let va = pool_va(pa);
    if pa.raw() < POOL_LIMIT
        && let Some(table) = pool_table(va)
    {
        table.entry(l2_index(va)).store(0, Relaxed);
        tlb::el2_all();
    }
}

/// Tells where a mapped pool address is in EL2.
#[inline(always)]
pub const fn pool_va(pa: Pa) -> usize {
    POOL_BASE + pa.raw() as usize
}

/// Tells the physical address behind an address in a mapped pool block.
#[inline(always)]
pub const fn pool_pa(va: usize) -> Pa {
    Pa::new((va - POOL_BASE) as u64)
}

/// Maps `bytes` of device registers from `pa` (any alignment) and returns the address of the first. `None` if the 2 MiB of device addresses are
/// used up.
pub fn map_device(pa: u64, bytes: u64) -> Option<usize> {
    let first = pa & !0xfff;
    let pages = ((pa - first).saturating_add(bytes).saturating_add(0xfff) >> 12) as usize;
    let slot = map_next(&DEVICE_L3, &DEVICE_PAGES, pages, |page| (first + page * 4096) | DEVICE_PAGE)?;
    Some(DEVICE_BASE + slot * 4096 + (pa - first) as usize)
}

/// Fills the next `count` entries of a table of which `used` are used; returns the index of the first. `None` if there are no more.
fn map_next(table: &Table, used: &AtomicUsize, count: usize, descriptor: impl Fn(u64) -> u64) -> Option<usize> {
    let slot = used.load(Relaxed);
    if count > 512 || slot + count > 512 {
        return None;
    }
    for n in 0..count {
        table.entry(slot + n).store(descriptor(n as u64), Relaxed);
    }
    used.store(slot + count, Relaxed);
    dsb_ishst();
    isb();
    Some(slot)
}

/// Takes back the latest device mapping of up to one page, so that a probe costs no address space.
pub(crate) fn unmap_last_device_page() {
    let slot = DEVICE_PAGES.load(Relaxed).saturating_sub(1);
    DEVICE_L3.entry(slot).store(0, Relaxed);
    DEVICE_PAGES.store(slot, Relaxed);
    tlb::el2_page_local(DEVICE_BASE + slot * 4096);
}

/// Maps `bytes` of memory from `pa` read-only for boot and gives them as a slice. Gone after [`end_boot`]. `None` if the GiB of boot addresses is
/// used up.
///
/// # Safety
/// It is readable normal memory that nothing writes, and the slice is dropped before [`end_boot`].
pub unsafe fn boot_map(pa: Pa, bytes: usize) -> Option<&'static [u8]> {
    let first = pa.raw() & !(BLOCK_SIZE - 1);
    let offset = (pa.raw() - first) as usize;
    let blocks = offset.saturating_add(bytes).div_ceil(BLOCK_SIZE as usize);
    let descriptor = |block| (first + block * BLOCK_SIZE) | NORMAL_BLOCK | READ_ONLY;
    let slot = map_next(&BOOT_L2, &BOOT_BLOCKS, blocks, descriptor)?;
    let va = BOOT_MAP_BASE + slot * BLOCK_SIZE as usize + offset;
    // SAFETY: mapped above; the caller vouches for the memory.
    Some(unsafe { core::slice::from_raw_parts(core::ptr::with_exposed_provenance(va), bytes) })
}

/// Takes away all boot-time mappings and the text that only boot executes, on all pCPUs. Not to be called from there.
pub fn end_boot() {
    crate::boot::unmap_boot_text();
    for block in 0..BOOT_BLOCKS.swap(0, Relaxed) {
        BOOT_L2.entry(block).store(0, Relaxed);
    }
    tlb::el2_all();
}

/// Finds or adds the level 2 table for `va` in the pool area. `None` if there is none left.
fn pool_table(va: usize) -> Option<&'static Table> {
    let index = l1_index(va);
    let old = PCPU_TABLES[0].root.entry(index).load(Relaxed);
    if let Some(table) = POOL_L2.iter().find(|table| table.descriptor() == old) {
        return Some(table);
    }
    let last = POOL_TABLES_LEFT.load(Relaxed).wrapping_sub(1);
    let table = POOL_L2.get(last)?;
    POOL_TABLES_LEFT.store(last, Relaxed);
    for PcpuTables { root, .. } in PCPU_TABLES.iter().take(PCPUS.load(Relaxed)) {
        root.entry(index).store(table.descriptor(), Relaxed);
    }
    Some(table)
}

const fn l1_index(va: usize) -> usize {
    va >> 30 & 511
}

const fn l2_index(va: usize) -> usize {
    va >> 21 & 511
}
