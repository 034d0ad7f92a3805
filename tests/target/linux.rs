//! Linux as a guest. Not run if not asked for, since a kernel must be built first: `cargo xtask test linux`.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use portico_ctl::MachineKind;
use portico_tests::{Machine, Scenario};

use crate::boot::name;
use crate::trial;

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (machine, cpus) in
        [(MachineKind::Virt, 2), (MachineKind::Virt, 1), (MachineKind::VirtGicv2, 2), (MachineKind::Raspi4b, 4)]
    {
        let name = name(machine);
        trials.push(trial(format!("linux::processors_{name}_{cpus}"), move || processors(machine, cpus)));
        trials.push(trial(format!("linux::disk_{name}_{cpus}"), move || disk(machine, cpus)));
        trials.push(trial(format!("linux::network_{name}_{cpus}"), move || network(machine, cpus)));
    }
    trials.into_iter().map(|trial| trial.with_ignored_flag(true)).collect()
}

/// Gives a key sequence to the console service: the keyboard to the manager.
const SWITCH: u8 = 0x1d;

/// Boots both guests to their shells, and gives the first one the keyboard.
fn boot(machine: MachineKind, cpus: u32) -> Result<Machine> {
    let mut running = Scenario::system("linux-small", machine, cpus).seconds(240).boot()?;
    for guest in ["one", "two"] {
        running.wait(&format!(r"^\[{guest}\] Linux 6\.12\.\d+ on 2 vCPUs, \d+ MiB: {guest}$"))?;
    }
    focus(&mut running, "one")?;
    Ok(running)
}

fn focus(running: &mut Machine, guest: &str) -> Result<()> {
    let mark = running.mark();
    running.send(&format!("console {guest}\r"))?;
    running.wait_after(mark, &format!(r#"keyboard and screen of guest "{guest}""#))?;
    // A shell that takes its input: the answer is none of the letters that were typed.
    shell(running, "echo ready-$((6*7))", "^ready-42$").map(drop)
}

/// Gives the keyboard back to the manager.
fn leave(running: &mut Machine) -> Result<()> {
    let mark = running.mark();
    running.send_bytes(&[SWITCH])?;
    running.wait_after(mark, "keyboard of the manager").map(drop)
}

/// Types a command, and waits for a line of its output.
fn shell(running: &mut Machine, command: &str, answer: &str) -> Result<String> {
    let mark = running.mark();
    running.send(&format!("{command}\r"))?;
    running.wait_after(mark, answer)
}

/// The kernel found nothing wrong with itself.
fn sound(running: &mut Machine) -> Result<()> {
    let count = r#"echo "wrong: $(dmesg | grep -cE 'WARNING|BUG:|Oops|Call trace|rcu_sched|broke the protocol')""#;
    let answer = shell(running, count, r"^wrong: \d+$")?;
    ensure!(answer == "wrong: 0", "the kernel complains\n{}", running.last_lines());
    Ok(())
}

/// Both processors work, can be switched off and on, and interrupt each other.
fn processors(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = boot(machine, cpus)?;
    let online = "/sys/devices/system/cpu/online";
    shell(&mut running, &format!("cat {online}"), "^0-1$")?;
    for _ in 0..3 {
        shell(&mut running, &format!("echo 0 > /sys/devices/system/cpu/cpu1/online; cat {online}"), "^0$")?;
        shell(&mut running, &format!("echo 1 > /sys/devices/system/cpu/cpu1/online; cat {online}"), "^0-1$")?;
    }
    let on_both = "for i in 0 1; do taskset -c $i sh -c 'x=0; while [ $x -lt 20000 ]; do x=$((x+1)); done; echo did-$x'; done; echo bo''th";
    let mark = running.mark();
    shell(&mut running, on_both, "^both$")?;
    running.wait_after(mark, "^did-20000$")?;
    // The timer's line: its number, then the counts of both.
    let timer = "awk '/arch_timer/ && $2 > 20 && $3 > 20 { print \"tic\" \"king\" }' /proc/interrupts";
    shell(&mut running, timer, "^ticking$")?;
    // Sleeping goes on for as long as it says, by the guest's clock.
    let sleep = "a=$(cut -d. -f1 /proc/uptime); sleep 3; b=$(cut -d. -f1 /proc/uptime); echo slept-$((b-a))";
    shell(&mut running, sleep, "^slept-[345]$")?;
    sound(&mut running)
}

/// What is written to a disk is there, also when its service dies meanwhile.
fn disk(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = boot(machine, cpus)?;
    shell(&mut running, "mount -t vfat /dev/pvda /mnt && ls /mnt && echo moun''ted", "^mounted$")?;
    shell(&mut running, "dd if=/dev/urandom of=/tmp/a bs=64k count=48 2>/dev/null; echo ma''de", "^made$")?;
    let load = "for i in 1 2 3 4; do cp /tmp/a /mnt/$i; sync; done; umount /mnt; echo writ''ten";
    let mark = running.mark();
    running.send(&format!("{load}\r"))?;
    leave(&mut running)?;
    for _ in 0..3 {
        let mark = running.mark();
        running.send("reboot block\r")?;
        running.wait_after(mark, r#"guest "block": rebooted by the operator"#)?;
    }
    running.wait_after(mark, "written$")?;
    focus(&mut running, "one")?;
    let compare =
        "mount -t vfat /dev/pvda /mnt; for i in 1 2 3 4; do cmp /tmp/a /mnt/$i && echo same; done | grep -c same";
    shell(&mut running, compare, "^4$")?;
    shell(&mut running, "dmesg | grep -ci 'i/o error'", "^0$")?;
    sound(&mut running)
}

/// The guests reach each other, again after the service died.
fn network(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = boot(machine, cpus)?;
    shell(&mut running, "ping -c 5 10.0.2.16", "^5 packets transmitted, 5 packets received")?;
    leave(&mut running)?;
    let mark = running.mark();
    running.send("reboot net\r")?;
    running.wait_after(mark, r#"guest "net": rebooted by the operator"#)?;
    focus(&mut running, "one")?;
    shell(&mut running, "until ping -c 1 -W 1 10.0.2.16 >/dev/null; do :; done; echo a''gain", "^again$")?;
    // More than the rings hold, by TCP, and every byte of it.
    let serve = "head -c 1000000 /dev/urandom > /tmp/a; md5sum < /tmp/a; httpd -h /tmp; echo ser''ving";
    shell(&mut running, serve, "^serving$")?;
    let sent = running.all("^[0-9a-f]{32}  -$")?.first().map(ToString::to_string);
    leave(&mut running)?;
    focus(&mut running, "two")?;
    let received = shell(&mut running, "wget -q -O - http://10.0.2.15/a | md5sum", "^[0-9a-f]{32}  -$")?;
    ensure!(sent.as_ref() == Some(&received), "sent {sent:?}, received {received}");
    sound(&mut running)
}
