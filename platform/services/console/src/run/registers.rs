//! Registers of a UART, of whichever width and stride.

use portico_boards::UartKind;

/// Registers of a PL011. (Arm DDI 0183, "Programmers model")
pub mod pl011 {
    /// Received and sent bytes.
    pub const DATA: usize = 0x00;
    /// Flags.
    pub const FLAGS: usize = 0x18;
    /// Format of the line, and the FIFOs.
    pub const LINE_CONTROL: usize = 0x2c;
    /// What is on.
    pub const CONTROL: usize = 0x30;
    /// Interrupts that are let through.
    pub const INTERRUPT_MASK: usize = 0x38;
    /// Interrupts that are forgotten.
    pub const INTERRUPT_CLEAR: usize = 0x44;
}

/// Registers of a 16550 by number; those of the BCM2835 mini UART are the same where they are used here.
pub mod ns16550 {
    /// Received and sent bytes.
    pub const DATA: usize = 0;
    /// Interrupts that are let through.
    pub const INTERRUPT_ENABLE: usize = 1;
    /// State of both halves.
    pub const LINE_STATUS: usize = 5;
}

/// The registers of a UART.
#[derive(Clone, Copy, Debug)]
pub struct Registers {
    /// What the UART is.
    pub kind: UartKind,
    base: usize,
}

impl Registers {
    /// Takes the UART whose registers are mapped at `base`.
    ///
    /// # Safety
    /// The registers of a UART of this kind are mapped at `base` as device memory for as long as the value lives.
    pub unsafe fn new(kind: UartKind, base: usize) -> Self {
        Self { kind, base }
    }

    /// Reads a register.
    #[inline]
    pub fn read(&self, register: usize) -> u32 {
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

    /// Writes a register.
    #[inline]
    pub fn write(&self, register: usize, value: u32) {
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

    /// A register that is written again and again.
    pub fn slot(&self, register: usize) -> Slot {
        let (offset, is_wide) = self.place(register);
        let at = core::ptr::with_exposed_provenance_mut::<u8>(self.base + offset);
        if is_wide { Slot::Wide(Wide(at.cast())) } else { Slot::Narrow(Narrow(at)) }
    }

    /// Offset of a register, and whether it takes 32 bits.
    #[inline]
    fn place(&self, register: usize) -> (usize, bool) {
        match self.kind {
            UartKind::Pl011 => (register, true),
            UartKind::Ns16550 { register_shift, wide } => (register << (register_shift & 7), wide),
        }
    }
}

/// A register of a UART, as wide as it is.
#[derive(Clone, Copy, Debug)]
pub enum Slot {
    /// Of 32 bits.
    Wide(Wide),
    /// Of 8 bits.
    Narrow(Narrow),
}

/// A register of 32 bits, of mapped registers: see [`Registers::slot`].
#[derive(Clone, Copy, Debug)]
pub struct Wide(*mut u32);

/// A register of 8 bits, of mapped registers: see [`Registers::slot`].
#[derive(Clone, Copy, Debug)]
pub struct Narrow(*mut u8);

impl Wide {
    /// Writes a byte.
    #[inline(always)]
    pub fn write(self, byte: u8) {
        // SAFETY: a register of the mapped UART, by the contract of `Registers::new`.
        unsafe { self.0.write_volatile(u32::from(byte)) };
    }
}

impl Narrow {
    /// Writes a byte.
    #[inline(always)]
    pub fn write(self, byte: u8) {
        // SAFETY: as above.
        unsafe { self.0.write_volatile(byte) };
    }
}
