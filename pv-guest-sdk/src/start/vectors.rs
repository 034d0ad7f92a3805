//! The exception vectors.
//!
//! Sixteen entries; only synchronous exceptions and interrupts of EL1 with its own stack are expected. The others
//! report which one it was and end the domain.

use crate::vcpu;
use core::arch::global_asm;
use core::sync::atomic::Ordering;

/// Registers that a handler may change, as the stub saves them.
#[repr(C)]
struct Frame {
    x: [u64; 19],
    x29: u64,
    x30: u64,
    elr: u64,
    spsr: u64,
    _reserved: u64,
}

const FRAME: usize = size_of::<Frame>();
const X18: usize = 18 * 8;
const X30: usize = core::mem::offset_of!(Frame, x30);
const SPSR: usize = core::mem::offset_of!(Frame, spsr);

global_asm!(
    ".macro portico_save",
    "sub sp, sp, #{frame}",
    "stp x0, x1, [sp]",
    "stp x2, x3, [sp, #16]",
    "stp x4, x5, [sp, #32]",
    "stp x6, x7, [sp, #48]",
    "stp x8, x9, [sp, #64]",
    "stp x10, x11, [sp, #80]",
    "stp x12, x13, [sp, #96]",
    "stp x14, x15, [sp, #112]",
    "stp x16, x17, [sp, #128]",
    "stp x18, x29, [sp, #{x18}]",
    "mrs x0, elr_el1",
    "stp x30, x0, [sp, #{x30}]",
    "mrs x1, spsr_el1",
    "str x1, [sp, #{spsr}]",
    ".endm",

    ".macro portico_vector label, kind",
    ".balign 128",
    "\\label:",
    "portico_save",
    "mov x0, #\\kind",
    "mov x1, sp",
    "b portico_fatal_stub",
    ".endm",

    ".section .text.portico_vectors, \"ax\"",
    ".balign 2048",
    "portico_vectors:",
    "portico_vector portico_sync_sp0, 0",
    "portico_vector portico_irq_sp0, 1",
    "portico_vector portico_fiq_sp0, 2",
    "portico_vector portico_serror_sp0, 3",
    ".balign 128",
    "portico_save",
    "mov x0, sp",
    "bl portico_sync",
    "b portico_return",
    ".balign 128",
    "portico_save",
    "bl portico_irq",
    "b portico_return",
    "portico_vector portico_fiq, 6",
    "portico_vector portico_serror, 7",
    "portico_vector portico_sync_el0, 8",
    "portico_vector portico_irq_el0, 9",
    "portico_vector portico_fiq_el0, 10",
    "portico_vector portico_serror_el0, 11",
    "portico_vector portico_sync_el0_32, 12",
    "portico_vector portico_irq_el0_32, 13",
    "portico_vector portico_fiq_el0_32, 14",
    "portico_vector portico_serror_el0_32, 15",
    ".balign 128",

    "portico_fatal_stub:",
    "bl portico_fatal",
    "b .",

    "portico_return:",
    "ldr x1, [sp, #{spsr}]",
    "ldp x30, x0, [sp, #{x30}]",
    "msr elr_el1, x0",
    "msr spsr_el1, x1",
    "ldp x2, x3, [sp, #16]",
    "ldp x4, x5, [sp, #32]",
    "ldp x6, x7, [sp, #48]",
    "ldp x8, x9, [sp, #64]",
    "ldp x10, x11, [sp, #80]",
    "ldp x12, x13, [sp, #96]",
    "ldp x14, x15, [sp, #112]",
    "ldp x16, x17, [sp, #128]",
    "ldp x18, x29, [sp, #{x18}]",
    "ldp x0, x1, [sp]",
    "add sp, sp, #{frame}",
    "eret",
    "dsb nsh",
    "isb",
    ".global portico_vectors",
    frame = const FRAME,
    x18 = const X18,
    x30 = const X30,
    spsr = const SPSR,
);

/// Names of the entries, for the report.
const NAMES: [&str; 16] = [
    "synchronous, SP_EL0",
    "IRQ, SP_EL0",
    "FIQ, SP_EL0",
    "SError, SP_EL0",
    "synchronous",
    "IRQ",
    "FIQ",
    "SError",
    "synchronous from EL0",
    "IRQ from EL0",
    "FIQ from EL0",
    "SError from EL0",
    "synchronous from AArch32",
    "IRQ from AArch32",
    "FIQ from AArch32",
    "SError from AArch32",
];

#[unsafe(no_mangle)]
extern "C" fn portico_irq() {
    crate::irq::upcall();
}

#[unsafe(no_mangle)]
extern "C" fn portico_sync(frame: &mut Frame) {
    let vcpu = vcpu::current();
    if vcpu.catching.load(Ordering::Relaxed) == 1 {
        let (esr, far) = syndrome();
        vcpu.caught_esr.store(esr, Ordering::Relaxed);
        vcpu.caught_far.store(far, Ordering::Relaxed);
        vcpu.catching.store(2, Ordering::Relaxed);
        frame.elr = frame.elr.wrapping_add(4);
        return;
    }
    portico_fatal(4, frame)
}

#[unsafe(no_mangle)]
extern "C" fn portico_fatal(kind: u64, frame: &Frame) -> ! {
    let (esr, far) = syndrome();
    let name = NAMES.get(kind as usize).copied().unwrap_or("?");
    crate::console::print_urgently(format_args!(
        "exception on vCPU {}: {name}, ESR {esr:#x}, FAR {far:#x}, pc {:#x}, lr {:#x}, PSTATE {:#x}\n",
        vcpu::index(),
        frame.elr,
        frame.x30,
        frame.spsr,
    ));
    crate::exit::panic(esr)
}

fn syndrome() -> (u64, u64) {
    let (esr, far): (u64, u64);
    // SAFETY: reads registers.
    unsafe {
        core::arch::asm!("mrs {}, esr_el1", "mrs {}, far_el1", out(reg) esr, out(reg) far, options(nomem, nostack, preserves_flags));
    }
    (esr, far)
}
