//! A guest in place of the manager: the management calls, a thousand lives, a million random calls.

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use portico_ctl::MachineKind;
use portico_tests::{Machine, Scenario};
use xtask::bench::counted;

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
    trials.push(trial("root::longest_of_each_call", longest_by_call));
    for cpus in [1, 4] {
        trials.push(trial(format!("root::lives_virt_{cpus}"), move || lives(cpus)));
        trials.push(trial(format!("root::fuzz_virt_{cpus}"), move || fuzz(cpus)));
    }
    trials
}

/// Longest stay in EL2 of any call, in instructions, that is still bounded as promised.
const LONGEST: u64 = 20_000;

/// Its report; prints what it measured.
fn report(mut running: Machine) -> Result<Vec<String>> {
    let notes = running.tap("manager")?.notes;
    notes.iter().for_each(|note| println!("{note}"));
    Ok(notes)
}

fn calls(machine: MachineKind, cpus: u32) -> Result<()> {
    report(Scenario::root("root", machine, cpus).seconds(120).boot()?).map(drop)
}

/// Instructions from a guest to the next guest, counted by QEMU.
fn longest() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let counts = folder.path().join("counts");
    let plugin = format!("{},out={}", counted::plugin(folder.path())?.display(), counts.display());
    let scenario = Scenario::root("root", MachineKind::Virt, 1).icount().qemu(&["-plugin", &plugin]);
    // What is counted is instructions: how long the host takes for them says nothing, and the plugin makes it take long.
    report(scenario.seconds(900).boot()?)?;
    let longest = counted::longest_of(&std::fs::read_to_string(&counts)?)?;
    println!("longest stay in EL2: {longest} instructions");
    ensure!(longest < LONGEST, "{longest} instructions, more than {LONGEST}");
    Ok(())
}

/// The same for each call, as its caller sees it, with arguments by chance.
fn longest_by_call() -> Result<()> {
    let scenario = Scenario::root("root", MachineKind::Virt, 1).icount().bootarg("only=fuzz").bootarg("calls=100000");
    let notes = report(scenario.seconds(240).boot()?)?;
    let told: Vec<_> = notes.iter().filter_map(|note| note.strip_prefix("longest ")?.strip_suffix(" ticks")).collect();
    ensure!(told.len() > 40, "only {} calls were measured", told.len());
    for call in told {
        let ticks: u64 = call.split(' ').next_back().context("no number")?.parse()?;
        ensure!(ticks < LONGEST, "{call}: more than {LONGEST}");
    }
    Ok(())
}

fn lives(cpus: u32) -> Result<()> {
    report(Scenario::root("root", MachineKind::Virt, cpus).bootarg("only=rounds").seconds(120).boot()?).map(drop)
}

fn fuzz(cpus: u32) -> Result<()> {
    let scenario = Scenario::root("root", MachineKind::Virt, cpus).bootarg("only=fuzz").bootarg("calls=1000000");
    // The same in every run, unless somebody wants to look further.
    let seed = std::env::var("PORTICO_SEED").unwrap_or_else(|_| cpus.to_string());
    report(scenario.bootarg(&format!("seed={seed}")).seconds(180).boot()?).map(drop)
}
