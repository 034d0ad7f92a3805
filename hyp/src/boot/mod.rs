//! The steps of boot, each called from `main.rs` in order. They are linked apart (`hyp.ld`) and unmapped when the last is done: nothing else may call
//! them, which `cargo xtask sizes` checks.

mod cpus;
mod manager;
mod memory;

pub use cpus::start_others;
pub use memory::{Boot, plan_memory};
pub use portico_arch::context::init_cpu as init_guest_controls;

use crate::log::Part;
use crate::{bringup, clock, log, machine, sched};
use core::sync::atomic::Ordering;
use portico_arch::pcpu::MAX_PCPUS;
use portico_arch::{boot, gic, mmu, timer};
use portico_boards::machine::{Gic, NO_GIC, Psci, UartInfo, argument};
use portico_boards::{List, Machine, Range, Uart, tree};
use portico_core::addr::Pa;
use portico_core::bundle::number;

/// Takes EL2's own tables into use and gives this pCPU its data. `level` is the exception level that was entered.
pub fn own_tables(image: u64, level: u64) {
    // SAFETY: the entry code calls this first and once, with the place of the image.
    unsafe { mmu::init(image, level) };
    if level == 2 {
        bringup::own_pcpu(0);
    }
}

/// Reads the device tree at physical address `dtb` and opens the console. Stops, saying why, if this machine or this
/// exception level is of no use.
#[inline(never)]
pub fn describe_machine(boot: &mut Boot, dtb: u64, level: u64) {
    let Some(bytes) = map_device_tree(dtb) else {
        // Nothing says where a UART is: there is nobody to tell.
        portico_arch::cpu::halt()
    };
    boot.dtb = Range { start: dtb, len: bytes.len() as u64 };
    let machine = &mut boot.machine;
    let found = machine.read(bytes);
    let fit = found.and(match (level, machine.psci) {
        (2, Psci::Hvc) => Err("PSCI is by HVC: something else owns EL2"),
        (2, _) => Ok(()),
        _ => Err("entered at EL1, needs EL2 (QEMU: -M virt,virtualization=on)"),
    });
    let is_quiet = argument(machine.bootargs, b"portico.log") == Some(b"off");
    log::init(machine.uart.and_then(open_uart), is_quiet && fit.is_ok());
    if let Err(why) = fit {
        stop(why);
    }
}

/// Maps the device tree, whose size is known only after a look at its first bytes.
fn map_device_tree(dtb: u64) -> Option<&'static [u8]> {
    const LARGEST: usize = 2 << 20;
    if dtb == 0 || !dtb.is_multiple_of(8) {
        return None;
    }
    // SAFETY: the boot protocol puts a device tree there, which nobody writes; a page is always memory as a whole.
    let head = unsafe { mmu::boot_map(Pa::new(dtb), 8) }?;
    let size = tree::total_size(head).filter(|&size| size <= LARGEST)?;
    // SAFETY: as above, for the size that it gives.
    unsafe { mmu::boot_map(Pa::new(dtb), size) }
}

/// Maps the UART's registers.
fn open_uart(info: UartInfo) -> Option<Uart> {
    let base = mmu::map_device(info.registers.start, info.registers.len.min(4096))?;
    // SAFETY: the registers are mapped, for good.
    Some(unsafe { Uart::new(info.kind, base) })
}

/// Says why nothing will run, and stops.
fn stop(why: &str) -> ! {
    log::line(&[Part::Text("cannot start: "), Part::Text(why)]);
    portico_arch::cpu::halt()
}

/// Sets up the interrupt controller and this pCPU's part of it. `mpidrs` are the pCPUs by index.
#[inline(never)]
pub fn init_interrupts(machine: &Machine<'_>, mpidrs: &[u64]) {
    let ready = match (machine.gic, &machine.gic_registers[..]) {
        (Some(Gic::V2), [gicd, gicc, gich, gicv]) => {
            machine::set_gicv(gicv.start);
            gic::init_v2(gicd.start, gicc.start, gich.start)
        }
        (Some(Gic::V3), [gicd, gicr @ ..]) => {
            gic::init_v3(gicd.start, gicr.iter().map(|region| (region.start, region.len)), mpidrs)
        }
        _ => Err(NO_GIC),
    };
    if let Err(why) = ready.and_then(|()| gic::init_pcpu()) {
        stop(why);
    }
}

/// The pCPUs to use by index: the one that booted first, then the others as the device tree lists them, not more than
/// `portico.cpus` asks for.
#[inline(never)]
pub fn order_pcpus(machine: &Machine<'_>) -> List<u64, MAX_PCPUS> {
    let own = portico_arch::cpu::mpidr() & boot::MPIDR_AFFINITY;
    let wanted = argument(machine.bootargs, b"portico.cpus").and_then(|digits| number(digits, 10));
    let others = wanted.map_or(usize::MAX, |wanted| wanted.saturating_sub(1) as usize);
    let mut order = List::default();
    let _ = order.push(own);
    for cpu in machine.cpus.iter().filter(|cpu| cpu.mpidr != own).take(others) {
        if !order.push(cpu.mpidr) {
            log::line(&[Part::Text("warning: pCPU "), Part::Hex(cpu.mpidr), Part::Text(" stays off: one too many")]);
        }
    }
    order
}

/// Takes the boot arguments into effect that choose how traps are handled, on all pCPUs.
///
/// * `portico.bhb=off`: no branch-history loop at each entry. On by default, as Cortex-A57 and A72 need it.
/// * `portico.wfi=trap`: WFI always traps, for measurements.
pub fn apply_options(machine: &Machine<'_>) {
    let value = |name: &[u8]| argument(machine.bootargs, name);
    let bhb = value(b"portico.bhb") != Some(b"off");
    bringup::IS_PLAIN.store(!bhb, Ordering::Release);
    sched::queue::ALWAYS_TRAP_WFI.store(value(b"portico.wfi") == Some(b"trap"), Ordering::Relaxed);
    machine::find_workarounds(machine.psci == Psci::Smc, bhb);
}

/// Tells the clock the counter's frequency, and turns on this pCPU's timer interrupts.
pub fn init_time() {
    // SAFETY: the other pCPUs are started later.
    unsafe { clock::init(timer::frequency_hz() as u32) };
    bringup::init_time();
}

/// Starts the manager. Stops, saying why, if the bundle has none that can run. From here on the UART is the manager's.
#[inline(never)]
pub fn start_manager(boot: &mut Boot) {
    if let Err(why) = manager::start(boot) {
        stop(why);
    }
}
