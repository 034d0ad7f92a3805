//! From the boot loader to Rust: arm64 Image header, early asm, entry of the other pCPUs.
//!
//! The boot loader enters at the first byte with MMU off and x0 = physical address of the device tree (Linux
//! "Booting AArch64 Linux"). Position-independent code fills three tables: the image at its link address with final
//! permissions, and its 2 MiB block at its physical address for the moment the MMU goes on. Entered at EL1, the same
//! is done with EL1's registers, so that Rust runs far enough to say on the UART what is wrong.

use crate::mmu::{self, IMAGE_BASE};
use crate::pcpu::{FATAL_STACK_SIZE, MAX_PCPUS, STACK_SIZE};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use portico_core::addr::Pa;

core::arch::global_asm!(include_str!("boot.S"),
    MAX_PCPUS = const MAX_PCPUS,
    SLOT_SIZE = const SLOT_SIZE,
    BOOT_PCPUS = sym BOOT_PCPUS,
);

/// Bytes of an unmapped page.
const GUARD: usize = 4096;

/// Bytes from one pCPU's stacks to the next: from below guard, fatal stack, guard, stack.
const SLOT_SIZE: usize = GUARD + FATAL_STACK_SIZE + GUARD + STACK_SIZE;

// The linker script reserves the space.
const _: () = assert!(SLOT_SIZE * MAX_PCPUS == 8 * 24 * 1024);

/// Affinity of each started pCPU plus one, found by itself on entry. Zero: unused.
static BOOT_PCPUS: [AtomicU64; MAX_PCPUS] = [const { AtomicU64::new(0) }; MAX_PCPUS];

unsafe extern "C" {
    static __image_end: u8;
    static __init_end: u8;
    static __image_l2: u8;
    static __image_l3: [AtomicU64; 512];
    static __stacks: [[u8; SLOT_SIZE]; MAX_PCPUS];
    static secondary_entry: u8;
}

/// The affinity fields of `MPIDR_EL1`, as device trees write them.
pub const MPIDR_AFFINITY: u64 = 0xff_00ff_ffff;

/// Bytes of the image that EL2 gave up.
static GIVEN_UP: AtomicU64 = AtomicU64::new(0);

/// Tells the bytes of memory that the image takes, statics and stacks included, but not what was given up.
pub fn image_size_bytes() -> u64 {
    (&raw const __image_end as usize - IMAGE_BASE) as u64 - GIVEN_UP.load(Relaxed)
}

/// Tells the top of the EL2 stack of pCPU `index`.
pub fn stack_top(index: usize) -> usize {
    &raw const __stacks as usize + (index + 1) * SLOT_SIZE
}

/// Tells the top of the stack for fatal exceptions of pCPU `index`.
pub fn fatal_stack_top(index: usize) -> usize {
    &raw const __stacks as usize + index * SLOT_SIZE + GUARD + FATAL_STACK_SIZE
}

/// Tells pCPU `index`, when it enters, that it is the one with affinity `mpidr`.
pub fn register_pcpu(index: usize, mpidr: u64) {
    BOOT_PCPUS[index & (MAX_PCPUS - 1)].store((mpidr & MPIDR_AFFINITY) + 1, Relaxed);
    // The newcomer reads it with MMU and caches on, after the barrier in the call that starts it.
    crate::barrier::dsb_sy();
}

/// Tells where pCPUs other than the first enter.
pub fn secondary_entry_pa() -> Pa {
    mmu::image_pa(&raw const secondary_entry as usize)
}

/// The level 1 entry of the image.
pub(crate) fn image_l2_descriptor() -> u64 {
    mmu::image_pa(&raw const __image_l2 as usize).raw() | 3
}

/// Unmaps the page below each stack: an overflow faults instead of reaching what lies there.
pub(crate) fn unmap_stack_guards() {
    for index in 0..MAX_PCPUS {
        unmap(fatal_stack_top(index) - FATAL_STACK_SIZE - GUARD, GUARD);
        unmap(stack_top(index) - STACK_SIZE - GUARD, GUARD);
    }
}

/// The stacks of all pCPUs, to tell where they are.
pub(crate) fn stacks() -> &'static [[u8; SLOT_SIZE]] {
    // SAFETY: the linker script reserves them; nobody reads bytes through this.
    unsafe { &__stacks }
}

/// Unmaps pages of the image for good.
pub(crate) fn give_up(va: usize, bytes: usize) {
    unmap(va, bytes);
    GIVEN_UP.fetch_add(bytes as u64, Relaxed);
}

/// Unmaps what only boot executes. The caller invalidates the TLBs.
pub(crate) fn unmap_boot_text() {
    unmap(IMAGE_BASE, &raw const __init_end as usize - IMAGE_BASE);
}

/// Unmaps pages of the image.
fn unmap(va: usize, bytes: usize) {
    // SAFETY: the table is a static of the image, written by the boot asm before and by nobody else.
    let table = unsafe { &__image_l3 };
    for page in (va..va + bytes).step_by(4096) {
        table[(page - IMAGE_BASE) >> 12 & 511].store(0, Relaxed);
    }
}
