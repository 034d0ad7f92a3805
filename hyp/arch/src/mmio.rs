//! Device register access by address, with accesses that a hypervisor above or an emulator can decode.

use core::arch::asm;

/// Reads 32 bits from a device.
///
/// # Safety
/// `va` is a 4-byte aligned register of a mapped device, and reading it has no effect on memory safety.
#[inline(always)]
#[must_use]
pub unsafe fn read32(va: usize) -> u32 {
    // SAFETY: the caller's contract.
    unsafe { read32_at::<0>(va) }
}

/// Writes 32 bits to a device.
///
/// # Safety
/// As [`read32`]; the device must not be made to write memory that Rust owns.
#[inline(always)]
pub unsafe fn write32(va: usize, value: u32) {
    // SAFETY: the caller's contract.
    unsafe { write32_at::<0>(va, value) };
}

/// Reads the register of 32 bits at `OFFSET`, a multiple of 4 less than 16 KiB, behind `base`: the address costs no instruction.
///
/// # Safety
/// As [`read32`].
#[inline(always)]
#[must_use]
pub unsafe fn read32_at<const OFFSET: usize>(base: usize) -> u32 {
    let value: u32;
    // SAFETY: the caller's contract.
    unsafe {
        asm!("ldr {0:w}, [{1}, #{2}]", out(reg) value, in(reg) base, const OFFSET, options(nostack, preserves_flags));
    }
    value
}

/// Writes the register of 32 bits at `OFFSET`, as [`read32_at`] reads it.
///
/// # Safety
/// As [`write32`].
#[inline(always)]
pub unsafe fn write32_at<const OFFSET: usize>(base: usize, value: u32) {
    // SAFETY: the caller's contract.
    unsafe {
        asm!("str {0:w}, [{1}, #{2}]", in(reg) value, in(reg) base, const OFFSET, options(nostack, preserves_flags));
    }
}

/// Reads 64 bits from a device.
///
/// # Safety
/// As [`read32`], 8-byte aligned.
#[inline(always)]
#[must_use]
pub unsafe fn read64(va: usize) -> u64 {
    let value: u64;
    // SAFETY: the caller's contract.
    unsafe { asm!("ldr {0}, [{1}]", out(reg) value, in(reg) va, options(nostack, preserves_flags)) };
    value
}

/// Writes 64 bits to a device.
///
/// # Safety
/// As [`write32`], 8-byte aligned.
#[inline(always)]
pub unsafe fn write64(va: usize, value: u64) {
    // SAFETY: the caller's contract.
    unsafe { asm!("str {0}, [{1}]", in(reg) value, in(reg) va, options(nostack, preserves_flags)) };
}

/// Reads 8 bits from a device.
///
/// # Safety
/// As [`read32`].
#[inline(always)]
#[must_use]
pub unsafe fn read8(va: usize) -> u8 {
    let value: u32;
    // SAFETY: the caller's contract.
    unsafe { asm!("ldrb {0:w}, [{1}]", out(reg) value, in(reg) va, options(nostack, preserves_flags)) };
    value as u8
}

/// Writes 8 bits to a device.
///
/// # Safety
/// As [`write32`].
#[inline(always)]
pub unsafe fn write8(va: usize, value: u8) {
    // SAFETY: the caller's contract.
    unsafe { asm!("strb {0:w}, [{1}]", in(reg) u32::from(value), in(reg) va, options(nostack, preserves_flags)) };
}
