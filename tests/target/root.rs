//! A guest in place of the manager: the management calls, a thousand lives, a million random calls.

use anyhow::Result;
use libtest_mimic::Trial;
use portico_ctl::MachineKind;
use portico_tests::{Machine, Scenario};

use crate::boot::name;
use crate::trial;

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (machine, cpus) in
        [(MachineKind::Virt, 1), (MachineKind::Virt, 4), (MachineKind::VirtGicv2, 2), (MachineKind::Raspi4b, 4)]
    {
        let name = name(machine);
        trials.push(trial(format!("root::calls_{name}_{cpus}"), move || calls(machine, cpus)));
    }
    trials.push(trial("root::longest_stay_in_el2", longest));
    for cpus in [1, 4] {
        trials.push(trial(format!("root::lives_virt_{cpus}"), move || lives(cpus)));
        trials.push(trial(format!("root::fuzz_virt_{cpus}"), move || fuzz(cpus)));
    }
    trials
}

/// Its report, with what it measured.
fn report(mut running: Machine) -> Result<()> {
    let report = running.tap("manager")?;
    for note in report.notes {
        println!("{note}");
    }
    Ok(())
}

fn calls(machine: MachineKind, cpus: u32) -> Result<()> {
    report(Scenario::root("root", machine, cpus).seconds(120).boot()?)
}

/// With instructions counted: what other programs of the host do would count as time in EL2 otherwise.
fn longest() -> Result<()> {
    report(Scenario::root("root", MachineKind::Virt, 1).icount().bootarg("portico.measure").seconds(240).boot()?)
}

fn lives(cpus: u32) -> Result<()> {
    report(Scenario::root("root", MachineKind::Virt, cpus).bootarg("only=rounds").seconds(120).boot()?)
}

fn fuzz(cpus: u32) -> Result<()> {
    let scenario = Scenario::root("root", MachineKind::Virt, cpus).bootarg("only=fuzz").bootarg("calls=1000000");
    // The same in every run, unless somebody wants to look further.
    let seed = std::env::var("PORTICO_SEED").unwrap_or_else(|_| cpus.to_string());
    report(scenario.bootarg(&format!("seed={seed}")).seconds(180).boot()?)
}
