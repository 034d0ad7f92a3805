//! The kernel's own tests: timers, futexes, signals, and what else of it has to do with processors and time.

use anyhow::{Result, ensure};
use portico_ctl::MachineKind;
use portico_tests::{Scenario, tap};

use super::shell::{focus, sound};

/// Those that expect something of the time. Instructions are counted, and each is a nanosecond: else what is compared with a clock, and whether threads have come
/// as far as another expects after some time, would depend on what else this computer does.
pub fn timed(machine: MachineKind, cpus: u32) -> Result<()> {
    run_list(Scenario::system("linux-selftests", machine, cpus).seconds(600).icount(), "timed")
}

/// The same for those that compute for seconds, which takes minutes here.
pub fn long(machine: MachineKind, cpus: u32) -> Result<()> {
    run_list(Scenario::system("linux-selftests", machine, cpus).seconds(600).icount(), "long")
}

/// The others.
pub fn untimed(machine: MachineKind, cpus: u32) -> Result<()> {
    run_list(Scenario::system("linux-selftests", machine, cpus).seconds(400), "untimed")
}

/// Runs a list of `guest-linux-patches/selftests`. Each test must be ok; what it may skip or fail of, the list says.
fn run_list(scenario: Scenario, list: &str) -> Result<()> {
    let mut running = scenario.boot()?;
    running.wait(r"^\[one\] Linux 6\.12\.\d+ on 2 vCPUs, \d+ MiB: one$")?;
    focus(&mut running, "one")?;
    let mark = running.mark();
    running.send(&format!("/selftests/run {list}\r"))?;
    running.wait_after(mark, r"^1\.\.\d+$")?;
    let lines = running.lines_after(mark);
    // What was skipped, and why.
    lines.iter().filter(|line| line.starts_with("ok ") && line.contains(" #")).for_each(|line| println!("{line}"));
    let report = tap::read(lines.iter().map(String::as_str));
    ensure!(report.failures.is_empty(), "{}\n{}", report.failures.join("\n"), report.notes.join("\n"));
    ensure!(
        report.passed > 0 && report.planned == Some(report.passed),
        "planned {:?}, seen {}",
        report.planned,
        report.passed
    );
    println!("{} of the kernel's own tests", report.passed);
    sound(&mut running)
}
