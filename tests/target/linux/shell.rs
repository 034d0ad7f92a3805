//! Typing into guests: who has the keyboard, commands and their answers.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use portico_ctl::MachineKind;
use portico_tests::{Machine, Random, Scenario};

/// Gives a key sequence to the console service: the keyboard to the manager.
const SWITCH: u8 = 0x1d;
/// What a Debian guest says before it lets somebody in.
const GREETING: &str = "Debian GNU/Linux 12";

/// What a load says when it is over.
const ENDED: &str = "load-ended$";
/// How often a service is ended while a command needs it.
const DEATHS: usize = 4;
/// The same where its lives are short.
const MANY_DEATHS: usize = 12;

/// Gives a guest the keyboard, and waits for its shell.
pub fn focus(running: &mut Machine, guest: &str) -> Result<()> {
    hand_over(running, guest)?;
    answers(running)
}

/// Waits for a shell that takes its input: the answer is none of the letters that are typed, nor of what was printed before and is shown again.
fn answers(running: &mut Machine) -> Result<()> {
    let number = running.mark();
    ask(running, &format!("echo ready-$((7*{number}))"), &format!("^ready-{}$", 7 * number)).map(drop)
}

/// Gives a guest the keyboard, whatever it does with it.
pub fn hand_over(running: &mut Machine, guest: &str) -> Result<()> {
    let mark = running.mark();
    running.send(&format!("console {guest}\r"))?;
    running.wait_after(mark, &format!(r#"keyboard and screen of guest "{guest}""#)).map(drop)
}

/// Gives the keyboard back to the manager.
pub fn leave(running: &mut Machine) -> Result<()> {
    let mark = running.mark();
    running.send_bytes(&[SWITCH])?;
    running.wait_after(mark, "keyboard of the manager").map(drop)
}

/// Types a command, and waits for a line of its output.
pub fn ask(running: &mut Machine, command: &str, answer: &str) -> Result<String> {
    let mark = running.mark();
    running.send(&format!("{command}\r"))?;
    running.wait_after(mark, answer)
}

/// Types a command that must end well.
pub fn run(running: &mut Machine, command: &str) -> Result<()> {
    let answer = ask(running, &format!("{command}; echo stat''us-$?"), r"^status-\d+$")?;
    ensure!(answer == "status-0", "{}`{command}`: {answer}", running.last_lines());
    Ok(())
}

/// The kernel found nothing wrong with itself, nor with its disks.
pub fn sound(running: &mut Machine) -> Result<()> {
    let wrong = "WARNING|BUG:|Oops|Call trace|rcu_sched|broke the protocol|I/O error|EXT4-fs error|hung task";
    let answer = ask(running, &format!(r#"echo "wrong: $(dmesg | grep -cE '{wrong}')""#), r"^wrong: \d+$")?;
    if answer != "wrong: 0" {
        ask(running, &format!("dmesg | grep -E '{wrong}'; echo th''at"), "^that$")?;
        bail!("{}the kernel complains", running.last_lines());
    }
    Ok(())
}

/// Boots a system of two guests with a RAM disk and so many vCPUs to their shells, and gives the first one the keyboard.
pub fn shells(system: &'static str, vcpus: [u32; 2], machine: MachineKind, cpus: u32) -> Result<Machine> {
    let mut running = Scenario::system(system, machine, cpus).seconds(240).boot()?;
    for (guest, vcpus) in ["one", "two"].into_iter().zip(vcpus) {
        running.wait(&format!(r"^\[{guest}\] Linux 6\.12\.\d+ on {vcpus} vCPUs, \d+ MiB: {guest}$"))?;
    }
    focus(&mut running, "one")?;
    Ok(running)
}

/// Waits until these Debian guests ask who is there. The keyboard is the manager's.
pub fn up(running: &mut Machine, guests: &[&str]) -> Result<()> {
    for guest in guests {
        running.wait(&format!(r"^\[{guest}\] {GREETING} {guest} hvc0"))?;
    }
    Ok(())
}

/// Gives a Debian guest the keyboard, and logs in as root, who has no password.
pub fn log_in(running: &mut Machine, guest: &str) -> Result<()> {
    hand_over(running, guest)?;
    enter(running)
}

/// Logs in where a Debian guest that has the keyboard asks who is there.
pub fn enter(running: &mut Machine) -> Result<()> {
    let mark = running.mark();
    running.send("root\r")?;
    running.wait_after(mark, "^A Debian guest of Portico")?;
    answers(running)
}

/// Starts a Debian guest's next life by a command, waits for it, and logs in again.
pub fn live_again(running: &mut Machine, guest: &str, command: &str, end: &str) -> Result<()> {
    let mark = running.mark();
    running.send(&format!("{command}\r"))?;
    running.wait_after(mark, end)?;
    enter_again(running, guest, mark)
}

/// Waits for the next life of a Debian guest that had the keyboard and ended after `mark`, and logs in.
pub fn enter_again(running: &mut Machine, guest: &str, mark: usize) -> Result<()> {
    // While it has no life the keyboard may go to the manager, so its lines may have its name before them.
    running.wait_after(mark, &format!("{GREETING} {guest} hvc0"))?;
    // What is printed last has no end of line.
    running.take_for(Duration::from_secs(2));
    let kept = running.lines_after(mark).iter().any(|line| line.starts_with(&format!("{GREETING} {guest}")));
    if kept { enter(running) } else { log_in(running, guest) }
}

/// Runs a command in a guest that has the keyboard, and ends a service again and again meanwhile. The command must end well.
pub fn while_it_dies(running: &mut Machine, (guest, service): (&str, &str), command: &str) -> Result<()> {
    let begun = begin(running, command)?;
    let mut random = Random(0x5eed);
    for _ in 0..DEATHS {
        running.take_for(Duration::from_millis(300 + random.below(2500)));
        end(running, service)?;
    }
    running.wait_after(begun, ENDED)?;
    well(running, guest)
}

/// The same, with lives of the service that are as short as the manager can make them, until the command has ended. It must take long enough for
/// many of them.
pub fn while_it_keeps_dying(running: &mut Machine, (guest, service): (&str, &str), command: &str) -> Result<()> {
    let begun = begin(running, command)?;
    let ended = regex::Regex::new(ENDED)?;
    let mut random = Random(0x5eed);
    let mut deaths = 0;
    while !running.lines_after(begun).iter().any(|line| ended.is_match(line)) {
        // Every other one at once; the others get some way.
        if deaths % 2 == 1 {
            running.take_for(Duration::from_millis(random.below(800)));
        }
        end(running, service)?;
        deaths += 1;
    }
    println!("{service} died {deaths} times");
    ensure!(deaths >= MANY_DEATHS, "only {deaths} deaths");
    well(running, guest)
}

/// Begins a command in the guest that has the keyboard, and gives the keyboard to the manager. Returns where its output begins.
fn begin(running: &mut Machine, command: &str) -> Result<usize> {
    run(running, "sync; dmesg --clear > /dev/null 2>&1; rm -f /tmp/status")?;
    let begun = running.mark();
    running.send(&format!("({command}) > /tmp/log 2>&1; echo $? > /tmp/status; echo load-en''ded\r"))?;
    leave(running)?;
    Ok(begun)
}

/// Ends a service, which begins anew.
fn end(running: &mut Machine, service: &str) -> Result<()> {
    let mark = running.mark();
    running.send(&format!("reboot {service}\r"))?;
    running.wait_after(mark, &format!(r#"guest "{service}": rebooted by the operator"#)).map(drop)
}

/// What was begun in a guest must have ended well.
fn well(running: &mut Machine, guest: &str) -> Result<()> {
    focus(running, guest)?;
    run(running, "cat /tmp/log | tail -20; test $(cat /tmp/status) = 0")
}
