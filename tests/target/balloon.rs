//! Guests give memory back and take it again while they run.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use portico_ctl::MachineKind;
use portico_tests::{Machine, Scenario};

use crate::boot::name;
use crate::trial;

const MACHINES: [(MachineKind, u32); 3] =
    [(MachineKind::Virt, 2), (MachineKind::VirtGicv2, 1), (MachineKind::Raspi4b, 4)];

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (machine, cpus) in MACHINES {
        let label = format!("{}_{cpus}", name(machine));
        trials.push(trial(format!("balloon::lies_{label}"), move || lies(machine, cpus)));
        trials.push(trial(format!("balloon::the_manager_dies_{label}"), move || manager_dies(machine, cpus)));
    }
    // A Raspberry Pi has too much memory for guests to want more.
    for (machine, cpus) in [(MachineKind::Virt, 2), (MachineKind::VirtGicv2, 1)] {
        let label = format!("{}_{cpus}", name(machine));
        trials.push(trial(format!("balloon::memory_moves_{label}"), move || memory_moves(machine, cpus)));
    }
    trials
}

/// Types a command, and waits for a line.
fn command(running: &mut Machine, command: &str, answer: &str) -> Result<String> {
    let mark = running.mark();
    running.send(&format!("{command}\r"))?;
    running.wait_after(mark, answer)
}

fn boot(machine: MachineKind, cpus: u32) -> Result<Machine> {
    let mut running = Scenario::system("balloon", machine, cpus).seconds(150).boot()?;
    running
        .wait_all(&[r"^\[follower\] 96 of 96 MiB, 0 blocks out, 0 words spoilt", r"^\[cycler\] round 10, 4 blocks"])?;
    Ok(running)
}

/// What one guest gives back another is made of, and gives back in turn.
fn memory_moves(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = boot(machine, cpus)?;
    command(&mut running, "memory neighbour 4M", "the memory of `neighbour` is fixed; `memory_min`")?;
    command(&mut running, "memory follower 8M", "`follower` can have from 16M to 96M of memory")?;
    command(&mut running, "memory follower 128M", "`follower` can have from 16M to 96M of memory")?;
    command(&mut running, "create other image=neighbour memory=160M", r#""other": cannot start: it needs 160M"#)?;

    let mark = running.mark();
    command(&mut running, "memory follower 24M", r#"guest "follower": has 24M/96M of memory now$"#)?;
    running.wait_after(mark, r"^\[follower\] 24 of 24 MiB, 36 blocks out, 0 words spoilt, Ok")?;
    command(&mut running, "list", r"^follower .* 24M/96M ")?;
    command(&mut running, "balloon follower", "^24M now, 24M asked for, 16M at least, 96M at most$")?;
    command(&mut running, "create other", r"^\[other\] ")?;

    // It wants back what the other has: it waits, and has it as soon as the other is gone.
    let mark = running.mark();
    command(
        &mut running,
        "memory follower 96M",
        r"^\[follower\] \d+ of 96 MiB, \d+ blocks out, 0 words spoilt, Err\(Exhausted\)$",
    )?;
    command(&mut running, "info follower", r"^memory +\d+M/96M, 96M asked for, 16M at least$")?;
    running.send("destroy other\r")?;
    running.wait_after(mark, r#"guest "follower": has 96M/96M of memory now$"#)?;
    running.wait_after(mark, r"^\[follower\] 96 of 96 MiB, 0 blocks out, 0 words spoilt, Ok")?;

    // A new life has as much as there is.
    command(&mut running, "memory follower 16M", r#"guest "follower": has 16M/96M of memory now$"#)?;
    command(&mut running, "create other", r"^\[other\] ")?;
    let mark = running.mark();
    running.send("reboot follower\r")?;
    running.wait_after(mark, r#"guest "follower": begins with \d+M of 96M, as no more is free$"#)?;
    running.wait_after(mark, r"^\[follower\] (\d+) of \d+ MiB, 0 blocks out, 0 words spoilt, Ok")?;
    running.send("destroy other\r")?;
    command(&mut running, "reboot follower", r"^\[follower\] 96 of 96 MiB, 0 blocks out")?;
    let mark = running.mark();
    running.wait_after(mark, r"^\[cycler\] round \d+0, 4 blocks, 0 words not zero$")?;
    end(running)
}

/// One that lies ends itself alone.
fn lies(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = boot(machine, cpus)?;
    let mark = running.mark();
    running.send("create liar\r")?;
    running.wait_after(mark, r"^\[liar\] lies told, 0 wrong, 32 MiB$")?;
    running.wait_after(mark, r"^\[liar\] 12 blocks out, then Some\(\(2, 0\)\), 8 MiB left$")?;
    running.wait_after(mark, r"^\[liar\] flooded$")?;
    running.wait_after(mark, r"^\[liar\] asked again: \(0, 512\)$")?;
    running.wait_after(mark, r#"guest "liar": vCPU 0 stage-2 fault, write to IPA 0x4[0-9a-f]+, pc"#)?;
    running.never("NOT REFUSED|NOT DONE|NOTICED")?;
    command(&mut running, "memory follower 32M", r#"guest "follower": has 32M/96M of memory now$"#)?;
    let mark = running.mark();
    running.wait_after(mark, r"^\[cycler\] round \d+0, 4 blocks, 0 words not zero$")?;
    running.wait_after(mark, r"^\[neighbour\] ")?;
    // What it had is free again.
    command(&mut running, "create liar", r"^\[liar\] lies told, 0 wrong, 32 MiB$")?;
    end(running)
}

/// The manager's next life knows which guest has what, whatever it was about to do.
fn manager_dies(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = boot(machine, cpus)?;
    command(&mut running, "memory follower 48M", r#"guest "follower": has 48M/96M of memory now$"#)?;
    for (round, us) in [300, 1500, 4000, 9000, 20_000].into_iter().enumerate() {
        let to = if round % 2 == 0 { 80 } else { 24 };
        let mark = running.mark();
        running.send(&format!("memory follower {to}M\r"))?;
        command(&mut running, &format!("panic {us}"), "manager was restarted .* took over 3 guests")?;
        running.wait_after(mark, &format!(r"^\[follower\] {to} of {to} MiB, \d+ blocks out, 0 words spoilt, Ok"))?;
        command(&mut running, "memory follower", &format!("^{to}M now, {to}M asked for, 16M at least, 96M at most$"))?;
        let mark = running.mark();
        running.wait_after(mark, r"^\[cycler\] round \d+0, 4 blocks, 0 words not zero$")?;
    }
    running.never("words not zero, [1-9]|[1-9][0-9]* words spoilt")?;
    end(running)
}

/// All guests go, and all memory is free again.
fn end(mut running: Machine) -> Result<()> {
    for guest in ["follower", "cycler", "liar", "neighbour"] {
        running.send(&format!("destroy {guest}\r"))?;
    }
    let line = loop {
        let line = command(&mut running, "info", r"^guest memory .* being scrubbed$")?;
        if line.contains(" 0K being scrubbed") {
            break line;
        }
    };
    // Nothing is in pieces that was one before, but where consoles and the like stand.
    let pieces: u32 =
        line.split(" free in ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).unwrap_or(99);
    ensure!(pieces <= 12, "{line}");
    running.send("shutdown now\r")?;
    running.wait_off()
}
