// A frame is a VcpuContext: x0..x18 and x30, x19..x29, PC, PSTATE. SP_EL2 points at it while its guest runs.

.macro volatile op
    \op x0, x1, [sp, #0]
    \op x2, x3, [sp, #16]
    \op x4, x5, [sp, #32]
    \op x6, x7, [sp, #48]
    \op x8, x9, [sp, #64]
    \op x10, x11, [sp, #80]
    \op x12, x13, [sp, #96]
    \op x14, x15, [sp, #112]
    \op x16, x17, [sp, #128]
    \op x18, x30, [sp, #144]
.endm

// All the others but x29.
.macro rest op, base
    \op x19, x20, [\base, #160]
    \op x21, x22, [\base, #176]
    \op x23, x24, [\base, #192]
    \op x25, x26, [\base, #208]
    \op x27, x28, [\base, #224]
.endm

.macro enter_guest
    volatile ldp
    eret
    // Nothing behind an eret may be executed speculatively with EL2's registers.
    dsb nsh
    isb
.endm

// From the handler's stack, below whose top the frame is named.
.macro return_to_same
    ldr x0, [sp]
    mov sp, x0
    enter_guest
.endm

.macro to_handler_stack
    ldr x10, [sp, #{handler_sp}]
    mov sp, x10
.endm

.macro save_volatile bhb
    volatile stp
    .if \bhb
    // 8 taken branches overwrite the branch history of a Cortex-A72.
    mov x12, #8
8:  b . + 4
    subs x12, x12, #1
    b.ne 8b
    dsb nsh
    isb
    .endif
.endm

.macro guest_vectors name, base, bhb
    .org portico_vectors_\name + \base
    save_volatile \bhb
    mrs x9, esr_el2
    mov w10, #0x5a000000        // EC = HVC from AArch64, IL = 1, immediate 0
    cmp w9, w10
    b.eq hvc_served
    b sync_served
    .org portico_vectors_\name + \base + 0x80
    save_volatile \bhb
    b irq_served
    .org portico_vectors_\name + \base + 0x100
    save_volatile 0
    b irq_served                // FIQ: Group 0 of a GICv2 is not used for anything but this same path
    .org portico_vectors_\name + \base + 0x180
    save_volatile 0
    b serror_served
.endm

// Overfull entries fail assembly: .org cannot go back.
.macro vector_table name, bhb
    .balign 0x800
    .global portico_vectors_\name
portico_vectors_\name:
    // EL2's own: synchronous, IRQ, FIQ and SError with SP_EL0, then the same with SP_EL2.
    .irp number, 0, 1, 2, 3, 4, 5, 6, 7
    .balign 0x80
    mov x0, #\number
    b fatal_entry
    .endr
    guest_vectors \name, 0x400, \bhb    // AArch64 guest
    guest_vectors \name, 0x600, \bhb    // AArch32 EL0 of a guest
    .org portico_vectors_\name + 0x800
.endm

// Back to back, as each begins at a multiple of its size.
.section .text.vectors, "ax"
    vector_table plain, 0
    vector_table bhb, 1

// Linked in front of the tables, where their alignment would leave a gap.
.section .text.vectors_code, "ax"
hvc_served:
    mov x7, sp
    to_handler_stack
    bl portico_hypercall
    cbnz x0, exit_to
    return_to_same

irq_served:
    mov x0, sp
    to_handler_stack
    bl portico_guest_irq
    cbnz x0, exit_to
    return_to_same

sync_served:
    mov x0, sp
    ldr x10, [sp, #{handler_sp}]
    lsr w11, w9, #26
    cmp w11, #1                 // WFI and WFE name no register
    mov x1, x9
    b.ne 1f
    mov sp, x10
    bl portico_guest_sync
    cbnz x0, exit_to
    return_to_same
    // A trapped instruction may name any register, so its handler finds x19..x29 in the frame too, and what it writes there counts.
1:  rest stp, sp
    str x29, [sp, #240]
    mov sp, x10
    bl portico_guest_sync
    ldr x1, [sp]
    rest ldp, x1
    ldr x29, [x1, #240]
    cbnz x0, exit_to
    mov sp, x1
    enter_guest

serror_served:
    mov x0, sp
    to_handler_stack
    mrs x1, esr_el2
    bl portico_guest_serror
    cbnz x0, exit_to
    return_to_same

// x0: what to run. [sp]: the frame whose registers are live.
exit_to:
    ldr x1, [sp]
    rest stp, x1
    mrs x2, elr_el2
    stp x29, x2, [x1, #240]
    mrs x3, spsr_el2
    str x3, [x1, #256]
    bl portico_switch
enter:
    mov sp, x0
    ldp x29, x2, [sp, #240]
    ldr x3, [sp, #256]
    msr elr_el2, x2
    msr spsr_el2, x3
    rest ldp, sp
    enter_guest

.global portico_enter_idle
portico_enter_idle:
    mov sp, x0
    mov x0, #1
    bl portico_switch
    b enter

fatal_entry:
    mrs x5, tpidr_el2
    ldr x5, [x5, #{fatal_sp}]
    mov x4, sp
    mov sp, x5
    mrs x1, esr_el2
    mrs x2, elr_el2
    mrs x3, far_el2
    bl portico_fatal
    b .
