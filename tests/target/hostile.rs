//! Hostile guests, each beside a healthy neighbour that must notice nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use portico_ctl::MachineKind;
use portico_tests::{Machine, Scenario};

use crate::block::advance;
use crate::boot::name;
use crate::trial;

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (machine, cpus) in
        [(MachineKind::Virt, 1), (MachineKind::Virt, 4), (MachineKind::VirtGicv2, 1), (MachineKind::Raspi4b, 4)]
    {
        let name = name(machine);
        trials.push(trial(format!("hostile::survivable_{name}_{cpus}"), move || survivable(machine, cpus)));
        trials.push(trial(format!("hostile::fatal_{name}_{cpus}"), move || fatal(machine, cpus)));
    }
    for machine in [MachineKind::Virt, MachineKind::VirtGicv2] {
        let name = name(machine);
        trials.push(trial(format!("hostile::service_{name}_2"), move || service(machine)));
        trials.push(trial(format!("hostile::console_{name}_2"), move || console(machine)));
        trials.push(trial(format!("hostile::moved_drivers_{name}_2"), move || moved_drivers(machine)));
    }
    trials.push(trial("hostile::dma_of_the_dead_virt_2", dma_of_the_dead));
    for cpus in [1, 4] {
        trials.push(trial(format!("hostile::fuzz_virt_{cpus}"), move || fuzz(cpus)));
        trials.push(trial(format!("hostile::endless_virt_{cpus}"), move || endless(cpus)));
        trials.push(trial(format!("hostile::flood_virt_{cpus}"), move || flood(cpus)));
    }
    trials
}

/// The neighbour goes on, and noticed nothing.
fn healthy(running: &mut Machine) -> Result<()> {
    for _ in 0..2 {
        let mark = running.mark();
        running.wait_after(mark, r"^\[neighbour\] healthy \d+")?;
    }
    running.never("NOTICED")
}

