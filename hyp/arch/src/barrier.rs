//! Barriers by name. Each caller says which accesses it orders.

use core::arch::asm;

macro_rules! barriers {
    ($($(#[$meta:meta])* $name:ident = $asm:literal;)+) => {$(
        $(#[$meta])*
        #[inline(always)]
        pub fn $name() {
            // SAFETY: a barrier changes no state; no `nomem`, so the compiler orders memory accesses around it.
            unsafe { asm!($asm, options(nostack, preserves_flags)) };
        }
    )+};
}

barriers! {
    /// Completes loads, stores and maintenance, inner shareable.
    dsb_ish = "dsb ish";
    /// Completes stores, inner shareable: before an SGI or `sev` that tells of them.
    dsb_ishst = "dsb ishst";
    /// Completes stores for this pCPU's own table walker.
    dsb_nshst = "dsb nshst";
    /// Completes this pCPU's own maintenance.
    dsb_nsh = "dsb nsh";
    /// Completes everything for every observer, devices too.
    dsb_sy = "dsb sy";
    /// Synchronises the context: later instructions see earlier system register writes.
    isb = "isb";
    /// Waits for an interrupt, masked ones included.
    wfi = "wfi";
    /// Sends an event to all pCPUs.
    sev = "sev";
    /// Lets another pCPU go on while this one waits: a spin without it burns a whole slice under emulation.
    relax = "yield";
}

/// Masks interrupts and stops this pCPU for good.
pub fn halt() -> ! {
    // SAFETY: masking exceptions is always allowed at EL2.
    unsafe { asm!("msr daifset, #0xf", options(nostack)) };
    loop {
        wfi();
    }
}
