//! The console service: every byte, every line once, whoever floods or dies.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use portico_ctl::MachineKind;
use portico_tests::{Machine, Scenario};
use serde_json::json;

use crate::boot::name;
use crate::trial;

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (machine, cpus) in [(MachineKind::Virt, 2), (MachineKind::VirtGicv2, 1), (MachineKind::Raspi4b, 4)] {
        let name = name(machine);
        trials.push(trial(format!("console::bytes_{name}_{cpus}"), move || bytes(machine, cpus)));
        trials.push(trial(format!("console::restarts_{name}_{cpus}"), move || restarts(machine, cpus)));
    }
    for cpus in [1, 2] {
        trials.push(trial(format!("console::flood_virt_{cpus}"), move || flood(cpus)));
    }
    trials.push(trial("console::history_after_death", history));
    // QEMU's model of the Pi's UART takes no breaks.
    for machine in [MachineKind::Virt, MachineKind::VirtGicv2] {
        trials.push(trial(format!("console::breaks_{}_2", name(machine)), move || breaks(machine)));
    }
    trials
}

pub const SWITCH: u8 = 0x1d;
const NEXT: u8 = 0x1e;
const ESCAPE: u8 = 0x1c;

/// Gives a guest the keyboard and the screen.
pub fn focus(running: &mut Machine, guest: &str) -> Result<()> {
    let mark = running.mark();
    running.send(&format!("console {guest}\r"))?;
    running.wait_after(mark, &format!(r#"keyboard and screen of guest "{guest}""#)).map(drop)
}

/// All byte values, through the console of a guest and back.
fn bytes(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("console", machine, cpus).boot()?;
    running.wait(r"^\[bytes\] ready")?;
    focus(&mut running, "bytes")?;
    running.send("o")?;
    let all: Vec<u8> = (0..=255).collect();
    running.wait_bytes(&all)?;
    let mut typed = vec![b'i'];
    for &byte in &all {
        if [SWITCH, NEXT, ESCAPE].contains(&byte) {
            typed.push(ESCAPE);
        }
        typed.push(byte);
    }
    running.send_bytes(&typed)?;
    let hex: String = all.iter().map(|byte| format!("{byte:02x}")).collect();
    running.wait(&format!("^got {hex}$"))?;
    let mark = running.mark();
    running.send_bytes(&[SWITCH])?;
    running.wait_after(mark, "keyboard of the manager")?;
    // What the others wrote meanwhile comes now, and it goes on.
    in_order(&mut running, "one", 100)?;
    in_order(&mut running, "two", 100)
}

/// Breaks of the line are told to the guest that has the keyboard and to nobody else, also by the service's next life; they are no bytes.
fn breaks(machine: MachineKind) -> Result<()> {
    let mut running = Scenario::system("console", machine, 2).tools().boot()?;
    running.wait(r"^\[bytes\] ready")?;
    // Nobody's: the manager has the keyboard.
    send_break(&running)?;
    running.send("list\r")?;
    running.wait(r"^bytes +\d+ +running")?;
    focus(&mut running, "bytes")?;
    counted(&mut running, 0)?;
    for count in 1..=3 {
        send_break(&running)?;
        counted(&mut running, count)?;
    }
    // Between bytes: 128 before it, 128 behind it. Not while its FIFO is full: QEMU's model would lose bytes, as a line that is too quick does.
    running.send_bytes(&[&b"i"[..], &[b'x'; 128]].concat())?;
    thread::sleep(Duration::from_millis(500));
    send_break(&running)?;
    running.send_bytes(&[b'y'; 128])?;
    running.wait(&format!("^got {}{}$", "78".repeat(128), "79".repeat(128)))?;
    counted(&mut running, 4)?;
    let mark = running.mark();
    running.send_bytes(&[SWITCH])?;
    running.wait_after(mark, "keyboard of the manager")?;
    send_break(&running)?;
    running.send("reboot console\r")?;
    running.wait(r#"guest "console": rebooted by the operator"#)?;
    let mark = running.mark();
    focus(&mut running, "bytes")?;
    // What it wrote last is shown again first.
    running.wait_after(mark, "^breaks 4$")?;
    counted(&mut running, 4)?;
    send_break(&running)?;
    counted(&mut running, 5)?;
    running.never("crash|watchdog|panicked")
}

fn send_break(running: &Machine) -> Result<()> {
    running.qmp()?.execute("chardev-send-break", json!({ "id": "serial0" })).map(drop)
}

/// Asks the guest that has the keyboard how many breaks it was told of. What is typed comes behind them.
fn counted(running: &mut Machine, wanted: u32) -> Result<()> {
    let mark = running.mark();
    running.send("b")?;
    let line = running.wait_after(mark, r"^breaks \d+$")?;
    ensure!(line == format!("breaks {wanted}"), "{line}, not {wanted}");
    Ok(())
}

/// Lines of a guest come one after the other, none twice and none left out; at least so many.
pub fn in_order(running: &mut Machine, guest: &str, least: usize) -> Result<()> {
    running.wait(&format!(r"^\[{guest}\] line {least:06}$"))?;
    let lines = running.all(&format!(r"^\[{guest}\] line \d"))?;
    for (wanted, line) in lines.iter().enumerate() {
        let number = line.rsplit(' ').next().context("no number")?;
        ensure!(number == format!("{wanted:06}"), "{}`{line}` where line {wanted} should be", running.last_lines());
    }
    Ok(())
}

/// A hundred ends at random moments.
fn restarts(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("console", machine, cpus).seconds(180).boot()?;
    running.wait(r"^\[two\] line 000010$")?;
    let mut seed = 1_u64;
    for _ in 0..100 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        thread::sleep(Duration::from_micros(seed >> 50));
        let mark = running.mark();
        running.send("reboot console\r")?;
        running.wait_after(mark, r#"guest "console": rebooted by the operator"#)?;
    }
    let mark = running.mark();
    running.wait_after(mark, r"^\[one\] line \d+$")?;
    let lines = running.all(r"^\[one\] line \d")?.len();
    println!("{lines} lines of one of the guests over 100 restarts");
    for guest in ["one", "two"] {
        in_order(&mut running, guest, 100)?;
    }
    // The keyboard works, and so does what it is given to.
    running.send("list\r")?;
    running.wait(r"^console +\d+ +running")?;
    focus(&mut running, "two")?;
    running.send("are you there\r")?;
    running.wait("^heard are you there")?;
    running.never("crash|watchdog")
}

/// Nobody waits for a guest that floods, and it loses nothing.
fn flood(cpus: u32) -> Result<()> {
    let mut running = Scenario::system("console-flood", MachineKind::Virt, cpus).seconds(90).boot()?;
    // Two seconds of the machine's time, if nobody keeps it up.
    running.wait(r"^\[quiet\] line 000099$")?;
    in_order(&mut running, "quiet", 99)?;
    in_order(&mut running, "flood", 1000)?;
    running.send("destroy flood\r")?;
    running.wait(r#"guest "flood": destroyed"#).map(drop)
}

/// What a guest wrote is kept when it is gone, and when the service is.
fn history() -> Result<()> {
    let mut running = Scenario::system("console", MachineKind::Virt, 2).boot()?;
    running.wait(r"^\[one\] line 000010")?;
    running.send("create mortal\r")?;
    running.wait(r#"guest "mortal": exited with code 0"#)?;
    ensure!(running.all(r"^\[mortal\] line 00000[012]$")?.len() == 3, "its lines come before its end");
    for _ in 0..2 {
        let mark = running.mark();
        running.send("log mortal\r")?;
        for line in 0..3 {
            running.wait_after(mark, &format!("^line {line:06}$"))?;
        }
        let mark = running.mark();
        running.send("reboot console\r")?;
        running.wait_after(mark, r#"guest "console": rebooted"#)?;
    }
    // In its own console it begins behind its last life.
    let mark = running.mark();
    running.send("create mortal\r")?;
    running.wait_after(mark, r"^\[mortal\] line 000002$").map(drop)
}
