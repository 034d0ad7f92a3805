//! Console UARTs, for writing. Line settings stay as the firmware left them. Receiving is the console service's.
//!
//! (Arm DDI 0183, PL011, "Programmers model"; BCM2711 ARM Peripherals, "Auxiliaries: UART1", whose registers are a 16550's where we use them)

/// The programming interface of a UART.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UartKind {
    /// Arm PrimeCell PL011.
    Pl011,
    /// 16550 and its kin, the Raspberry Pi's mini UART among them.
    Ns16550 {
        /// Registers are `1 << register_shift` bytes apart.
        register_shift: u8,
        /// Registers take 32-bit accesses.
        wide: bool,
    },
}

/// Transmit data, of both kinds.
const DATA: usize = 0;

/// Offsets of the PL011's registers, and bits of them.
mod pl011 {
    pub const FLAGS: usize = 0x18;
    pub const FLAGS_BUSY: u32 = 1 << 3;
    pub const FLAGS_FULL: u32 = 1 << 5;
    pub const CONTROL: usize = 0x30;
    /// The UART, transmission and reception.
    pub const CONTROL_ENABLE: u32 = 1 << 0 | 1 << 8 | 1 << 9;
}

/// Numbers of the 16550's registers, and bits of them.
mod ns16550 {
    pub const INTERRUPT_ENABLE: usize = 1;
    pub const FIFO_CONTROL: usize = 2;
    pub const FIFO_CONTROL_ENABLE: u32 = 1;
    pub const LINE_STATUS: usize = 5;
    pub const LINE_STATUS_ROOM: u32 = 1 << 5;
    pub const LINE_STATUS_IDLE: u32 = 1 << 6;
}

/// A UART at a virtual address.
#[derive(Clone, Copy, Debug)]
pub struct Uart {
    kind: UartKind,
    base: usize,
}

impl Uart {
    /// Takes the UART whose registers are mapped at `base` and enables it.
    ///
    /// # Safety
    /// The registers of a UART of this kind are mapped at `base` as device memory for as long as the value lives.
    #[must_use]
    pub unsafe fn new(kind: UartKind, base: usize) -> Self {
        let uart = Self { kind, base };
        match kind {
            UartKind::Pl011 => uart.write(pl011::CONTROL, uart.read(pl011::CONTROL) | pl011::CONTROL_ENABLE),
            UartKind::Ns16550 { .. } => {
                uart.write(ns16550::INTERRUPT_ENABLE, 0);
                uart.write(ns16550::FIFO_CONTROL, ns16550::FIFO_CONTROL_ENABLE);
            }
        }
        uart
    }

    /// Sends a byte, waiting for room.
    pub fn put(&self, byte: u8) {
        self.wait(pl011::FLAGS_FULL, ns16550::LINE_STATUS_ROOM);
        self.write(DATA, byte.into());
    }

    /// Waits until everything has left.
    pub fn flush(&self) {
        self.wait(pl011::FLAGS_BUSY, ns16550::LINE_STATUS_IDLE);
    }

    /// Waits until a PL011 does not say `busy`, a 16550 `ready`.
    fn wait(&self, busy: u32, ready: u32) {
        while match self.kind {
            UartKind::Pl011 => self.read(pl011::FLAGS) & busy != 0,
            UartKind::Ns16550 { .. } => self.read(ns16550::LINE_STATUS) & ready == 0,
        } {
            core::hint::spin_loop();
        }
    }

    /// The address of a register, and whether it takes 32-bit accesses.
    fn place(&self, register: usize) -> (usize, bool) {
        match self.kind {
            UartKind::Pl011 => (self.base + register, true),
            UartKind::Ns16550 { register_shift, wide } => (self.base + (register << (register_shift & 7)), wide),
        }
    }

    fn read(&self, register: usize) -> u32 {
        let (at, wide) = self.place(register);
        let at = core::ptr::with_exposed_provenance::<u8>(at);
        // SAFETY: a register of the mapped UART, by the contract of `new`.
        if wide { unsafe { at.cast::<u32>().read_volatile() } } else { unsafe { at.read_volatile() }.into() }
    }

    fn write(&self, register: usize, value: u32) {
        let (at, wide) = self.place(register);
        let at = core::ptr::with_exposed_provenance_mut::<u8>(at);
        if wide {
            // SAFETY: as above.
            unsafe { at.cast::<u32>().write_volatile(value) };
        } else {
            // SAFETY: as above.
            unsafe { at.write_volatile(value as u8) };
        }
    }
}
