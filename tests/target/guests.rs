//! What the manager does about guests that end or hang, and how guests are loaded.

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use portico_ctl::MachineKind;
use portico_tests::{Machine, Scenario, scenario};
use xtask::project;

use crate::trial;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("guests::watchdog_ends_a_guest_without_a_heartbeat", watchdog),
        trial("guests::crash_preserve_keeps_it", preserve),
        trial("guests::crash_destroy_and_orderly_end", destroy),
        trial("guests::restart_backs_off_up_to_its_limit", limit),
        trial("guests::restart_goes_on_beyond_a_window", window),
        trial("guests::ramdisk_is_the_guests_to_read", ramdisk),
        trial("guests::arm64_image_boots", image),
    ]
}

/// With instructions counted, time that all processors idle costs nothing, and the host's load changes nothing.
fn boot(system: &'static str) -> Result<Machine> {
    Scenario::system(system, MachineKind::Virt, 1).icount().boot()
}

fn watchdog() -> Result<()> {
    let mut running = boot("watchdog")?;
    running.wait(r#"guest "watched": watchdog expired, no heartbeat for 300 ms"#)?;
    running.wait(r#"guest "asking": watchdog expired, no heartbeat for 250 ms"#)?;
    running.wait(r#"guest "spinning": watchdog expired, no heartbeat for 200 ms"#)?;
    running.wait(r#"guest "watched": restarts in 100 ms \(restart 1\)"#)?;
    let mark = running.mark();
    running.wait_after(mark, r"^\[watched\] born")?;
    running.wait_after(mark, r#"guest "watched": watchdog expired"#)?;
    ensure!(running.all(r"^\[watched\] ending")?.len() >= 2, "its 20 heartbeats did not keep it alive");
    ensure!(running.all(r"^\[asking\] born")?.len() == 1, "it was not to be restarted");
    running.wait(r#"guest "kept": kept for inspection"#)?;
    running.send("list\r")?;
    running.wait(r"^kept +\d+ +crashed")?;
    // Long after.
    running.wait(r"^\[neighbour\] healthy 6")?;
    running.never(r#"guest "neighbour": watchdog|NOTICED"#)
}

fn preserve() -> Result<()> {
    let mut running = boot("crash")?;
    running.wait(r#"guest "kept": vCPU 0 stage-2 fault, write to IPA 0xa000000, pc 0x4"#)?;
    running.wait(r#"guest "kept": kept for inspection; `info kept`, `destroy kept`"#)?;
    running.send("list\r")?;
    running.wait(r"^kept +\d+ +crashed")?;
    let mark = running.mark();
    running.send("info kept\r")?;
    running.wait_after(mark, r"^last end +.*stage-2 fault, write to IPA 0xa000000")?;
    running.wait_after(mark, r"^hypervisor +\d+ of \d+ pages used, 4.0M mapped")?;
    running.wait(r"^\[neighbour\] healthy 3")?;
    ensure!(running.all(r"^\[kept\] born")?.len() == 1, "it was restarted");
    // Its memory comes back when the operator has seen enough, and it can start anew.
    running.send("destroy kept\r")?;
    running.wait(r#"guest "kept": destroyed"#)?;
    let mark = running.mark();
    running.send("create kept\r")?;
    running.wait_after(mark, r"^\[kept\] born")?;
    running.never("NOTICED")
}

fn destroy() -> Result<()> {
    let mut running = boot("crash")?;
    running.wait(r#"guest "destroyed": panicked, code 4"#)?;
    running.wait(r#"guest "orderly": exited with code 0"#)?;
    running.wait(r"^\[neighbour\] healthy 3")?;
    for guest in ["destroyed", "orderly"] {
        ensure!(running.all(&format!(r"^\[{guest}\] born"))?.len() == 1, "{guest} was restarted");
        let mark = running.mark();
        running.send("list\r")?;
        running.wait_after(mark, &format!(r"^{guest} +\d+ +- "))?;
    }
    running.never(r#"guest "(destroyed|orderly)": (restart|kept)"#)
}

fn limit() -> Result<()> {
    let mut running = boot("crash")?;
    running.wait(r#"guest "failing": restarted 3 times in 60 s, not again; `create failing` starts it"#)?;
    let waits = running.all(r#"guest "failing": restarts in \d+ ms"#)?;
    let wanted = ["100 ms (restart 1)", "200 ms (restart 2)", "400 ms (restart 3)"];
    ensure!(waits.iter().zip(wanted).filter(|(line, wait)| line.ends_with(wait)).count() == 3, "{waits:?}");
    ensure!(waits.len() == 3, "{waits:?}");
    ensure!(running.all(r"^\[failing\] born")?.len() == 4, "not once by itself and three times anew");
    ensure!(running.all(r#"guest "failing": exited with code 3"#)?.len() == 4);
    // 700 ms of waiting: the neighbour prints twice a second.
    ensure!(!running.all(r"^\[neighbour\] healthy")?.is_empty(), "it was not waited");
    running.wait(r#"guest "rebooting": restarted 2 times in 60 s, not again"#)?;
    ensure!(running.all(r#"guest "rebooting": restarts in 0 ms"#)?.len() == 2, "a reboot does not wait");
    // The operator starts it anew, with a fresh count.
    let mark = running.mark();
    running.send("create failing\r")?;
    running.wait_after(mark, r#"guest "failing": restarts in 100 ms \(restart 1\)"#).map(drop)
}

fn window() -> Result<()> {
    let mut running = boot("crash")?;
    running.wait(r#"guest "seldom": restarts in \d+ ms \(restart 5\)"#)?;
    running.never(r#"guest "seldom": restarted"#)
}

fn ramdisk() -> Result<()> {
    let disk = std::fs::read(project::root().join("tests/systems/ramdisk.toml"))?;
    let sum = disk.iter().zip(1_u64..).fold(0, |sum: u64, (&byte, at)| sum.wrapping_add(u64::from(byte) * at));
    let first = disk.split(|&byte| byte == b'\n').next().context("no line")?;
    let first = regex::escape(std::str::from_utf8(first)?);
    let mut running = boot("ramdisk")?;
    running.wait(&format!(r"^\[disk\] RAM disk of {} bytes, sum {sum}: {first}$", disk.len()))?;
    running.wait(r#"guest "disk": exited with code 0"#).map(drop)
}

/// The same guest as an ELF file and as a flat image, with a RAM disk that is not text.
const IMAGES: &str = r#"
[[guest]]
name = "flat"
kernel = "flat.img"
memory = "4M"
ramdisk = "disk"

[[guest]]
name = "elf"
kernel = "test:life"
memory = "4M"
"#;

fn image() -> Result<()> {
    let flat = scenario::guest_image("test/life")?;
    ensure!(flat.get(56..60) == Some(b"ARM\x64"), "no header");
    let scenario = Scenario::written(IMAGES, MachineKind::Virt, 1).icount();
    let mut running = scenario.file("flat.img", flat).file("disk", vec![0xff; 4097]).boot()?;
    // 255 times the sum of 1 to 4097.
    running.wait(r"^\[flat\] RAM disk of 4097 bytes, sum 2140662015: ")?;
    running.wait_all(&[r"^\[elf\] born, 1 vCPUs", r"^\[flat\] born, 1 vCPUs"])?;
    running.wait_all(&[r#"guest "flat": exited with code 0"#, r#"guest "elf": exited with code 0"#])
}
