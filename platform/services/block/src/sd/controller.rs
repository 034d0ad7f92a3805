//! The controller: commands, one after the other.

use super::card::{Long, base_hz, divider};
use super::registers::{Io, Register, clock, command, control, mode, present, status};

/// How long a reset, or a clock that shall become stable, may take.
const RESET_US: u64 = 100_000;
/// How long a command may take; the controller's own limit is far below.
const COMMAND_US: u64 = 100_000;

/// Why something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No card, or one that does not answer.
    Absent,
    /// The card did not answer a command.
    NoResponse,
    /// Errors on the way, as the interrupt status has them.
    Bus(u32),
    /// The card failed, with this status.
    Card(u32),
    /// The controller or the card does not come to an end.
    Stuck,
    /// A card that is not driven: above 2 TiB, locked by a password, no SD memory card.
    Unknown,
    /// Another card than before.
    Changed,
}

/// What the card answers to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// Nothing.
    None,
    /// Its status or the like, 48 bits: R1, R6, R7.
    Short,
    /// The same, and it may be busy: R1b.
    Busy,
    /// Its operation conditions, without CRC: R3.
    Conditions,
    /// 136 bits: R2.
    Long,
}

/// Which way data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the card.
    Read,
    /// To the card.
    Write,
}

/// A command without data. (PHYS, "Detailed Command Description")
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its index.
    pub index: u32,
    /// What is answered.
    pub response: Response,
}

impl Command {
    /// Names a command.
    pub const fn new(index: u32, response: Response) -> Command {
        Command { index, response }
    }

    /// As the controller wants it.
    const fn word(self) -> u32 {
        let response = match self.response {
            Response::None => 0,
            Response::Short => command::SHORT | command::CRC | command::INDEX,
            Response::Busy => command::SHORT_BUSY | command::CRC | command::INDEX,
            Response::Conditions => command::SHORT,
            Response::Long => command::LONG | command::CRC,
        };
        let abort = if self.index == STOP.index { command::ABORT } else { 0 };
        self.index << command::INDEX_SHIFT | response | abort
    }
}

/// STOP_TRANSMISSION.
pub const STOP: Command = Command::new(12, Response::Busy);
/// SEND_STATUS.
pub const SEND_STATUS: Command = Command::new(13, Response::Short);

/// A controller.
#[derive(Debug)]
pub struct Controller<I> {
    /// Its registers.
    pub io: I,
    version: u32,
    base_hz: u32,
}

impl<I: Io> Controller<I> {
    /// Takes a controller.
    pub fn new(io: I) -> Self {
        let version = io.read(Register::Version) >> 16 & 0xff;
        let base_hz = base_hz(io.read(Register::Capabilities), version);
        Controller { io, version, base_hz }
    }

    /// Waits until `is_done`. At most until `deadline`, a time of [`Io::now_us`].
    fn wait(&self, deadline: u64, is_done: impl Fn(&I) -> bool) -> Result<(), Error> {
        loop {
            if is_done(&self.io) {
                return Ok(());
            }
            if self.io.now_us() >= deadline {
                return Err(Error::Stuck);
            }
            core::hint::spin_loop();
        }
    }

    /// When `us` from now is.
    pub fn after(&self, us: u64) -> u64 {
        self.io.now_us().saturating_add(us)
    }

    /// Lets time pass.
    pub fn pause(&self, us: u64) {
        let _ = self.wait(self.after(us), |_| false);
    }

    /// Resets everything and switches the power on; no interrupts.
    ///
    /// # Errors
    /// `Stuck`.
    pub fn reset(&mut self) -> Result<(), Error> {
        self.io.write(Register::Clock, clock::RESET_ALL);
        self.wait(self.after(RESET_US), |io| io.read(Register::Clock) & clock::RESET_ALL == 0)?;
        self.io.write(Register::SignalEnable, 0);
        self.io.write(Register::StatusEnable, status::ALL);
        self.io.write(Register::Control, control::POWER);
        Ok(())
    }

    /// Resets what is between commands and what is between data, after an error.
    ///
    /// # Errors
    /// `Stuck`.
    pub fn reset_lines(&mut self) -> Result<(), Error> {
        let clock = self.io.read(Register::Clock);
        self.io.write(Register::Clock, clock | clock::RESET_LINES);
        self.wait(self.after(RESET_US), |io| io.read(Register::Clock) & clock::RESET_LINES == 0)?;
        self.io.write(Register::Status, u32::MAX);
        Ok(())
    }

    /// Gives the card a clock of `hz` or less.
    ///
    /// # Errors
    /// `Stuck`.
    pub fn set_clock(&mut self, hz: u32) -> Result<(), Error> {
        // The divider may change only while the card has no clock.
        self.io.write(Register::Clock, clock::LONGEST);
        let word = divider(self.base_hz, hz, self.version) | clock::INTERNAL | clock::LONGEST;
        self.io.write(Register::Clock, word);
        self.wait(self.after(RESET_US), |io| io.read(Register::Clock) & clock::STABLE != 0)?;
        self.io.write(Register::Clock, word | clock::CARD);
        Ok(())
    }

