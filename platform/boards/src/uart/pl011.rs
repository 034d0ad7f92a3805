//! Arm PrimeCell UART (Arm DDI 0183, "Programmers model").

use tock_registers::interfaces::{ReadWriteable, Readable, Writeable};
use tock_registers::registers::{ReadOnly, ReadWrite};
use tock_registers::{register_bitfields, register_structs};

/// Bytes that the transmit FIFO of every revision holds.
const FIFO: usize = 16;

/// Looks at a UART that sends what the firmware left. One that never ends is taken as it is.
const PATIENCE: u32 = 10_000_000;

register_bitfields! { u32,
    Flags [
        BUSY OFFSET(3) NUMBITS(1) [],
        TXFF OFFSET(5) NUMBITS(1) [],
        TXFE OFFSET(7) NUMBITS(1) []
    ],
    LineControl [
        FEN OFFSET(4) NUMBITS(1) []
    ],
    Control [
        UARTEN OFFSET(0) NUMBITS(1) [],
        TXE OFFSET(8) NUMBITS(1) [],
        RXE OFFSET(9) NUMBITS(1) []
    ]
}

register_structs! {
    pub Registers {
        (0x00 => data: ReadWrite<u32>),
        (0x04 => _reserved0),
        (0x18 => flags: ReadOnly<u32, Flags::Register>),
        (0x1c => _reserved1),
        (0x2c => line_control: ReadWrite<u32, LineControl::Register>),
        (0x30 => control: ReadWrite<u32, Control::Register>),
        (0x34 => @END),
    }
}

impl Registers {
    /// Turns both directions on, with their FIFOs: without those a byte that is not taken at once is lost.
    pub fn enable(&self) {
        // The line's registers may be written only while the UART is off, and it goes off only when it sends nothing.
        if !self.line_control.is_set(LineControl::FEN) && (0..PATIENCE).any(|_| !self.busy()) {
            self.control.modify(Control::UARTEN::CLEAR);
            self.line_control.modify(LineControl::FEN::SET);
        }
        self.control.modify(Control::UARTEN::SET + Control::TXE::SET + Control::RXE::SET);
    }

    /// An empty FIFO, if the firmware has enabled it, takes all that it holds; else nobody knows more than that there is room.
    pub fn room(&self) -> usize {
        let flags = self.flags.extract();
        if flags.is_set(Flags::TXFE) && self.line_control.is_set(LineControl::FEN) {
            FIFO
        } else {
            usize::from(!flags.is_set(Flags::TXFF))
        }
    }

    #[inline]
    pub fn put(&self, byte: u8) {
        self.data.set(u32::from(byte));
    }

    pub fn busy(&self) -> bool {
        self.flags.is_set(Flags::BUSY)
    }
}
