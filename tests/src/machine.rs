//! A running machine and all that it has written.

use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use regex::Regex;
use tempfile::TempDir;
use xtask::machine::{Disk, Line};
use xtask::qemu::{Event, Qemu};
use xtask::qmp::Qmp;

use crate::scenario;
use crate::stub::Stub;
use crate::tap::{self, Report};

/// What EL2 says when it finds itself broken.
const PANIC: &str = "PANIC on pCPU";
/// Lines of output that a failure shows.
const SHOWN: usize = 40;

/// A running machine.
#[derive(Debug)]
pub struct Machine {
    qemu: Qemu,
    deadline: Instant,
    limit: Duration,
    /// Finished lines, without escape sequences and prompts.
    lines: Vec<String>,
    /// Everything as it came.
    raw: Vec<u8>,
    /// The line that is being written.
    open: Vec<u8>,
    ended: bool,
    disks: Vec<Disk>,
    forwards: Vec<(u16, SocketAddrV4)>,
    /// A panic of EL2 is what the test wants.
    wants_panic: bool,
    qmp: Option<PathBuf>,
    /// Holds the bundle that QEMU has open, and the sockets of its tools.
    folder: TempDir,
}

impl Machine {
    /// Starts a machine that has `limit` of time in all.
    ///
    /// # Errors
    /// If QEMU cannot be started.
    pub fn start(line: &Line, limit: Duration, folder: TempDir) -> Result<Machine> {
        let qemu = Qemu::start(line)?;
        let deadline = Instant::now() + limit;
        let forwards = line.net.as_ref().map(|net| net.forwards.clone()).unwrap_or_default();
        Ok(Machine {
            qemu,
            deadline,
            limit,
            lines: Vec::new(),
            raw: Vec::new(),
            open: Vec::new(),
            ended: false,
            disks: line.disks.clone(),
            forwards,
            wants_panic: false,
            qmp: line.qmp.clone(),
            folder,
        })
    }

    /// The file of one of its disks. One that no test named is gone when the machine is dropped.
    ///
    /// # Errors
    /// If it has no such disk.
    pub fn disk(&self, name: &str) -> Result<&Path> {
        let disk = self.disks.iter().find(|disk| disk.name == name);
        Ok(&disk.with_context(|| format!("the machine has no disk {name}"))?.file)
    }

    /// The port of 127.0.0.1 that leads to this port of this guest.
    ///
    /// # Errors
    /// If the description forwards none there.
    pub fn port(&self, to: &str) -> Result<u16> {
        let to: SocketAddrV4 = to.parse()?;
        let found = self.forwards.iter().find(|forward| forward.1 == to);
        Ok(found.with_context(|| format!("no port leads to {to}"))?.0)
    }

    /// Ends it at once, as when the power fails.
    pub fn kill(&mut self) {
        self.qemu.kill();
        self.ended = true;
    }

    /// Lets EL2 panic from now on.
    pub fn want_panic(&mut self) {
        self.wants_panic = true;
    }

    /// The socket of QEMU's machine protocol, of a scenario with tools.
    ///
    /// # Errors
    /// If there is none.
    pub fn qmp_socket(&self) -> Result<PathBuf> {
        self.qmp.clone().context("a machine without tools")
    }

    /// Connects to QEMU's machine protocol, of a scenario with tools.
    ///
    /// # Errors
    /// If nobody listens.
    pub fn qmp(&self) -> Result<Qmp> {
        Qmp::connect(&self.qmp_socket()?)
    }

    /// The socket of the debugger's stub, of a scenario with tools.
    pub fn stub_socket(&self) -> PathBuf {
        scenario::stub(&self.folder)
    }

    /// Connects to the debugger's stub, of a scenario with tools. The machine stands still as long as it is connected.
    ///
    /// # Errors
    /// If nobody listens.
    pub fn stub(&self) -> Result<Stub> {
        Stub::connect(&self.stub_socket())
    }

    /// Where the output has got to: for [`Machine::wait_after`].
    pub fn mark(&self) -> usize {
        self.lines.len()
    }

    /// Waits for a finished line that matches, anywhere in the output.
    ///
    /// # Errors
    /// If time is up, the machine ends, or EL2 panics.
    pub fn wait(&mut self, pattern: &str) -> Result<String> {
        self.wait_after(0, pattern)
    }

    /// Waits for a line that matches and came after `mark`.
    ///
    /// # Errors
    /// As [`Machine::wait`].
    pub fn wait_after(&mut self, mark: usize, pattern: &str) -> Result<String> {
        let regex = Regex::new(pattern)?;
        let mut next = mark;
        loop {
            while let Some(line) = self.lines.get(next) {
                if regex.is_match(line) {
                    return Ok(line.clone());
                }
                next += 1;
            }
            self.pump(&format!("`{pattern}`"))?;
        }
    }

    /// Waits for each of these lines, in any order.
    ///
    /// # Errors
    /// As [`Machine::wait`].
    pub fn wait_all(&mut self, patterns: &[&str]) -> Result<()> {
        for pattern in patterns {
            self.wait(pattern)?;
        }
        Ok(())
    }

