//! Device register access by address, with accesses that a hypervisor above or an emulator can decode.

use core::arch::asm;

macro_rules! access {
    ($read:ident $write:ident $type:ty, $load:literal $store:literal) => {
        /// Reads the register at `OFFSET`, a multiple of its size and less than 4096 times it, behind `base`: the address costs no
        /// instruction.
        ///
        /// # Safety
        /// That is an aligned register of a mapped device, and reading it has no effect on memory safety.
        #[inline(always)]
        pub unsafe fn $read<const OFFSET: usize>(base: usize) -> $type {
            let value;
            // SAFETY: the caller's contract. Not `pure`: device reads have side effects.
            unsafe { asm!(concat!($load, ", [{}, #{}]"), out(reg) value, in(reg) base, const OFFSET, options(nostack, preserves_flags)) };
            value
        }

        /// Writes it.
        ///
        /// # Safety
        /// As for the read; the device must not be made to write memory that Rust owns.
        #[inline(always)]
        pub unsafe fn $write<const OFFSET: usize>(base: usize, value: $type) {
            // SAFETY: the caller's contract.
            unsafe { asm!(concat!($store, ", [{}, #{}]"), in(reg) value, in(reg) base, const OFFSET, options(nostack, preserves_flags)) };
        }
    };
}

access!(read8 write8 u8, "ldrb {:w}" "strb {:w}");
access!(read32 write32 u32, "ldr {:w}" "str {:w}");
access!(read64 write64 u64, "ldr {}" "str {}");
