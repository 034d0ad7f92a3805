//! The user's keyboard.
//!
//! On a terminal every key goes to the machine at once, Ctrl-C too. Ctrl-A is the one key that is ours: `x`
//! after it ends the machine, and a second Ctrl-A types one, as QEMU's own terminal has it.

use std::io::Read;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use anyhow::Result;
use rustix::termios::{self, OptionalActions, Termios};

/// Ctrl-A.
const ESCAPE: u8 = 0x01;

/// What the user did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// These keys are for the machine.
    Keys(Vec<u8>),
    /// The machine shall end.
    Quit,
    /// Nothing.
    Nothing,
}

/// The standard input; a terminal is in raw mode as long as this lives.
#[derive(Debug)]
pub struct Keyboard {
    input: Receiver<Vec<u8>>,
    escape: Option<Escape>,
    _raw: Option<RawMode>,
}

impl Keyboard {
    /// Starts to read; `terminal` says whether the input is one.
    ///
    /// # Errors
    /// If the terminal's mode cannot be changed.
    pub fn open(terminal: bool) -> Result<Keyboard> {
        let raw = if terminal { Some(RawMode::enter()?) } else { None };
        let (sender, input) = mpsc::channel();
        // Left behind when we end: a read of a terminal cannot be interrupted.
        thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(count) = std::io::stdin().read(&mut buffer) {
                if count == 0 || sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(Keyboard { input, escape: terminal.then(Escape::default), _raw: raw })
    }

    /// Returns what was typed since the last call.
    pub fn typed(&mut self) -> Typed {
        match (self.input.try_recv(), &mut self.escape) {
            (Ok(bytes), Some(escape)) => escape.filter(&bytes),
            (Ok(bytes), None) => Typed::Keys(bytes),
            (Err(_), _) => Typed::Nothing,
        }
    }
}

/// Whether the last key was Ctrl-A.
#[derive(Debug, Default)]
struct Escape {
    pending: bool,
}

impl Escape {
    /// Takes our own keys out of what was typed.
    fn filter(&mut self, bytes: &[u8]) -> Typed {
        let mut keys = Vec::with_capacity(bytes.len());
        for byte in bytes {
            match (std::mem::take(&mut self.pending), *byte) {
                (false, ESCAPE) => self.pending = true,
                (true, b'x' | b'X') => return Typed::Quit,
                (_, byte) => keys.push(byte),
            }
        }
        if keys.is_empty() { Typed::Nothing } else { Typed::Keys(keys) }
    }
}

/// A terminal in raw mode; as it was before when dropped.
struct RawMode {
    before: Termios,
}

impl std::fmt::Debug for RawMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RawMode")
    }
}

impl RawMode {
    /// Changes the mode of the standard input. Output is still processed: lines of ours end well.
    fn enter() -> Result<RawMode> {
        let before = termios::tcgetattr(std::io::stdin())?;
        let mut raw = before.clone();
        let output = raw.output_modes;
        raw.make_raw();
        raw.output_modes = output;
        termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)?;
        Ok(RawMode { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs no mode.
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ctrl_a_is_ours() {
        let mut escape = Escape::default();
        assert_eq!(escape.filter(b"list\x03"), Typed::Keys(b"list\x03".to_vec()));
        assert_eq!(escape.filter(b"\x01"), Typed::Nothing);
        assert_eq!(escape.filter(b"\x01a"), Typed::Keys(b"\x01a".to_vec()));
        assert_eq!(escape.filter(b"b\x01x"), Typed::Quit);
    }
}
