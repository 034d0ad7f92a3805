//! Booting: every machine with 1, 2 and 4 pCPUs, and what is said where that cannot be.

use std::time::Duration;

use anyhow::Result;
use libtest_mimic::Trial;
use portico_bundle::DATA_ALIGN;
use portico_bundle::writer::Writer;
use portico_ctl::MachineKind;
use portico_tests::{Machine, Scenario};
use tempfile::TempDir;
use xtask::image;

use crate::trial;

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for machine in MachineKind::ALL {
        for cpus in [1, 2, 4] {
            trials.push(trial(format!("boot::{}_{cpus}", name(machine)), move || first_output(machine, cpus)));
        }
    }
    trials.push(trial("boot::raspi4b_from_a_card", from_a_card));
    trials.push(trial("boot::at_el1_it_says_so", at_el1));
    trials.push(trial("boot::with_another_bundle_says_so", with_another_bundle));
    for machine in MachineKind::ALL {
        trials
            .push(trial(format!("boot::without_a_bundle_{}_says_so", name(machine)), move || without_bundle(machine)));
    }
    trials
}

/// The name of a machine as part of a test's.
pub fn name(machine: MachineKind) -> String {
    machine.name().replace('-', "_")
}

fn first_output(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("hello", machine, cpus).boot()?;
    running.wait_all(&[r#"^\[hello\] Hello from "hello""#, "manager is up"])?;
    running.send("info\r")?;
    running.wait(&format!(r"^processors +{cpus} \(GICv[23]\)"))?;
    running.wait_all(&[r"^\[hello\] Good-bye", r#"guest "hello": exited with code 0"#])
}

/// Makes a card, and boots what is read back from it.
fn from_a_card() -> Result<()> {
    let folder = TempDir::new()?;
    let card = folder.path().join("card.img");
    image::execute(&image::Options {
        board: image::Board::Rpi4,
        system: "example".to_string(),
        output: Some(card.clone()),
        firmware: None,
        without_firmware: true,
        yes: true,
    })?;
    let line = image::boot_line(&card, folder.path(), 4)?;
    let mut running = Machine::start(&line, Duration::from_secs(120), folder)?;
    running.wait_all(&[r"^\[ping\] ping 1: answer 1", r"^\[hello-c\] Hello from C", r#"guest "crasher": restarts in"#])
}

fn at_el1() -> Result<()> {
    let scenario = Scenario::nothing(MachineKind::Virt).qemu(&["-M", "virt,virtualization=off"]);
    scenario.seconds(20).boot()?.wait("cannot start: entered at EL1").map(drop)
}

fn without_bundle(machine: MachineKind) -> Result<()> {
    Scenario::nothing(machine).seconds(20).boot()?.wait("cannot start: .*(bundle|initrd|initial)").map(drop)
}

fn with_another_bundle() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("bundle");
    let mut other = Writer::new();
    other.add("first", &[0; DATA_ALIGN])?;
    other.add("second", &[0; DATA_ALIGN])?;
    for (bytes, why) in [
        (vec![0; DATA_ALIGN], " is too short"),
        (vec![0; 16 * DATA_ALIGN], " is damaged"),
        (other.finish(), "'s second file is not the manager"),
    ] {
        std::fs::write(&path, bytes)?;
        let scenario = Scenario::nothing(MachineKind::Virt).qemu(&["-initrd", &path.display().to_string()]);
        scenario.seconds(20).boot()?.wait(&format!("cannot start: the bundle{why}"))?;
    }
    Ok(())
}
