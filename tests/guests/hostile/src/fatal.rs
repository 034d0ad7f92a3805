//! Attempts that must end this domain, and no other. (Rows 16, 38 and 39 of the list of attacks.)

use core::arch::asm;
use core::ptr;
use portico_sdk::abi::{dt, psci};
use portico_sdk::{hvc, irq, println};

/// Makes the attempt `name`. Returns only if it was survived.
pub fn attack(name: &str) {
    println!("trying {name}");
    match name {
        // On the machines that we know, devices are there: a virtio transport, a GIC, a UART.
        "device" => write(0x0a00_0000),
        "gic" => write(0x2000_0000),
        "beyond" => read((1 << 39) - 4096),
        "null" => read_off(0),
        "info" => write(dt::INFO_PAGE as usize),
        "fetch" => fetch((1 << 39) - (1 << 30)),
        "ram-end" => read(0x4000_0000 + (1 << 30)),
        "exclusive" => exclusive(dt::INFO_PAGE as usize),
        "zva" => zva((1 << 39) - (1 << 30)),
        "maintain" => maintain((1 << 39) - (1 << 30)),
        "tables" => tables(),
        "cpu-off" => drop(hvc::raw(u64::from(psci::CPU_OFF), [0; 6])),
        "system-off" => drop(hvc::raw(u64::from(psci::SYSTEM_OFF), [0; 6])),
        "reset" => drop(hvc::raw(u64::from(psci::SYSTEM_RESET), [0; 6])),
        "exit" => hvc::self_exit(0, 77),
        "vectors" => vectors(),
        "spin" => spin(),
        _ => println!("there is no such attack"),
    }
}

fn write(address: usize) {
    // SAFETY: none: it must end this domain.
    unsafe { ptr::with_exposed_provenance_mut::<u32>(address).write_volatile(1) }
}

fn read(address: usize) {
    // SAFETY: as in `write`.
    let _ = unsafe { ptr::with_exposed_provenance::<u32>(address).read_volatile() };
}

fn fetch(address: usize) {
    // SAFETY: as in `write`.
    unsafe { asm!("blr {}", in(reg) address, lateout("x30") _) }
}

fn exclusive(address: usize) {
    // SAFETY: as in `write`.
    unsafe { asm!("ldxr {v}, [{a}]", "stxr {s:w}, {v}, [{a}]", a = in(reg) address, v = out(reg) _, s = out(reg) _) }
}

fn zva(address: usize) {
    // SAFETY: as in `write`.
    unsafe { asm!("dc zva, {}", in(reg) address) }
}

fn maintain(address: usize) {
    // SAFETY: as in `write`.
    unsafe { asm!("dc civac, {}", "dsb sy", in(reg) address) }
}

/// Stage-1 off: then the SDK's tables do not stand before EL2's.
fn read_off(address: u64) {
    irq::mask();
    // SAFETY: as in `write`.
    unsafe {
        asm!(
            "mrs {t}, sctlr_el1", "bic {t}, {t}, #1", "msr sctlr_el1, {t}", "isb", "ldr {t}, [{a}]",
            t = out(reg) _, a = in(reg) address,
        );
    }
}

/// A table base where no memory is.
fn tables() {
    irq::mask();
    // SAFETY: as in `write`.
    unsafe { asm!("msr ttbr0_el1, {}", "isb", "tlbi vmalle1", "dsb ish", "isb", in(reg) 0x3000_0000_u64) }
}

/// Vectors where stage-1 maps nothing: exceptions without end, all of them the guest's own.
fn vectors() {
    irq::mask();
    // SAFETY: as in `write`; it never comes back from the first exception.
    unsafe { asm!("msr vbar_el1, {}", "isb", "udf #0", in(reg) 0x1000_u64) }
}

/// Never gives the processor back, and hears nothing.
fn spin() {
    irq::mask();
    loop {
        // SAFETY: does nothing.
        unsafe { asm!("nop", options(nomem, nostack)) }
    }
}
