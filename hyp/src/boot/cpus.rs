//! Bringing up the other pCPUs.

use super::own_pcpu;
use crate::log::{self, Part};
use crate::percpu;
use core::sync::atomic::{AtomicUsize, Ordering};
use portico_arch::smp::{self, StartMethod};
use portico_arch::{context, cpu, gic, mmu, timer};
use portico_boards::Machine;
use portico_boards::machine::Psci;
use portico_core::addr::Pa;

/// How many pCPUs have come up, or [`CLOSED`].
static UP: AtomicUsize = AtomicUsize::new(1);
/// No pCPU is waited for any more. One that comes late would be counted by nobody: it stays out.
const CLOSED: usize = usize::MAX;

/// How long one pCPU is waited for. A board needs microseconds; an emulator on a busy host may need more than a second.
const PATIENCE_S: u64 = 10;

/// Starts pCPUs 1 and up one after the other, and goes on with those that came.
pub fn start_others(machine: &Machine<'_>, mpidrs: &[u64]) {
    let mut up = 1;
    for (index, &mpidr) in mpidrs.iter().enumerate().skip(1) {
        if let Err(why) = start(machine, index, mpidr) {
            log::line(&[
                Part::Text("warning: pCPU "),
                Part::Hex(mpidr),
                Part::Text(" does not start: "),
                Part::Text(why),
            ]);
            break;
        }
        up = index + 1;
    }
    percpu::set_online(up);
}

fn start(machine: &Machine<'_>, index: usize, mpidr: u64) -> Result<(), &'static str> {
    let release = machine.cpus.iter().find(|cpu| cpu.mpidr == mpidr).and_then(|cpu| cpu.release_address);
    let method = match (release, machine.psci) {
        (Some(address), _) => StartMethod::SpinTable(Pa::new(address)),
        (None, Psci::Smc) => StartMethod::Psci,
        (None, _) => return Err("no way to start it in the device tree"),
    };
    smp::start(index, mpidr, method).map_err(|_| "refused by PSCI")?;
    let deadline = timer::now().saturating_add(PATIENCE_S * timer::frequency_hz());
    while UP.load(Ordering::Acquire) == index {
        let late = timer::now() > deadline;
        // It may come at this moment: then it has come.
        if late && UP.compare_exchange(index, CLOSED, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return Err("no sign of it");
        }
        cpu::relax();
    }
    Ok(())
}

/// Where the other pCPUs enter Rust, on their own stack and the boot tables.
#[unsafe(no_mangle)]
extern "C" fn portico_secondary(index: u64) -> ! {
    let index = index as usize;
    // SAFETY: the entry code found this pCPU's index; the boot pCPU made the tables.
    unsafe { mmu::activate_root(index) };
    own_pcpu(index, portico_arch::cpu::mpidr());
    context::init_cpu();
    if gic::init_pcpu().is_err() {
        cpu::halt();
    }
    super::init_pcpu_time();
    if UP.compare_exchange(index, index + 1, Ordering::Release, Ordering::Relaxed).is_err() {
        cpu::halt();
    }
    crate::run_pcpu(index)
}
