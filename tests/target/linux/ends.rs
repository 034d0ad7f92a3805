//! Guests that end, and begin anew with their file systems whole.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portico_ctl::MachineKind;
use portico_tests::Scenario;

use super::shell::{ask, live_again, log_in, run, sound, up};

/// Restarts in a row.
const ROUNDS: u32 = 3;
/// Longest wait before a restart that the manager may say, in milliseconds.
const WAIT_MS: u64 = 1000;
/// Longest time from the end of a life to the first word of the next one, on a computer that does other things as well.
const PATIENCE: Duration = Duration::from_secs(10);

/// `reboot -f` after `sync`, again and again: each life finds what the last one wrote, and a file system without a fault.
pub fn reboots(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("linux-disk", machine, cpus).seconds(200).boot()?;
    up(&mut running, &["one"])?;
    log_in(&mut running, "one")?;
    for round in 0..ROUNDS {
        run(
            &mut running,
            &format!("head -c 1000000 /dev/urandom > /root/{round}; md5sum /root/{round} >> /root/sums"),
        )?;
        live_again(&mut running, "one", "sync; reboot -f", r#"guest "one": asked to be rebooted"#)?;
        run(&mut running, "md5sum -c /root/sums")?;
        ask(&mut running, "wc -l < /root/sums", &format!("^{}$", round + 1))?;
    }
    // In good order, by the first program.
    live_again(&mut running, "one", "reboot", r#"guest "one": asked to be rebooted"#)?;
    run(&mut running, "md5sum -c /root/sums")?;
    // Without the journal's help: nobody writes to it any more.
    run(&mut running, "sync; echo u > /proc/sysrq-trigger; sleep 2; e2fsck -f -n /dev/pvda1")?;
    sound(&mut running)?;
    let mark = running.mark();
    ask(&mut running, "poweroff -f", r#"guest "one": powered off"#)?;
    // What is typed before the manager has the keyboard goes nowhere.
    running.wait_after(mark, "keyboard of the manager")?;
    running.send("list\r")?;
    running.wait(r"^one +\d+ +- +2 ").map(drop)
}

/// A kernel that panics is begun anew within a second, and its journal brings the file system into order.
pub fn panics(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("linux", machine, cpus).seconds(200).boot()?;
    up(&mut running, &["one", "two"])?;
    log_in(&mut running, "one")?;
    run(&mut running, "echo kept > /root/kept; sync; dd if=/dev/urandom of=/root/x bs=64k count=64 2> /dev/null")?;
    let mark = running.mark();
    ask(&mut running, "echo c > /proc/sysrq-trigger", r#"guest "one": panicked"#)?;
    let ended = Instant::now();
    let line = running.wait_after(mark, r#"guest "one": restarts in \d+ ms"#)?;
    let wait: u64 =
        line.split("restarts in ").nth(1).and_then(|rest| rest.split(' ').next()).context("no wait")?.parse()?;
    running.wait_after(mark, "Booting Linux on physical CPU")?;
    println!("restarted {} ms after the panic, of which it waited {wait}", ended.elapsed().as_millis());
    ensure!(wait <= WAIT_MS && ended.elapsed() < PATIENCE, "{line}, {} s", ended.elapsed().as_secs());
    running.wait_after(mark, "Debian GNU/Linux 12 one hvc0")?;
    // The other one has noticed nothing.
    running.never(r#"guest "two": (panicked|restarts|vCPU)"#)
}
