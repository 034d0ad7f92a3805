//! Gets a card ready. (PHYS, "Card Identification Mode"; HOST, "Card Initialization and Identification")

use super::card::{BLOCK, CONDITION, Csd, Long, SELECT_HIGH_SPEED, Scr, is_high_speed, ocr, r1};
use super::controller::{Command, Controller, Error, Response};
use super::registers::{Io, Register, capability, control, present};

/// How long all of it may take, with what a card does before it is ready, which is a second at most.
const START_US: u64 = 1_200_000;
/// Pause after the power and the clock, of which a card needs a millisecond and 74 clocks.
const POWER_US: u64 = 2_000;
/// Pause between two questions whether it is ready.
const READY_US: u64 = 1_000;
/// Clock while cards are identified.
const IDENTIFY_HZ: u32 = 400_000;
/// Clock of every card.
const DEFAULT_HZ: u32 = 25_000_000;
/// Clock of a card with high speed.
const HIGH_SPEED_HZ: u32 = 50_000_000;

const GO_IDLE: Command = Command::new(0, Response::None);
const ALL_SEND_CID: Command = Command::new(2, Response::Long);
const SEND_RELATIVE_ADDRESS: Command = Command::new(3, Response::Short);
const SELECT: Command = Command::new(7, Response::Busy);
const SEND_CONDITION: Command = Command::new(8, Response::Short);
const SEND_CSD: Command = Command::new(9, Response::Long);
const SET_BLOCK_LENGTH: Command = Command::new(16, Response::Short);
const APPLICATION: Command = Command::new(55, Response::Short);
/// SWITCH_FUNCTION, with data.
const SWITCH: u32 = 6;
/// After `APPLICATION`:
const SET_BUS_WIDTH: Command = Command::new(6, Response::Short);
const OPERATE: Command = Command::new(41, Response::Conditions);
/// SEND_SCR, with data.
const SEND_SCR: u32 = 51;

/// A card that is ready for transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its number among cards, no two of which are the same.
    pub cid: Long,
    /// Its address, as arguments have it.
    pub address: u32,
    /// Arguments count blocks, not bytes.
    pub is_block_addressed: bool,
    /// Size in blocks of 512 bytes.
    pub sectors: u64,
    /// By its switch, or by what it says of itself.
    pub is_read_only: bool,
    /// It uses four data lines.
    pub has_four_lines: bool,
    /// Up to 50 MHz.
    pub is_fast: bool,
}

impl Card {
    /// The argument that names a block.
    pub fn argument(&self, sector: u64) -> u32 {
        let argument = if self.is_block_addressed { sector } else { sector * BLOCK as u64 };
        // It is inside the card: one with byte addresses has at most 4 GiB, one with block addresses 2 TiB.
        argument as u32
    }
}

/// Resets controller and card, whatever they were doing, and gets the card ready.
///
/// # Errors
/// Any of [`Error`] but `Changed`.
pub fn start<I: Io>(controller: &mut Controller<I>) -> Result<Card, Error> {
    let deadline = controller.after(START_US);
    controller.reset()?;
    controller.set_clock(IDENTIFY_HZ)?;
    controller.pause(POWER_US);
    // What an earlier life of the service was writing ends first, if the card is at it.
    controller.wait_ready(deadline)?;
    controller.command(GO_IDLE, 0, deadline)?;
    let is_block_addressed = operate(controller, deadline)?;
    controller.command(ALL_SEND_CID, 0, deadline)?;
    let cid = controller.long_response();
    let address = controller.command(SEND_RELATIVE_ADDRESS, 0, deadline)? & 0xffff_0000;
    controller.command(SEND_CSD, address, deadline)?;
    let csd = Csd::decode(controller.long_response()).ok_or(Error::Unknown)?;
    if controller.command(SELECT, address, deadline)? & r1::LOCKED != 0 {
        return Err(Error::Unknown);
    }
    controller.command(SET_BLOCK_LENGTH, BLOCK as u32, deadline)?;
    let is_writable = controller.io.read(Register::Present) & present::WRITABLE != 0;
    let largest = if is_block_addressed { 1 << 32 } else { 1 << (32 - 9) };
    let mut card = Card {
        cid,
        address,
        is_block_addressed,
        sectors: csd.sectors.min(largest),
        is_read_only: csd.is_protected || !is_writable,
        has_four_lines: false,
        is_fast: false,
    };
    speed_up(controller, &mut card, csd.has_switch, deadline)?;
    Ok(card)
}

/// Asks the card until it operates. Returns whether it is addressed by blocks.
fn operate<I: Io>(controller: &mut Controller<I>, deadline: u64) -> Result<bool, Error> {
    let wanted = match controller.command(SEND_CONDITION, CONDITION, deadline) {
        Ok(condition) if condition & 0xfff == CONDITION => ocr::VOLTAGES | ocr::BLOCKS,
        Ok(_) => return Err(Error::Unknown),
        // A card of version 1 does not know the question, and has bytes as addresses.
        Err(Error::NoResponse) => ocr::VOLTAGES,
        Err(error) => return Err(error),
    };
    loop {
        controller.command(APPLICATION, 0, deadline).map_err(|error| match error {
            Error::NoResponse => Error::Absent,
            error => error,
        })?;
        let conditions = controller.command(OPERATE, wanted, deadline)?;
        if conditions & ocr::READY != 0 {
            return Ok(conditions & wanted & ocr::BLOCKS != 0);
        }
        if controller.io.now_us() >= deadline {
            return Err(Error::Stuck);
        }
        controller.pause(READY_US);
    }
}

/// Uses what the card can do beyond one data line and 25 MHz.
fn speed_up<I: Io>(
    controller: &mut Controller<I>,
    card: &mut Card,
    has_switch: bool,
    deadline: u64,
) -> Result<(), Error> {
    controller.set_clock(DEFAULT_HZ)?;
    let mut scr = [0; 8];
    controller.command(APPLICATION, card.address, deadline)?;
    controller.read_short(SEND_SCR, 0, &mut scr)?;
    let scr = Scr::decode(scr);
    let mut lines = control::POWER;
    if scr.has_four_lines {
        controller.command(APPLICATION, card.address, deadline)?;
        controller.command(SET_BUS_WIDTH, 2, deadline)?;
        lines |= control::FOUR_LINES;
        controller.io.write(Register::Control, lines);
        card.has_four_lines = true;
    }
    if has_switch && scr.has_switch && controller.io.read(Register::Capabilities) & capability::HIGH_SPEED != 0 {
        let mut result = [0; 64];
        controller.read_short(SWITCH, SELECT_HIGH_SPEED, &mut result)?;
        if is_high_speed(&result) {
            controller.io.write(Register::Control, lines | control::HIGH_SPEED);
            controller.set_clock(HIGH_SPEED_HZ)?;
            card.is_fast = true;
        }
    }
    Ok(())
}