    /// Waits for the whole TAP report of a guest and fails if any of its points does. `guest` is its name, or empty for a guest in
    /// place of the manager.
    ///
    /// # Errors
    /// As [`Machine::wait`]; a point that is not ok; a plan that does not fit.
    pub fn tap(&mut self, guest: &str) -> Result<Report> {
        let prefix = if guest.is_empty() { String::new() } else { format!("[{guest}] ") };
        let plan = Regex::new(&format!(r"^{}1\.\.\d+$", regex::escape(&prefix)))?;
        // The whole line: a part of the plan would look like another plan.
        let mut read = 0;
        let end = loop {
            if let Some(at) = self.lines.iter().skip(read).position(|line| plan.is_match(line)) {
                break read + at + 1;
            }
            read = self.lines.len();
            self.pump(&format!("the plan of {guest}"))?;
        };
        // What follows is of its next life: the first domain has one where it cannot turn the machine off.
        let report = tap::read(self.lines.iter().take(end).filter_map(|line| line.strip_prefix(&prefix)));
        ensure!(report.failures.is_empty(), "{}{}", self.last_lines(), report.failures.join("\n"));
        ensure!(report.planned == Some(report.passed), "planned {:?}, seen {}", report.planned, report.passed);
        Ok(report)
    }

    /// Takes output for a while, and fails if a line of it matches.
    ///
    /// # Errors
    /// If one does; and as [`Machine::wait`].
    pub fn never(&mut self, pattern: &str) -> Result<()> {
        let regex = Regex::new(pattern)?;
        match self.lines.iter().find(|line| regex.is_match(line)) {
            Some(line) => bail!("{}`{line}` must not be", self.last_lines()),
            None => Ok(()),
        }
    }

    /// The finished lines that came after `mark`.
    pub fn lines_after(&self, mark: usize) -> &[String] {
        self.lines.get(mark..).unwrap_or_default()
    }

    /// All lines that match.
    ///
    /// # Errors
    /// If the pattern is none.
    pub fn all(&self, pattern: &str) -> Result<Vec<&str>> {
        let regex = Regex::new(pattern)?;
        Ok(self.lines.iter().map(String::as_str).filter(|line| regex.is_match(line)).collect())
    }

    /// Waits until the machine powers itself off.
    ///
    /// # Errors
    /// If time is up first, or EL2 panics.
    pub fn wait_off(&mut self) -> Result<()> {
        while !self.ended {
            self.pump("its end")?;
        }
        Ok(())
    }

    /// Waits until these bytes have come, one after the other.
    ///
    /// # Errors
    /// As [`Machine::wait`].
    pub fn wait_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        while !self.raw.windows(bytes.len()).any(|window| window == bytes) {
            self.pump("bytes")?;
        }
        Ok(())
    }

    /// Types bytes into the serial port.
    ///
    /// # Errors
    /// If the machine has ended.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.qemu.send(bytes)
    }

    /// Types into the serial port.
    ///
    /// # Errors
    /// If the machine has ended.
    pub fn send(&mut self, text: &str) -> Result<()> {
        self.qemu.send(text.as_bytes())
    }

    fn pump(&mut self, waiting_for: &str) -> Result<()> {
        ensure!(!self.ended, "{}the machine ended before {waiting_for}", self.last_lines());
        let before = self.lines.len();
        match self.qemu.next(self.deadline) {
            // A machine that talks without end is late as well.
            Event::Output(bytes) if Instant::now() < self.deadline => self.take(&bytes),
            Event::End => self.ended = true,
            Event::Output(_) | Event::Timeout => {
                bail!("{}{} s are up before {waiting_for}", self.last_lines(), self.limit.as_secs())
            }
        }
        if !self.wants_panic && self.lines.iter().skip(before).any(|line| line.contains(PANIC)) {
            self.drain();
            bail!("{}EL2 panicked", self.last_lines());
        }
        Ok(())
    }

    /// Collects the rest of a panic.
    fn drain(&mut self) {
        self.take_for(Duration::from_millis(500));
    }

    /// Takes output for a while.
    pub fn take_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while let Event::Output(bytes) = self.qemu.next(end) {
            self.take(&bytes);
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.raw.extend(bytes);
        for &byte in bytes {
            if byte == b'\n' {
                let line = clean(&self.open);
                self.lines.push(line);
                self.open.clear();
            } else {
                self.open.push(byte);
            }
        }
    }

    /// The end of the output, for messages: what is wrong comes after it, where whoever sees only the end of a log finds it.
    pub fn last_lines(&self) -> String {
        // The lines of a healthy neighbour, of a load or of a flood would fill the screen.
        let is_noise = |line: &&String| {
            line.starts_with("[neighbour] healthy") || line.ends_with(" flood") || line.contains("] load: ")
        };
        // Lines one after the other that differ only in their numbers are one: what came before them may say why.
        let without_numbers = |line: &str| line.replace(|c: char| c.is_ascii_digit(), "");
        let mut lines: Vec<(&str, usize)> = Vec::new();
        for line in self.lines.iter().filter(|line| !is_noise(line)) {
            match lines.last_mut() {
                Some((last, count)) if without_numbers(last) == without_numbers(line) => {
                    (*last, *count) = (line, *count + 1)
                }
                _ => lines.push((line, 1)),
            }
        }
        let from = lines.len().saturating_sub(SHOWN);
        let mut text = String::new();
        for (line, count) in lines.into_iter().skip(from) {
            let alike = if count > 1 { format!(" (the last of {count} alike)") } else { String::new() };
            text.push_str(&format!("  | {line}{alike}\n"));
        }
        text.push_str("  | ");
        text.push_str(&clean(&self.open));
        text.push('\n');
        text
    }
}

/// Takes carriage returns, escape sequences and the manager's prompt out of a line; what was erased is not there.
fn clean(raw: &[u8]) -> String {
    let mut text = String::new();
    let mut escape = false;
    for c in String::from_utf8_lossy(raw).chars() {
        match c {
            '\x1b' => escape = true,
            '\r' => {}
            'K' if escape => {
                text.clear();
                escape = false;
            }
            _ if escape => escape = !c.is_ascii_alphabetic(),
            _ => text.push(c),
        }
    }
    while let Some(rest) = text.strip_prefix("portico> ") {
        text = rest.to_string();
    }
    text
}
