//! A controller with a card, as far as the driver needs one. It holds the driver to the rules: what the specifications forbid panics.

use super::registers::{Io, Register, clock, present, status};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// What goes wrong with the next command of an index.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// It ends with these bits of the interrupt status.
    Bus(u32),
    /// The status it answers has these bits too.
    Card(u32),
    /// Its data never comes.
    Silence,
}

#[derive(Debug, Default)]
pub struct State {
    registers: Vec<u32>,
    now: u64,
    status: u32,
    /// The card's state (PHYS, "Current State"), and whether CMD55 came before.
    card: u32,
    is_application: bool,
    /// What is moved: bytes of the buffer, or the place in `memory`, and how many blocks are left.
    buffer: VecDeque<u8>,
    at: usize,
    left: u32,
    is_write: bool,
    is_silent: bool,
    pub is_absent: bool,
    pub is_byte_addressed: bool,
    pub cid: u32,
    pub memory: Vec<u8>,
    pub faults: Vec<(u32, Fault)>,
    pub commands: Vec<u32>,
    /// Answers "busy" to so many CMD13.
    pub busy: u32,
}

/// The model.
#[derive(Debug, Default)]
pub struct Model {
    pub state: RefCell<State>,
    reads: Cell<u64>,
}

impl Model {
    pub fn new(sectors: usize) -> Model {
        let memory = (0..sectors * 512).map(|at| (at * 31 + at / 512) as u8).collect();
        let state = State { registers: vec![0; 64], memory, cid: 77, ..State::default() };
        Model { state: RefCell::new(state), reads: Cell::default() }
    }
}

impl Io for Model {
    fn read(&self, register: Register) -> u32 {
        self.reads.set(self.reads.get() + 1);
        let mut state = self.state.borrow_mut();
        match register {
            Register::Data => state.pop(),
            Register::Present => state.present(),
            Register::Status => state.status & state.get(Register::StatusEnable),
            Register::Capabilities => 0x0521_34b4,
            Register::Version => 2 << 16,
            _ => state.get(register),
        }
    }

    fn write(&mut self, register: Register, value: u32) {
        let mut state = self.state.borrow_mut();
        match register {
            Register::Status => state.status &= !value,
            Register::Data => state.push(value),
            Register::Command => state.command(value),
            Register::Clock => {
                let stable = if value & clock::INTERNAL != 0 { clock::STABLE } else { 0 };
                if value & (clock::RESET_ALL | clock::RESET_LINES) != 0 {
                    state.buffer.clear();
                    state.left = 0;
                    state.status = 0;
                }
                state.set(register, value & !(clock::RESET_ALL | clock::RESET_LINES) | stable);
            }
            _ => state.set(register, value),
        }
    }

    fn now_us(&self) -> u64 {
        let mut state = self.state.borrow_mut();
        state.now += 50;
        state.now
    }
}

impl State {
    fn get(&self, register: Register) -> u32 {
        self.registers[register as usize / 4]
    }

    fn set(&mut self, register: Register, value: u32) {
        self.registers[register as usize / 4] = value;
    }

    fn present(&self) -> u32 {
        let is_moving = self.left > 0 || !self.buffer.is_empty();
        let ready = match self.is_write {
            true if self.left > 0 && !self.is_silent => present::WRITE_READY,
            false if !self.buffer.is_empty() => present::READ_READY,
            _ => 0,
        };
        ready | if is_moving { present::DATA_INHIBIT } else { 0 } | present::DATA0 | present::WRITABLE
    }

    fn fill(&mut self) {
        let end = self.at + 512;
        if !self.is_silent {
            self.buffer.extend(&self.memory[self.at..end]);
            self.at = end;
            self.status |= status::READ_READY;
        }
    }

    fn pop(&mut self) -> u32 {
        let bytes = [0; 4].map(|_: u8| self.buffer.pop_front().expect("the buffer has a word"));
        if self.buffer.is_empty() {
            self.left -= 1;
            if self.left == 0 { self.end() } else { self.fill() }
        }
        u32::from_le_bytes(bytes)
    }

