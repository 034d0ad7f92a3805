//! The sending half of the UART: how much it takes is asked as seldom as can be, since a register of a device is slow.

use crate::registers::{Registers, Slot, ns16550, pl011};
use portico_boards::UartKind;

const FLAGS_BUSY: u32 = 1 << 3;
const FLAGS_FULL: u32 = 1 << 5;
const FLAGS_EMPTY: u32 = 1 << 7;
const LINE_CONTROL_FIFO: u32 = 1 << 4;
const CONTROL_ON: u32 = 1 << 0;
const STATUS_ROOM: u32 = 1 << 5;
/// Bytes that the FIFO of every revision of a PL011 holds.
const FIFO: usize = 16;
/// Looks at a PL011 that sends what others left. One that never ends is taken as it is.
const PATIENCE: u32 = 10_000_000;

/// The sending half of a UART.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    registers: Registers,
    /// Bytes that it takes when nothing waits in it.
    depth: usize,
}

impl Sender {
    /// Takes a UART that is on. A PL011 gets its FIFOs: without them it takes one byte at a time, and what is received while another is not taken yet is lost.
    pub fn new(registers: Registers) -> Self {
        let depth = match registers.kind {
            UartKind::Pl011 if has_fifo(&registers) => FIFO,
            // The mini UART says that there is room as soon as there is for one.
            UartKind::Pl011 | UartKind::Ns16550 { .. } => 1,
        };
        Self { registers, depth }
    }

    /// How many bytes it certainly takes now; there may be room for more.
    #[inline]
    pub fn room(&self) -> usize {
        match self.registers.kind {
            UartKind::Pl011 => {
                let flags = self.registers.read(pl011::FLAGS);
                if flags & FLAGS_EMPTY != 0 { self.depth } else { usize::from(flags & FLAGS_FULL == 0) }
            }
            UartKind::Ns16550 { .. } => usize::from(self.registers.read(ns16550::LINE_STATUS) & STATUS_ROOM != 0),
        }
    }

    /// Where bytes are written, each of which there must be [`Sender::room`] for: else it is lost.
    pub fn slot(&self) -> Slot {
        self.registers.slot(match self.registers.kind {
            UartKind::Pl011 => pl011::DATA,
            UartKind::Ns16550 { .. } => ns16550::DATA,
        })
    }
}

/// Turns the FIFOs of a PL011 on, if they are not. Returns whether they are. (Arm DDI 0183, "Control Register, UARTCR")
fn has_fifo(registers: &Registers) -> bool {
    let line = registers.read(pl011::LINE_CONTROL);
    if line & LINE_CONTROL_FIFO != 0 {
        return true;
    }
    // The line's registers may be written only while the UART is off, and it goes off only when it sends nothing.
    let is_quiet = (0..PATIENCE).any(|_| registers.read(pl011::FLAGS) & FLAGS_BUSY == 0);
    if is_quiet {
        let control = registers.read(pl011::CONTROL);
        registers.write(pl011::CONTROL, control & !CONTROL_ON);
        registers.write(pl011::LINE_CONTROL, line | LINE_CONTROL_FIFO);
        registers.write(pl011::CONTROL, control);
    }
    is_quiet
}
