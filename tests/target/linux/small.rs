//! Two guests with a RAM disk.

use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use portico_ctl::MachineKind;
use portico_tests::{Machine, Scenario, capture};

use super::shell::{ask, focus, leave, shells, sound};
use crate::net::{crc, get, number};

/// Bytes of a page that is fetched.
const PAGE_BYTES: usize = 3_000_000;

fn boot(machine: MachineKind, cpus: u32) -> Result<Machine> {
    shells("linux-small", [2, 2], machine, cpus)
}

/// Both processors work, can be switched off and on, and interrupt each other.
pub fn processors(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = boot(machine, cpus)?;
    let online = "/sys/devices/system/cpu/online";
    ask(&mut running, &format!("cat {online}"), "^0-1$")?;
    for _ in 0..3 {
        ask(&mut running, &format!("echo 0 > /sys/devices/system/cpu/cpu1/online; cat {online}"), "^0$")?;
        ask(&mut running, &format!("echo 1 > /sys/devices/system/cpu/cpu1/online; cat {online}"), "^0-1$")?;
    }
    let on_both = "for i in 0 1; do taskset -c $i sh -c 'x=0; while [ $x -lt 20000 ]; do x=$((x+1)); done; echo did-$x'; done; echo bo''th";
    let mark = running.mark();
    ask(&mut running, on_both, "^both$")?;
    running.wait_after(mark, "^did-20000$")?;
    // The timer's line: its number, then the counts of both.
    let timer = "awk '/arch_timer/ && $2 > 20 && $3 > 20 { print \"tic\" \"king\" }' /proc/interrupts";
    ask(&mut running, timer, "^ticking$")?;
    // Sleeping goes on for as long as it says, by the guest's clock.
    let sleep = "a=$(cut -d. -f1 /proc/uptime); sleep 3; b=$(cut -d. -f1 /proc/uptime); echo slept-$((b-a))";
    ask(&mut running, sleep, "^slept-[345]$")?;
    sound(&mut running)
}

/// What is written to a disk is there, also when its service dies meanwhile.
pub fn disk(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = boot(machine, cpus)?;
    ask(&mut running, "mount -t vfat /dev/pvda /mnt && ls /mnt && echo moun''ted", "^mounted$")?;
    ask(&mut running, "dd if=/dev/urandom of=/tmp/a bs=64k count=48 2>/dev/null; echo ma''de", "^made$")?;
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
    ask(&mut running, compare, "^4$")?;
    ask(&mut running, "dmesg | grep -ci 'i/o error'", "^0$")?;
    sound(&mut running)
}

/// The guests reach each other, again after the service died.
pub fn network(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = boot(machine, cpus)?;
    ask(&mut running, "ping -c 5 10.0.2.16", "^5 packets transmitted, 5 packets received")?;
    leave(&mut running)?;
    let mark = running.mark();
    running.send("reboot net\r")?;
    running.wait_after(mark, r#"guest "net": rebooted by the operator"#)?;
    focus(&mut running, "one")?;
    ask(&mut running, "until ping -c 1 -W 1 10.0.2.16 >/dev/null; do :; done; echo a''gain", "^again$")?;
    // More than the rings hold, by TCP, and every byte of it.
    let serve = "head -c 1000000 /dev/urandom > /tmp/a; md5sum < /tmp/a; httpd -h /tmp; echo ser''ving";
    ask(&mut running, serve, "^serving$")?;
    let sent = running.all("^[0-9a-f]{32}  -$")?.first().map(ToString::to_string);
    leave(&mut running)?;
    focus(&mut running, "two")?;
    let received = ask(&mut running, "wget -q -O - http://10.0.2.15/a | md5sum", "^[0-9a-f]{32}  -$")?;
    ensure!(sent.as_ref() == Some(&received), "sent {sent:?}, received {received}");
    sound(&mut running)
}

/// What Linux leaves to others is done for those who do not do it themselves: a guest on the SDK, and this computer behind the uplink, where every frame's sums are
/// looked at.
pub fn offload(machine: MachineKind, cpus: u32) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let frames = folder.path().join("uplink.pcap");
    let mut running = Scenario::system("linux-offload", machine, cpus).seconds(240).capture(&frames).boot()?;
    running.wait(r"^\[one\] Linux 6\.12\.\d+ on 2 vCPUs, \d+ MiB: one$")?;
    focus(&mut running, "one")?;
    let page: Vec<u8> = b"0123456789abcdefghijklmnopqrstuvwxyz.\n".iter().copied().cycle().take(PAGE_BYTES).collect();
    let make = format!("yes 0123456789abcdefghijklmnopqrstuvwxyz. | head -c {PAGE_BYTES} > /tmp/page");
    ask(&mut running, &format!("{make}; httpd -h /tmp; echo ser''ving"), "^serving$")?;
    leave(&mut running)?;
    running.send("create fetch\r")?;
    let line = running.wait(r"^\[fetch\] ")?;
    ensure!(line == format!("[fetch] fetched {PAGE_BYTES} bytes, crc {:08x}", crc(&page)), "{line}");
    let port = running.port("10.0.2.15:80")?;
    let reader = std::thread::spawn(move || get(port, "/page"));
    // The guest's output must be taken while it works.
    while !reader.is_finished() {
        running.take_for(Duration::from_millis(100));
    }
    let got = reader.join().map_err(|_| anyhow!("the reader has panicked"))??;
    ensure!(got.ends_with(std::str::from_utf8(&page)?), "{} bytes came, and other ones", got.len());
    // Frames that stand for several segments are what it sent.
    focus(&mut running, "one")?;
    let statistics = "/sys/class/net/eth0/statistics";
    let average = format!("echo average-$(($(cat {statistics}/tx_bytes) / $(cat {statistics}/tx_packets)))");
    let line = ask(&mut running, &average, r"^average-\d+$")?;
    ensure!(number(&line, r"(\d+)$")? > 1600, "{line}");
    sound(&mut running)?;
    running.kill();
    let counts = capture::check(&std::fs::read(&frames)?)?;
    ensure!(counts.tcp as usize > PAGE_BYTES / 1500, "{counts:?}");
    Ok(())
}

/// Restarting, powering off and panicking are what the manager hears of.
pub fn ends(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = boot(machine, cpus)?;
    ask(&mut running, "reboot -f", r#"guest "one": asked to be rebooted"#)?;
    let mark = running.mark();
    let begun = running.wait_after(mark, r"Linux 6\.12\.\d+ on 2 vCPUs, \d+ MiB: one$")?;
    // It keeps the keyboard and the screen if its next life was there soon enough.
    if begun.starts_with("[one]") {
        focus(&mut running, "one")?;
    }
    ask(&mut running, "echo again-$((6*7))", "^again-42$")?;
    let mark = running.mark();
    ask(&mut running, "poweroff -f", r#"guest "one": powered off"#)?;
    running.wait_after(mark, "keyboard of the manager")?;
    focus(&mut running, "two")?;
    ask(&mut running, "echo c > /proc/sysrq-trigger", r#"guest "two": panicked"#).map(drop)
}
