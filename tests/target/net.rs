//! Networks: guests among themselves, guests that do not behave, and the world behind the uplink.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use portico_ctl::MachineKind;
use portico_tests::{Machine, Random, Scenario, capture};
use regex::Regex;

use crate::boot::name;
use crate::trial;

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (machine, cpus) in
        [(MachineKind::Virt, 2), (MachineKind::Virt, 1), (MachineKind::VirtGicv2, 2), (MachineKind::Raspi4b, 4)]
    {
        trials.push(trial(format!("net::frames_pass_a_liar_does_not_{}_{cpus}", name(machine)), move || {
            ping(machine, cpus)
        }));
    }
    trials.push(trial("net::killed_virt_2", killed));
    trials.push(trial("net::who_spoofs_or_floods_reaches_and_starves_nobody", misbehaviour));
    for machine in [MachineKind::Virt, MachineKind::VirtGicv2] {
        trials.push(trial(format!("net::serves_http_{}", name(machine)), move || serve(machine)));
        trials.push(trial(format!("net::fetches_{}", name(machine)), move || fetch(machine)));
    }
    trials
}

/// Frames of all lengths between two guests, beside one that breaks the protocol in every way.
fn ping(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("net", machine, cpus).seconds(120).boot()?;
    running.wait(r"^\[ping\] ping is done: 1000 answers, 0 again, service lost 0 times")?;
    let line = running.wait(r"^\[liar\] lied 100 times, was left \d+ times, is connected")?;
    // What it writes into the ring that nobody sends to is not looked at.
    ensure!(number(&line, r"left (\d+)")? >= 60, "{line}");
    running.never(r#"service "?net"?.*(exited|crashed|fault|panicked)"#)
}

/// What one side of the stream has said last after `mark`: records out, records in, and how often it has lost the service.
fn stream(running: &mut Machine, mark: usize, guest: &str) -> Result<[u64; 3]> {
    let line = running.wait_after(mark, &format!(r"^\[{guest}\] (stream: \d|failed)"))?;
    Ok([number(&line, r"(\d+) out")?, number(&line, r"(\d+) in")?, number(&line, r"lost (\d+)")?])
}

/// Waits until a side of the stream has taken `count` records more.
fn advance(running: &mut Machine, guest: &str, count: u64) -> Result<[u64; 3]> {
    let mark = running.mark();
    let [_, before, _] = stream(running, mark, guest)?;
    loop {
        let mark = running.mark();
        let now = stream(running, mark, guest)?;
        if now[1] >= before + count {
            return Ok(now);
        }
    }
}

/// The service dies a hundred times at random moments, and is told to hang once, while two guests send each other one stream over TCP and two
/// others frames, all of which they verify. Each time all are served again without doing anything but to go on, and the stream comes to its end.
fn killed() -> Result<()> {
    let mut running = Scenario::system("net-lives", MachineKind::Virt, 2).seconds(300).boot()?;
    for guest in ["listener", "caller"] {
        advance(&mut running, guest, 100)?;
    }
    running.wait(r"^\[ping\] pinged \d+ times")?;
    let mut random = Random(0x00e7_1fe5);
    for life in 0..100 {
        let mark = running.mark();
        running.send("reboot net\r")?;
        if life % 8 == 7 {
            // The next life dies while it begins.
            std::thread::sleep(Duration::from_millis(random.below(50)));
            running.send("reboot net\r")?;
        }
        // Its next life has carried what the last one lost: some lives end right then, some later.
        for guest in ["listener", "caller"] {
            let served = format!(r"^\[{guest}\] (stream: served again|failed)");
            let line = running.wait_after(mark, &served).with_context(|| format!("life {life}"))?;
            ensure!(!line.contains("failed"), "life {life}: {line}");
        }
        std::thread::sleep(Duration::from_millis(random.below(100)));
    }
    for guest in ["listener", "caller"] {
        let [_, _, lost] = advance(&mut running, guest, 1000)?;
        ensure!(lost >= 100, "{guest} has lost the service {lost} times only");
    }
    // So little time that it shows no beat: the manager takes it for hung.
    let mark = running.mark();
    running.send("sched net reserve=10/10000000\r")?;
    running.wait_after(mark, r#"guest "net": watchdog expired"#)?;
    running.send("sched net reserve=0 weight=1024\r")?;
    running.wait_after(mark, r"^\[caller\] stream: served again")?;
    advance(&mut running, "listener", 1000)?;
    let mark = running.mark();
    let line = running.wait_after(mark, r"^\[ping\] pinged \d+ times")?;
    ensure!(number(&line, r"lost (\d+)")? >= 50, "{line}");

    running.send("console caller\r")?;
    running.wait(r#"keyboard and screen of guest "caller""#)?;
    running.send("e")?;
    // It has the screen: its lines come without its name.
    let out = running.wait("^stream is done: ")?;
    running.send_bytes(&[SWITCH])?;
    let into = running.wait(r"^\[listener\] stream is done: ")?;
    let both = |line: &str| Ok::<_, anyhow::Error>((number(line, r"(\d+) out")?, number(line, r"(\d+) in")?));
    let (there, back) = (both(&out)?, both(&into)?);
    ensure!(there == (back.1, back.0) && there.0 > 3000, "{out}, {into}");
    println!("{} and {} records over {} lives", there.0, there.1, number(&out, r"lost (\d+)")?);
    for guest in ["listener", "caller"] {
        running.wait(&format!(r#"guest "{guest}": exited with code 0"#))?;
    }
    running.never(r#"failed|panicked|guest "(echo|ping)":|guest "(listener|caller)": (crash|fault|watchdog|restart)"#)
}

/// The key that gives the keyboard to the manager.
const SWITCH: u8 = 0x1d;

fn misbehaviour() -> Result<()> {
    let mut running = Scenario::system("net-bad", MachineKind::Virt, 2).seconds(240).boot()?;
    // Who is not connected hears nothing.
    running.wait(r"^\[listener\] heard 0 frames")?;
    running.send("create spoofer\r")?;
    let line = running.wait(r"^\[spoofer\] spoofed: ")?;
    ensure!(line.contains("spoofed: 150 dropped, 50 to reserved addresses, 0 sent"), "{line}");
    running.wait(r"^\[spoofer\] spoofing is done, 1 sent")?;
    // The one frame that is the spoofer's own, and no other.
    let mark = running.mark();
    let line = running.wait_after(mark, r"^\[listener\] heard [1-9]\d* frames")?;
    ensure!(number(&line, r"heard (\d+)")? == 1, "{line}");

    running.send("create caller\r")?;
    let line = running.wait(r"^\[caller\] broadcast in \d+ ms: ")?;
    let (ms, passed) = (number(&line, r"in (\d+) ms")?, number(&line, r"(\d+) passed")?);
    // A thousand a second, and a hundred at once.
    ensure!(passed <= ms + 300 && passed >= 100, "{line}");

    // Not a certain one of these lines: one may be mixed with the echo of what was typed.
    pinged(&mut running)?;
    let alone = rate(&mut running)?;
    running.send("create flooder\r")?;
    running.wait(r"^\[flooder\] flooding")?;
    let beside = rate(&mut running)?;
    // Three of six vCPUs compute now, the service among them: the pair's share is smaller, and it is one. On a computer that has more to do it was a 24th.
    ensure!(beside * 60.0 > alone, "{beside} round trips a second beside a flood, {alone} without");
    let line = running.all(r"^\[ping\] pinged \d+ times")?.last().cloned().context("no pings")?;
    ensure!(line.contains(" 0 again"), "{line}");
    running.never(r"NOTICED")
}

/// Round trips a second, by the host's clock.
fn rate(running: &mut Machine) -> Result<f64> {
    let (first, start) = (pinged(running)?, Instant::now());
    let mut last = first;
    while last < first + 1000 && start.elapsed() < Duration::from_secs(30) {
        last = pinged(running)?;
    }
    Ok((last - first) as f64 / start.elapsed().as_secs_f64())
}

fn pinged(running: &mut Machine) -> Result<u64> {
    let mark = running.mark();
    let line = running.wait_after(mark, r"^\[ping\] (pinged \d+ times|failed)")?;
    number(&line, r"pinged (\d+)")
}

/// The number that a pattern finds.
pub fn number(text: &str, pattern: &str) -> Result<u64> {
    let found = Regex::new(pattern)?.captures(text).with_context(|| format!("no `{pattern}` in {text}"))?;
    Ok(found[1].parse()?)
}

/// This computer reads a guest's pages, by curl where there is one; every frame at the uplink is well-formed.
fn serve(machine: MachineKind) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let frames = folder.path().join("uplink.pcap");
    let mut running = Scenario::system("web", machine, 2).seconds(120).capture(&frames).boot()?;
    running.wait(r"^\[web\] serving http://10\.0\.2\.20:80/")?;
    // By DHCP.
    running.wait(r"^\[neighbour\] serving http://10\.0\.2\.\d+:80/")?;
    let port = running.port("10.0.2.20:80")?;
    for round in 0..30 {
        let page = get(port, "/")?;
        ensure!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("<h1>web</h1>"), "{page}");
        ensure!(page.contains(&format!("{round} pages served")), "{page}");
    }
    ensure!(get(port, "/nothing")?.starts_with("HTTP/1.1 404 "));
    curl(port)?;
    running.kill();
    let counts = capture::check(&std::fs::read(&frames)?)?;
    ensure!(counts.tcp > 200 && counts.udp >= 4 && counts.arp >= 2, "{counts:?}");
    tshark(&frames)
}

/// Reads a page by a socket.
pub fn get(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: portico\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

fn curl(port: u16) -> Result<()> {
    let url = format!("http://127.0.0.1:{port}/");
    let Ok(output) = Command::new("curl").args(["-sS", "--max-time", "20", "--noproxy", "*", &url]).output() else {
        eprintln!("curl is not installed: a socket alone has read the page");
        return Ok(());
    };
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ensure!(String::from_utf8_lossy(&output.stdout).contains("<h1>web</h1>"));
    Ok(())
}

/// Has tshark look at the frames too, which knows nothing of us. It is there if `cargo xtask setup` or the whole suite has installed what tests need.
fn tshark(frames: &Path) -> Result<()> {
    let mut command = Command::new("tshark");
    command.args(["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"]);
    let bad = "_ws.malformed || ip.checksum.status == 0 || tcp.checksum.status == 0 || udp.checksum.status == 0";
    let Ok(output) = command.arg("-r").arg(frames).args(["-Y", bad]).output() else {
        eprintln!("tshark is not installed: our own check alone has read the frames");
        return Ok(());
    };
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ensure!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

/// A stock web server, on the loopback interface only.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A guest fetches a page from a web server of this computer.
fn fetch(machine: MachineKind) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let page: Vec<u8> = (0..300_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(folder.path().join("page"), &page)?;
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let mut command = Command::new("python3");
    command.args(["-m", "http.server", "--bind", "127.0.0.1", &port.to_string(), "--directory"]).arg(folder.path());
    let Ok(child) = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
        eprintln!("skipped: python3, whose web server this takes, is not installed");
        return Ok(());
    };
    let _server = Server(child);
    let limit = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        if Instant::now() > limit {
            bail!("the web server does not answer");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let system = folder.path().join("fetch.toml");
    std::fs::write(&system, FETCH.replace("PORT", &port.to_string()))?;
    let frames = folder.path().join("uplink.pcap");
    let system: &'static str = system.to_str().context("a temporary path is text")?.to_owned().leak();
    let mut running = Scenario::system(system, machine, 2).seconds(120).capture(&frames).boot()?;
    let line = running.wait(r"^\[fetch\] ")?;
    ensure!(line == format!("[fetch] fetched {} bytes, crc {:08x}", page.len(), crc(&page)), "{line}");
    running.kill();
    let counts = capture::check(&std::fs::read(&frames)?)?;
    ensure!(counts.tcp > 200, "{counts:?}");
    tshark(&frames)
}

const FETCH: &str = r#"
[system]
cpus = 2

[net]
trusted-dma = true

[[bridge]]
name = "lan"

[[guest]]
name = "fetch"
kernel = "test:fetch"
cmdline = "from=10.0.2.2:PORT path=/page"
memory = "16M"
vif = ["lan"]
"#;

/// The CRC-32 of bytes.
pub fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 != 0 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}