fn survivable(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("hostile", machine, cpus).seconds(180).boot()?;
    running.tap("hostile")?;
    running.wait(r#"guest "hostile": exited with code 0"#)?;
    running.never(r#"guest "console":"#)?;
    healthy(&mut running)
}

/// Attempts of `systems/fatal.toml`, and how the manager tells their end.
const FATAL: &[(&str, &str)] = &[
    ("device", r"vCPU 0 stage-2 fault, write to IPA 0xa000000, pc 0x4"),
    ("gic", r"vCPU 0 stage-2 fault, write to IPA 0x20000000, pc 0x4"),
    ("beyond", r"vCPU 0 stage-2 fault, read from IPA 0x7ffffff000, pc 0x4"),
    ("null", r"vCPU 0 stage-2 fault, read from IPA 0x0, pc 0x4"),
    ("info", r"vCPU 0 stage-2 fault, write to IPA 0x8100000, pc 0x4"),
    ("fetch", r"vCPU 0 stage-2 fault, instruction fetch from IPA 0x7fc0000000, pc 0x7fc0000000"),
    ("ram-end", r"vCPU 0 stage-2 fault, read from IPA 0x80000000, pc 0x4"),
    ("exclusive", r"vCPU 0 stage-2 fault, write to IPA 0x8100000, pc 0x4"),
    ("zva", r"vCPU 0 stage-2 fault, write to IPA 0x7fc0000000, pc 0x4"),
    ("tables", r"vCPU 0 stage-2 fault, .* IPA 0x30000"),
    ("cpu-off", "its last vCPU turned itself off"),
    ("system-off", "powered off"),
    ("exit", "exited with code 77"),
];

fn fatal(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("fatal", machine, cpus).seconds(120).boot()?;
    for (attack, end) in FATAL {
        running.wait(&format!(r#"guest "{attack}": {end}"#))?;
    }
    // The processor may do nothing for a range without memory, or fault.
    running.wait(r#"guest "maintain": (vCPU 0 stage-2 fault|exited with code 1)"#)?;
    running.never(r"not ok 1 - (device|gic|beyond|null|info|fetch|ram-end|exclusive|zva|tables)")?;
    healthy(&mut running)
}

/// Guests that never end: the neighbour has its share, and the operator can end them.
fn endless(cpus: u32) -> Result<()> {
    let mut running = Scenario::system("endless", MachineKind::Virt, cpus).seconds(90).boot()?;
    running.wait_all(&[r"^\[vectors\] trying vectors", r"^\[spin\] trying spin"])?;
    healthy(&mut running)?;
    for guest in ["vectors", "spin"] {
        running.send(&format!("destroy {guest}\r"))?;
        running.wait(&format!(r#"guest "{guest}": destroyed"#))?;
    }
    healthy(&mut running)
}

/// A service that writes anything to its control page, and notifies without end: the manager obeys the operator meanwhile, and ends it when it is silent.
fn service(machine: MachineKind) -> Result<()> {
    let mut running = Scenario::system("hostile-service", machine, 2).seconds(90).boot()?;
    for life in 0..2 {
        let mark = running.mark();
        for way in ["replays", "counts back", "overflows", "scribbles", "storms"] {
            running.wait_after(mark, &format!(r"^\[block\] bad service: {way}"))?;
            for (command, answer) in [
                ("list", r"^neighbour +\d+ +running"),
                ("info block", r"^on crash .*restarts \d+"),
                ("info neighbour", r"^on crash .*restarts 0"),
                ("top 1", r"^neighbour +"),
            ] {
                let mark = running.mark();
                running.send(&format!("{command}\r"))?;
                running.wait_after(mark, answer).with_context(|| format!("`{command}` while it {way}, life {life}"))?;
            }
        }
        running.wait_after(mark, r"^\[block\] bad service: silent")?;
        running.wait_after(mark, r#"guest "block": watchdog expired"#)?;
    }
    running.never(r#"panicked|guest "neighbour":"#)?;
    healthy(&mut running)
}

/// A console service that says anything to the manager and writes anything where both write, its indices and the desk among it: the manager answers it as soon as
/// it asks decently, with the neighbour in its list, and ends it when it is silent. The next one finds what this one has left.
fn console(machine: MachineKind) -> Result<()> {
    let mut running = Scenario::system("hostile-console", machine, 2).seconds(120).boot()?;
    let mut mark = 0;
    for life in 0..2 {
        for way in ["truncates", "exaggerates", "invents", "replays", "jumps", "scribbles", "storms"] {
            running
                .wait_after(mark, &format!("^answered while it {way}$"))
                .with_context(|| format!("it {way}, life {life}"))?;
        }
        let list = running.all(r"^neighbour +\d+ +running +\d+ +\S+ +\S+ +0 ")?.len();
        ensure!(list >= 7 * (life + 1), "{list} lists have the neighbour as it should be");
        running.wait_after(mark, "^bad console: silent$")?;
        mark = running.mark();
        // Its watchdog has ended it.
        running.wait_after(mark, "^bad console: up$")?;
    }
    running.never("panicked|NOTICED|manager was restarted")
}

/// Drivers are moved between processors under load, again and again: no interrupt of a device is lost, none comes to whom it is not for.
fn moved_drivers(machine: MachineKind) -> Result<()> {
    let mut running = Scenario::system("disk-load", machine, 2).seconds(120).boot()?;
    let before = rate(&mut running)?;
    for turn in 0..120 {
        // Each of these letters is an interrupt that the console service gets while it is moved itself.
        for (driver, cpu) in [("block", turn % 2), ("console", turn / 2 % 2)] {
            running.send(&format!("sched {driver} cpus={cpu}\r"))?;
        }
        std::thread::sleep(Duration::from_millis(turn % 7 * 5));
    }
    let mark = running.mark();
    running.send("list\r")?;
    running.wait_after(mark, r"^block +\d+ +running +1 +\S+ +\S+ +0 ")?;
    running.wait_after(mark, r"^console +\d+ +running +1 +\S+ +\S+ +0 ")?;
    // Without its interrupt it would look at the disk twice a second.
    let after = rate(&mut running)?;
    ensure!(after * 10.0 > before, "{after} requests a second after all that, {before} before");
    let (_, lost) = advance(&mut running, "small", 100)?;
    ensure!(lost == 0, "the service was lost {lost} times");
    running.never(r"FAIL|panicked|unknown|usage")
}

/// Requests a second, by the host's clock.
fn rate(running: &mut Machine) -> Result<f64> {
    let (first, _) = advance(running, "loader", 1)?;
    let start = Instant::now();
    let (last, _) = advance(running, "loader", 1000)?;
    Ok((last - first) as f64 / start.elapsed().as_secs_f64())
}

/// A driver dies ten times with requests at a slow device. The device is stopped before anybody else gets what the driver had: a guest that gets nearly all
/// free memory finds it as it left it, and so does the guest whose requests they were.
fn dma_of_the_dead() -> Result<()> {
    let slow = ["-set", "drive.disk0.throttling.iops-total=400"];
    let mut running = Scenario::system("dma-death", MachineKind::Virt, 2).seconds(180).qemu(&slow).boot()?;
    for life in 0..10 {
        advance(&mut running, "loader", 30).with_context(|| format!("life {life}"))?;
        let mark = running.mark();
        running.send("reboot block\r")?;
        running.send("create neighbour\r")?;
        running.wait_after(mark, r#"guest "block": rebooted by the operator"#)?;
        for _ in 0..2 {
            let mark = running.mark();
            let line = running.wait_after(mark, r"^\[neighbour\] (healthy|NOTICED|panicked)");
            ensure!(line.with_context(|| format!("life {life}"))?.contains("healthy"), "life {life}");
        }
        let mark = running.mark();
        running.send("destroy neighbour\r")?;
        running.wait_after(mark, r#"guest "neighbour": destroyed"#)?;
    }
    let (_, lost) = advance(&mut running, "loader", 100)?;
    ensure!(lost >= 10, "the driver was lost {lost} times only");
    running.never(r"NOTICED|FAIL|panicked|does not stop")
}

/// A guest fills the log: it is limited, no line is broken, and the machine goes on.
fn flood(cpus: u32) -> Result<()> {
    let mut running = Scenario::system("flood", MachineKind::Virt, cpus).boot()?;
    running.wait(r#"^portico: guest "hostile": exited with code 0$"#)?;
    healthy(&mut running)?;
    let whole = running.all(r"^\[hostile\] flood$")?.len();
    let any = running.all("flood")?.len();
    ensure!(whole > 100 && whole == any, "{}{whole} of {any} lines of the flood are whole", running.last_lines());
    Ok(())
}

/// A million calls in all, by two guests at once.
fn fuzz(cpus: u32) -> Result<()> {
    let mut running = Scenario::system("fuzz", MachineKind::Virt, cpus).seconds(180).boot()?;
    running.tap("one")?;
    running.tap("two")?;
    healthy(&mut running)
}
