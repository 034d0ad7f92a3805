//! Moves blocks between a card and memory, without waiting.
//!
//! One transfer at a time. Each call of [`Reader::turn`] does what can be done now, and no more than a budget of blocks. A write has ended
//! when the card has said that it is done with it: no cache of it was switched on, so that what has ended is durable.

use super::card::{BLOCK, r1};
use super::controller::{Controller, Direction, Error, SEND_STATUS, STOP, error_of};
use super::registers::{Io, Register, present, status};
use super::start::{self, Card};

/// Most blocks of a transfer.
pub const MOST: u32 = u16::MAX as u32;
/// How often a transfer is begun before it has failed.
const TRIES: u32 = 3;
/// How long nothing may happen: a card may be busy for half a second with a block.
const PATIENCE_US: u64 = 2_000_000;
/// How long a card may be busy after an error, before it is started anew.
const MEND_US: u64 = 200_000;

const READ_SINGLE: u32 = 17;
const READ_MULTIPLE: u32 = 18;
const WRITE_SINGLE: u32 = 24;
const WRITE_MULTIPLE: u32 = 25;

/// Where a transfer's blocks are in memory.
pub trait Blocks {
    /// Begins with a block.
    fn begin(&mut self, block: u32);
    /// Stores word number `word`, of 8 bytes, of the block.
    fn store(&mut self, word: usize, value: u64);
    /// Loads it.
    fn load(&mut self, word: usize) -> u64;
}

/// A transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Which way.
    pub direction: Direction,
    /// First block of the card.
    pub sector: u64,
    /// Number of blocks, 1 to [`MOST`].
    pub blocks: u32,
}

/// What a transfer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// To be begun.
    New,
    /// The response to its command.
    Command,
    /// The buffer, to take or to have a block.
    Data,
    /// The end.
    End,
    /// The response to the question whether the card is done.
    Status,
}

#[derive(Clone, Copy, Debug)]
struct Active {
    transfer: Transfer,
    phase: Phase,
    /// Blocks that were moved.
    moved: u32,
    /// What has happened since the last command began.
    happened: u32,
    tries: u32,
    deadline: u64,
}

/// How far a phase came.
enum Step {
    /// The next may be possible.
    Next,
    /// Nothing more can be done now.
    Wait,
    /// The transfer has ended.
    End,
}

/// A card in a controller.
#[derive(Debug)]
pub struct Reader<I> {
    controller: Controller<I>,
    card: Card,
    active: Option<Active>,
    /// Why it is not used any more.
    failed: Option<Error>,
    /// Errors that were mended.
    mended: u32,
}

impl<I: Io> Reader<I> {
    /// Gets the card ready.
    ///
    /// # Errors
    /// Any of [`Error`] but `Changed`.
    pub fn open(io: I) -> Result<Self, Error> {
        let mut controller = Controller::new(io);
        let card = start::start(&mut controller)?;
        Ok(Reader { controller, card, active: None, failed: None, mended: 0 })
    }

    /// The card.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// What reaches the controller.
    pub fn io(&self) -> &I {
        &self.controller.io
    }

    /// How many errors were mended.
    pub fn mended(&self) -> u32 {
        self.mended
    }

    /// Whether nothing is going on: [`Reader::begin`] may be called.
    pub fn is_idle(&self) -> bool {
        self.active.is_none()
    }

    /// Takes a transfer, which must be inside the card. It begins with the next turn.
    pub fn begin(&mut self, transfer: Transfer) {
        self.active = Some(Active { transfer, phase: Phase::New, moved: 0, happened: 0, tries: 0, deadline: u64::MAX });
    }

    /// Goes on with the transfer, by at most `budget` blocks, which is counted down. `Some`: it has ended.
    ///
    /// # Errors
    /// Inside: why the transfer, or the card for good, has failed.
    pub fn turn(&mut self, blocks: &mut impl Blocks, budget: &mut u32) -> Option<Result<(), Error>> {
        let mut active = self.active.take()?;
        if let Some(error) = self.failed {
            return Some(Err(error));
        }
        let error = loop {
            match self.step(&mut active, blocks, budget) {
                Ok(Step::Next) => {}
                Ok(Step::End) => return Some(Ok(())),
                Ok(Step::Wait) => break None,
                Err(error) => break Some(error),
            }
        };
        if let Some(error) = error {
            active.tries += 1;
            active.phase = Phase::New;
            if let Err(dead) = self.mend() {
                self.failed = Some(dead);
                return Some(Err(dead));
            }
            if active.tries == TRIES {
                return Some(Err(error));
            }
            self.mended = self.mended.wrapping_add(1);
        }
        self.active = Some(active);
        None
    }

    fn step(&mut self, active: &mut Active, blocks: &mut impl Blocks, budget: &mut u32) -> Result<Step, Error> {
        if active.phase == Phase::New {
            self.begin_command(active)?;
        }
        active.happened |= self.controller.take();
        if let Some(error) = error_of(active.happened) {
            return Err(error);
        }
        let step = match active.phase {
            Phase::New => Step::Next,
            Phase::Command => self.command_has_ended(active)?,
            Phase::Data => self.move_blocks(active, blocks, budget),
            Phase::End => self.transfer_has_ended(active)?,
            Phase::Status => self.status_has_come(active)?,
        };
        if matches!(step, Step::Wait) && *budget > 0 && self.controller.io.now_us() >= active.deadline {
            return Err(Error::Stuck);
        }
        Ok(step)
    }

