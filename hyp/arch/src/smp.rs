//! Starting the other pCPUs: PSCI `CPU_ON`, or the spin-table of the arm64 Linux boot protocol.

use crate::barrier::{dsb_sy, sev};
use crate::{boot, cache, psci, window};
use portico_abi::psci::{CPU_ON_64, ret};
use portico_core::addr::Pa;

/// Starts pCPU `index` (not 0) with affinity `mpidr`, by PSCI unless it polls the physical address `release` for its entry point; it enters Rust
/// at `portico_secondary(index)`.
///
/// # Errors
/// The negative PSCI status.
pub fn start(index: usize, mpidr: u64, release: Option<Pa>) -> Result<(), i64> {
    boot::register_pcpu(index, mpidr);
    let entry = boot::secondary_entry_pa();
    match release {
        None => match psci::call(CPU_ON_64, [mpidr, entry.raw(), 0]) {
            ret::SUCCESS => Ok(()),
            error => Err(error),
        },
        Some(release) => {
            let offset = (release.raw() & 0xfff) as usize & !7;
            window::with_page(Pa::new(release.raw() & !0xfff), |page| {
                // SAFETY: the window page is ours until the closure ends; the offset is 8-byte aligned inside it.
                let slot = unsafe { page.add(offset).cast::<u64>() };
                // SAFETY: as above; volatile because another pCPU polls it.
                unsafe { slot.write_volatile(entry.raw()) };
                // SAFETY: the line is mapped. The poller's caches are off, so the line must reach memory.
                unsafe { cache::clean_invalidate_poc(slot as usize, 8) };
                dsb_sy();
            });
            sev();
            Ok(())
        }
    }
}
