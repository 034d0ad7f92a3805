//! Much data between guests, and to this computer.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use portico_ctl::MachineKind;
use portico_tests::{Machine, Scenario};

use super::shell::{ask, focus, leave, log_in, run, sound, up, while_it_dies};

/// Bytes of the file that goes everywhere.
const FILE_BYTES: usize = 16 << 20;
/// Least that guests exchange in a second, in bits. It is far below what they do on a computer that has nothing else to do: what hangs is found.
const LEAST_BITS: f64 = 2e5;
/// Bytes of a stream whose instructions are counted.
const STREAM: &str = "48M";
/// Least that guests exchange where instructions are counted, in bits a second of two processors of 1 GHz that execute one instruction each cycle.
const LEAST_COUNTED_BITS: f64 = 1e9;

/// iperf3 in both directions, and a file with a checksum to the other guest and to this computer.
pub fn much(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("linux", machine, cpus).seconds(200).boot()?;
    up(&mut running, &["one", "two"])?;
    log_in(&mut running, "one")?;
    run(&mut running, "iperf3 -4 -s -D")?;
    run(&mut running, &format!("head -c {FILE_BYTES} /dev/urandom > /var/www/file"))?;
    let sum = ask(&mut running, "md5sum < /var/www/file", "^[0-9a-f]{32}  -$")?;
    leave(&mut running)?;
    log_in(&mut running, "two")?;
    for direction in ["", "-R", "-u -b 20M"] {
        run(&mut running, &format!("iperf3 -4 -c one -t 5 {direction} -J > /tmp/report"))?;
        let rate = "awk '/bits_per_second/ { gsub(\",\", \"\"); rate = $2 } END { print \"rate \" rate }' /tmp/report";
        let line = ask(&mut running, rate, r"^rate [0-9.e+]+$")?;
        let rate: f64 = line.trim_start_matches("rate ").parse().context("no rate")?;
        println!("iperf3 {direction}: {:.1} Mbit/s", rate / 1e6);
        ensure!(rate > LEAST_BITS, "iperf3 {direction}: {rate} bit/s");
    }
    let got = ask(&mut running, "curl -sS http://one/file | md5sum", "^[0-9a-f]{32}  -$")?;
    ensure!(got == sum, "sent {sum}, received {got}");
    sound(&mut running)?;
    let port = running.port("10.0.2.15:80")?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("file");
    let mut command = Command::new("curl");
    let mut child = command
        .args(["-sS", "--max-time", "200", "-o"])
        .arg(&file)
        .arg(format!("http://127.0.0.1:{port}/file"))
        .spawn()?;
    // The guest's output must be taken while it works.
    while child.try_wait()?.is_none() {
        running.take_for(std::time::Duration::from_millis(200));
    }
    let output = Command::new("md5sum").stdin(std::fs::File::open(&file)?).output()?;
    let got = String::from_utf8_lossy(&output.stdout).trim_end().to_string();
    ensure!(got == sum, "sent {sum}, received here {got}");
    leave(&mut running)?;
    focus(&mut running, "one")?;
    sound(&mut running)
}

/// iperf3 in both directions with windows that the kernel chooses, small ones and large ones. Instructions are counted, and each is a nanosecond of a processor: so what
/// is slow is slow for what is executed or waited for, and not for what else this computer does.
pub fn windows(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("linux", machine, cpus).seconds(600).icount().boot()?;
    up(&mut running, &["one", "two"])?;
    let allow = "echo 4194304 | tee /proc/sys/net/core/rmem_max > /proc/sys/net/core/wmem_max";
    log_in(&mut running, "one")?;
    run(&mut running, &format!("{allow}; iperf3 -4 -s -D"))?;
    leave(&mut running)?;
    log_in(&mut running, "two")?;
    run(&mut running, allow)?;
    for window in ["", "-w 32k", "-w 2M"] {
        for direction in ["", "-R"] {
            let (rate, again) = counted(&mut running, &format!("-n {STREAM} {window} {direction}"))?;
            println!("iperf3 {window} {direction}: {:.0} Mbit/s, {again} segments sent again", rate / 1e6);
            ensure!(rate > LEAST_COUNTED_BITS, "iperf3 {window} {direction}: {rate} bit/s");
            ensure!(again == 0, "iperf3 {window} {direction}: {again} segments sent again");
        }
    }
    sound(&mut running)
}

/// Runs iperf3 for a stream of TCP. Returns its rate in bit/s and how many segments were sent again.
fn counted(running: &mut Machine, how: &str) -> Result<(f64, u64)> {
    run(running, &format!("iperf3 -4 -c one {how} -J > /tmp/report"))?;
    // The last of each are of the whole stream: of its receiver, and of its sender.
    let figures = "awk '/bits_per_second/ { gsub(\",\", \"\"); rate = $2 } /\"retransmits\"/ { gsub(\",\", \"\"); again = $2 } \
                   END { print \"figures \" rate \" \" again }' /tmp/report";
    let line = ask(running, figures, r"^figures [0-9.e+]+ \d+$")?;
    let mut words = line.split(' ').skip(1);
    Ok((words.next().context("no rate")?.parse()?, words.next().context("no count")?.parse()?))
}

/// The net service dies again and again under iperf3 in both directions and under the file: connections go on, and nothing of it is lost.
pub fn deaths(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("linux", machine, cpus).seconds(400).boot()?;
    up(&mut running, &["one", "two"])?;
    log_in(&mut running, "one")?;
    run(&mut running, "iperf3 -4 -s -D")?;
    run(&mut running, &format!("head -c {FILE_BYTES} /dev/urandom > /var/www/file"))?;
    let sum = ask(&mut running, "md5sum < /var/www/file", "^[0-9a-f]{32}  -$")?;
    leave(&mut running)?;
    log_in(&mut running, "two")?;
    for direction in ["", "-R"] {
        while_it_dies(&mut running, ("two", "net"), &format!("iperf3 -4 -c one -t 12 {direction}"))?;
    }
    // As often as it takes until the service has died often enough.
    let fetch =
        "for i in 1 2 3; do curl -sS -o /tmp/file http://one/file && md5sum < /tmp/file > /tmp/sum.$i || exit 1; done";
    while_it_dies(&mut running, ("two", "net"), fetch)?;
    for copy in 1..=3 {
        let got = ask(&mut running, &format!("cat /tmp/sum.{copy}"), "^[0-9a-f]{32}  -$")?;
        ensure!(got == sum, "sent {sum}, received {got}");
    }
    sound(&mut running)?;
    leave(&mut running)?;
    focus(&mut running, "one")?;
    sound(&mut running)
}
