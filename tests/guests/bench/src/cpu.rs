//! Vectors and interrupt handling of a guest that takes the time first.
//!
//! The SDK's vectors save all registers before anything else, and its scan serves any number of ports. Here an interrupt takes the
//! time in the second instruction after a stack frame is made, and the handler knows its two ports: what is measured is
//! the hypervisor, and the guest around it is as small as the guests with which other hypervisors were measured.

use core::arch::{asm, global_asm};
use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use portico_sdk::abi::call::info;
use portico_sdk::abi::page::VcpuPage;
use portico_sdk::abi::port::BIT_TIMER;
use portico_sdk::{Status, hvc, time, vcpu};

/// The bit of the one port that is measured.
pub const BIT: u16 = 40;

/// GICC_IAR and GICC_EOIR. (Arm IHI 0048, "CPU interface register map")
const IAR: usize = 0xc;
const EOIR: usize = 0x10;
/// First of the special INTIDs, which say that there is nothing to take.
const SPECIAL: u64 = 1020;

/// What the handler of one vCPU works on. TPIDR_EL0, which nothing else uses, points at it.
#[repr(C, align(64))]
pub struct Cpu {
    /// Time at the last interrupt. Written by the vector.
    pub entered: AtomicU64,
    /// Interrupts that were taken.
    pub taken: AtomicU64,
    /// Notifications that were seen.
    pub seen: AtomicU64,
    /// Address of the vCPU page.
    page: AtomicUsize,
    /// Address of the GICv2 CPU interface; 0 for system registers.
    gicv: AtomicUsize,
    /// 1 if it answers a notification in memory.
    answers: AtomicUsize,
}

impl Cpu {
    const fn new(answers: usize) -> Self {
        Self {
            entered: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            page: AtomicUsize::new(0),
            gicv: AtomicUsize::new(0),
            answers: AtomicUsize::new(answers),
        }
    }
}

const _: () = assert!(offset_of!(Cpu, entered) == 0);

static CPUS: [Cpu; 2] = [Cpu::new(0), Cpu::new(1)];

/// Written by vCPU 0 before it interrupts vCPU 1, which copies it to [`ANSWER`].
pub static QUESTION: AtomicU64 = AtomicU64::new(0);
/// See [`QUESTION`].
pub static ANSWER: AtomicU64 = AtomicU64::new(0);

global_asm!(
    ".macro bench_vector n",
    ".balign 0x80",
    "b portico_vectors + \\n * 0x80",
    ".endm",
    ".section .text.bench_vectors, \"ax\"",
    ".balign 0x800",
    ".global bench_vectors",
    "bench_vectors:",
    "bench_vector 0",
    "bench_vector 1",
    "bench_vector 2",
    "bench_vector 3",
    "bench_vector 4",
    ".balign 0x80",
    "b bench_irq_entry",
    "bench_vector 6",
    "bench_vector 7",
    "bench_vector 8",
    "bench_vector 9",
    "bench_vector 10",
    "bench_vector 11",
    "bench_vector 12",
    "bench_vector 13",
    "bench_vector 14",
    "bench_vector 15",
    ".balign 0x80",
    "bench_irq_entry:",
    "sub sp, sp, #176",
    "stp x0, x1, [sp, #0]",
    "mrs x0, cntvct_el0",
    "mrs x1, tpidr_el0",
    "str x0, [x1]",
    "stp x2, x3, [sp, #16]",
    "stp x4, x5, [sp, #32]",
    "stp x6, x7, [sp, #48]",
    "stp x8, x9, [sp, #64]",
    "stp x10, x11, [sp, #80]",
    "stp x12, x13, [sp, #96]",
    "stp x14, x15, [sp, #112]",
    "stp x16, x17, [sp, #128]",
    "stp x18, x29, [sp, #144]",
    "str x30, [sp, #160]",
    "mov x0, x1",
    "bl bench_irq",
    "ldr x30, [sp, #160]",
    "ldp x18, x29, [sp, #144]",
    "ldp x16, x17, [sp, #128]",
    "ldp x14, x15, [sp, #112]",
    "ldp x12, x13, [sp, #96]",
    "ldp x10, x11, [sp, #80]",
    "ldp x8, x9, [sp, #64]",
    "ldp x6, x7, [sp, #48]",
    "ldp x4, x5, [sp, #32]",
    "ldp x2, x3, [sp, #16]",
    "ldp x0, x1, [sp, #0]",
    "add sp, sp, #176",
    "eret",
    "dsb nsh",
    "isb",
);

unsafe extern "C" {
    safe static bench_vectors: u8;
}

/// What the handler of vCPU `index` works on.
pub fn of(index: usize) -> Option<&'static Cpu> {
    CPUS.get(index)
}

/// Gives the calling vCPU these vectors instead of the SDK's, with interrupts masked.
///
/// # Errors
/// `BadState` if the vCPU has no page.
pub fn take_over() -> Result<&'static Cpu, Status> {
    portico_sdk::irq::mask();
    let own = vcpu::current();
    let cpu = CPUS.get(own.index() as usize).ok_or(Status::Limit)?;
    cpu.page.store(own.page().ok_or(Status::BadState)?.base().expose_provenance(), Ordering::Relaxed);
    if hvc::self_info(info::UPCALL_KIND, 0) == Ok(2) {
        cpu.gicv.store(hvc::self_info(info::UPCALL_GICV_IPA, 0)? as usize, Ordering::Relaxed);
    }
    let vectors = &raw const bench_vectors;
    // SAFETY: a table of 16 entries at a multiple of 2 KiB; TPIDR_EL0 is unused by the SDK; interrupts are masked.
    unsafe {
        asm!("msr tpidr_el0, {}", "msr vbar_el1, {}", "isb", in(reg) core::ptr::from_ref(cpu), in(reg) vectors, options(nostack));
    }
    Ok(cpu)
}

