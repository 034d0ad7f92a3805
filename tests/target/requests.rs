//! Guests are asked to end by themselves, and told the time of day.

use anyhow::Result;
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
    command(&mut running, "info polite", r"^can be asked +to stop or to restart$")?;
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
