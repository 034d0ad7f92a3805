//! The manager ends, and is begun anew while guests run.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use portico_ctl::MachineKind;
use portico_tests::{Machine, Random, Scenario};

use crate::boot::name;
use crate::trial;

/// What it says when it has taken over what its last life left.
const ANEW: &str = r"^portico: manager was restarted \(restart \d+\), took over \d+ guests and \d+ services";

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (machine, cpus) in [(MachineKind::Virt, 2), (MachineKind::VirtGicv2, 1), (MachineKind::Raspi4b, 4)] {
        trials.push(trial(format!("manager::ends_{}_{cpus}", name(machine)), move || ends(machine, cpus)));
    }
    for machine in [MachineKind::Virt, MachineKind::VirtGicv2] {
        let name = name(machine);
        trials.push(trial(format!("manager::dies_under_load_{name}_2"), move || under_load(machine)));
        trials.push(trial(format!("manager::dies_again_and_again_{name}_2"), move || while_it_takes_over(machine)));
    }
    trials.push(trial("manager::hangs", hangs));
    trials.push(trial("manager::policies_go_on", policies));
    trials.push(trial("manager::knows_what_the_operator_did", operator));
    trials.push(trial("manager::ends_at_once", at_once));
    trials.push(trial("manager::ends_often", often));
    trials.push(trial("manager::has_room_for_many_guests", many));
    trials
}

/// Ends it, and waits until it is there again.
fn end(running: &mut Machine) -> Result<()> {
    let mark = running.mark();
    running.send("panic\r")?;
    running.wait_after(mark, ANEW).map(drop)
}

