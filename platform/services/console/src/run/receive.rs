//! The receiving half of the UART, with its interrupt and what it tells of the line.

use crate::registers::{Registers, ns16550, pl011};
use portico_boards::UartKind;

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Nothing.
    Nothing,
    /// A byte.
    Byte(u8),
    /// The line was held low for longer than a byte.
    Break,
}

/// Bits of a PL011's registers.
const DATA_BREAK: u32 = 1 << 10;
const FLAGS_EMPTY: u32 = 1 << 4;
/// Received, and received long ago.
const PL011_RECEIVE: u32 = 1 << 4 | 1 << 6;
/// Bits of a 16550's registers.
const STATUS_READY: u32 = 1 << 0;
const STATUS_BREAK: u32 = 1 << 4;
/// Receive data; the mini UART wants the line-status bit beside it.
const NS16550_RECEIVE: u32 = 0b101;

/// The receiving half of a UART.
#[derive(Clone, Copy, Debug)]
pub struct Receiver {
    registers: Registers,
}

impl Receiver {
    /// Takes a UART that is on.
    pub fn new(registers: Registers) -> Self {
        Self { registers }
    }

    /// Turns on the interrupt that tells of received bytes; its level stays high until [`Receiver::get`] took them all.
    pub fn enable_interrupt(&self) {
        match self.registers.kind {
            UartKind::Pl011 => self.registers.write(pl011::INTERRUPT_MASK, PL011_RECEIVE),
            UartKind::Ns16550 { .. } => self.registers.write(ns16550::INTERRUPT_ENABLE, NS16550_RECEIVE),
        }
    }

    /// Clears what of the interrupt does not go away by taking the bytes (the PL011's timeout).
    pub fn acknowledge_interrupt(&self) {
        if self.registers.kind == UartKind::Pl011 {
            self.registers.write(pl011::INTERRUPT_CLEAR, PL011_RECEIVE);
        }
    }

    /// Takes what came next.
    pub fn get(&self) -> Received {
        let (is_empty, is_break, data) = match self.registers.kind {
            UartKind::Pl011 => {
                if self.registers.read(pl011::FLAGS) & FLAGS_EMPTY != 0 {
                    return Received::Nothing;
                }
                let data = self.registers.read(pl011::DATA);
                (false, data & DATA_BREAK != 0, data)
            }
            UartKind::Ns16550 { .. } => {
                let status = self.registers.read(ns16550::LINE_STATUS);
                let is_empty = status & STATUS_READY == 0;
                let data = if is_empty { 0 } else { self.registers.read(ns16550::DATA) };
                (is_empty, status & STATUS_BREAK != 0, data)
            }
        };
        match (is_break, is_empty) {
            (true, _) => Received::Break,
            (false, true) => Received::Nothing,
            (false, false) => Received::Byte(data as u8),
        }
    }
}
