//! Attacks on what guests and services share, each way by itself: the windows of consoles and of network interfaces. Beside whoever attacks run others, whose
//! lines and frames are verified.

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use portico_ctl::MachineKind;
use portico_tests::{Machine, Scenario};

use crate::boot::name;
use crate::console::{SWITCH, focus, in_order};
use crate::net::number;
use crate::trial;

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for cpus in [1, 4] {
        trials.push(trial(format!("attacks::console_on_guests_virt_{cpus}"), move || console_on_guests(cpus)));
        trials.push(trial(format!("attacks::offload_that_makes_no_sense_virt_{cpus}"), move || offload(cpus)));
    }
    for (machine, cpus) in [(MachineKind::Virt, 1), (MachineKind::Virt, 4), (MachineKind::Raspi4b, 4)] {
        let name = name(machine);
        trials.push(trial(format!("attacks::guest_on_console_{name}_{cpus}"), move || guest_on_console(machine, cpus)));
    }
    trials
}

/// Longest that a print takes, in milliseconds: the SDK waits for a second, and begins anew when 64 bytes were taken.
const SLOWEST: u64 = 2000;
/// The same of Linux, which waits for 200 ms.
const SLOWEST_OF_LINUX: u64 = 800;

/// The number of the next line of a victim, which must not have been held up.
fn next_line(running: &mut Machine, mark: usize, (guest, limit): (&str, u64)) -> Result<u64> {
    let line = running.wait_after(mark, &format!(r"^\[{guest}\] line \d+, slowest \d+ ms \.+$"))?;
    let slowest = number(&line, r"slowest (\d+)")?;
    ensure!(slowest < limit, "{}a print of {guest} took {slowest} ms", running.last_lines());
    number(&line, r"line (\d+)")
}

/// A console service that lies to guests. No print is held up for long, no guest reaches beyond its window, none begins anew, and all write again as soon
/// as it serves.
fn console_on_guests(cpus: u32) -> Result<()> {
    let running = Scenario::system("hostile-screen", MachineKind::Virt, cpus).seconds(90).boot()?;
    lies(running, [("rust", SLOWEST), ("c", SLOWEST)])
}

/// The same with a Linux guest.
pub fn console_on_linux(machine: MachineKind, cpus: u32) -> Result<()> {
    let running = Scenario::system("linux-hostile-screen", machine, cpus).seconds(120).boot()?;
    lies(running, [("linux", SLOWEST_OF_LINUX), ("c", SLOWEST)])
}

/// What two victims show of each lie.
fn lies(mut running: Machine, victims: [(&str, u64); 2]) -> Result<()> {
    let mut lines = [0; 2];
    for lie in [
        "TailAhead",
        "TailBack",
        "TailFlips",
        "TakesNothing",
        "TakesDrops",
        "InputAhead",
        "InputBack",
        "InputChanges",
        "Wants",
        "GuestsWords",
        "Scribbles",
        "Storms",
    ] {
        running.wait(&format!("^lie: {lie}$"))?;
        running.wait(&format!("^served after {lie}$"))?;
        let mark = running.mark();
        for (last, victim) in lines.iter_mut().zip(victims) {
            let (guest, _) = victim;
            let line = next_line(&mut running, mark, victim).with_context(|| format!("{guest} after {lie}"))?;
            ensure!(line > *last, "{guest} was at line {last} and is at {line} after {lie}");
            *last = line;
        }
    }
    running.wait("^no more lies$")?;
    let mark = running.mark();
    for _ in 0..3 {
        let mark = running.mark();
        running.wait_after(mark, r"^\[neighbour\] healthy \d+")?;
    }
    for (guest, _) in victims {
        let shown = running.lines_after(mark).iter().filter(|line| line.starts_with(&format!("[{guest}] line ")));
        let numbers: Vec<u64> = shown.map(|line| number(line, r"line (\d+)")).collect::<Result<_>>()?;
        let in_order = numbers.iter().zip(numbers.iter().skip(1)).all(|(a, b)| a + 1 == *b);
        ensure!(numbers.len() > 20 && in_order, "lines of {guest}: {numbers:?}");
    }
    running.never("NOTICED|panicked")
}

/// Ways of the guest that attacks the console service.
const WAYS: &[&str] = &["flips", "ahead", "back", "rewrites", "scribbles", "storms", "spoofs", "wraps", "neverreads"];

