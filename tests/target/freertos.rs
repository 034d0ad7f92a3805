//! FreeRTOS as a guest: its own checks, its tick against the counter, its channel, its console, and how it ends and begins anew.

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use portico_ctl::MachineKind;
use portico_tests::{Machine, Scenario};
use regex::Regex;

use crate::boot::name;
use crate::net::number;
use crate::trial;

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (machine, cpus) in
        [(MachineKind::Virt, 1), (MachineKind::Virt, 2), (MachineKind::VirtGicv2, 1), (MachineKind::Raspi4b, 4)]
    {
        let name = name(machine);
        trials.push(trial(format!("freertos::serves_and_lives_again_{name}_{cpus}"), move || lives(machine, cpus)));
    }
    trials.push(trial("freertos::tick_keeps_to_the_counter", tick));
    trials.push(trial("freertos::idle_takes_no_ticks", idle));
    trials.push(trial("freertos::costs", costs));
    trials.push(trial("freertos::broken_ones_say_why", broken));
    trials
}

/// The guest by itself, with an argument.
macro_rules! alone {
    ($argument:literal) => {
        concat!(
            "[[guest]]\nname = \"rtos\"\nkernel = \"example:freertos-c\"\nmemory = \"8M\"\ncmdline = \"",
            $argument,
            "\"\n"
        )
    };
}

/// Most instructions of a switch, and of a tick.
const SWITCH: u64 = 180;
const TICK: u64 = 500;

/// The report of a guest that checks itself each second.
const REPORT: &str =
    r"^\[rtos\] second (\d+): tick \d+ at \d+ us, \d+ sums, \d+ interrupted, timer \d+, inheritance ok$";
/// What no guest that is well writes, nor the manager of it.
const WRONG: &str = r#"FAIL|assertion|overflow|panicked|guest "(rtos|ping)": vCPU"#;

/// Waits for a line of the guest after `mark`, or for one that says what is wrong with it.
fn said(running: &mut Machine, mark: usize, pattern: &str) -> Result<String> {
    let line = running.wait_after(mark, &format!("{pattern}|{WRONG}"))?;
    ensure!(Regex::new(pattern)?.is_match(&line), "{}{line}", running.last_lines());
    Ok(line)
}

/// Waits for the answer to a question after `mark`, and looks whether it is the square.
fn answered(running: &mut Machine, mark: usize) -> Result<()> {
    let line = running.wait_after(mark, r"^\[ping\] ping \d+: answer")?;
    let asked = number(&line, r"ping (\d+):")?;
    let answer = number(&line, r"answer (\d+)")?;
    ensure!(answer == asked * asked, "{line}");
    Ok(())
}

