//! Console UARTs, for writing. Line settings stay as the firmware left them. Receiving is the console service's.

mod ns16550;
mod pl011;

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
            UartKind::Pl011 => uart.pl011().enable(),
            UartKind::Ns16550 { .. } => uart.ns16550().enable(),
        }
        uart
    }

    /// Sends a byte, waiting for room.
    pub fn put(&self, byte: u8) {
        while !self.try_put(byte) {
            core::hint::spin_loop();
        }
    }

    /// Sends a byte if there is room.
    #[must_use]
    pub fn try_put(&self, byte: u8) -> bool {
        match self.kind {
            UartKind::Pl011 => self.pl011().try_put(byte),
            UartKind::Ns16550 { .. } => self.ns16550().try_put(byte),
        }
    }

    /// Waits until everything has left.
    pub fn flush(&self) {
        while match self.kind {
            UartKind::Pl011 => self.pl011().busy(),
            UartKind::Ns16550 { .. } => self.ns16550().busy(),
        } {
            core::hint::spin_loop();
        }
    }

    fn pl011(&self) -> &pl011::Registers {
        // SAFETY: the contract of `new`; the structure consists of volatile cells.
        unsafe { &*core::ptr::with_exposed_provenance(self.base) }
    }

    fn ns16550(&self) -> ns16550::Registers {
        let (shift, wide) = match self.kind {
            UartKind::Ns16550 { register_shift, wide } => (register_shift, wide),
            UartKind::Pl011 => (0, false),
        };
        ns16550::Registers { base: self.base, shift, wide }
    }
}
