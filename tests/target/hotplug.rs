//! Disks are added to guests that run, and taken away, while the block service and the manager die.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use portico_ctl::MachineKind;
use portico_tests::{Machine, Scenario};

use crate::block::advance;
use crate::boot::name;
use crate::trial;

pub fn trials() -> Vec<Trial> {
    [(MachineKind::Virt, 2), (MachineKind::VirtGicv2, 2), (MachineKind::Raspi4b, 4)]
        .into_iter()
        .map(|(machine, cpus)| trial(format!("hotplug::disks_{}_{cpus}", name(machine)), move || disks(machine, cpus)))
        .collect()
}

/// Types a command, and waits for a line.
fn command(running: &mut Machine, command: &str, answer: &str) -> Result<String> {
    let mark = running.mark();
    running.send(&format!("{command}\r"))?;
    running.wait_after(mark, answer)
}

/// Adds a disk, as soon as the guest has seen that the last one is gone.
fn add(running: &mut Machine, what: &str) -> Result<()> {
    for _ in 0..100 {
        let line = command(running, &format!("disk add {what}"), "was added$|^error: ")?;
        if line.contains("was added") {
            return Ok(());
        }
        ensure!(line.contains("has not seen yet"), "{line}");
    }
    anyhow::bail!("{}the guest does not see that its disk is gone", running.last_lines())
}

/// Waits until a guest has verified more, after all that it has said.
fn works(running: &mut Machine, guest: &str) -> Result<()> {
    for _ in 0..2 {
        let mark = running.mark();
        let line = running.wait_after(mark, &format!(r"^\[{guest}\] (verified \d+|FAIL)"))?;
        ensure!(!line.contains("FAIL"), "{line}");
    }
    Ok(())
}

fn disks(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("disk-hot", machine, cpus).seconds(240).boot()?;
    running.wait_all(&[r"^\[hot\] empty$", r"^\[stubborn\] empty$"])?;
    advance(&mut running, "loader", 100)?;
    refusals(&mut running)?;

    let mark = running.mark();
    add(&mut running, "hot spare=sd:two")?;
    running.wait_after(mark, r"^\[hot\] there: 8192 sectors, rw$")?;
    works(&mut running, "hot")?;
    // The service and the manager die, and it is still there.
    let (rebooted, restarted) = (r#"guest "block": rebooted by the operator"#, "manager was restarted");
    for (death, told) in
        [("reboot block", rebooted), ("panic", restarted), ("panic fault", restarted), ("reboot block", rebooted)]
    {
        command(&mut running, death, told)?;
        works(&mut running, "hot")?;
    }
    command(&mut running, "info hot", r"^device +disk spare \(sd:two, rw\): \d+ requests")?;
    command(&mut running, "disk add stubborn spare=sd:two ro", "error: guest `hot` has disk spare .*, which overlaps")?;
    // The same by its number: only the service can tell.
    let mark = running.mark();
    add(&mut running, "stubborn spare=sd:2")?;
    running.wait_after(mark, r#"^\[block\] stubborn: disk "spare": refused: .*"hot""#)?;
    running.wait_after(mark, r"^\[stubborn\] refused 4$")?;
    works(&mut running, "hot")?;
    command(&mut running, "disk remove stubborn spare now", "was removed")?;

    // It gives it up when it is asked.
    let mark = running.mark();
    let line = command(&mut running, "disk remove hot spare 60", "^error: |disk spare .*was removed|has not given")?;
    ensure!(line.contains(r#"guest "hot": disk spare (sd:two, rw) was removed"#), "{}{line}", running.last_lines());
    running.wait_after(mark, r"^\[hot\] given up$")?;
    running.wait_after(mark, r"^\[hot\] empty$")?;
    // Now another may have it, which cannot be asked for it, and loses it with its requests.
    let mark = running.mark();
    add(&mut running, "stubborn spare=sd:two")?;
    running.wait_after(mark, r"^\[stubborn\] there: 8192 sectors, rw$")?;
    works(&mut running, "stubborn")?;
    command(&mut running, "disk remove stubborn spare", "error: guest `stubborn` cannot be asked to give a disk up")?;
    for _ in 0..3 {
        let mark = running.mark();
        command(&mut running, "disk remove stubborn spare now", "was removed")?;
        running.wait_after(mark, r"^\[stubborn\] taken away with \d+ in flight$")?;
        running.wait_after(mark, r"^\[stubborn\] empty$")?;
        add(&mut running, "stubborn spare=sd:three")?;
        running.wait_after(mark, r"^\[stubborn\] there: 8192 sectors, rw$")?;
        works(&mut running, "stubborn")?;
    }
    // A manager that dies right behind the command has done it or not, and nobody hangs.
    let mark = running.mark();
    running.wait(r"^\[hot\] empty$")?;
    running.send("disk add hot spare=sd:two ro\r")?;
    running.send("panic\r")?;
    running.wait_after(mark, r"^\[hot\] there: 8192 sectors, ro$")?;
    works(&mut running, "hot")?;
    // A guest's next life has what this one had.
    let mark = running.mark();
    command(&mut running, "reboot hot", r"^\[hot\] there: 8192 sectors, ro$")?;
    advance(&mut running, "loader", 100)?;
    ensure!(!running.lines_after(mark).iter().any(|line| line.contains("FAIL")), "a guest failed");
    running.never(r#"FAIL|guest "(hot|stubborn|loader)": (panicked|fault|exited)"#)
}

/// What is refused at once.
fn refusals(running: &mut Machine) -> Result<()> {
    for (line, answer) in [
        ("disk add hot other=sd:two", "error: guest `hot` has no disk `other` in its description"),
        ("disk add loader disk0=sd:two", r"error: guest `loader` has disk disk0 \(sd:one, rw\); `disk remove"),
        ("disk add hot spare=sd:one", "error: guest `loader` has disk disk0 .*, which overlaps"),
        ("disk add hot spare=sd", "error: guest `loader` has disk disk0 .*, which overlaps"),
        ("disk remove hot spare", r"error: guest `hot` has disk spare \(empty\)"),
        ("disk add block spare=sd:two", "error: guest `block` has no disk"),
        ("disk add nobody spare=sd:two", "error: no guest `nobody`"),
        ("disk eject hot spare", "error: usage: disk add"),
    ] {
        command(running, line, answer)?;
    }
    Ok(())
}