    fn begin_command(&mut self, active: &mut Active) -> Result<(), Error> {
        let Transfer { direction, sector, blocks } = active.transfer;
        let index = match (direction, blocks) {
            (Direction::Read, 1) => READ_SINGLE,
            (Direction::Read, _) => READ_MULTIPLE,
            (Direction::Write, 1) => WRITE_SINGLE,
            (Direction::Write, _) => WRITE_MULTIPLE,
        };
        (active.moved, active.happened) = (0, 0);
        self.enter(active, Phase::Command);
        self.controller.begin_data(index, self.card.argument(sector), direction, blocks as u16, BLOCK as u16)
    }

    fn enter(&self, active: &mut Active, phase: Phase) {
        active.phase = phase;
        active.deadline = self.controller.after(PATIENCE_US);
    }

    fn command_has_ended(&mut self, active: &mut Active) -> Result<Step, Error> {
        if active.happened & status::COMMAND == 0 {
            return Ok(Step::Wait);
        }
        check(self.controller.io.read(Register::Response0))?;
        self.enter(active, Phase::Data);
        Ok(Step::Next)
    }

    fn move_blocks(&mut self, active: &mut Active, blocks: &mut impl Blocks, budget: &mut u32) -> Step {
        let is_read = active.transfer.direction == Direction::Read;
        let ready = if is_read { present::READ_READY } else { present::WRITE_READY };
        while active.moved < active.transfer.blocks {
            if *budget == 0 || self.controller.io.read(Register::Present) & ready == 0 {
                return Step::Wait;
            }
            blocks.begin(active.moved);
            for word in 0..BLOCK / 8 {
                if is_read {
                    let low = u64::from(self.controller.io.read(Register::Data));
                    let high = u64::from(self.controller.io.read(Register::Data));
                    blocks.store(word, high << 32 | low);
                } else {
                    let value = blocks.load(word);
                    self.controller.io.write(Register::Data, value as u32);
                    self.controller.io.write(Register::Data, (value >> 32) as u32);
                }
            }
            active.moved += 1;
            *budget -= 1;
            self.enter(active, Phase::Data);
        }
        active.phase = Phase::End;
        Step::Next
    }

    fn transfer_has_ended(&mut self, active: &mut Active) -> Result<Step, Error> {
        if active.happened & status::TRANSFER == 0 {
            return Ok(Step::Wait);
        }
        if active.transfer.direction == Direction::Read {
            return Ok(Step::End);
        }
        if active.transfer.blocks > 1 {
            // What went wrong with the blocks the card has said to the controller's own CMD12, and says it only once.
            check(self.controller.io.read(Register::Response3))?;
        }
        self.ask(active)?;
        Ok(Step::Next)
    }

    /// Asks whether the card is done with what was written.
    fn ask(&mut self, active: &mut Active) -> Result<(), Error> {
        active.happened = 0;
        active.phase = Phase::Status;
        self.controller.begin(SEND_STATUS, self.card.address)
    }

    fn status_has_come(&mut self, active: &mut Active) -> Result<Step, Error> {
        if active.happened & status::COMMAND == 0 {
            return Ok(Step::Wait);
        }
        let answer = self.controller.io.read(Register::Response0);
        check(answer)?;
        if is_ready(answer) {
            return Ok(Step::End);
        }
        // Each question takes the card a while, and its answer interrupts. The limit is that since the last block.
        self.ask(active)?;
        Ok(Step::Wait)
    }

    /// Brings controller and card to where a transfer can begin, after an error. It waits, for less than a service may be silent.
    fn mend(&mut self) -> Result<(), Error> {
        let deadline = self.controller.after(MEND_US);
        if self.controller.reset_lines().is_ok() {
            // It fails if there is nothing to be stopped.
            let _ = self.controller.command(STOP, 0, deadline);
            let _ = self.controller.wait_ready(deadline);
            let answer = self.controller.command(SEND_STATUS, self.card.address, deadline);
            if answer.is_ok_and(is_ready) {
                return Ok(());
            }
        }
        let card = start::start(&mut self.controller)?;
        // Nothing that was meant for one card is written to another.
        if (card.cid, card.sectors) != (self.card.cid, self.card.sectors) {
            return Err(Error::Changed);
        }
        self.card = card;
        Ok(())
    }

    /// Asks for interrupts. `true`: there is nothing to do now, and the caller may sleep.
    pub fn listen(&mut self) -> bool {
        let Some(active) = self.active else { return true };
        let ready = match (active.phase, active.transfer.direction) {
            (Phase::New, _) => return false,
            (Phase::Data, Direction::Read) => present::READ_READY,
            (Phase::Data, Direction::Write) => present::WRITE_READY,
            _ => 0,
        };
        self.controller.io.write(Register::SignalEnable, status::ALL);
        // What came before that does interrupt: the line is a level. But not a buffer that was ready, and said so, long ago.
        let io = &self.controller.io;
        io.read(Register::Status) & status::ALL == 0 && io.read(Register::Present) & ready == 0
    }

    /// Asks for no interrupts: the controller holds its line no more.
    pub fn ignore(&mut self) {
        self.controller.io.write(Register::SignalEnable, 0);
    }
}

/// Whether a card waits for commands and is done with what was written.
const fn is_ready(answer: u32) -> bool {
    r1::state(answer) == r1::TRANSFER && answer & r1::READY != 0
}

/// What a card's answer says has failed.
const fn check(answer: u32) -> Result<(), Error> {
    if answer & r1::ERRORS == 0 { Ok(()) } else { Err(Error::Card(answer)) }
}
