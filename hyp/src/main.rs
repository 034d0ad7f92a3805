//! The Portico hypervisor: what runs at EL2.
//!
//! This file is the order of boot. A trap goes: `arch::vectors`, [`trap`], `dispatch`, `hypercall/`, `object/`.
#![no_std]
#![no_main]

mod boot;
mod bringup;
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

/// Where the entry code goes, on the first stack: `dtb` and `image` are physical addresses, `level` is the exception
/// level of entry.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".init.text")]
extern "C" fn portico_boot(dtb: u64, image: u64, level: u64) -> ! {
    boot::own_tables(image, level);
    let mut boot = boot::Boot::default();
    boot::describe_machine(&mut boot, dtb, level);
    let mpidrs = boot::order_pcpus(&boot.machine);
    boot::plan_memory(&mut boot, mpidrs.len());
    boot::apply_options(&boot.machine);
    boot::init_guest_controls();
    boot::init_interrupts(&boot.machine, &mpidrs);
    boot::init_time();
    boot::start_others(&boot.machine, &mpidrs);
    boot::start_manager(&mut boot);
    bringup::run_first()
}
