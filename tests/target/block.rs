//! Disks: a verified load, the death of the block service and of guests under it, the machine's power cut off, limits, and guests that lie.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use portico_ctl::MachineKind;
use portico_tests::{Machine, Random, Scenario};

use crate::boot::name;
use crate::trial;

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for machine in [MachineKind::Virt, MachineKind::VirtGicv2] {
        trials.push(trial(format!("block::load_{}_2", name(machine)), move || load(machine)));
    }
    trials.push(trial("block::features_virt_2", features));
    trials.push(trial("block::limits_virt_2", limits));
    trials.push(trial("block::service_killed_virt_2", service_killed));
    trials.push(trial("block::guest_killed_virt_2", guest_killed));
    trials.push(trial("block::power_cut_virt_2", power_cut));
    trials.push(trial("block::lying_guest_virt_2", lying_guest));
    trials.push(trial("block::lying_service_virt_2", lying_service));
    trials
}

/// The next line of a load that comes after `mark`: how many requests it has done, and how often it has lost the service.
fn progress(running: &mut Machine, mark: usize, guest: &str) -> Result<(u64, u64)> {
    let line = running.wait_after(mark, &format!(r"^\[{guest}\] (load: \d+ done|FAIL)"))?;
    let numbers: Vec<u64> = line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    match numbers.as_slice() {
        [done, lost, ..] if !line.contains("FAIL") => Ok((*done, *lost)),
        _ => bail!("{}{line}", running.last_lines()),
    }
}

/// Waits until a load has done `count` requests more.
pub fn advance(running: &mut Machine, guest: &str, count: u64) -> Result<(u64, u64)> {
    let mark = running.mark();
    let (before, _) = progress(running, mark, guest)?;
    loop {
        let mark = running.mark();
        let (done, lost) = progress(running, mark, guest)?;
        if done >= before + count {
            return Ok((done, lost));
        }
    }
}

fn load(machine: MachineKind) -> Result<()> {
    let mut running = Scenario::system("disk-load", machine, 2).seconds(90).boot()?;
    let (_, lost) = advance(&mut running, "loader", 5000)?;
    ensure!(lost == 0, "the service was lost {lost} times, though nothing happened");
    let (_, lost) = advance(&mut running, "small", 1000)?;
    ensure!(lost == 0, "the service was lost {lost} times, though nothing happened");
    running.never("FAIL|panicked|guest \"block\"")
}

