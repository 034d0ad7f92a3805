//! The SD card of a board, which the block service drives by the processor alone.

use anyhow::{Context, Result, bail};
use libtest_mimic::Trial;
use portico_ctl::MachineKind;
use portico_tests::{Machine, Scenario};

use crate::trial;

pub fn trials() -> Vec<Trial> {
    vec![trial("sd::parts_raspi4b_4", parts), trial("sd::service_killed_raspi4b_4", service_killed)]
}

/// A partition by its name, a range, and a partition by its number that is only read.
fn parts() -> Result<()> {
    let mut running = Scenario::system("disk-card", MachineKind::Raspi4b, 4).seconds(90).boot()?;
    running.wait_all(&[
        r"^\[label\] disk disk0: PASS",
        r"^\[range\] disk disk0: PASS",
        r"^\[reader\] disk disk0: Info.*is_read_only: true",
        r"^\[reader\] disk disk0: PASS",
    ])?;
    running.never(r#"FAIL|panicked|guest "block":|SD card"#)
}

/// The whole card, under a load that notices what is lost.
const WHOLE: &str = r#"
[system]
machine = "raspi4b"

[manager]
cmdline = "portico.quiet"

[block]
restart = { limit = 1000, window = "60s" }

[[disk]]
name = "sd"
size = "16M"

[[guest]]
name = "writer"
kernel = "test:disk"
cmdline = "mode=load"
memory = "16M"
disk = ["sd"]
"#;

/// Waits until the load has gone on after `mark`.
fn advance(running: &mut Machine, mark: usize) -> Result<()> {
    let line = running.wait_after(mark, r"^\[writer\] (load: \d+ done|FAIL)")?;
    if line.contains("FAIL") {
        bail!("{}{line}", running.last_lines());
    }
    Ok(())
}

/// The service dies again and again, mostly with the card amid a transfer.
fn service_killed() -> Result<()> {
    let mut running = Scenario::written(WHOLE, MachineKind::Raspi4b, 4).seconds(180).boot()?;
    let mark = running.mark();
    advance(&mut running, mark)?;
    for delay in 0..20_u64 {
        running.send("reboot block\r")?;
        std::thread::sleep(std::time::Duration::from_millis(delay * 37 % 300));
        let mark = running.mark();
        if delay % 2 == 0 {
            advance(&mut running, mark)?;
        }
    }
    let mark = running.mark();
    advance(&mut running, mark)?;
    running.never(r#"FAIL|panicked|guest "writer":|SD card"#).context("while the service died")
}