/// Twenty ends at odd moments, while two guests exchange messages and a third is restarted.
fn ends(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("manager", machine, cpus).seconds(180).boot()?;
    running.wait_all(&[r"^\[ping\] connected", r"^\[crasher\] running"])?;
    for round in 0..20u64 {
        // Somewhere in the crasher's life, or its end, or the building of its next one.
        running.take_for(Duration::from_millis(1000 + round * 7919 % 409));
        end(&mut running)?;
    }
    let mark = running.mark();
    running.wait_after(mark, r"^\[crasher\] running")?;
    running.wait_after(mark, r"^\[ping\] ping \d+: answer")?;
    running.send("list\r")?;
    for guest in ["pong", "ping"] {
        running.wait_after(mark, &format!(r"^{guest} +\d+ +running +1 +8M +\S+ +0 "))?;
    }
    let line = running.wait_after(mark, r"^crasher +\d+ +\w+ +1 +8M ")?;
    let restarts: u32 = line.split_whitespace().nth(6).context("a short line")?.parse()?;
    let seen = running.all(r#"guest "crasher": restarts in"#)?.len() as u32;
    ensure!(restarts >= 5 && restarts.abs_diff(seen) <= 1, "{restarts} restarts in the list, {seen} seen");
    running.send("create two\r")?;
    running.wait_after(mark, r"^\[two\] healthy 2")?;
    end(&mut running)?;
    let numbers = running.all(r"^\[ping\] ping \d+: answer")?;
    let numbers: Vec<u64> = numbers.iter().filter_map(|line| line.split([' ', ':']).nth(2)?.parse().ok()).collect();
    // A message that is lost would be waited for in vain.
    let is_whole = numbers.windows(2).all(|pair| pair[1] == pair[0] + 1);
    ensure!(numbers.len() > 20 && is_whole, "lines are missing: {numbers:?}");
    running.never(r#"guest "(ping|pong|two)": (vCPU|panicked|exited|restarts)|the peer is gone"#)?;
    for guest in ["ping", "pong", "two", "crasher"] {
        running.send(&format!("destroy {guest}\r"))?;
    }
    balanced(&mut running)
}

/// Guests of which each can be started; two are.
const MANY: usize = 200;

/// It knows many guests: its heap grows for them, its next life has as much, and in the end only that is missing.
fn many() -> Result<()> {
    let guests = (0..MANY).map(|n| {
        let autostart = n < 2;
        format!(
            "[[guest]]\nname = \"guest-{n}\"\nkernel = \"test:neighbour\"\nmemory = \"8M\"\nautostart = {autostart}\n"
        )
    });
    let head = "[system]\nmemory = \"256M\"\n[manager]\ncmdline = \"portico.exit_when_idle\"\n";
    let text: String = std::iter::once(head.to_string()).chain(guests).collect();
    let mut running = Scenario::written(text.leak(), MachineKind::VirtGicv2, 2).boot()?;
    running.wait_all(&[r"^\[guest-0\] healthy 1", r"^\[guest-1\] healthy 1"])?;
    let before = heap_kib(&mut running)?;
    ensure!(before > 128, "{before}K of heap: it did not grow");
    end(&mut running)?;
    let after = heap_kib(&mut running)?;
    ensure!(after >= before, "{after}K of heap after {before}K");
    let mark = running.mark();
    running.send(&format!("create guest-{}\r", MANY - 1))?;
    running.wait_after(mark, &format!(r"^\[guest-{}\] healthy 1", MANY - 1))?;
    let mark = running.mark();
    running.send("list\r")?;
    running.wait_after(mark, &format!(r"^guest-{} +\d+ +running", MANY - 1))?;
    for guest in [0, 1, MANY - 1] {
        running.send(&format!("destroy guest-{guest}\r"))?;
    }
    balanced(&mut running)?;
    running.never(r"NOTICED|restart 2")
}

/// The manager's heap, as it says.
fn heap_kib(running: &mut Machine) -> Result<u64> {
    let mark = running.mark();
    running.send("info\r")?;
    let line = running.wait_after(mark, r"^manager .*K of \d+K heap used")?;
    let of = line.split(" of ").nth(1).and_then(|rest| rest.split('K').next());
    Ok(of.context("no heap")?.parse()?)
}

/// Signs of life of the guests of `manager-io`.
const SIGNS: [&str; 5] = [
    r"^\[loader\] load: \d+ done",
    r"^\[mortal\] load: \d+ done",
    r"^\[caller\] pinged \d+ times",
    r"^\[one\] line \d+$",
    r"^\[crasher\] running",
];

/// Thirty ends at random moments, by every cause, while disks and networks are in use, guests write and crash, and an operator reboots others.
fn under_load(machine: MachineKind) -> Result<()> {
    let mut running = Scenario::system("manager-io", machine, 2).seconds(300).boot()?;
    running.wait_all(&SIGNS)?;
    let mut random = Random(0x6d61_6e61);
    for round in 0..30 {
        running.take_for(Duration::from_millis(random.below(300)));
        let mark = running.mark();
        if round % 3 == 0 {
            running.send(["reboot mortal\r", "reboot crasher\r"][round / 3 % 2])?;
        }
        let microseconds = match round % 2 {
            // In the turn of the loop in which the command is read, or in a later one.
            0 => 1 + random.below(100),
            _ => 1 + random.below(20_000),
        };
        match round % 10 {
            9 => running.send("panic fault\r")?,
            8 => running.send("panic exit\r")?,
            7 => running.send("panic off\r")?,
            _ => running.send(&format!("panic {microseconds}\r"))?,
        }
        running.wait_after(mark, ANEW).with_context(|| format!("round {round}"))?;
    }
    let restarts = running.all(ANEW)?.len();
    ensure!(restarts == 30, "{restarts} restarts");
    unharmed(running)
}

/// Its lives end while they take over what earlier ones left half done: each a little earlier than the one before it.
fn while_it_takes_over(machine: MachineKind) -> Result<()> {
    let mut running = Scenario::system("manager-io", machine, 2).seconds(300).boot()?;
    running.wait_all(&SIGNS)?;
    let mut lives = 0;
    for (step_us, count) in [(400_000, 8), (30_000, 15), (5000, 15), (700, 15)] {
        running.send("reboot mortal\r")?;
        running.send(&format!("panic {step_us} {count}\r"))?;
        lives += count + 1;
        running.wait(&format!(r"^portico: manager was restarted \(restart {lives}\)"))?;
    }
    let silent = lives - running.all(ANEW)?.len();
    println!("{lives} lives, {silent} of them ended before they had taken over");
    ensure!(silent >= 5 && silent + 5 <= lives, "{silent} of {lives} lives ended before they had taken over");
    unharmed(running)
}

/// The guests of `manager-io` are as their policies want them, those that nobody ended have noticed nothing, and all memory comes back.
fn unharmed(mut running: Machine) -> Result<()> {
    running.wait(r#"guest "limited": restarted 3 times in 3600 s, not again"#)?;
    let mark = running.mark();
    for sign in SIGNS {
        running.wait_after(mark, sign)?;
    }
    let lines = running.all(r"^\[one\] line \d")?;
    for (wanted, line) in lines.iter().enumerate() {
        ensure!(line.ends_with(&format!(" line {wanted:06}")), "`{line}` where line {wanted} should be");
    }
    let last = |pattern: &str| -> Result<String> { Ok(running.all(pattern)?.last().context("no line")?.to_string()) };
    let (load, pings) = (last(r"^\[loader\] load: \d+ done")?, last(r"^\[caller\] pinged")?);
    ensure!(load.contains(" 0 lost"), "{load}");
    ensure!(pings.contains(", 0 again, service lost 0 times"), "{pings}");
    println!("{} lines, {load}, {pings}", lines.len());
    let mark = running.mark();
    running.send("list\r")?;
    for name in ["loader", "mortal", "echo", "caller", "one", "block", "net", "console"] {
        running.wait_after(mark, &format!(r"^{name} +\d+ +running +\d +\S+ +\S+ +0 "))?;
    }
    running.wait_after(mark, r"^limited +\d+ +- ")?;
    for guest in ["loader", "mortal", "echo", "caller", "one", "crasher"] {
        running.send(&format!("destroy {guest}\r"))?;
    }
    balanced(&mut running)?;
    let others = "loader|echo|caller|one|block|net|console";
    running.never(&format!(r#"FAIL|NOTICED|guest "({others})": (vCPU|panicked|exited|restarts|watchdog)"#))
}

/// What is free in the end is all but what services and consoles have, to the page; and the machine powers off.
fn balanced(running: &mut Machine) -> Result<()> {
    let balance = running.wait(r"\d+ of \d+ pages are free again")?;
    let numbers: Vec<u64> = balance.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
    ensure!(matches!(numbers[..], [free, all, held] if free + held == all), "{balance}");
    running.wait_off()
}

/// Watchdogs, restarts and what is kept for inspection are as they were.
fn policies() -> Result<()> {
    let mut running = Scenario::system("watchdog", MachineKind::VirtGicv2, 2).seconds(60).boot()?;
    let count = |line: &str| -> Result<u32> {
        let number = line.rsplit(' ').next().context("no number")?;
        Ok(number.trim_end_matches(')').parse()?)
    };
    let restarts = r#"guest "watched": restarts in \d+ ms \(restart \d+\)"#;
    running.wait_all(&[
        r#"guest "kept": kept for inspection"#,
        r#"guest "asking": watchdog expired"#,
        r#"guest "spinning": watchdog expired"#,
        restarts,
    ])?;
    end(&mut running)?;
    let mark = running.mark();
    let before = running.all(restarts)?.last().copied().context("no restart").and_then(count)?;
    // The last life may have left one half taken down.
    for gone in ["asking", "spinning"] {
        loop {
            let mark = running.mark();
            running.send("list\r")?;
            if running.wait_after(mark, &format!(r"^{gone} +\d+ +\S+ "))?.contains(" - ") {
                break;
            }
        }
    }
    running.wait_after(mark, r"^kept +\d+ +crashed +1 +4M +\S+ +0 ")?;
    running.wait_after(mark, r#"guest "watched": watchdog expired, no heartbeat for 300 ms"#)?;
    let line = running.wait_after(mark, restarts)?;
    let after = count(&line)?;
    ensure!(after == before + 1, "restart {after} after restart {before}");
    running.wait_after(mark, r"^\[neighbour\] healthy")?;
    running.never(r#"guest "neighbour": watchdog|NOTICED"#)
}

/// A manager that does nothing any more ends itself.
fn hangs() -> Result<()> {
    let mut running = Scenario::system("operator", MachineKind::Virt, 2).seconds(60).boot()?;
    running.wait(r"^\[neighbour\] healthy 1")?;
    running.send("panic hang\r")?;
    running.wait(&format!("{ANEW}; it hung"))?;
    let mark = running.mark();
    running.send("list\r")?;
    running.wait_after(mark, r"^neighbour +1 +running")?;
    running.never("NOTICED")
}

/// What is not in the description is known afterwards, and so is what was changed, paused and destroyed.
fn operator() -> Result<()> {
    let mut running = Scenario::system("operator", MachineKind::Virt, 2).seconds(90).boot()?;
    running.wait(r"^\[neighbour\] healthy 1")?;
    running.send("create three image=neighbour memory=12M vcpus=2\r")?;
    running.wait(r"^\[three\] healthy 1")?;
    running.send("sched three weight=77\r")?;
    running.send("pause neighbour\r")?;
    running.wait("is paused")?;
    end(&mut running)?;
    let mark = running.mark();
    running.send("list\r")?;
    running.wait_after(mark, r"^neighbour +1 +paused")?;
    running.wait_after(mark, r"^two +2 +- ")?;
    running.wait_after(mark, r"^three +3 +running +2 +12M")?;
    running.send("sched three\r")?;
    running.wait_after(mark, r"weight 77")?;
    running.send("resume neighbour\r")?;
    running.wait_after(mark, r"^\[neighbour\] healthy")?;
    running.send("destroy three\r")?;
    running.wait_after(mark, r#"guest "three": destroyed"#)?;
    end(&mut running)?;
    let mark = running.mark();
    // What was under way is brought to its end.
    running.take_for(Duration::from_secs(1));
    running.send("list\r")?;
    running.wait_after(mark, r"^three +3 +- ")?;
    running.send("create three\r")?;
    running.wait_after(mark, r"^\[three\] healthy 1")?;
    running.never("NOTICED")
}

/// A manager that ends as soon as it begins: EL2 gives it up, and says so.
fn at_once() -> Result<()> {
    let mut running = Scenario::root("root", MachineKind::Virt, 2).bootarg("only=end").boot()?;
    running.wait("manager ended: reason 1, code 0x1$")?;
    running.take_for(Duration::from_secs(2));
    let lives = running.all("it ends")?.len();
    ensure!(lives == 9, "{lives} lives");
    Ok(())
}

/// One that ends often, but does not at once, waits before it goes on: the machine and its guests live.
fn often() -> Result<()> {
    let mut running = Scenario::system("operator", MachineKind::Virt, 2).seconds(90).boot()?;
    running.wait(r"^\[neighbour\] healthy 1")?;
    for _ in 0..15 {
        end(&mut running)?;
    }
    let mark = running.mark();
    running.wait_after(mark, r"^\[neighbour\] healthy")?;
    running.never("NOTICED")
}