fn features() -> Result<()> {
    let mut running = Scenario::system("disk-features", MachineKind::Virt, 2).seconds(90).boot()?;
    running.tap("features")?;
    running.wait(r"^\[owner\] disk disk0: PASS")?;
    running.wait(r#"^\[block\] features: disk "taken": refused: .*"owner""#)?;
    running.wait(r#"^\[block\] thief: disk "disk0": refused: .*"(owner|features)""#)?;
    running.wait(r"^\[thief\] FAIL .*Refused\(4\)").map(drop)
}

fn limits() -> Result<()> {
    let mut running = Scenario::system("disk-limits", MachineKind::Virt, 2).seconds(90).boot()?;
    running.tap("limits").map(drop)
}

/// The service dies a hundred times while two guests write and verify, and is told to hang once.
fn service_killed() -> Result<()> {
    let mut running = Scenario::system("disk-load", MachineKind::Virt, 2).seconds(300).boot()?;
    let mut random = Random(0x00d1_5c00);
    advance(&mut running, "loader", 100)?;
    for life in 0..100 {
        let mark = running.mark();
        running.send("reboot block\r")?;
        // Its next life has served a request: some lives end right then, some later.
        if life % 8 == 7 {
            // The next life dies while it begins.
            std::thread::sleep(Duration::from_millis(random.below(50)));
            running.send("reboot block\r")?;
        }
        running.wait_after(mark, r"^\[loader\] (load: served again|FAIL)").with_context(|| format!("life {life}"))?;
        std::thread::sleep(Duration::from_millis(random.below(100)));
    }
    let (_, lost) = advance(&mut running, "loader", 1000)?;
    ensure!(lost >= 300, "the service was lost {lost} times only, by four queues");
    advance(&mut running, "small", 1000)?;
    // So little time that it shows no beat: the manager takes it for hung.
    let mark = running.mark();
    running.send("sched block reserve=10/10000000\r")?;
    running.wait_after(mark, r#"guest "block": watchdog expired"#)?;
    running.send("sched block reserve=0 weight=1024\r")?;
    advance(&mut running, "loader", 1000)?;
    advance(&mut running, "small", 1000)?;
    running.send("list\r")?;
    running.wait(r"^block +\d+ +running")?;
    running.wait(r"^loader +\d+ +running")?;
    running.never(r#"FAIL|panicked|guest "(loader|small)":"#).context("while the service died")
}

/// A guest dies twenty times with requests in flight: each life finds nothing of the last in its window, and is served; another guest's load goes on.
fn guest_killed() -> Result<()> {
    let mut running = Scenario::system("disk-lives", MachineKind::Virt, 2).seconds(150).boot()?;
    let mut random = Random(0x11fe);
    for life in 0..20 {
        running.wait_after(running.mark(), r"^\[mortal\] (load: \d|FAIL)").with_context(|| format!("life {life}"))?;
        std::thread::sleep(Duration::from_millis(random.below(100)));
        let mark = running.mark();
        running.send("reboot mortal\r")?;
        // Else a line of this life could be taken for one of the next.
        running.wait_after(mark, r#"guest "mortal": rebooted by the operator"#)?;
    }
    advance(&mut running, "mortal", 500)?;
    advance(&mut running, "loader", 500)?;
    // What a slow host's disk had in flight may land after the window was cleared: rarely, and it is the guest's own.
    let (fresh, late) = (running.all(r"^\[mortal\] load: nothing stale")?.len(), running.all("stale bytes")?.len());
    ensure!(fresh + late >= 21 && late <= 2, "{fresh} lives found nothing stale, {late} did");
    running.never(r#"FAIL|panicked|guest "block""#)
}

/// A guest that lies costs nobody but itself.
fn lying_guest() -> Result<()> {
    let mut running = Scenario::system("disk-raw", MachineKind::Virt, 2).seconds(150).boot()?;
    advance(&mut running, "loader", 100)?;
    let begin = running.all(r"^\[loader\] load: \d")?.len();
    running.tap("raw")?;
    // What the other guest did meanwhile: in each half second it was served.
    let lines: Vec<String> = running.all(r"^\[loader\] load: \d")?.into_iter().skip(begin).map(String::from).collect();
    let counts = lines.iter().filter_map(|line| line.split(' ').nth(2)?.parse::<u64>().ok());
    let counts: Vec<u64> = counts.collect();
    ensure!(counts.len() >= 4 && counts.is_sorted_by(|a, b| a < b), "it was kept from its disks: {counts:?}");
    advance(&mut running, "loader", 500)?;
    running.never(r#"FAIL|panicked|guest "(block|loader)""#)
}

/// A service that lies is noticed, and what it says in the end is believed again.
fn lying_service() -> Result<()> {
    let mut running = Scenario::system("disk-liar", MachineKind::Virt, 2).seconds(120).boot()?;
    running.tap("victim")?;
    running.wait(r#"guest "victim": exited with code 0"#)?;
    running.never(r#"panicked|guest "block""#)
}

/// What `tests/guests/disk` writes when it is told to be durable.
mod durable {
    pub const BLOCKS: u64 = 64;
    pub const PER_ROUND: u64 = 8;
    pub const MAGIC: u64 = 0x7261_6d73_6563_0001;

    /// The round that wrote a block last, of the first so many.
    pub fn last_round(block: u64, rounds: u64) -> Option<u64> {
        (1..=rounds).rev().find(|round| (block + BLOCKS - round * 5 % BLOCKS) % BLOCKS < PER_ROUND)
    }
}

/// The machine ends twenty times while a guest writes and flushes: what was said to be durable is there, even if the disk loses all
/// that it took after the last flush that reached it.
fn power_cut() -> Result<()> {
    let mut random = Random(0xd15c);
    let folder = tempfile::tempdir()?;
    for time in 0..20 {
        let image = folder.path().join(format!("{time}.img"));
        let log = folder.path().join(format!("{time}.log"));
        std::fs::File::create(&image)?.set_len(1 << 20)?;
        std::fs::File::create(&log)?;
        // QEMU writes down what reaches the disk, flushes too.
        let log_name = format!("drive.disk0.log.filename={}", log.display());
        let options =
            ["-set", "drive.disk0.format=blklogwrites", "-set", "drive.disk0.log.driver=file", "-set", &log_name];
        let mut running =
            Scenario::system("disk-durable", MachineKind::Virt, 2).disk("data", &image).qemu(&options).boot()?;
        running.wait(r"^\[writer\] flushed \d")?;
        let end = Instant::now() + Duration::from_millis(random.below(600));
        while Instant::now() < end {
            running.wait_after(running.mark(), r"^\[writer\] (flushed|FAIL)")?;
        }
        std::thread::sleep(Duration::from_micros(random.below(20_000)));
        running.kill();
        let said = running.all(r"^\[writer\] flushed \d")?;
        let flushed = said.last().and_then(|line| line.rsplit(' ').next()?.parse().ok()).context("no number")?;
        running.never("FAIL")?;
        check_durable(&std::fs::read(&image)?, flushed).context("in the file")?;
        check_durable(&replay(&std::fs::read(&log)?)?, flushed).context("if what was not flushed is lost")?;
    }
    Ok(())
}

fn word(bytes: &[u8], at: usize) -> Result<u64> {
    let chunk = bytes.get(at..).and_then(|rest| rest.first_chunk()).context("it ends in the middle")?;
    Ok(u64::from_le_bytes(*chunk))
}

/// Looks for everything that `flushed` rounds wrote.
fn check_durable(image: &[u8], flushed: u64) -> Result<()> {
    for block in 0..durable::BLOCKS {
        let Some(round) = durable::last_round(block, flushed) else { continue };
        for sector in block * 8..block * 8 + 8 {
            let bytes = image.get(sector as usize * 512..).and_then(|rest| rest.get(..512)).context("too short")?;
            let words: Vec<u64> = (0..64).map(|index| word(bytes, index * 8)).collect::<Result<_>>()?;
            let is_whole = words.iter().fold(0, |sum, word| u64::wrapping_add(sum, *word)) == 0;
            // A later round may have been about to write it.
            let is_it = words[0] == durable::MAGIC && words[1] == sector && words[2] >= round && is_whole;
            ensure!(is_it, "sector {sector} of round {round} is {:x?} after `flushed {flushed}`", &words[..4]);
        }
    }
    Ok(())
}

/// What is on a disk that kept only what it had when it was flushed last. (QEMU's `blklogwrites` and Linux' dm-log-writes: a sector
/// for the log, then for each request a sector and its data.)
fn replay(log: &[u8]) -> Result<Vec<u8>> {
    const FLUSH: u64 = 1;
    const DISCARD: u64 = 4;
    ensure!(word(log, 0)? == 0x006a_7366_7773_6872, "this is no log of writes");
    let entries = word(log, 16)?;
    let (mut image, mut durable) = (vec![0; 1 << 20], Vec::new());
    let (mut at, mut flushes) = (512, 0);
    for _ in 0..entries {
        let [sector, sectors, flags] = [word(log, at)?, word(log, at + 8)?, word(log, at + 16)?];
        at += 512;
        let bytes = if flags & DISCARD == 0 { sectors as usize * 512 } else { 0 };
        let data = log.get(at..at + bytes).context("the log ends in the middle")?;
        let place = sector as usize * 512;
        image.get_mut(place..place + bytes).context("behind the end of the disk")?.copy_from_slice(data);
        at += bytes;
        if flags & FLUSH != 0 {
            durable.clone_from(&image);
            flushes += 1;
        }
    }
    ensure!(flushes > 0, "no flush has reached the disk");
    Ok(durable)
}
