//! Arm PrimeCell UART (Arm DDI 0183, "Programmers model").

use tock_registers::interfaces::{ReadWriteable, Readable, Writeable};
use tock_registers::registers::{ReadOnly, ReadWrite};
use tock_registers::{register_bitfields, register_structs};

register_bitfields! { u32,
    Flags [
        BUSY OFFSET(3) NUMBITS(1) [],
        TXFF OFFSET(5) NUMBITS(1) []
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
        (0x30 => control: ReadWrite<u32, Control::Register>),
        (0x34 => @END),
    }
}

impl Registers {
    pub fn enable(&self) {
        self.control.modify(Control::UARTEN::SET + Control::TXE::SET + Control::RXE::SET);
    }

    pub fn try_put(&self, byte: u8) -> bool {
        let room = !self.flags.is_set(Flags::TXFF);
        if room {
            self.data.set(u32::from(byte));
        }
        room
    }

    pub fn busy(&self) -> bool {
        self.flags.is_set(Flags::BUSY)
    }
}
