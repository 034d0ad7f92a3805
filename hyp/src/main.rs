//! The Portico hypervisor: what runs at EL2.
//!
//! This file is the order of boot. A trap goes: `arch::vectors`, [`trap`], `dispatch`, `hypercall/`, `object/`.
#![no_std]
#![no_main]

mod boot;
mod clock;
mod dispatch;
mod entropy;
mod fault;
mod graph;
mod hypercall;
mod irq;
mod lock;
mod log;
mod machine;
mod memory;
mod notify;
mod object;
mod panic;
mod percpu;
mod phys;
mod power;
mod quiesce;
mod root;
mod sched;
mod trace;
mod trap;
mod vmid;

use portico_arch::vectors;

/// Where the entry code goes, on the first stack: `dtb` and `image` are physical addresses, `level` is the exception
/// level of entry.
#[unsafe(no_mangle)]
extern "C" fn portico_boot(dtb: u64, image: u64, level: u64) -> ! {
    boot::own_tables(image, level);
    let mut boot = boot::Boot::default();
    boot::describe_machine(&mut boot, dtb, level);
    boot::plan_memory(&mut boot);
    let mpidrs = boot::order_pcpus(&boot.machine);
    boot::apply_options(&boot.machine);
    boot::init_guest_controls();
    boot::init_interrupts(&boot.machine, &mpidrs);
    boot::init_time();
    boot::start_others(&boot.machine, &mpidrs);
    boot::start_manager(&boot);
    run_pcpu(0)
}

/// Leaves boot on this pCPU: it schedules for ever.
fn run_pcpu(index: usize) -> ! {
    boot::install_vectors();
    let top = portico_arch::boot::stack_top(index) as u64;
    // SAFETY: the stack is this pCPU's, its top is 16-byte aligned, and what runs on it now is never returned to.
    unsafe { vectors::enter_idle(top - 16) }
}
