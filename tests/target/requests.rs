//! Guests are asked to end by themselves, and told the time of day.

use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use portico_ctl::MachineKind;
use portico_tests::{Machine, Scenario};

use crate::boot::name;
use crate::trial;

pub fn trials() -> Vec<Trial> {
    [(MachineKind::Virt, 1), (MachineKind::VirtGicv2, 2), (MachineKind::Raspi4b, 4)]
        .into_iter()
        .map(|(machine, cpus)| {
            trial(format!("requests::asked_and_told_{}_{cpus}", name(machine)), move || asked_and_told(machine, cpus))
        })
        .collect()
}

/// Types a command, and waits for a line.
fn command(running: &mut Machine, command: &str, answer: &str) -> Result<String> {
    let mark = running.mark();
    running.send(&format!("{command}\r"))?;
    running.wait_after(mark, answer)
}

fn asked_and_told(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("requests", machine, cpus).seconds(90).boot()?;
    running.wait_all(&[r"^\[deaf\] ending", r"^\[false\] ending"])?;
    // Only the virt machine has a clock.
    if machine == MachineKind::Raspi4b {
        running.wait(r"^\[polite\] the time is 0$")?;
        command(&mut running, "clock", "the machine has no clock; `clock YYYY")?;
    } else {
        running.wait(r"^\[polite\] the time is 1[789]\d{8}$")?;
        command(&mut running, "clock", r"^20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC$")?;
    }

    command(&mut running, "stop deaf", "guest `deaf` cannot be asked to stop; `destroy deaf` does it at once")?;
    command(&mut running, "stop false 1", r#"guest "false": has not ended within 1 s; `destroy false` ends it"#)?;
    command(&mut running, "info polite", r"^can be asked +to stop or to restart or to suspend$")?;
    sleeps_and_wakes(&mut running)?;
    let mark = running.mark();
    command(&mut running, "restart polite", r"^\[polite\] asked to restart$")?;
    running.wait_after(mark, r#"guest "polite": restarts in \d+ ms \(restart 1\)"#)?;
    running.wait_after(mark, r"^\[polite\] ending$")?;

    // 2030-01-02T03:04:05 and up to a minute of it.
    let told = r"^\[polite\] the time is 18935534[4-9]\d|18935535\d\d$";
    let mark = running.mark();
    command(&mut running, "clock 2030-01-02T03:04:05", r"^2030-01-02 03:04:05 UTC$")?;
    running.wait_after(mark, told)?;
    // The manager's next life knows the time, and whom it can ask.
    command(&mut running, "panic", "manager was restarted")?;
    command(&mut running, "clock", r"^2030-01-02 03:0[45]:\d\d UTC$")?;
    command(&mut running, "stop polite", r"^\[polite\] asked to stop$")?;
    running.wait(r#"guest "polite": exited with code 0"#)?;
    // While it is taken down.
    command(&mut running, "create polite", told)?;

    let mark = running.mark();
    running.send("destroy false\r")?;
    running.send("shutdown\r")?;
    running.wait_after(mark, "1 guests are asked to stop and have 30 s")?;
    running.wait_after(mark, r"^\[polite\] asked to stop$")?;
    running.wait_after(mark, "the machine powers off")?;
    running.wait_off()
}

/// A guest sleeps when it is asked to, over a death of the manager, and wakes for each thing that it is asked for; the watchdog rests meanwhile.
fn sleeps_and_wakes(running: &mut Machine) -> Result<()> {
    command(running, "suspend deaf", "guest `deaf` cannot be asked to suspend; `pause deaf` does it at once")?;
    command(running, "wake polite", r"guest `polite` is not asleep \(running\)")?;
    let mark = running.mark();
    command(running, "suspend false 1", r#"guest "false": has not fallen asleep within 1 s; `wake false` takes"#)?;
    ensure!(!running.lines_after(mark).iter().any(|line| line.contains(r#"guest "false": asleep"#)), "it lies");

    command(running, "suspend polite", r#"guest "polite": asleep"#)?;
    running.wait(r"^\[polite\] asked to sleep$")?;
    command(running, "list", r"^polite +\d+ +asleep ")?;
    command(running, "suspend polite", "guest `polite` is asleep; `wake polite` wakes it")?;
    command(running, "resume polite", "guest `polite` is asleep; `wake polite` wakes it")?;
    // The manager's next life sees it too; nor does it wake for the time of day.
    command(running, "panic", "manager was restarted")?;
    // Longer than its watchdog's limit.
    running.take_for(Duration::from_secs(3));
    command(running, "info polite", "^guest +polite, asleep$")?;
    command(running, "wake polite", r#"guest "polite": awake"#)?;
    running.wait(r"^\[polite\] awake for Nothing$")?;
    command(running, "list", r"^polite +\d+ +running ")?;

    command(running, "suspend polite", r#"guest "polite": asleep"#)?;
    let mark = running.mark();
    command(running, "restart polite", r"^\[polite\] awake for Reboot$")?;
    running.wait_after(mark, r#"guest "polite": restarts in \d+ ms \(restart 1\)"#)?;
    // A new life is awake.
    running.wait_after(mark, r"^\[polite\] ending$")?;
    command(running, "list", r"^polite +\d+ +running ").map(drop)
}
