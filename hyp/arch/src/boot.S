// Early boot. Registers kept through it: x19 exception level, x20 device tree, x21 physical address of the image.
// Attributes of the tables: see mmu.rs. In EL1's regime AP[1] must be 0, or the text would not be executable.

.section .text.head, "ax"
.global __entry
__entry:
    b       primary_entry
    .long   0
    .quad   0                       // text_offset
    .quad   __image_size
    .quad   0xa                     // little endian, 4 KiB pages, anywhere in memory
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0

// Maps pages [\start, \end) of the image with \attrs. x22 = level 3 table, x23 = link address of the image.
.macro map_pages start, end, attrs
    ldr     x0, =\start
    ldr     x1, =\end
    sub     x0, x0, x23
    sub     x1, x1, x23
    add     x2, x21, x0
    orr     x2, x2, \attrs
    add     x0, x22, x0, lsr #9     // 8 bytes of table for each page
    add     x1, x22, x1, lsr #9
1:  str     x2, [x0], #8
    add     x2, x2, #4096
    cmp     x0, x1
    b.lo    1b
.endm

primary_entry:
    msr     daifset, #0xf
    mov     x20, x0
    adrp    x21, __image_start
    mrs     x19, CurrentEL
    lsr     x19, x19, #2
    cmp     x19, #3                 // no UART can be found from here: nothing to say
    b.eq    park

    // The early tables are four pages that the loader left as they were.
    adrp    x0, __early_tables
    adrp    x1, __early_tables_end
1:  stp     xzr, xzr, [x0], #16
    stp     xzr, xzr, [x0], #16
    stp     xzr, xzr, [x0], #16
    stp     xzr, xzr, [x0], #16
    cmp     x0, x1
    b.lo    1b

    adrp    x22, __image_l3
    ldr     x23, =__image_start
    mov     x24, #0x703             // valid page, inner shareable, accessed
    mov     x26, #(3 << 53)         // execute never: UXN and PXN
    cmp     x19, #2
    b.ne    1f
    orr     x24, x24, #0x40         // AP[1], RES1 at EL2
    mov     x26, #(1 << 54)         // XN
1:  orr     x25, x24, #0x80         // read-only
    map_pages __text_start, __text_end, x25
    orr     x25, x25, x26
    map_pages __rodata_start, __rodata_end, x25
    orr     x25, x24, x26
    map_pages __data_start, __image_end, x25

    // Level 2 and 1 for the link address.
    adrp    x0, __image_l2
    orr     x1, x22, #3
    str     x1, [x0]
    adrp    x25, __boot_root
    orr     x1, x0, #3
    lsr     x2, x23, #30
    str     x1, [x25, x2, lsl #3]
    // The image's 2 MiB block at its own physical address, read-only and executable.
    adrp    x0, __ident_l2
    orr     x1, x0, #3
    lsr     x2, x21, #30
    str     x1, [x25, x2, lsl #3]
    orr     x1, x24, #0x80
    bic     x1, x1, #2              // a block
    lsr     x2, x21, #21
    orr     x1, x1, x2, lsl #21
    and     x2, x2, #511
    str     x1, [x0, x2, lsl #3]

    // Written past the caches: drop what clean lines there may be, before walks look into the caches.
    dmb     sy
    adrp    x0, __early_tables
    adrp    x1, __early_tables_end
    mrs     x2, ctr_el0
    ubfx    x2, x2, #16, #4
    mov     x3, #4
    lsl     x3, x3, x2
1:  dc      ivac, x0
    add     x0, x0, x3
    cmp     x0, x1
    b.lo    1b
    dsb     sy

    ldr     x30, =primary_high
    // fall through

// Turns the MMU on with root x25 and goes to x30. Clobbers x0-x3.
enable_mmu:
    ldr     x0, =0x04ff             // MAIR: 0 normal write-back, 1 device nGnRE
    mrs     x2, id_aa64mmfr0_el1
    and     x2, x2, #0xf
    mov     x3, #5                  // at most 48 bits of physical address
    cmp     x2, x3
    csel    x2, x2, x3, lo
    ldr     x1, =0x3519             // 39 bits, 4 KiB, walks inner shareable write-back
    cmp     x19, #2
    b.ne    1f
    ldr     x3, =0x80000038         // RW, AMO, IMO, FMO: no E2H, and interrupts are EL2's
    msr     hcr_el2, x3
    isb
    orr     x1, x1, x2, lsl #16
    ldr     x3, =0x80800000         // RES1
    orr     x1, x1, x3
    msr     mair_el2, x0
    msr     tcr_el2, x1
    msr     ttbr0_el2, x25
    isb
    tlbi    alle2
    ic      iallu
    dsb     nsh
    isb
    ldr     x3, =0x30cd183d         // RES1, M, C, I, SA, WXN
    msr     sctlr_el2, x3
    isb
    br      x30
1:  orr     x1, x1, x2, lsl #32
    orr     x1, x1, #(1 << 23)      // EPD1
    msr     mair_el1, x0
    msr     tcr_el1, x1
    msr     ttbr0_el1, x25
    isb
    tlbi    vmalle1
    ic      iallu
    dsb     nsh
    isb
    ldr     x3, =0x30d0180d         // RES1, M, C, I, SA
    msr     sctlr_el1, x3
    isb
    br      x30

.global secondary_entry
secondary_entry:
    msr     daifset, #0xf
    mrs     x19, CurrentEL
    lsr     x19, x19, #2
    cmp     x19, #2
    b.ne    park
    adrp    x25, __boot_root
    ldr     x30, =secondary_high
    b       enable_mmu

park:
    wfe
    b       park
    .ltorg

.section .init.text, "ax"
primary_high:
    ldr     x0, =__bss_start
    ldr     x1, =__bss_end
    mrs     x2, dczid_el0
    tbnz    x2, #4, 2f              // dc zva is prohibited
    and     x2, x2, #0xf
    mov     x3, #4
    lsl     x2, x3, x2
1:  dc      zva, x0
    add     x0, x0, x2
    cmp     x0, x1
    b.lo    1b
2:  cmp     x0, x1
    b.hs    3f
    stp     xzr, xzr, [x0], #16
    b       2b
3:  ldr     x0, =__stacks
    ldr     x1, ={SLOT_SIZE}
    add     sp, x0, x1
    mov     x29, xzr
    mov     x30, xzr
    mov     x0, x20
    mov     x1, x21
    mov     x2, x19
    bl      portico_boot
    b       .
    .ltorg

.section .text, "ax"
secondary_high:
    mrs     x0, mpidr_el1
    ldr     x1, =0xff00ffffff
    and     x0, x0, x1
    add     x0, x0, #1
    ldr     x1, ={BOOT_PCPUS}
    mov     x2, #0
1:  ldr     x3, [x1, x2, lsl #3]
    cmp     x3, x0
    b.eq    2f
    add     x2, x2, #1
    cmp     x2, #{MAX_PCPUS}
    b.lo    1b
    b       .
2:  ldr     x0, =__stacks
    ldr     x1, ={SLOT_SIZE}
    add     x3, x2, #1
    madd    x0, x1, x3, x0
    mov     sp, x0
    mov     x29, xzr
    mov     x30, xzr
    mov     x0, x2
    bl      portico_secondary
    b       .
    .ltorg
