//! The library for C: its front-ends with a verified disk, frames, and the example, while the services die; and what it prints.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use portico_ctl::MachineKind;
use portico_tests::{Machine, Random, Scenario};

use crate::block::advance;
use crate::boot::name;
use crate::net::number;
use crate::trial;

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (machine, cpus) in [(MachineKind::Virt, 2), (MachineKind::VirtGicv2, 1)] {
        let name = format!("devices_c::serve_and_survive_{}_{cpus}", name(machine));
        trials.push(trial(name, move || serve_and_survive(machine, cpus)));
    }
    trials.push(trial("devices_c::lying_service_virt_2", lying_service));
    trials.push(trial("devices_c::text_is_formatted", text));
    trials
}

/// A service that lies is noticed, and what it says in the end is believed again.
fn lying_service() -> Result<()> {
    let mut running = Scenario::system("devices-c-liar", MachineKind::Virt, 2).seconds(120).boot()?;
    running.wait(r"^\[victim\] \d+ refused, \d+ failed, \d+ lost|FAIL")?;
    running.wait(r#"guest "victim": exited with code 0"#)?;
    running.never(r#"FAIL|panicked|guest "block""#)
}

/// What the library prints for C.
fn text() -> Result<()> {
    let description = "[[guest]]\nname = \"format\"\nkernel = \"test:format-c\"\nmemory = \"4M\"\n";
    let mut running = Scenario::written(description, MachineKind::Virt, 1).icount().boot()?;
    running.tap("format")?;
    running.wait(r"^\[format\] printed$").map(drop)
}

/// Services that are killed.
const KILLS: usize = 25;

/// The next line of a guest that pings another, by frames or by echoes: how many were answered, and how often it has lost the service.
fn pinged(running: &mut Machine, guest: &str) -> Result<(u64, u64)> {
    let mark = running.mark();
    let line = running.wait_after(mark, &format!(r"^\[{guest}\] (pinged \d|\d+ echoes|failed)"))?;
    Ok((number(&line, r"(?:pinged )?(\d+)")?, number(&line, r"lost (?:\D*)(\d+) times")?))
}

fn serve_and_survive(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("devices-c", machine, cpus).seconds(120).boot()?;
    running.wait(r"^\[example\] 2048 sectors, the first begins with")?;
    running.wait(r"^\[example\] answers pings")?;
    for guest in ["loader", "small"] {
        let (_, lost) = advance(&mut running, guest, 500)?;
        ensure!(lost == 0, "{guest} lost the service {lost} times, though nothing happened");
    }
    for guest in ["ping", "asker"] {
        let (_, lost) = pinged(&mut running, guest)?;
        ensure!(lost == 0, "{guest} lost the service {lost} times, though nothing happened");
    }
    let mut random = Random(0x000c_0de5);
    for life in 0..KILLS {
        let mark = running.mark();
        running.send("reboot block\r")?;
        std::thread::sleep(Duration::from_millis(random.below(60)));
        running.send("reboot net\r")?;
        for guest in ["loader", "small"] {
            let served = format!(r"^\[{guest}\] (load: served again|FAIL)");
            let line = running.wait_after(mark, &served).with_context(|| format!("life {life}"))?;
            ensure!(!line.contains("FAIL"), "life {life}: {line}");
        }
        std::thread::sleep(Duration::from_millis(random.below(150)));
    }
    for guest in ["loader", "small"] {
        let (_, lost) = advance(&mut running, guest, 500)?;
        ensure!(lost as usize >= KILLS, "{guest} has lost the service {lost} times only");
    }
    for guest in ["ping", "asker"] {
        let (before, lost) = pinged(&mut running, guest)?;
        // It looks when it asks: lives that end in between are one loss to it.
        ensure!(lost as usize >= KILLS / 5, "{guest} has lost the service {lost} times only");
        // It says the same again if it has to ask again.
        while pinged(&mut running, guest)?.0 <= before {}
    }
    running.never(r#"FAIL|failed|panicked|guest "(loader|small|echo|ping|example|asker)":"#)
}
