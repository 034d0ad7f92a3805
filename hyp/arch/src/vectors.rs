//! The exception vectors of EL2: from a guest's trap to a Rust handler and back.
//!
//! One frame, one way: the entry stores x0..x18 and x30 to the [`VcpuContext`](crate::context::VcpuContext) that SP_EL2
//! points at, moves SP to the pCPU's stack, and calls a handler. The handler returns null to go on with the same vCPU (the
//! frame is reloaded, `eret`), or what to run instead: then the rest of the frame is stored and [`portico_switch`] decides
//! with all Rust frames unwound.
//!
//! Two tables hold the same code: plain, and with the Spectre-BHB loop before anything else is executed. A boot option picks one; so the loop
//! costs nothing when it is not wanted.
//!
//! (Arm ARM DDI 0487, "Exception vectors"; Arm "Spectre-BHB: Speculative Target Reuse Attacks", loop of 8 for Cortex-A72)

use crate::context::{VcpuContext, offsets};
use core::arch::global_asm;

/// What a handler returns to ask for "no vCPU": the pCPU idles.
pub const IDLE: *mut VcpuContext = core::ptr::without_provenance_mut(1);

/// Offset, in the pCPU structure that TPIDR_EL2 points at, of the stack pointer for fatal exceptions.
pub const PCPU_FATAL_SP: usize = 8;

/// Which vector table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VectorKind {
    /// No mitigation loop.
    Plain,
    /// Branch-history loop at each entry.
    Bhb,
}

// Implemented by the hypervisor proper.
unsafe extern "C" {
    /// `hvc #0` from EL1: registers x0..x6 and the context.
    fn portico_hypercall(
        x0: u64,
        x1: u64,
        x2: u64,
        x3: u64,
        x4: u64,
        x5: u64,
        x6: u64,
        context: *mut VcpuContext,
    ) -> *mut VcpuContext;
    /// Any other synchronous exception of a guest.
    fn portico_guest_sync(context: *mut VcpuContext, esr: u64) -> *mut VcpuContext;
    /// Physical interrupt while a guest runs.
    fn portico_guest_irq(context: *mut VcpuContext) -> *mut VcpuContext;
    /// SError while a guest runs.
    fn portico_guest_serror(context: *mut VcpuContext, esr: u64) -> *mut VcpuContext;
    /// Puts `next` (a context or [`IDLE`]) on this pCPU and returns the context to enter.
    fn portico_switch(next: *mut VcpuContext) -> *mut VcpuContext;
    /// An exception in EL2 itself. `kind` is the number of the vector.
    fn portico_fatal(kind: u64, esr: u64, elr: u64, far: u64, sp: u64) -> !;

    static portico_vectors_plain: u8;
    static portico_vectors_bhb: u8;
    fn portico_enter_idle(handler_sp: u64) -> !;
}

/// Installs a vector table on this pCPU (VBAR_EL2).
pub fn install(kind: VectorKind) {
    let table = match kind {
        VectorKind::Plain => &raw const portico_vectors_plain,
        VectorKind::Bhb => &raw const portico_vectors_bhb,
    };
    // SAFETY: the symbol is a 2 KiB aligned table of 16 entries, mapped executable.
    unsafe { core::arch::asm!("msr vbar_el2, {}", "isb", in(reg) table, options(nostack, preserves_flags)) };
}

/// Leaves boot code for good: the pCPU idles on its handler stack until there is a vCPU to run.
///
/// # Safety
/// `handler_sp` is 16-byte aligned with 16 bytes above it and this pCPU's stack below it; all per-pCPU state is set up.
pub unsafe fn enter_idle(handler_sp: u64) -> ! {
    // SAFETY: by the contract.
    unsafe { portico_enter_idle(handler_sp) }
}

