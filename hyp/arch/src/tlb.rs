//! TLB invalidation.
//!
//! Stage-2 invalidation works on the VMID in `VTTBR_EL2`, so the functions take the `VTTBR_EL2` value of the domain
//! and install it for the moment if another is loaded. Cortex-A72 erratum 1319367: a speculative walk of the loaded
//! EL1 context could then be cached under the other VMID, so EL1's walks are off (`TCR_EL1.EPD0/1`) meanwhile.

use crate::barrier::{dsb_ish, dsb_ishst, dsb_nsh, isb};
use aarch64_cpu::registers::{Readable, TCR_EL1, VTTBR_EL2, Writeable};
use core::arch::asm;
use portico_core::addr::Ipa;

/// `TCR_EL1.EPD0 | EPD1`: no walks from either root.
const TCR_EL1_NO_WALKS: u64 = 1 << 7 | 1 << 23;

macro_rules! tlbi {
    ($op:literal) => {
        // SAFETY: an invalidation only makes the walker read the tables again.
        unsafe { asm!(concat!("tlbi ", $op), options(nostack, preserves_flags)) }
    };
    ($op:literal, $arg:expr) => {
        // SAFETY: as above.
        unsafe { asm!(concat!("tlbi ", $op, ", {}"), in(reg) $arg, options(nostack, preserves_flags)) }
    };
}

/// Runs `invalidate` on this pCPU only, complete on return. Descriptor stores precede it in this pCPU's own walker: nsh is enough.
#[inline(always)]
fn local(invalidate: impl FnOnce()) {
    dsb_nsh();
    invalidate();
    dsb_nsh();
    isb();
}

/// Forgets the EL2 translation of the page at `va`, which is private to this pCPU.
#[inline]
pub fn el2_page_local(va: usize) {
    local(|| tlbi!("vae2", (va >> 12) as u64));
}

/// Forgets all EL2 translations on all pCPUs, complete on return.
pub fn el2_all() {
    dsb_ishst();
    tlbi!("alle2is");
    dsb_ish();
    isb();
}

/// Forgets all EL2 translations on this pCPU.
pub fn el2_all_local() {
    local(|| tlbi!("alle2"));
}

/// Forgets everything, stage 1 and 2, of the domain with this `VTTBR_EL2`, on all pCPUs; complete on return.
pub fn stage2_all(vttbr: u64) {
    with_vttbr(vttbr, || {
        tlbi!("vmalls12e1is");
    });
}

/// Forgets the translation of `pages` pages from `ipa` in the domain with this `VTTBR_EL2`, on all pCPUs. Complete on
/// return: earlier guest accesses through the old translation have been done.
pub fn stage2_range(vttbr: u64, ipa: Ipa, pages: u64) {
    /// Above this many pages one invalidation of the whole VMID is cheaper.
    const BY_IPA_LIMIT: u64 = 64;
    if pages > BY_IPA_LIMIT {
        return stage2_all(vttbr);
    }
    with_vttbr(vttbr, || {
        let first = ipa.raw() >> 12;
        for page in first..first.saturating_add(pages) {
            tlbi!("ipas2e1is", page);
        }
        // Combined stage-1-and-2 entries are not found by IPA: stage 2 first, complete, then the VMID's stage 1.
        dsb_ish();
        tlbi!("vmalle1is");
    });
}

/// Forgets all EL1 and stage-2 translations of all VMIDs on this pCPU: before a new generation of VMIDs.
pub fn el1_all_local() {
    local(|| tlbi!("alle1"));
}

/// Runs `invalidate` with `vttbr` installed, between the barriers every invalidation needs.
fn with_vttbr(vttbr: u64, invalidate: impl FnOnce()) {
    // Table stores are seen by all walkers before the invalidation, and the invalidation is complete on all pCPUs
    // before the caller goes on to reuse the memory: inner shareable both times.
    dsb_ishst();
    let loaded = VTTBR_EL2.get();
    if loaded == vttbr {
        invalidate();
        dsb_ish();
        isb();
        return;
    }
    let tcr = TCR_EL1.get();
    TCR_EL1.set(tcr | TCR_EL1_NO_WALKS);
    isb();
    VTTBR_EL2.set(vttbr);
    isb();
    invalidate();
    dsb_ish();
    VTTBR_EL2.set(loaded);
    isb();
    TCR_EL1.set(tcr);
    isb();
}

/// Forgets the stage-1 translations of the loaded domain on this pCPU: before another of its vCPUs runs here.
pub fn guest_stage1_local() {
    local(|| tlbi!("vmalle1"));
}
