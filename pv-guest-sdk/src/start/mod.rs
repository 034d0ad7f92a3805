//! From the first instruction to the guest's function.
//!
//! The boot contract is that of arm64 Linux: EL1, MMU and D-cache off, x0 = device tree, interrupts masked. What is
//! written before the caches are on would not be coherent with what is read after, so nothing is: the page tables are
//! linked in, and BSS is cleared and the stack used only afterwards.

pub mod tables;
mod vectors;

use crate::{alloc, console, control, dtb, exit, irq, log, time, vcpu};
use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};

/// CNTVCT_EL0 at the first instruction.
static BOOT_TICKS: AtomicU64 = AtomicU64::new(0);

/// Stage-1: 39-bit space, 4 KiB granule, inner-shareable write-back walks, 40-bit output, no TTBR1. (Arm ARM, "TCR_EL1")
const TCR: u64 = 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2 << 32;
/// Attribute 0 = Device-nGnRE, 1 = Normal write-back. (Arm ARM, "MAIR_EL1")
const MAIR: u64 = 0xff04;
/// RES1 bits, I, C, M, SA, SA0; no alignment checks. (Arm ARM, "SCTLR_EL1")
const SCTLR: u64 = 0x30d0_199d;

global_asm!(
    ".section .head, \"ax\"",
    ".global _start",
    "_start:",
    "b portico_boot",
    ".word 0",
    ".quad 0",                     // text_offset
    ".quad __image_size",
    ".quad 0xa",                   // little-endian, 4 KiB pages, anywhere (but see the link address)
    ".quad 0, 0, 0",
    ".ascii \"ARM\\x64\"",
    ".word 0",

    ".section .text.portico_boot, \"ax\"",
    "portico_boot:",
    "mrs x19, cntvct_el0",
    "mov x20, x0",
    // Entered elsewhere than linked: EL2 begins the first domain anew where the bundle holds its image.
    "adrp x1, __image_start",
    "movz x2, #{ram}, lsl #16",
    "cmp x1, x2",
    "b.ne portico_copy",
    "bl portico_mmu_on",
    "adrp x1, __bss_start",
    "add x1, x1, :lo12:__bss_start",
    "adrp x2, __bss_end",
    "add x2, x2, :lo12:__bss_end",
    "1: cmp x1, x2",
    "b.hs 2f",
    "stp xzr, xzr, [x1], #16",
    "stp xzr, xzr, [x1], #16",
    "stp xzr, xzr, [x1], #16",
    "stp xzr, xzr, [x1], #16",
    "b 1b",
    "2:",
    "adrp x1, __stack_top",
    "add x1, x1, :lo12:__stack_top",
    "mov sp, x1",
    "mov x0, x20",
    "mov x1, x19",
    "mov x29, xzr",
    "bl portico_start_rust",
    "b .",

    // Copies the image from x1 to x2, where it runs, and begins there. The caches are off but hold what the last life wrote, and maybe of the
    // source: first all that goes to memory, so that it cannot come later.
    "portico_copy:",
    "adrp x3, __data_end",
    "add x3, x3, :lo12:__data_end",
    "mov x4, x1",
    "mov x5, x2",
    "3: dc cvac, x4",
    "dc civac, x5",
    "add x4, x4, #16",
    "add x5, x5, #16",
    "cmp x4, x3",
    "b.lo 3b",
    "dsb sy",
    "mov x5, x2",
    "4: ldp x6, x7, [x1], #16",
    "stp x6, x7, [x5], #16",
    "cmp x1, x3",
    "b.lo 4b",
    "dsb sy",
    "ic iallu",
    "dsb sy",
    "isb",
    "msr cntv_ctl_el0, xzr",
    "mov x0, x20",
    "br x2",

    // A further vCPU: x0 = its ticket, whose fourth word is its stack pointer.
    ".global portico_secondary",
    "portico_secondary:",
    "mov x20, x0",
    "bl portico_mmu_on",
    "ldr x1, [x20, #24]",
    "mov sp, x1",
    "mov x0, x20",
    "mov x29, xzr",
    "bl portico_secondary_rust",
    "b .",

    // Vectors, FP, stage-1 and caches on. Uses x0, x1 and no stack.
    "portico_mmu_on:",
    "msr spsel, #1",
    "adrp x0, portico_vectors",
    "add x0, x0, :lo12:portico_vectors",
    "msr vbar_el1, x0",
    "mov x0, #(3 << 20)",
    "msr cpacr_el1, x0",
    "adrp x0, portico_l1",
    "msr ttbr0_el1, x0",
    "ldr x0, ={mair}",
    "msr mair_el1, x0",
    "ldr x0, ={tcr}",
    "msr tcr_el1, x0",
    "dsb nsh",
    "tlbi vmalle1",
    "ic iallu",
    "dsb nsh",
    "isb",
    "ldr x0, ={sctlr}",
    "msr sctlr_el1, x0",
    "isb",
    "ret",
    ".ltorg",
    ram = const portico_abi::dt::RAM_BASE >> 16,
    mair = const MAIR,
    tcr = const TCR,
    sctlr = const SCTLR,
);

unsafe extern "C" {
    safe static __image_end: u8;
    fn portico_secondary();
}

unsafe extern "Rust" {
    /// The guest's function, defined by [`entry!`](crate::entry).
    fn portico_guest_main() -> u64;
}

/// Where a further vCPU begins.
pub fn secondary_entry() -> u64 {
    portico_secondary as *const () as u64
}

/// CNTVCT_EL0 at the guest's first instruction.
pub fn boot_ticks() -> u64 {
    BOOT_TICKS.load(Ordering::Relaxed)
}

/// The boot order of a guest.
#[unsafe(no_mangle)]
extern "C" fn portico_start_rust(blob: *const u8, ticks: u64) -> ! {
    BOOT_TICKS.store(ticks, Ordering::Relaxed);
    // SAFETY: first thing on vCPU 0.
    unsafe { vcpu::init(0) };
    // SAFETY: x0 of the boot contract: the tree stays where it is.
    unsafe { dtb::init(blob) };
    time::init();
    add_heap();
    irq::init();
    console::init();
    control::init();
    log::init();
    irq::unmask();
    // SAFETY: `entry!` defines it with this signature.
    let code = unsafe { portico_guest_main() };
    exit::exit(code)
}

/// Gives the heap all RAM above the image, without the device tree and the RAM disk.
fn add_heap() {
    let image_end = core::ptr::from_ref(&__image_end).addr();
    let tree = dtb::bytes();
    let tree = (tree.as_ptr().addr() & !4095, (tree.as_ptr().addr() + tree.len()).next_multiple_of(4096));
    let disk = dtb::initrd().map_or((0, 0), |range| (range.base as usize & !4095, (range.base + range.len) as usize));
    for range in dtb::memory() {
        let end = (range.base + range.len) as usize;
        let mut start = range.base as usize;
        if (start..end).contains(&image_end) {
            start = image_end;
        }
        let mut holes = [tree, disk];
        holes.sort_unstable();
        for (from, to) in holes {
            if from >= start && to <= end && from < to {
                add(start, from);
                start = to.next_multiple_of(64);
            }
        }
        add(start, end);
    }
}

fn add(start: usize, end: usize) {
    if end > start && end - start >= 4096 {
        // SAFETY: RAM of the domain by its device tree, without the image, the tree and the RAM disk.
        unsafe { alloc::add(start, end) };
    }
}