/// A guest that attacks the console service. After each of its ways its own lines are shown, the operator is answered, and of another guest no line is lost
/// or mixed up at any time.
fn guest_on_console(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("hostile-talker", machine, cpus).seconds(90).boot()?;
    for way in WAYS {
        if *way == "neverreads" {
            running.wait(r"^\[hostile\] type 700$")?;
            type_to(&mut running, "hostile", &[b'k'; 700])?;
            let line = running.wait(r"^\[hostile\] read \d+, \d+ of them as typed$")?;
            ensure!(line.ends_with("read 512, 512 of them as typed"), "{line}");
        }
        running.wait(&format!(r"^\[hostile\] {way} done$"))?;
        let lines = running.all(&format!(r"^\[hostile\] {way} line \d\d$"))?;
        let wanted: Vec<String> = (0..20).map(|line| format!("[hostile] {way} line {line:02}")).collect();
        ensure!(lines == wanted, "{}lines after it {way}: {lines:?}", running.last_lines());
        let mark = running.mark();
        running.send("list\r")?;
        running
            .wait_after(mark, r"^one +\d+ +running +\d+ +\S+ +\S+ +0 ")
            .with_context(|| format!("`list` after it {way}"))?;
    }
    // Its indices were there, and went round.
    running.wait(r"^\[hostile\] 0xffffff38$")?;
    running.wait(r"^\[hostile\] type 100$")?;
    type_to(&mut running, "hostile", &[b'z'; 100])?;
    let mark = running.mark();
    running.wait(r"^\[hostile\] in the middle of a line$")?;
    running.wait(r#"^portico: guest "hostile": panicked, code 3"#)?;
    running.wait_after(mark.saturating_sub(1), r"^\[hostile\] second life, 0 bytes unread$")?;
    in_order(&mut running, "one", 100)?;
    // With the screen it writes without its name.
    type_to(&mut running, "one", b"are you there\r")?;
    running.wait(r"^(\[one\] )?heard are you there")?;
    running.wait(r"^\[neighbour\] healthy \d+")?;
    running.never(r#"^portico: guest "(one|console|neighbour)"|NOTICED"#)
}

/// Gives a guest the keyboard, types, and takes it away.
fn type_to(running: &mut Machine, guest: &str, bytes: &[u8]) -> Result<()> {
    focus(running, guest)?;
    let mark = running.mark();
    running.send_bytes(bytes)?;
    running.send_bytes(&[SWITCH])?;
    running.wait_after(mark, "keyboard of the manager").map(drop)
}

/// Frames that a guest sends to each of its peers before it lies: so many, and what becomes of them where nothing is left.
const GOOD: u64 = 2 * 10;
const MADE: u64 = (3 + 1) * 10;
/// Headers that do not fit, of which a peer gets none: 24 kinds, 10 times, for two peers; one for everyone.
const BAD: u64 = 24 * 10 * 2 + 1;

/// A guest leaves to others what makes no sense. Nobody gets anything of it, neither who takes what is left nor for whom all is done; two others go on.
fn offload(cpus: u32) -> Result<()> {
    let mut running = Scenario::system("net-twist", MachineKind::Virt, cpus).seconds(90).boot()?;
    running.wait(r"^\[takes\] net0 is up, features 3$")?;
    running.wait(r"^\[whole\] net0 is up, features 0$")?;
    running.wait(r"^\[ping\] pinged \d+ times")?;
    running.send("create twister\r")?;
    let line = running.wait(r"^\[twister\] (twisted|failed)")?;
    ensure!(line == format!("[twister] twisted {BAD}: {BAD} refused, {} sent", 2 * GOOD), "{line}");
    let mark = running.mark();
    for (guest, count, left) in [("takes", GOOD, GOOD), ("whole", MADE, 0)] {
        running
            .wait_after(mark, &format!(r"^\[{guest}\] checked {count} frames, {left} with something left, 0 wrong$"))?;
    }
    running.send("create breaker\r")?;
    let line = running.wait(r"^\[breaker\] (broke|failed)")?;
    let (broke, left) = (number(&line, r"broke (\d+)")?, number(&line, r"left (\d+)")?);
    ensure!(broke == left && broke > 0, "{line}");
    let line = running.wait(r"^\[breaker\] (raced|failed)")?;
    ensure!(number(&line, r"with (\d+)")? > 100 && line.ends_with("two vCPUs"), "{line}");
    running.wait(r"^\[breaker\] twisting is done$")?;
    let mark = running.mark();
    for guest in ["takes", "whole"] {
        let line = running.wait_after(mark, &format!(r"^\[{guest}\] checked "))?;
        ensure!(number(&line, r"checked (\d+)")? > MADE && line.ends_with(" 0 wrong"), "{line}");
    }
    let line = running.wait_after(mark, r"^\[ping\] (pinged|failed)")?;
    ensure!(line.contains("service lost 0 times"), "{line}");
    running.never(r#"NOTICED|panicked|failed|guest "net":"#)
}
