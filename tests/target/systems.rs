//! Whole systems: the conformance guest, the example, the operator's commands.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use portico_ctl::MachineKind;
use portico_tests::Scenario;

use crate::boot::name;
use crate::trial;

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (machine, cpus) in
        [(MachineKind::Virt, 2), (MachineKind::Virt, 1), (MachineKind::VirtGicv2, 2), (MachineKind::Raspi4b, 4)]
    {
        trials.push(trial(format!("conformance::{}_{cpus}", name(machine)), move || conformance(machine, cpus)));
    }
    for (machine, cpus) in [(MachineKind::Virt, 2), (MachineKind::VirtGicv2, 1), (MachineKind::Raspi4b, 4)] {
        trials.push(trial(format!("example::{}_{cpus}", name(machine)), move || example(machine, cpus)));
    }
    trials.push(trial("operator::creates_and_destroys", create_and_destroy));
    trials.push(trial("operator::pauses_and_resumes", pause_and_resume));
    for machine in MachineKind::ALL {
        for command in ["shutdown", "shutdown reboot"] {
            let name = format!("operator::{}_{}", command.replace(' ', "_"), name(machine));
            trials.push(trial(name, move || shutdown(machine, command)));
        }
    }
    trials
}

fn conformance(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("conformance", machine, cpus).seconds(120).boot()?;
    running.tap("conformance")?;
    running.wait(r#"guest "conformance": exited with code 0"#).map(drop)
}

fn example(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("example", machine, cpus).seconds(120).boot()?;
    running.wait_all(&[
        r"^\[hello\] ",
        r"^\[hello-c\] ",
        r"^\[ping\] connected",
        r"^\[ping\] ping 1: answer",
        r#"guest "crasher": vCPU 0 stage-2 fault, write to IPA 0x7fc0000000, pc 0x"#,
    ])?;
    let mark = running.mark();
    running.wait_after(mark, r"^\[crasher\] running")?;
    let again = running.mark();
    // The others run on, and so does the crasher's next life.
    running.wait_after(again, r"^\[ping\] ping \d+: answer")?;
    running.wait_after(again, r#"guest "crasher": vCPU 0 stage-2 fault"#)?;
    running.never(r#"guest "(ping|pong)": (vCPU|panicked|exited)"#)
}

fn create_and_destroy() -> Result<()> {
    let mut running = Scenario::system("operator", MachineKind::Virt, 2).seconds(60).boot()?;
    running.wait(r"^\[neighbour\] healthy 1")?;
    running.send("create two\r")?;
    running.wait(r"^\[two\] healthy 1")?;
    running.send("create three image=neighbour memory=8M\r")?;
    running.wait(r"^\[three\] healthy 1")?;
    running.send("list\r")?;
    running.wait(r"^three +\d+ +running")?;
    running.send("destroy two\r")?;
    running.wait(r#"guest "two": destroyed"#)?;
    let mark = running.mark();
    running.wait_after(mark, r"^\[neighbour\] healthy")?;
    running.wait_after(mark, r"^\[three\] healthy")?;
    ensure!(!running.all(r"^\[two\]")?.is_empty());
    running.send("create nobody\r")?;
    running.wait(r"nobody")?;
    running.send("frobnicate\r")?;
    running.wait("no command `frobnicate`")?;
    running.never("NOTICED")
}

fn pause_and_resume() -> Result<()> {
    let mut running = Scenario::system("operator", MachineKind::VirtGicv2, 1).boot()?;
    running.wait(r"^\[neighbour\] healthy 1")?;
    running.send("pause neighbour\r")?;
    running.send("list\r")?;
    running.wait(r"^neighbour +\d+ +paused")?;
    let before = running.all(r"^\[neighbour\] healthy")?.len();
    // Two seconds of the machine's time without a line of it.
    running.send("top 2\r")?;
    running.wait(r"^neighbour +paused +0")?;
    ensure!(running.all(r"^\[neighbour\] healthy")?.len() <= before + 1, "it prints while it is paused");
    running.send("resume neighbour\r")?;
    let mark = running.mark();
    running.wait_after(mark, r"^\[neighbour\] healthy")?;
    running.never("NOTICED")
}

/// QEMU ends in both cases, and says why.
fn shutdown(machine: MachineKind, command: &str) -> Result<()> {
    let mut running = Scenario::system("operator", machine, 2).tools().boot()?;
    running.wait(r"^\[neighbour\] healthy 1")?;
    let mut qmp = running.qmp()?;
    running.send(&format!("{command}\r"))?;
    let event = qmp.event("SHUTDOWN")?;
    let wanted = if command == "shutdown" { "guest-shutdown" } else { "guest-reset" };
    ensure!(event["reason"] == wanted, "{event}");
    running.wait_off()
}