/// Gives the calling vCPU the SDK's vectors back.
pub fn give_back() {
    // SAFETY: the SDK's own table, as its boot code set it; interrupts are masked.
    unsafe {
        asm!(
            "adrp {t}, portico_vectors",
            "add {t}, {t}, :lo12:portico_vectors",
            "msr vbar_el1, {t}",
            "isb",
            t = out(reg) _, options(nostack),
        );
    }
    portico_sdk::irq::unmask();
    // Interrupts that these vectors took were not for the SDK's ports alone.
    portico_sdk::irq::masked(portico_sdk::port::scan);
}

/// Acknowledges, clears `upcall_pending`, looks at the two ports, ends. The order is the protocol's.
#[unsafe(no_mangle)]
extern "C" fn bench_irq(cpu: &Cpu) {
    let gicv = cpu.gicv.load(Ordering::Relaxed);
    let id = acknowledge(gicv);
    if id & 0x3ff >= SPECIAL {
        return;
    }
    let page = cpu.page.load(Ordering::Relaxed);
    set(page, offset_of!(VcpuPage, upcall_pending));
    set(page, offset_of!(VcpuPage, selectors));
    // Whoever notifies from here on finds `upcall_pending` clear and raises it again.
    fence(Ordering::SeqCst);
    if take(page, offset_of!(VcpuPage, pending) + BIT_TIMER as usize) {
        // SAFETY: stops the virtual timer.
        unsafe { asm!("msr cntv_ctl_el0, xzr", options(nostack)) };
    }
    let notified = take(page, offset_of!(VcpuPage, pending) + BIT as usize);
    end(gicv, id);
    cpu.taken.store(cpu.taken.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    if notified {
        cpu.seen.store(cpu.seen.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        if cpu.answers.load(Ordering::Relaxed) != 0 {
            ANSWER.store(QUESTION.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

/// Clears a byte of the vCPU page.
#[inline(always)]
fn set(page: usize, offset: usize) {
    let byte = core::ptr::with_exposed_provenance_mut::<u8>(page + offset);
    // SAFETY: inside the vCPU page, of which both sides read and write single bytes only.
    unsafe { byte.write_volatile(0) };
}

/// Says whether a byte of the vCPU page was set, and clears it.
#[inline(always)]
fn take(page: usize, offset: usize) -> bool {
    let byte = core::ptr::with_exposed_provenance_mut::<u8>(page + offset);
    // SAFETY: as in `set`.
    if unsafe { byte.read_volatile() } == 0 {
        return false;
    }
    set(page, offset);
    // The work that the notification is about is looked at only after this.
    fence(Ordering::SeqCst);
    true
}

#[inline(always)]
fn acknowledge(gicv: usize) -> u64 {
    if gicv == 0 {
        let id: u64;
        // SAFETY: ICC_IAR1_EL1 of the virtual CPU interface.
        unsafe { asm!("mrs {}, S3_0_C12_C12_0", out(reg) id, options(nostack)) };
        return id;
    }
    // SAFETY: a register of the GICV page.
    u64::from(unsafe { core::ptr::with_exposed_provenance::<u32>(gicv + IAR).read_volatile() })
}

#[inline(always)]
fn end(gicv: usize, id: u64) {
    if gicv == 0 {
        // SAFETY: ICC_EOIR1_EL1 with what IAR gave.
        unsafe { asm!("msr S3_0_C12_C12_1, {}", "isb", in(reg) id, options(nostack)) };
    } else {
        // SAFETY: a register of the GICV page.
        unsafe { core::ptr::with_exposed_provenance_mut::<u32>(gicv + EOIR).write_volatile(id as u32) };
    }
}

/// Waits in WFI with interrupts masked, then lets them through once.
#[inline(always)]
pub fn wait_native() {
    // SAFETY: changes nothing but the interrupt mask, and that back.
    unsafe { asm!("dsb sy", "wfi", "msr daifclr, #2", "isb", "msr daifset, #2", options(nostack)) };
}

/// Lets interrupts through once.
#[inline(always)]
pub fn let_in() {
    // SAFETY: as in `wait_native`.
    unsafe { asm!("msr daifclr, #2", "isb", "msr daifset, #2", options(nostack)) };
}

/// Gives other processors their turn: QEMU runs them all on one thread.
#[inline(always)]
pub fn relax() {
    // SAFETY: a hint.
    unsafe { asm!("yield", options(nostack)) };
}

/// Computes for some time.
pub fn spin(ticks: u64) {
    let end = time::now() + ticks;
    while time::now() < end {
        // SAFETY: counts a register down.
        unsafe { asm!("1: subs {0}, {0}, #1", "b.ne 1b", inout(reg) 500_u64 => _, options(nostack)) };
        relax();
    }
}
