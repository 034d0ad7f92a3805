//! Power of boards whose firmware has no PSCI, by the board's own controller.
//!
//! One kind is known: the power management block of the BCM2835 and its successors, on every Raspberry Pi. It has no register for
//! power-off: its watchdog resets the chip, and what a field tells the boot loader makes that start again or stop.
//! (As Linux's `bcm2835_wdt` does it; there is no public manual of the block.)

use crate::devices;
use crate::machine::Range;
use core::ptr;

/// `compatible` of the block.
const COMPATIBLE: &[u8] = b"brcm,bcm2835-pm-wdt";

/// Offsets of the registers, in bytes.
const RSTC: usize = 0x1c;
const RSTS: usize = 0x20;
const WDOG: usize = 0x24;
/// Every write has it in its upper byte.
const PASSWORD: u32 = 0x5a << 24;
/// RSTC: what the watchdog does when it runs out, and its value for a reset of the whole chip.
const CONFIGURATION: u32 = 0b11 << 4;
const FULL_RESET: u32 = 0b10 << 4;
/// RSTS: the partition to boot from, scattered over the even bits; 63 stops the boot loader.
const PARTITION: u32 = 0x555;
/// Ticks of the watchdog, of 1/65536 s.
const TICKS: u32 = 10;

/// Finds the controller's registers in a device tree.
#[must_use]
pub fn find(dtb: &[u8]) -> Option<Range> {
    devices::registers_of(dtb, COMPATIBLE, WDOG as u64 + 4)
}

/// A controller at a virtual address.
#[derive(Debug)]
pub struct PowerController {
    base: usize,
}

impl PowerController {
    /// Takes the controller whose registers are mapped at `base`.
    ///
    /// # Safety
    /// What [`find`] found is mapped there, as device memory, for as long as the value lives.
    #[must_use]
    pub unsafe fn new(base: usize) -> Self {
        Self { base }
    }

    /// Powers the board off: the watchdog resets it, and the boot loader stops. The caller runs on for a moment.
    pub fn off(&self) {
        self.write(RSTS, self.read(RSTS) | PARTITION);
        self.reset_chip();
    }

    /// Starts the board again. The caller runs on for a moment.
    pub fn reset(&self) {
        self.write(RSTS, self.read(RSTS) & !PARTITION);
        self.reset_chip();
    }

    fn reset_chip(&self) {
        self.write(WDOG, TICKS);
        self.write(RSTC, self.read(RSTC) & !CONFIGURATION | FULL_RESET);
    }

    fn read(&self, register: usize) -> u32 {
        // SAFETY: the contract of `new`; the registers are words.
        unsafe { ptr::with_exposed_provenance::<u32>(self.base + register).read_volatile() & !(0xff << 24) }
    }

    fn write(&self, register: usize, value: u32) {
        // SAFETY: as in `read`.
        unsafe { ptr::with_exposed_provenance_mut::<u32>(self.base + register).write_volatile(value | PASSWORD) }
    }
}

#[cfg(test)]
mod tests {
    use super::{PowerController, RSTC, RSTS, WDOG};

    /// Registers as the firmware leaves them: booted from partition 2, other bits set.
    fn after(act: impl FnOnce(&PowerController)) -> [u32; 3] {
        let mut block = [0_u32; 16];
        block[RSTC / 4] = 0x0000_0102;
        block[RSTS / 4] = 0x0000_1004;
        // SAFETY: the words outlive the controller.
        act(&unsafe { PowerController::new(block.as_mut_ptr().expose_provenance()) });
        [block[RSTC / 4], block[RSTS / 4], block[WDOG / 4]]
    }

    #[test]
    fn the_boot_loader_is_told_what_to_do_after_the_reset() {
        assert_eq!(after(PowerController::off), [0x5a00_0122, 0x5a00_1555, 0x5a00_000a]);
        assert_eq!(after(PowerController::reset), [0x5a00_0122, 0x5a00_1000, 0x5a00_000a]);
    }
}
