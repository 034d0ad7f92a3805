//! A guest that must be in time beside one that is in its way.
//!
//! Instructions are counted, and each is a nanosecond: so how late a thread wakes up does not depend on what else this computer does, and every time can
//! be bounded, not only their average.

use anyhow::{Context, Result, ensure};
use portico_ctl::MachineKind;
use portico_tests::{Machine, Scenario};

use super::shell::{ask, leave, log_in, run};

/// Latest that a guest with a reservation wakes up, in microseconds: its period, in which it gets its time whoever else wants the processor.
const LATE_US: u64 = 1000;
/// How many times later a guest with a share must be: else its neighbour was not in its way, and the test says nothing.
const WORSE: u64 = 4;

/// cyclictest in a guest that is busy, beside a guest that computes without end, of eight times its weight: first with what its weight gives, then with a reservation.
pub fn beside_a_neighbour(machine: MachineKind, _cpus: u32) -> Result<()> {
    let mut running = Scenario::system("linux-latency", machine, 1).seconds(300).icount().boot()?;
    let shared = late(&mut running, "shared")?;
    running.send("destroy shared\rdestroy noisy\r")?;
    running.wait(r#"guest "noisy": destroyed"#)?;
    running.send("create reserved\r")?;
    let reserved = late(&mut running, "reserved")?;
    println!("latest: {shared} us with a share, {reserved} us with a reservation");
    ensure!(reserved <= LATE_US, "{reserved} us late with a reservation");
    ensure!(reserved * WORSE < shared, "a reservation is hardly better than a share: {reserved} us and {shared} us");
    Ok(())
}

/// How late a thread of real-time priority in this guest is at worst beside the noisy one, in microseconds.
fn late(running: &mut Machine, guest: &str) -> Result<u64> {
    running.wait(&format!(r"^\[{guest}\] Debian GNU/Linux 12 {guest} hvc0"))?;
    leave_noise_for_later(running, guest)?;
    // A guest that only wakes up and sleeps is always before one that computes: so it computes as well, and has used up its share when the thread wakes up.
    let busy = "for i in 1 2; do while :; do :; done & done";
    let line = ask(running, &format!("{busy}; cyclictest -q -m -p 80 -i 5000 -l 200"), r"^T: 0 .*Avg: *\d+ Max: *\d+")?;
    println!("{guest}: {line}");
    leave(running)?;
    let latest = line.split("Max:").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    latest.context("no figure")
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
