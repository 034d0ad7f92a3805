//! Guests that end, and begin anew with their file systems whole.

use anyhow::{Result, ensure};
use portico_ctl::MachineKind;
use portico_tests::{Machine, Scenario};

use super::shell::{ask, enter_again, live_again, log_in, run, sound, up};
use crate::net::number;

/// Restarts in a row.
const ROUNDS: u32 = 3;
/// Longest wait before a restart that the manager may say, in milliseconds.
const WAIT_MS: u64 = 1000;

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

/// A kernel that panics is begun anew within a second of the machine, and its journal brings the file system into order. Instructions are counted, so that a second is one
/// whatever else this computer does.
pub fn panics(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("linux", machine, cpus).seconds(600).icount().boot()?;
    up(&mut running, &["one", "two"])?;
    log_in(&mut running, "one")?;
    run(&mut running, "echo kept > /root/kept; sync; dd if=/dev/urandom of=/root/x bs=64k count=64 2> /dev/null")?;
    let mark = running.mark();
    ask(&mut running, "echo c > /proc/sysrq-trigger", r#"guest "one": panicked"#)?;
    begun_anew(&mut running, mark, r#"guest "one": panicked"#)?;
    // The other one has noticed nothing.
    running.never(r#"guest "two": (panicked|restarts|vCPU)"#)
}

/// A kernel that does nothing any more but what two threads want, so that nobody triggers its watchdog, is begun anew as well: they have all of both
/// processors by their deadlines, which nothing else has before them once the kernel was told not to limit that.
pub fn hangs(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("linux", machine, cpus).seconds(600).icount().boot()?;
    up(&mut running, &["one", "two"])?;
    log_in(&mut running, "one")?;
    run(&mut running, "echo kept > /root/kept; sync; busybox watchdog -T 3 -t 1 /dev/watchdog")?;
    run(&mut running, "echo -1 > /proc/sys/kernel/sched_rt_runtime_us")?;
    let mark = running.mark();
    let all = "-d -T 10000000 -D 10000000 -P 10000000 0";
    running.send(&format!("for cpu in 0 1; do chrt {all} sh -c 'while :; do :; done' & done\r"))?;
    let expired = r#"guest "one": watchdog expired"#;
    running.wait_after(mark, expired)?;
    begun_anew(&mut running, mark, expired)?;
    running.never(r#"guest "two": (panicked|restarts|vCPU|watchdog)"#)
}

/// Guest `one` has ended with this line after `mark`: its kernel boots again soon, with what it had written.
fn begun_anew(running: &mut Machine, mark: usize, end: &str) -> Result<()> {
    let line = running.wait_after(mark, r#"guest "one": restarts in \d+ ms"#)?;
    ensure!(number(&line, r"restarts in (\d+) ms")? <= WAIT_MS, "{line}");
    let first = "Booting Linux on physical CPU";
    running.wait_after(mark, first)?;
    let lines = running.lines_after(mark).iter();
    let between = lines.skip_while(|line| !line.contains(end)).take_while(|line| !line.contains(first));
    // FreeRTOS tells each second of the machine.
    let seconds = between.filter(|line| line.starts_with("[rtos] second ")).count();
    println!("{seconds} seconds of the machine began between the end and the next life");
    ensure!(!running.all(r"^\[rtos\] second \d")?.is_empty(), "nobody tells the seconds");
    ensure!(seconds <= 1, "{}{seconds} seconds from `{end}` to `{first}`", running.last_lines());
    enter_again(running, "one", mark)?;
    run(running, "grep -q kept /root/kept")?;
    sound(running)
}
