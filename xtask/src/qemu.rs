//! A running QEMU whose serial port is ours.
//!
//! QEMU is ended by SIGKILL only: with its clock decoupled and all processors idle it may never see SIGTERM. It
//! also dies with the thread that started it, so that an interrupted test leaves nothing behind.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use regex::Regex;

use crate::machine::Line;

/// The program.
pub const PROGRAM: &str = "qemu-system-aarch64";

/// Most bytes of a line that the pattern search keeps: output without line ends must not grow without bound.
const MAX_LINE: usize = 64 << 10;

/// What happened on the serial port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The machine wrote this.
    Output(Vec<u8>),
    /// QEMU ended.
    End,
    /// The deadline passed first.
    Timeout,
}

/// A running QEMU.
#[derive(Debug)]
pub struct Qemu {
    child: Child,
    stdin: ChildStdin,
    output: Receiver<Vec<u8>>,
    /// Socket to connect to when a machine that counts instructions has been silent for [`NUDGE`].
    nudge: Option<PathBuf>,
}

/// With its clock decoupled and all processors idle QEMU's main loop may sleep although a timer is due: anything that wakes it helps.
const NUDGE: Duration = Duration::from_millis(50);

impl Qemu {
    /// Starts a machine.
    ///
    /// # Errors
    /// If QEMU cannot be started.
    pub fn start(line: &Line) -> Result<Qemu> {
        let mut command = Command::new(PROGRAM);
        command.args(line.arguments()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own: an interrupt typed at the terminal is ours to answer.
        command.process_group(0);
        // SAFETY: between fork and exec only one system call is made, without memory allocation.
        unsafe {
            command.pre_exec(|| {
                rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
                Ok(())
            });
        }
        let mut child =
            command.spawn().with_context(|| format!("starting {PROGRAM} (`cargo xtask setup` installs it)"))?;
        let stdin = child.stdin.take().context("QEMU has no input")?;
        let mut stdout = child.stdout.take().context("QEMU has no output")?;
        let stderr = child.stderr.take().context("QEMU has no error output")?;
        thread::spawn(move || {
            // For each device of the board that it does not have QEMU says so, and when all processors wait for the keyboard
            // while instructions are counted: nothing to worry a user with.
            let harmless = |line: &str| line.ends_with("has been disabled!") || line.ends_with("no active timers");
            let lines = BufReader::new(stderr).lines().map_while(Result::ok);
            for line in lines.filter(|line| !harmless(line)) {
                eprintln!("{line}");
            }
        });
        let (sender, output) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count) = stdout.read(&mut buffer) {
                if count == 0 || sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        let nudge = if line.icount { line.qmp.clone() } else { None };
        Ok(Qemu { child, stdin, output, nudge })
    }

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for output until `deadline`.
    pub fn next(&self, deadline: Instant) -> Event {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let patience = if self.nudge.is_some() { left.min(NUDGE) } else { left };
            match self.output.recv_timeout(patience) {
                Ok(bytes) => return Event::Output(bytes),
                Err(RecvTimeoutError::Disconnected) => return Event::End,
                Err(RecvTimeoutError::Timeout) if patience == left => return Event::Timeout,
                // Whether anyone listens does not matter: QEMU's end is seen above.
                Err(RecvTimeoutError::Timeout) => drop(self.nudge.as_ref().map(UnixStream::connect)),
            }
        }
    }

    /// Types into the serial port.
    ///
    /// # Errors
    /// If QEMU has ended.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stdin.write_all(bytes)?;
        Ok(self.stdin.flush()?)
    }

    /// Waits for QEMU to end by itself, after its output has ended.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }

    /// Ends QEMU.
    pub fn kill(&mut self) {
        // It may have ended already: then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Looks for a pattern in output that comes in pieces, line by line; an unfinished line counts.
#[derive(Debug)]
pub struct Search {
    pattern: Regex,
    line: Vec<u8>,
}

impl Search {
    /// Starts a search.
    pub fn new(pattern: Regex) -> Search {
        Search { pattern, line: Vec::new() }
    }

    /// Takes more output; says whether the pattern occurs in a line it completed or continued.
    pub fn feed(&mut self, bytes: &[u8]) -> bool {
        self.line.extend(bytes.iter().filter(|byte| **byte != b'\r'));
        let text = String::from_utf8_lossy(&self.line);
        let found = text.lines().any(|line| self.pattern.is_match(line));
        let keep = self.line.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.line.drain(..keep.max(self.line.len().saturating_sub(MAX_LINE)));
        found
    }
}

/// A machine and all that it has written: for tests and measurements.
#[derive(Debug)]
pub struct Session {
    qemu: Qemu,
    deadline: Instant,
    text: String,
    searched: usize,
}

impl Session {
    /// Starts a machine that has `limit` of time in all.
    ///
    /// # Errors
    /// If QEMU cannot be started.
    pub fn start(line: &Line, limit: Duration) -> Result<Session> {
        let qemu = Qemu::start(line)?;
        Ok(Session { qemu, deadline: Instant::now() + limit, text: String::new(), searched: 0 })
    }

    /// Returns all the output so far, without carriage returns.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Waits for a pattern in the output that follows the last one found, and returns the text of its match.
    ///
    /// # Errors
    /// If time is up or QEMU ends before; the message holds the last lines of output.
    pub fn expect(&mut self, pattern: &str) -> Result<String> {
        let regex = Regex::new(&format!("(?m){pattern}"))?;
        loop {
            if let Some(found) = regex.find(&self.text[self.searched..]) {
                let matched = found.as_str().to_string();
                self.searched += found.end();
                return Ok(matched);
            }
            match self.qemu.next(self.deadline) {
                Event::Output(bytes) => self.take(&bytes),
                Event::End => bail!("the machine ended before `{pattern}`\n{}", self.last_lines()),
                Event::Timeout => bail!("time is up before `{pattern}`\n{}", self.last_lines()),
            }
        }
    }

    /// Collects output until the machine powers itself off.
    ///
    /// # Errors
    /// If time is up first.
    pub fn finish(&mut self) -> Result<&str> {
        loop {
            match self.qemu.next(self.deadline) {
                Event::Output(bytes) => self.take(&bytes),
                Event::End => return Ok(&self.text),
                Event::Timeout => bail!("time is up and the machine still runs\n{}", self.last_lines()),
            }
        }
    }

    /// Types into the serial port.
    ///
    /// # Errors
    /// If the machine has ended.
    pub fn send(&mut self, text: &str) -> Result<()> {
        self.qemu.send(text.as_bytes())
    }

    /// Adds output.
    fn take(&mut self, bytes: &[u8]) {
        self.text.extend(String::from_utf8_lossy(bytes).chars().filter(|c| *c != '\r'));
    }

    /// Returns the end of the output, for messages.
    fn last_lines(&self) -> String {
        let lines: Vec<_> = self.text.lines().collect();
        lines[lines.len().saturating_sub(40)..].iter().map(|line| format!("  | {line}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_pattern_across_pieces_and_in_an_unfinished_line() {
        let mut search = Search::new(Regex::new("^portico> $").unwrap());
        assert!(!search.feed(b"hello\r\nport"));
        assert!(search.feed(b"ico> "));
        let mut search = Search::new(Regex::new("ab").unwrap());
        assert!(!search.feed(b"a\r\nb"));
        assert!(search.feed(b"\nxaby\n"));
    }

    #[test]
    fn forgets_endless_lines() {
        let mut search = Search::new(Regex::new("never").unwrap());
        for _ in 0..40 {
            search.feed(&[b'x'; 4096]);
        }
        assert!(search.line.len() <= MAX_LINE);
    }
}