/// Reports of both lives, answers, and either side going and coming back.
fn lives(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("freertos", machine, cpus).boot()?;
    running.wait(r"^\[rtos\] FreeRTOS V11\.2\.0, 1000 ticks a second$")?;
    said(&mut running, 0, r"^\[rtos\] second 2:")?;
    answered(&mut running, 0)?;
    for (command, answer) in [
        ("reboot rtos", r#"guest "rtos": rebooted by the operator"#),
        ("reboot ping", r#"guest "ping": rebooted by the operator"#),
        ("restart rtos", r"^\[rtos\] asked to restart"),
    ] {
        let mark = running.mark();
        running.send(&format!("{command}\r"))?;
        running.wait_after(mark, answer)?;
        let mark = running.mark();
        running.wait_after(mark, r"^\[rtos\] link: connected").with_context(|| command)?;
        answered(&mut running, mark).with_context(|| command)?;
    }
    // Its third life.
    let mark = running.mark();
    said(&mut running, mark, r"^\[rtos\] second [2-9]")?;
    let reports = running.all(r"^\[rtos\] second")?;
    ensure!(running.all(REPORT)?.len() == reports.len(), "{reports:?}");
    running.send("stop rtos\r")?;
    running.wait(r#"guest "rtos": exited with code 0"#)?;
    running.never(WRONG)
}

/// With instructions counted: between two reports there are as many ticks as milliseconds, to one in a hundred.
fn tick() -> Result<()> {
    let mut running = Scenario::system("freertos", MachineKind::Virt, 1).icount().boot()?;
    let mut seen = Vec::new();
    for second in [1, 3] {
        let line = said(&mut running, 0, &format!(r"^\[rtos\] second {second}:"))?;
        seen.push((number(&line, r"tick (\d+)")?, number(&line, r"at (\d+) us")?));
    }
    let (ticks, us) = (seen[1].0 - seen[0].0, seen[1].1 - seen[0].1);
    println!("{ticks} ticks in {us} us");
    ensure!(ticks >= 1900, "{ticks} ticks");
    ensure!((ticks * 1000).abs_diff(us) <= us / 100, "{ticks} ticks in {us} us");
    running.never(WRONG)
}

/// A guest in which nothing is to be done takes one interrupt for ten seconds: their end. The console may come by.
fn idle() -> Result<()> {
    let mut running = Scenario::written(alone!("sleep"), MachineKind::Virt, 1).icount().boot()?;
    for _ in 0..2 {
        let mark = running.mark();
        let line = said(&mut running, mark, r"^\[rtos\] slept")?;
        println!("{line}");
        let (ticks, us) = (number(&line, r"slept (\d+)")?, number(&line, r"in (\d+) us")?);
        ensure!(ticks == 10_000 && us.abs_diff(10_000_000) <= 2000, "{line}");
        ensure!(number(&line, r"with (\d+) interrupts")? <= 3, "{line}");
    }
    running.never(WRONG)
}

/// A switch from task to task, and a tick with all that EL2 does for it, in instructions: they were 137 and 380, and another compiler may make a little more of them.
fn costs() -> Result<()> {
    let mut running = Scenario::written(alone!("measure"), MachineKind::Virt, 1).icount().boot()?;
    let line = said(&mut running, 0, r"^\[rtos\] a switch \d+ ns, a tick \d+ ns$")?;
    println!("{line}");
    let (switch, tick) = (number(&line, r"switch (\d+)")?, number(&line, r"tick (\d+)")?);
    ensure!((60..=SWITCH).contains(&switch) && (150..=TICK).contains(&tick), "{line}");
    Ok(())
}

/// What is typed reaches a task. A stack that is too small and an assertion that does not hold end the guest with the kernel's words, an exception that the port
/// does not know with the library's; and it begins anew.
fn broken() -> Result<()> {
    let mut running = Scenario::system("freertos", MachineKind::Virt, 2).boot()?;
    running.wait(r"^\[rtos\] second 1:")?;
    for (command, words) in [
        ("overflow", r#"FreeRTOS: stack overflow in task "deep"$"#),
        ("assert", r"FreeRTOS: assertion failed in shell, line \d+$"),
        ("undefined", r"exception on vCPU 0: synchronous, SP_EL0, ESR 0x2000000, "),
    ] {
        let mark = running.mark();
        running.send("console rtos\r")?;
        running.wait_after(mark, r#"keyboard and screen of guest "rtos""#)?;
        let mark = running.mark();
        running.send("tasks\r")?;
        running.wait_after(mark, r"^sampler +priority 5, \d+ bytes of its stack never used$")?;
        running.send(&format!("{command}\r"))?;
        running.wait_after(mark, words)?;
        running.send_bytes(&[0x1d])?;
        running.wait_after(mark, r#"guest "rtos": panicked, code \d+"#)?;
        running.wait_after(mark, r#"guest "rtos": restarts in"#)?;
        let mark = running.mark();
        running.wait_after(mark, r"^\[rtos\] second 1:")?;
        answered(&mut running, mark)?;
    }
    running.never(r#"FAIL|guest "(rtos|ping)": vCPU"#)
}
