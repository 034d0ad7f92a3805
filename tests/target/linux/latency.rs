//! A guest that must be in time beside one that is in its way.
//!
//! Time is this computer's, which does other things as well: what is compared is how late a thread is in the middle, and by how much a
//! reservation is better than a share. `sched::reservation_meets_every_deadline` counts instructions and bounds each wake-up.

use anyhow::{Context, Result, ensure};
use portico_ctl::MachineKind;
use portico_tests::{Machine, Scenario};

use super::shell::{ask, leave, log_in, run};

/// Longest that a guest with a reservation may be late on average, in microseconds. Its period is 1 ms, in which it gets its time whoever else wants the
/// processor; the rest is what an emulated machine on a busy computer takes.
const LATE_US: u64 = 3000;
/// How many times later a guest with a share must be: else its neighbour was not in its way, and the test says nothing.
const WORSE: u64 = 2;

/// cyclictest beside a guest that computes without end, of eight times its weight: first with what its weight gives, then with a reservation.
pub fn beside_a_neighbour(machine: MachineKind, _cpus: u32) -> Result<()> {
    let mut running = Scenario::system("linux-latency", machine, 1).seconds(140).boot()?;
    let shared = late(&mut running, "shared")?;
    running.send("destroy shared\rdestroy noisy\r")?;
    running.wait(r#"guest "noisy": destroyed"#)?;
    running.send("create reserved\r")?;
    let reserved = late(&mut running, "reserved")?;
    println!("late on average: {shared} us with a share, {reserved} us with a reservation");
    ensure!(reserved < LATE_US, "{reserved} us late with a reservation");
    ensure!(reserved * WORSE < shared, "a reservation is hardly better than a share: {reserved} us and {shared} us");
    Ok(())
}

/// How late a thread of real-time priority in this guest is on average beside the noisy one, in microseconds.
fn late(running: &mut Machine, guest: &str) -> Result<u64> {
    running.wait(&format!(r"^\[{guest}\] Debian GNU/Linux 12 {guest} hvc0"))?;
    leave_noise_for_later(running, guest)?;
    let line = ask(running, "cyclictest -q -m -p 80 -i 5000 -l 300", r"^T: 0 .*Avg: *\d+ Max: *\d+")?;
    println!("{guest}: {line}");
    leave(running)?;
    let average = line.split("Avg:").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    average.context("no figure")
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