    fn push(&mut self, value: u32) {
        assert!(self.is_write && self.left > 0, "the buffer takes a word");
        self.buffer.extend(value.to_le_bytes());
        if self.buffer.len() == 512 {
            for byte in std::mem::take(&mut self.buffer) {
                self.memory[self.at] = byte;
                self.at += 1;
            }
            self.left -= 1;
            self.status |= status::WRITE_READY;
            if self.left == 0 {
                self.end();
            }
        }
    }

    fn end(&mut self) {
        self.card = 4;
        self.status |= status::TRANSFER;
        self.set(Register::Response3, 4 << 9);
    }

    fn command(&mut self, word: u32) {
        let index = word >> 24;
        let argument = self.get(Register::Argument);
        assert!(self.get(Register::Clock) & clock::CARD != 0, "a command without clock");
        assert!(word & 1 << 21 == 0 || self.left == 0, "data while data is moved");
        self.commands.push(index);
        let fault = self.faults.iter().position(|(at, _)| *at == index).map(|at| self.faults.remove(at).1);
        if self.is_absent && index != 0 {
            self.status |= status::NO_RESPONSE;
            return;
        }
        if let Some(Fault::Bus(bits)) = fault {
            // The card may have heard it all the same.
            self.card = if matches!(index, 17 | 18) { 5 } else { self.card };
            self.status |= bits;
            return;
        }
        self.is_silent = matches!(fault, Some(Fault::Silence));
        let is_application = std::mem::take(&mut self.is_application);
        let mut answer = self.card << 9 | 1 << 8;
        self.status |= status::COMMAND;
        match index {
            0 => self.card = 0,
            2 => {
                self.set(Register::Response0, self.cid);
                return;
            }
            3 => (answer, self.card) = (0x1234_0500, 3),
            6 if is_application => {}
            6 => self.short(&{
                let mut bytes = [0; 64];
                bytes[16] = 1;
                bytes
            }),
            7 => {
                assert_eq!((self.card, argument), (3, 0x1234_0000));
                self.card = 4;
                self.status |= status::TRANSFER;
            }
            8 if self.is_byte_addressed => self.status = status::NO_RESPONSE,
            8 => answer = argument,
            9 => {
                let blocks = self.memory.len() as u32 / 512;
                let csd = if self.is_byte_addressed {
                    9_u128 << 80 | u128::from(blocks / 4 - 1) << 62
                } else {
                    1_u128 << 126 | 0x5b5 << 84 | u128::from(blocks / 1024 - 1) << 48
                } >> 8;
                for (at, register) in
                    [Register::Response0, Register::Response1, Register::Response2, Register::Response3]
                        .into_iter()
                        .enumerate()
                {
                    self.set(register, (csd >> (32 * at)) as u32);
                }
                return;
            }
            12 => {
                if self.card == 4 {
                    self.status = status::NO_RESPONSE;
                    return;
                }
                self.card = 4;
                self.status |= status::TRANSFER;
            }
            13 if self.busy > 0 => {
                self.busy -= 1;
                answer = 7 << 9;
            }
            13 | 16 => {}
            17 | 18 | 24 | 25 => {
                assert_eq!(self.card, 4);
                let block = self.get(Register::Block);
                assert_eq!(block & 0xfff, 512);
                self.left = block >> 16;
                assert_eq!(self.left > 1, matches!(index, 18 | 25) && word & 0x26 == 0x26);
                self.is_write = index >= 24;
                assert_eq!(self.is_write, word & 0x10 == 0);
                self.at = argument as usize * if self.is_byte_addressed { 1 } else { 512 };
                self.card = if self.is_write { 6 } else { 5 };
                if !self.is_write {
                    self.fill();
                }
            }
            41 => {
                assert!(is_application);
                answer = 1 << 31 | if self.is_byte_addressed { 0 } else { 1 << 30 };
                self.card = 2;
            }
            51 => self.short(&[2, 0x25, 0, 0, 0, 0, 0, 0]),
            55 => self.is_application = true,
            _ => panic!("command {index}"),
        }
        if let Some(Fault::Card(bits)) = fault {
            answer |= bits;
        }
        self.set(Register::Response0, answer);
    }

    fn short(&mut self, bytes: &[u8]) {
        self.is_write = false;
        self.left = 1;
        self.buffer.extend(bytes);
        self.status |= status::READ_READY;
    }
}
