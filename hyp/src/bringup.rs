//! What each pCPU does for itself when it comes up, until it schedules. It stays when boot is over, unlike [`boot`](crate::boot): a pCPU may come late.

use crate::{irq, percpu};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use portico_arch::pcpu::PcpuBase;
use portico_arch::{boot, context, cpu, gic, mmu, timer, vectors};

/// How many pCPUs have come up, or [`CLOSED`].
pub static UP: AtomicUsize = AtomicUsize::new(1);
/// No pCPU is waited for any more. One that comes late would be counted by nobody: it stays out.
pub const CLOSED: usize = usize::MAX;

/// Whether traps begin without the branch-history loop.
pub static IS_PLAIN: AtomicBool = AtomicBool::new(false);

/// Gives this pCPU its data and vectors.
pub fn own_pcpu(index: usize) {
    let base = PcpuBase {
        stack_top: boot::stack_top(index) as u64,
        fatal_sp: boot::fatal_stack_top(index) as u64,
        index: index as u64,
        mpidr: cpu::mpidr() & boot::MPIDR_AFFINITY,
    };
    // SAFETY: this is pCPU `index`, and nothing has asked for its data yet.
    unsafe { percpu::init(index, base) };
    vectors::install(false);
}

/// Turns on the interrupts of this pCPU that EL2 takes for itself, and tells its queue the frequency of the counter.
pub fn init_time() {
    timer::clear_deadline();
    gic::enable(irq::PPI_HYP_TIMER);
    gic::enable(irq::PPI_VIRTUAL_TIMER);
    let pcpu = percpu::this();
    pcpu.up_since.store(timer::now(), Ordering::Relaxed);
    pcpu.queue.lock().run.set_ticks_per_ms(timer::frequency_hz() / 1000);
}

/// Where the other pCPUs enter Rust, on their own stack and the boot tables.
#[unsafe(no_mangle)]
extern "C" fn portico_secondary(index: u64) -> ! {
    let index = index as usize;
    // SAFETY: the entry code found this pCPU's index; the boot pCPU made the tables.
    unsafe { mmu::activate_root(index) };
    own_pcpu(index);
    context::init_cpu();
    if gic::init_pcpu().is_err() {
        cpu::halt();
    }
    init_time();
    if UP.compare_exchange(index, index + 1, Ordering::Release, Ordering::Relaxed).is_err() {
        cpu::halt();
    }
    run(index)
}

/// Schedules for ever, with the vectors that the boot arguments chose.
pub fn run(index: usize) -> ! {
    vectors::install(!IS_PLAIN.load(Ordering::Acquire));
    let top = boot::stack_top(index) as u64;
    // SAFETY: the stack is this pCPU's, its top is 16-byte aligned, and what runs on it now is never returned to.
    unsafe { vectors::portico_enter_idle(top - 16) }
}

/// As [`run`] on the first pCPU: boot is over, and nothing of it can be executed or read any more.
pub fn run_first() -> ! {
    mmu::end_boot();
    run(0)
}
