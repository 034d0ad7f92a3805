//! Arm PrimeCell UART (Arm DDI 0183, "Programmers model").

use tock_registers::interfaces::{ReadWriteable, Readable, Writeable};
use tock_registers::registers::{ReadOnly, ReadWrite, WriteOnly};
use tock_registers::{register_bitfields, register_structs};

register_bitfields! { u32,
    Flags [
        BUSY OFFSET(3) NUMBITS(1) [],
        RXFE OFFSET(4) NUMBITS(1) [],
        TXFF OFFSET(5) NUMBITS(1) []
    ],
    Control [
        UARTEN OFFSET(0) NUMBITS(1) [],
        TXE OFFSET(8) NUMBITS(1) [],
        RXE OFFSET(9) NUMBITS(1) []
    ],
    Interrupts [
        RX OFFSET(4) NUMBITS(1) [],
        RX_TIMEOUT OFFSET(6) NUMBITS(1) []
    ]
}

register_structs! {
    pub Registers {
        (0x00 => data: ReadWrite<u32>),
        (0x04 => _reserved0),
        (0x18 => flags: ReadOnly<u32, Flags::Register>),
        (0x1c => _reserved1),
        (0x30 => control: ReadWrite<u32, Control::Register>),
        (0x34 => _reserved2),
        (0x38 => interrupt_mask: ReadWrite<u32, Interrupts::Register>),
        (0x3c => _reserved3),
        (0x44 => interrupt_clear: WriteOnly<u32, Interrupts::Register>),
        (0x48 => @END),
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

    pub fn get(&self) -> Option<u8> {
        (!self.flags.is_set(Flags::RXFE)).then(|| self.data.get() as u8)
    }

    pub fn busy(&self) -> bool {
        self.flags.is_set(Flags::BUSY)
    }

    pub fn enable_receive_interrupt(&self) {
        self.interrupt_mask.write(Interrupts::RX::SET + Interrupts::RX_TIMEOUT::SET);
    }

    pub fn acknowledge(&self) {
        self.interrupt_clear.write(Interrupts::RX::SET + Interrupts::RX_TIMEOUT::SET);
    }
}
