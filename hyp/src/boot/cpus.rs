//! Bringing up the other pCPUs.

use crate::bringup::{CLOSED, UP};
use crate::log::{self, Part};
use crate::percpu;
use core::sync::atomic::Ordering;
use portico_arch::{cpu, smp, timer};
use portico_boards::Machine;
use portico_boards::machine::Psci;
use portico_core::addr::Pa;

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
    if release.is_none() && machine.psci != Psci::Smc {
        return Err("no way to start it in the device tree");
    }
    smp::start(index, mpidr, release.map(Pa::new)).map_err(|_| "refused by PSCI")?;
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