    /// Waits until the card is not busy.
    ///
    /// # Errors
    /// `Stuck`.
    pub fn wait_ready(&self, deadline: u64) -> Result<(), Error> {
        self.wait(deadline, |io| io.read(Register::Present) & present::DATA0 != 0)
    }

    /// Begins a command. The lines that it needs must be free.
    ///
    /// # Errors
    /// `Stuck` if they are not.
    pub fn begin(&mut self, command: Command, argument: u32) -> Result<(), Error> {
        self.issue(command.word(), argument, present::COMMAND_INHIBIT)
    }

    /// Begins a command with data: `blocks` blocks of `bytes` bytes.
    ///
    /// # Errors
    /// `Stuck` if the lines are not free.
    pub fn begin_data(
        &mut self,
        index: u32,
        argument: u32,
        direction: Direction,
        blocks: u16,
        bytes: u16,
    ) -> Result<(), Error> {
        self.io.write(Register::Block, u32::from(blocks) << 16 | u32::from(bytes));
        let way = if direction == Direction::Read { mode::READ } else { 0 };
        let many = if blocks > 1 { mode::MULTIPLE | mode::COUNT | mode::AUTO_STOP } else { 0 };
        let word = Command::new(index, Response::Short).word() | command::DATA | way | many;
        self.issue(word, argument, present::COMMAND_INHIBIT | present::DATA_INHIBIT)
    }

    fn issue(&mut self, word: u32, argument: u32, inhibit: u32) -> Result<(), Error> {
        if self.io.read(Register::Present) & inhibit != 0 {
            return Err(Error::Stuck);
        }
        self.io.write(Register::Status, u32::MAX);
        self.io.write(Register::Argument, argument);
        self.io.write(Register::Command, word);
        Ok(())
    }

    /// Takes what has happened, and acknowledges it.
    pub fn take(&mut self) -> u32 {
        let happened = self.io.read(Register::Status) & status::ALL;
        if happened != 0 {
            self.io.write(Register::Status, happened);
        }
        happened
    }

    /// Waits for all of `wanted`, and acknowledges it.
    ///
    /// # Errors
    /// `NoResponse`, `Bus`, `Stuck`.
    pub fn wait_for(&mut self, wanted: u32, deadline: u64) -> Result<(), Error> {
        let mut happened = 0;
        loop {
            happened |= self.take();
            if let Some(error) = error_of(happened) {
                return Err(error);
            }
            if happened & wanted == wanted {
                return Ok(());
            }
            if self.io.now_us() >= deadline {
                return Err(Error::Stuck);
            }
            core::hint::spin_loop();
        }
    }

    /// Does a command, and waits for its end, not longer than until `deadline`. Returns the first word of the response.
    ///
    /// # Errors
    /// `NoResponse`, `Bus`, `Stuck`; the lines are free then.
    pub fn command(&mut self, command: Command, argument: u32, deadline: u64) -> Result<u32, Error> {
        let is_busy = command.response == Response::Busy;
        let wanted = status::COMMAND | if is_busy { status::TRANSFER } else { 0 };
        let deadline = if is_busy { deadline } else { deadline.min(self.after(COMMAND_US)) };
        let done = self.begin(command, argument).and_then(|()| self.wait_for(wanted, deadline));
        match done {
            Ok(()) => Ok(self.io.read(Register::Response0)),
            Err(error) => {
                self.reset_lines()?;
                Err(error)
            }
        }
    }

    /// The whole of a long response.
    pub fn long_response(&self) -> Long {
        Long(
            [Register::Response0, Register::Response1, Register::Response2, Register::Response3]
                .map(|register| self.io.read(register)),
        )
    }

    /// Reads a short piece of data by a command, and waits for its end.
    ///
    /// # Errors
    /// `NoResponse`, `Bus`, `Stuck`; the lines are free then.
    pub fn read_short(&mut self, index: u32, argument: u32, to: &mut [u8]) -> Result<(), Error> {
        let deadline = self.after(COMMAND_US);
        let done = self
            .begin_data(index, argument, Direction::Read, 1, to.len() as u16)
            .and_then(|()| self.wait_for(status::COMMAND | status::READ_READY, deadline));
        let done = done.and_then(|()| {
            for word in to.chunks_mut(4) {
                let bytes = self.io.read(Register::Data).to_le_bytes();
                word.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
            }
            self.wait_for(status::TRANSFER, deadline)
        });
        if done.is_err() {
            self.reset_lines()?;
        }
        done
    }
}

/// What a status says has failed.
pub const fn error_of(happened: u32) -> Option<Error> {
    match happened & status::ERRORS {
        0 => None,
        status::NO_RESPONSE => Some(Error::NoResponse),
        errors => Some(Error::Bus(errors)),
    }
}
