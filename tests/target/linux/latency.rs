//! A guest that must be in time beside one that is in its way, with instructions counted: one is a nanosecond, so figures do not depend on this
//! computer.

use anyhow::{Context, Result, ensure};
use portico_ctl::MachineKind;
use portico_tests::{Machine, Scenario};

use super::shell::{ask, leave, log_in, run};

/// Longest that a guest with a reservation may be late, in microseconds: the period of its reservation, in which it gets its time whoever else
/// wants the processor.
const LATEST_US: u64 = 1000;

/// cyclictest beside a guest that computes without end, of 255 times its weight: first with what its weight gives, then with a reservation.
pub fn beside_a_neighbour(machine: MachineKind, _cpus: u32) -> Result<()> {
    let mut running = Scenario::system("linux-latency", machine, 1).icount().seconds(240).boot()?;
    let shared = latest(&mut running, "shared")?;
    running.send("destroy shared\rdestroy noisy\r")?;
    running.wait(r#"guest "noisy": destroyed"#)?;
    running.send("create reserved\r")?;
    let reserved = latest(&mut running, "reserved")?;
    println!("latest wake-up: {shared} us with a share, {reserved} us with a reservation");
    ensure!(reserved < LATEST_US, "{reserved} us late with a reservation");
    ensure!(reserved < shared, "a reservation is no better than a share: {reserved} us and {shared} us");
    Ok(())
}

/// The latest wake-up of a thread of real-time priority in this guest beside the noisy one, in microseconds.
fn latest(running: &mut Machine, guest: &str) -> Result<u64> {
    running.wait(&format!(r"^\[{guest}\] Debian GNU/Linux 12 {guest} hvc0"))?;
    leave_noise_for_later(running, guest)?;
    let line = ask(running, "cyclictest -q -m -p 80 -i 5000 -l 300", r"^T: 0 .*Max: +\d+")?;
    println!("{guest}: {line}");
    leave(running)?;
    line.rsplit("Max:").next().and_then(|rest| rest.trim().parse().ok()).context("no figure")
}

/// Logs in while it is quiet, and then lets the noisy guest begin.
fn leave_noise_for_later(running: &mut Machine, guest: &str) -> Result<()> {
    log_in(running, guest)?;
    run(running, "cyclictest -q -m -p 80 -i 1000 -l 10 > /tmp/warm")?;
    leave(running)?;
    running.send("create noisy\r")?;
    running.take_for(std::time::Duration::from_secs(2));
    let mark = running.mark();
    running.send(&format!("console {guest}\r"))?;
    running.wait_after(mark, "keyboard and screen").map(drop)
}
