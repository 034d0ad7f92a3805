//! The receiving half of the UART, with its interrupt and what it tells of the line.

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

/// Registers of a PL011, and bits in them. (Arm DDI 0183, "Programmers model")
mod pl011 {
    pub const DATA: usize = 0x00;
    pub const FLAGS: usize = 0x18;
    pub const INTERRUPT_MASK: usize = 0x38;
    pub const INTERRUPT_CLEAR: usize = 0x44;
    pub const DATA_BREAK: u32 = 1 << 10;
    pub const FLAGS_EMPTY: u32 = 1 << 4;
    /// Received, and received long ago.
    pub const RECEIVE: u32 = 1 << 4 | 1 << 6;
}

/// Registers of a 16550 by number, and bits in them; those of the BCM2835 mini UART are the same where they are used here.
mod ns16550 {
    pub const DATA: usize = 0;
    pub const INTERRUPT_ENABLE: usize = 1;
    pub const LINE_STATUS: usize = 5;
    pub const STATUS_READY: u32 = 1 << 0;
    pub const STATUS_BREAK: u32 = 1 << 4;
    /// Receive data; the mini UART wants the line-status bit beside it.
    pub const RECEIVE: u32 = 0b101;
}

/// The receiving half of a UART.
#[derive(Clone, Copy, Debug)]
pub struct Receiver {
    kind: UartKind,
    base: usize,
}

impl Receiver {
    /// Takes the UART whose registers are mapped at `base`.
    ///
    /// # Safety
    /// The registers of a UART of this kind are mapped at `base` as device memory for as long as the value lives.
    pub unsafe fn new(kind: UartKind, base: usize) -> Self {
        Self { kind, base }
    }

    /// Turns on the interrupt that tells of received bytes; its level stays high until [`Receiver::get`] took them all.
    pub fn enable_interrupt(&self) {
        match self.kind {
            UartKind::Pl011 => self.write(pl011::INTERRUPT_MASK, pl011::RECEIVE),
            UartKind::Ns16550 { .. } => self.write(ns16550::INTERRUPT_ENABLE, ns16550::RECEIVE),
        }
    }

    /// Clears what of the interrupt does not go away by taking the bytes (the PL011's timeout).
    pub fn acknowledge_interrupt(&self) {
        if self.kind == UartKind::Pl011 {
            self.write(pl011::INTERRUPT_CLEAR, pl011::RECEIVE);
        }
    }

    /// Takes what came next.
    pub fn get(&self) -> Received {
        let (is_empty, is_break, data) = match self.kind {
            UartKind::Pl011 => {
                if self.read(pl011::FLAGS) & pl011::FLAGS_EMPTY != 0 {
                    return Received::Nothing;
                }
                let data = self.read(pl011::DATA);
                (false, data & pl011::DATA_BREAK != 0, data)
            }
            UartKind::Ns16550 { .. } => {
                let status = self.read(ns16550::LINE_STATUS);
                let is_empty = status & ns16550::STATUS_READY == 0;
                let data = if is_empty { 0 } else { self.read(ns16550::DATA) };
                (is_empty, status & ns16550::STATUS_BREAK != 0, data)
            }
        };
        match (is_break, is_empty) {
            (true, _) => Received::Break,
            (false, true) => Received::Nothing,
            (false, false) => Received::Byte(data as u8),
        }
    }

    fn read(&self, register: usize) -> u32 {
        let (offset, is_wide) = self.place(register);
        let at = core::ptr::with_exposed_provenance::<u8>(self.base + offset);
        if is_wide {
            // SAFETY: a register of the mapped UART, by the contract of `new`.
            unsafe { at.cast::<u32>().read_volatile() }
        } else {
            // SAFETY: as above.
            u32::from(unsafe { at.read_volatile() })
        }
    }

    fn write(&self, register: usize, value: u32) {
        let (offset, is_wide) = self.place(register);
        let at = core::ptr::with_exposed_provenance_mut::<u8>(self.base + offset);
        if is_wide {
            // SAFETY: as in `read`.
            unsafe { at.cast::<u32>().write_volatile(value) };
        } else {
            // SAFETY: as in `read`.
            unsafe { at.write_volatile(value as u8) };
        }
    }

    /// Offset of a register, and whether it takes 32 bits.
    fn place(&self, register: usize) -> (usize, bool) {
        match self.kind {
            UartKind::Pl011 => (register, true),
            UartKind::Ns16550 { register_shift, wide } => (register << (register_shift & 7), wide),
        }
    }
}
