//! Masking interrupts on the calling vCPU, and taking the upcall.
//!
//! There is one virtual interrupt, the upcall. It is acknowledged at the GIC CPU interface, by system registers or by
//! the GICV page; which one is asked of EL2 ([`init`]). What it means is in the vCPU page: see [`crate::port`].

use core::sync::atomic::{AtomicUsize, Ordering};
use portico_abi::call::info;

/// IPA of the GICv2 CPU interface; 0 = system registers. Fixed after boot.
static GICV: AtomicUsize = AtomicUsize::new(0);

/// Masks interrupts for its lifetime, and restores what was before.
pub struct Guard {
    before: u64,
    /// A mask belongs to the vCPU that made it.
    _not_send: core::marker::PhantomData<*const ()>,
}

impl Guard {
    /// Masks interrupts.
    #[inline]
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a guard with an effect is not a default value")]
    pub fn new() -> Self {
        Self { before: arch::mask(), _not_send: core::marker::PhantomData }
    }

    /// Whether interrupts were masked before.
    #[inline]
    pub fn was_masked(&self) -> bool {
        arch::means_masked(self.before)
    }
}

impl Drop for Guard {
    #[inline]
    fn drop(&mut self) {
        arch::restore(self.before);
    }
}

/// Runs `body` with interrupts masked.
#[inline]
pub fn masked<T>(body: impl FnOnce() -> T) -> T {
    let _guard = Guard::new();
    body()
}

/// Unmasks interrupts.
#[inline]
pub fn unmask() {
    arch::unmask();
}

/// Masks interrupts until [`unmask`].
#[inline]
pub fn mask() {
    let _ = arch::mask();
}

/// Whether interrupts are masked.
#[inline]
pub fn is_masked() -> bool {
    arch::is_masked()
}

/// Waits for an interrupt natively (WFI). Returns also when one is pending but masked.
#[inline]
pub fn wait() {
    arch::wait();
}

/// Makes the CPU interface of the calling vCPU take the upcall. Interrupts stay as they are.
pub fn init() {
    if crate::hvc::self_info(info::UPCALL_KIND, 0) == Ok(2) {
        let ipa = crate::hvc::self_info(info::UPCALL_GICV_IPA, 0).unwrap_or(portico_abi::dt::GICV);
        GICV.store(ipa as usize, Ordering::Relaxed);
        arch::init_page(ipa as usize);
    } else {
        arch::init_registers();
    }
}

/// Acknowledges the upcall and scans the ports. The vectors call it with interrupts masked, as must a kernel's own vectors.
///
/// The upcall is dropped before the scan. If EL2 raises it again from then on it is taken again after the return, at the
/// worst for an empty scan; so nothing is lost.
pub fn upcall() {
    match GICV.load(Ordering::Relaxed) {
        0 => arch::acknowledge_registers(),
        page => arch::acknowledge_page(page),
    }
    crate::port::scan();
}

#[cfg(target_os = "none")]
mod arch {
    use core::arch::asm;

    const DAIF_I: u64 = 1 << 7;
    /// Lowest priority that is let through: the upcall's is 0xA0.
    const PRIORITY_MASK: u64 = 0xf0;
    /// GICC_CTLR, GICC_PMR, GICC_IAR and GICC_EOIR. (Arm IHI 0048, "CPU interface register map")
    const CTLR: usize = 0x0;
    const PMR: usize = 0x4;
    const IAR: usize = 0xc;
    const EOIR: usize = 0x10;
    /// First of the special INTIDs, which are not to be ended.
    const SPECIAL: u64 = 1020;

    #[inline(always)]
    pub fn mask() -> u64 {
        let before: u64;
        // SAFETY: changes only the interrupt mask; not `nomem`, so that no access moves across it.
        unsafe { asm!("mrs {}, daif", "msr daifset, #2", out(reg) before, options(nostack, preserves_flags)) };
        before
    }

    #[inline(always)]
    pub fn means_masked(before: u64) -> bool {
        before & DAIF_I != 0
    }

    #[inline(always)]
    pub fn restore(before: u64) {
        if !means_masked(before) {
            unmask();
        }
    }

    #[inline(always)]
    pub fn unmask() {
        // SAFETY: as in `mask`.
        unsafe { asm!("msr daifclr, #2", options(nostack, preserves_flags)) };
    }

    #[inline(always)]
    pub fn is_masked() -> bool {
        let daif: u64;
        // SAFETY: reads a register.
        unsafe { asm!("mrs {}, daif", out(reg) daif, options(nomem, nostack, preserves_flags)) };
        daif & DAIF_I != 0
    }

    #[inline(always)]
    pub fn wait() {
        // SAFETY: waits. The barrier completes stores that the waker may look for.
        unsafe { asm!("dsb ish", "wfi", options(nostack, preserves_flags)) };
    }

    pub fn init_registers() {
        // SAFETY: ICC_SRE_EL1.SRE, ICC_PMR_EL1 and ICC_IGRPEN1_EL1 of this vCPU's virtual CPU interface.
        // (Arm IHI 0069, "AArch64 System register descriptions")
        unsafe {
            asm!(
                "mrs {t}, S3_0_C12_C12_5",
                "orr {t}, {t}, #1",
                "msr S3_0_C12_C12_5, {t}",
                "isb",
                "msr S3_0_C4_C6_0, {mask}",
                "msr S3_0_C12_C12_7, {one}",
                "isb",
                t = out(reg) _, mask = in(reg) PRIORITY_MASK, one = in(reg) 1_u64, options(nostack),
            );
        }
    }

    pub fn init_page(page: usize) {
        write(page + PMR, PRIORITY_MASK as u32);
        write(page + CTLR, 1);
    }

    #[inline(always)]
    pub fn acknowledge_registers() {
        let id: u64;
        // SAFETY: ICC_IAR1_EL1: acknowledges the upcall. The barrier orders it before the scan's loads.
        unsafe { asm!("mrs {}, S3_0_C12_C12_0", "dsb ish", out(reg) id, options(nostack)) };
        if id < SPECIAL {
            // SAFETY: ICC_EOIR1_EL1 with what IAR gave.
            unsafe { asm!("msr S3_0_C12_C12_1, {}", in(reg) id, options(nostack)) };
        }
    }

    #[inline(always)]
    pub fn acknowledge_page(page: usize) {
        let id = read(page + IAR);
        if u64::from(id & 0x3ff) < SPECIAL {
            write(page + EOIR, id);
        }
    }

    fn read(address: usize) -> u32 {
        // SAFETY: a register of the GICV page, which is mapped as device memory at the address that EL2 told.
        unsafe { core::ptr::read_volatile(core::ptr::with_exposed_provenance(address)) }
    }

    fn write(address: usize, value: u32) {
        // SAFETY: as in `read`.
        unsafe { core::ptr::write_volatile(core::ptr::with_exposed_provenance_mut(address), value) }
    }
}

#[cfg(not(target_os = "none"))]
mod arch {
    pub use crate::fake::interrupts::{is_masked, mask, means_masked, restore, unmask, wait};

    pub fn init_registers() {}
    pub fn init_page(_page: usize) {}
    pub fn acknowledge_registers() {}
    pub fn acknowledge_page(_page: usize) {}
}