global_asm!(
    r#"
    .macro save_volatile
    stp x0, x1, [sp, #0]
    stp x2, x3, [sp, #16]
    stp x4, x5, [sp, #32]
    stp x6, x7, [sp, #48]
    stp x8, x9, [sp, #64]
    stp x10, x11, [sp, #80]
    stp x12, x13, [sp, #96]
    stp x14, x15, [sp, #112]
    stp x16, x17, [sp, #128]
    stp x18, x30, [sp, #144]
    .endm

    .macro restore_volatile_and_eret
    ldp x2, x3, [sp, #16]
    ldp x4, x5, [sp, #32]
    ldp x6, x7, [sp, #48]
    ldp x8, x9, [sp, #64]
    ldp x10, x11, [sp, #80]
    ldp x12, x13, [sp, #96]
    ldp x14, x15, [sp, #112]
    ldp x16, x17, [sp, #128]
    ldp x18, x30, [sp, #144]
    ldp x0, x1, [sp, #0]
    eret
    // Nothing behind an eret may be executed speculatively with EL2's registers.
    dsb nsh
    isb
    .endm

    // A trapped instruction may name any register, so its handler finds x19..x29 in the context too, and what it writes there counts.
    .macro save_rest base
    stp x19, x20, [\base, #160]
    stp x21, x22, [\base, #176]
    stp x23, x24, [\base, #192]
    stp x25, x26, [\base, #208]
    stp x27, x28, [\base, #224]
    str x29, [\base, #240]
    .endm

    .macro load_rest base
    ldp x19, x20, [\base, #160]
    ldp x21, x22, [\base, #176]
    ldp x23, x24, [\base, #192]
    ldp x25, x26, [\base, #208]
    ldp x27, x28, [\base, #224]
    ldr x29, [\base, #240]
    .endm

    // 8 taken branches overwrite the branch history of a Cortex-A72. x12 is saved already.
    .macro bhb_loop
    mov x12, #8
8:  b . + 4
    subs x12, x12, #1
    b.ne 8b
    dsb nsh
    isb
    .endm

    .macro fatal_vector number
    .balign 0x80
    mov x0, #\number
    b portico_fatal_entry
    .endm

    // Overfull entries fail assembly: .org cannot go back.
    .macro vector_table name, bhb
    .balign 0x800
    .global portico_vectors_\name
portico_vectors_\name:
    fatal_vector 0          // current EL with SP_EL0: synchronous
    fatal_vector 1          //   IRQ
    fatal_vector 2          //   FIQ
    fatal_vector 3          //   SError
    fatal_vector 4          // current EL with SP_ELx: synchronous
    fatal_vector 5          //   IRQ
    fatal_vector 6          //   FIQ
    fatal_vector 7          //   SError
    guest_vectors \name, 0x400, \bhb      // AArch64 guest
    guest_vectors \name, 0x600, \bhb      // AArch32 EL0 of a guest
    .org portico_vectors_\name + 0x800
    .endm

    .macro guest_vectors name, base, bhb
    .org portico_vectors_\name + \base
    save_volatile
    .if \bhb
    bhb_loop
    .endif
    mrs x9, esr_el2
    // EC = HVC from AArch64, IL = 1, immediate 0
    mov w10, #0x5a000000
    cmp w9, w10
    b.eq hvc_served
    b sync_served
    .org portico_vectors_\name + \base + 0x80
    save_volatile
    .if \bhb
    bhb_loop
    .endif
    b irq_served
    .org portico_vectors_\name + \base + 0x100
    save_volatile
    b irq_served             // FIQ: Group 0 of a GICv2 is not used for anything but this same path
    .org portico_vectors_\name + \base + 0x180
    save_volatile
    mov x0, sp
    b portico_serror_entry
    .endm

    // Back to back, as each begins at a multiple of its size.
    .section .text.vectors, "ax"
    vector_table plain, 0
    vector_table bhb, 1

    // Linked in front of the tables, where their alignment would leave a gap.
    .section .text.vectors_code, "ax"
hvc_served:
    mov x7, sp
    ldr x10, [sp, #{handler_sp}]
    mov sp, x10
    bl portico_hypercall
    cbnz x0, portico_exit_to
    ldr x0, [sp]
    mov sp, x0
    restore_volatile_and_eret
irq_served:
    mov x0, sp
    ldr x10, [sp, #{handler_sp}]
    mov sp, x10
    bl portico_guest_irq
    cbnz x0, portico_exit_to
return_to_same:
    ldr x0, [sp]
    mov sp, x0
    restore_volatile_and_eret
sync_served:
    mov x0, sp
    ldr x10, [sp, #{handler_sp}]
    lsr w11, w9, #26
    cmp w11, #1             // WFI and WFE name no register
    mov x1, x9
    b.ne 1f
    mov sp, x10
    bl portico_guest_sync
    cbnz x0, portico_exit_to
    ldr x0, [sp]
    mov sp, x0
    restore_volatile_and_eret
1:  save_rest sp
    mov sp, x10
    bl portico_guest_sync
    ldr x1, [sp]
    load_rest x1
    cbnz x0, portico_exit_to
    mov sp, x1
    restore_volatile_and_eret

portico_serror_entry:
    ldr x10, [sp, #{handler_sp}]
    mov sp, x10
    mrs x1, esr_el2
    bl portico_guest_serror
    cbz x0, return_to_same
    b portico_exit_to

    // x0: what to run. [sp]: the context whose registers are live.
portico_exit_to:
    ldr x1, [sp]
    stp x19, x20, [x1, #160]
    stp x21, x22, [x1, #176]
    stp x23, x24, [x1, #192]
    stp x25, x26, [x1, #208]
    stp x27, x28, [x1, #224]
    mrs x2, elr_el2
    stp x29, x2, [x1, #240]
    mrs x3, spsr_el2
    str x3, [x1, #256]
    bl portico_switch
portico_enter:
    mov sp, x0
    ldp x29, x2, [sp, #240]
    ldr x3, [sp, #256]
    msr elr_el2, x2
    msr spsr_el2, x3
    ldp x19, x20, [sp, #160]
    ldp x21, x22, [sp, #176]
    ldp x23, x24, [sp, #192]
    ldp x25, x26, [sp, #208]
    ldp x27, x28, [sp, #224]
    restore_volatile_and_eret

    .global portico_enter_idle
portico_enter_idle:
    mov sp, x0
    mov x0, #1
    bl portico_switch
    b portico_enter

portico_fatal_entry:
    mrs x5, tpidr_el2
    ldr x5, [x5, #{fatal_sp}]
    mov x4, sp
    mov sp, x5
    mrs x1, esr_el2
    mrs x2, elr_el2
    mrs x3, far_el2
    bl portico_fatal
    b .
    "#,
    handler_sp = const offsets::HANDLER_SP,
    fatal_sp = const PCPU_FATAL_SP,
);

// The macros above name the handlers as plain symbols; these keep the declarations and the assembly together.
const _: unsafe extern "C" fn(*mut VcpuContext) -> *mut VcpuContext = portico_switch;
const _: unsafe extern "C" fn(*mut VcpuContext) -> *mut VcpuContext = portico_guest_irq;
const _: unsafe extern "C" fn(*mut VcpuContext, u64) -> *mut VcpuContext = portico_guest_sync;
const _: unsafe extern "C" fn(*mut VcpuContext, u64) -> *mut VcpuContext = portico_guest_serror;
const _: unsafe extern "C" fn(u64, u64, u64, u64, u64) -> ! = portico_fatal;
const _: unsafe extern "C" fn(u64, u64, u64, u64, u64, u64, u64, *mut VcpuContext) -> *mut VcpuContext =
    portico_hypercall;
const _: () = assert!(offsets::PC == 248);
