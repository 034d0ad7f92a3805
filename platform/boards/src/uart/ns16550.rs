//! 16550 UART, and the BCM2835 mini UART, whose registers are the same where we use them
//! (BCM2711 ARM Peripherals, "Auxiliaries: UART1").

/// Transmit data.
const DATA: usize = 0;
/// Interrupt enable.
const IER: usize = 1;
/// FIFO control.
const FCR: usize = 2;
/// Line status.
const LSR: usize = 5;

const LSR_TRANSMIT_ROOM: u8 = 1 << 5;
const LSR_TRANSMIT_IDLE: u8 = 1 << 6;
const FCR_ENABLE: u8 = 1;

/// Registers of unknown width and stride.
pub struct Registers {
    pub base: usize,
    pub shift: u8,
    pub wide: bool,
}

impl Registers {
    pub fn enable(&self) {
        self.write(IER, 0);
        self.write(FCR, FCR_ENABLE);
    }

    pub fn try_put(&self, byte: u8) -> bool {
        let room = self.read(LSR) & LSR_TRANSMIT_ROOM != 0;
        if room {
            self.write(DATA, byte);
        }
        room
    }

    pub fn busy(&self) -> bool {
        self.read(LSR) & LSR_TRANSMIT_IDLE == 0
    }

    fn read(&self, register: usize) -> u8 {
        let at = core::ptr::with_exposed_provenance::<u8>(self.base + (register << (self.shift & 7)));
        // SAFETY: a register of the mapped UART, by the contract of `Uart::new`.
        if self.wide { unsafe { at.cast::<u32>().read_volatile() as u8 } } else { unsafe { at.read_volatile() } }
    }

    fn write(&self, register: usize, value: u8) {
        let at = core::ptr::with_exposed_provenance_mut::<u8>(self.base + (register << (self.shift & 7)));
        if self.wide {
            // SAFETY: as above.
            unsafe { at.cast::<u32>().write_volatile(u32::from(value)) };
        } else {
            // SAFETY: as above.
            unsafe { at.write_volatile(value) };
        }
    }
}
