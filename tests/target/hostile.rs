//! Hostile guests, each beside a healthy neighbour that must notice nothing.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use portico_ctl::MachineKind;
use portico_tests::{Machine, Scenario};

use crate::boot::name;
use crate::trial;

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (machine, cpus) in
        [(MachineKind::Virt, 1), (MachineKind::Virt, 4), (MachineKind::VirtGicv2, 1), (MachineKind::Raspi4b, 4)]
    {
        let name = name(machine);
        trials.push(trial(format!("hostile::survivable_{name}_{cpus}"), move || survivable(machine, cpus)));
        trials.push(trial(format!("hostile::fatal_{name}_{cpus}"), move || fatal(machine, cpus)));
    }
    for cpus in [1, 4] {
        trials.push(trial(format!("hostile::fuzz_virt_{cpus}"), move || fuzz(cpus)));
        trials.push(trial(format!("hostile::endless_virt_{cpus}"), move || endless(cpus)));
        trials.push(trial(format!("hostile::flood_virt_{cpus}"), move || flood(cpus)));
    }
    trials
}

/// The neighbour goes on, and noticed nothing.
fn healthy(running: &mut Machine) -> Result<()> {
    for _ in 0..2 {
        let mark = running.mark();
        running.wait_after(mark, r"^\[neighbour\] healthy \d+")?;
    }
    running.never("NOTICED")
}

fn survivable(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("hostile", machine, cpus).seconds(180).boot()?;
    running.tap("hostile")?;
    running.wait(r#"guest "hostile": exited with code 0"#)?;
    healthy(&mut running)
}

/// Attempts of `systems/fatal.toml`, and how the manager tells their end.
const FATAL: &[(&str, &str)] = &[
    ("device", r"vCPU 0 stage-2 fault, write to IPA 0xa000000, pc 0x4"),
    ("gic", r"vCPU 0 stage-2 fault, write to IPA 0x20000000, pc 0x4"),
    ("beyond", r"vCPU 0 stage-2 fault, read from IPA 0x7ffffff000, pc 0x4"),
    ("null", r"vCPU 0 stage-2 fault, read from IPA 0x0, pc 0x4"),
    ("info", r"vCPU 0 stage-2 fault, write to IPA 0x8100000, pc 0x4"),
    ("fetch", r"vCPU 0 stage-2 fault, instruction fetch from IPA 0x7fc0000000, pc 0x7fc0000000"),
    ("ram-end", r"vCPU 0 stage-2 fault, read from IPA 0x80000000, pc 0x4"),
    ("exclusive", r"vCPU 0 stage-2 fault, write to IPA 0x8100000, pc 0x4"),
    ("zva", r"vCPU 0 stage-2 fault, write to IPA 0x7fc0000000, pc 0x4"),
    ("tables", r"vCPU 0 stage-2 fault, .* IPA 0x30000"),
    ("cpu-off", "its last vCPU turned itself off"),
    ("system-off", "powered off"),
    ("exit", "exited with code 77"),
];

fn fatal(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("fatal", machine, cpus).seconds(120).boot()?;
    for (attack, end) in FATAL {
        running.wait(&format!(r#"guest "{attack}": {end}"#))?;
    }
    // The processor may do nothing for a range without memory, or fault.
    running.wait(r#"guest "maintain": (vCPU 0 stage-2 fault|exited with code 1)"#)?;
    running.never(r"not ok 1 - (device|gic|beyond|null|info|fetch|ram-end|exclusive|zva|tables)")?;
    healthy(&mut running)
}

/// Guests that never end: the neighbour has its share, and the operator can end them.
fn endless(cpus: u32) -> Result<()> {
    let mut running = Scenario::system("endless", MachineKind::Virt, cpus).seconds(90).boot()?;
    running.wait_all(&[r"^\[vectors\] trying vectors", r"^\[spin\] trying spin"])?;
    healthy(&mut running)?;
    for guest in ["vectors", "spin"] {
        running.send(&format!("destroy {guest}\r"))?;
        running.wait(&format!(r#"guest "{guest}": destroyed"#))?;
    }
    healthy(&mut running)
}

/// A guest fills the log: it is limited, no line is broken, and the machine goes on.
fn flood(cpus: u32) -> Result<()> {
    let mut running = Scenario::system("flood", MachineKind::Virt, cpus).boot()?;
    running.wait(r#"^portico: guest "hostile": exited with code 0$"#)?;
    healthy(&mut running)?;
    let whole = running.all(r"^\[hostile\] flood$")?.len();
    let any = running.all("flood")?.len();
    ensure!(whole > 100 && whole == any, "{whole} of {any} lines of the flood are whole\n{}", running.last_lines());
    Ok(())
}

/// A million calls in all, by two guests at once.
fn fuzz(cpus: u32) -> Result<()> {
    let mut running = Scenario::system("fuzz", MachineKind::Virt, cpus).seconds(180).boot()?;
    running.tap("one")?;
    running.tap("two")?;
    healthy(&mut running)
}
