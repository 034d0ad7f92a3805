//! Memory of the guest: the identity map, device mappings, cache maintenance.
//!
//! Stage-1 maps every IPA below 2^39 to itself: what EL2 has not mapped faults at stage-2, which is where a domain's
//! memory is decided. So an extent that a guest maps at run time needs nothing here if it is RAM. In detail:
//!
//! | IPA | as |
//! | --- | --- |
//! | 0 .. 0x0800_0000 | nothing: null pointers fault |
//! | 0x0800_0000 .. 0x0820_0000 | Normal: vCPU pages and information page |
//! | 0x0820_0000 .. 0x0900_0000 | Device-nGnRE: GICV page, and [`DEVICES`] for device extents |
//! | 0x0900_0000 .. 0x4000_0000 | Normal, not executable: windows |
//! | 0x4000_0000 .. 2^39 | Normal, in blocks of 1 GiB |

/// IPAs at which a guest can map device extents without [`map_device`]: Device memory from the start.
pub const DEVICES: core::ops::Range<u64> = 0x0830_0000..0x0900_0000;

/// First IPA above the identity map.
pub const IPA_LIMIT: u64 = 1 << 39;

#[cfg(target_os = "none")]
pub use arch::{clean, clean_invalidate, invalidate_instructions, map_device, map_normal};

#[cfg(target_os = "none")]
mod arch {
    use core::arch::asm;

    /// Bytes of the smallest cache line, from CTR_EL0.DminLine.
    fn line_bytes() -> usize {
        let ctr: u64;
        // SAFETY: reads a register.
        unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack, preserves_flags)) };
        4 << (ctr >> 16 & 0xf)
    }

    /// Writes a range back to the point of coherency, so that an observer without caches sees it: a domain
    /// that starts with its MMU off, a device. (Arm ARM, "DC CVAC")
    pub fn clean(address: usize, len: usize) {
        let line = line_bytes();
        let mut at = address & !(line - 1);
        let end = address.saturating_add(len);
        while at < end {
            // SAFETY: writes dirty data back; changes no value.
            unsafe { asm!("dc cvac, {}", in(reg) at, options(nostack, preserves_flags)) };
            at += line;
        }
        // SAFETY: completes the maintenance for every observer, devices included: hence `sy`.
        unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
    }

    /// As [`clean`], and drops the lines, so that what such an observer writes is then seen here. (Arm ARM, "DC CIVAC")
    pub fn clean_invalidate(address: usize, len: usize) {
        let line = line_bytes();
        let mut at = address & !(line - 1);
        let end = address.saturating_add(len);
        while at < end {
            // SAFETY: writes dirty data back before it drops the line; changes no value.
            unsafe { asm!("dc civac, {}", in(reg) at, options(nostack, preserves_flags)) };
            at += line;
        }
        // SAFETY: as in `clean`.
        unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
    }

    /// Makes instructions that were written to a cleaned range visible to fetches of every vCPU.
    pub fn invalidate_instructions() {
        // SAFETY: drops cached instructions only; the barriers complete it before later fetches.
        unsafe { asm!("ic ialluis", "dsb ish", "isb", options(nostack, preserves_flags)) };
    }

    use portico_abi::Status;

    /// Maps a range as Device-nGnRE, by whole blocks of 2 MiB: what else lies in them must not be used as memory.
    ///
    /// # Errors
    /// `Invalid` outside the identity map or inside the first GiB of RAM, `Limit` without memory for a table.
    pub fn map_device(ipa: u64, len: u64) -> Result<(), Status> {
        crate::start::tables::map(ipa, len, crate::start::tables::Kind::Device)
    }

    /// Maps a range as Normal memory again. Needed only after [`map_device`].
    ///
    /// # Errors
    /// As [`map_device`].
    pub fn map_normal(ipa: u64, len: u64) -> Result<(), Status> {
        crate::start::tables::map(ipa, len, crate::start::tables::Kind::Normal)
    }
}

#[cfg(not(target_os = "none"))]
pub use host::{clean, clean_invalidate, invalidate_instructions, map_device, map_normal};

#[cfg(not(target_os = "none"))]
mod host {
    use portico_abi::Status;

    /// Nothing, on a host.
    pub fn clean(_address: usize, _len: usize) {}
    /// Nothing, on a host.
    pub fn clean_invalidate(_address: usize, _len: usize) {}
    /// Nothing, on a host.
    pub fn invalidate_instructions() {}
    /// Nothing, on a host.
    ///
    /// # Errors
    /// None.
    pub fn map_device(_ipa: u64, _len: u64) -> Result<(), Status> {
        Ok(())
    }
    /// Nothing, on a host.
    ///
    /// # Errors
    /// None.
    pub fn map_normal(_ipa: u64, _len: u64) -> Result<(), Status> {
        Ok(())
    }
}
