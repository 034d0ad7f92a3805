//! The register state of a vCPU, and how it is saved and restored.
//!
//! [`VcpuContext`] begins with the frame that the vectors store to: SP_EL2 points at it while the guest
//! runs. While a handler runs, ELR_EL2 and SPSR_EL2 are still live in the registers. x19..x29 belong to Rust's callee-saved
//! discipline in calls, interrupts and WFI, and are stored only when the handler asks for a switch; for any other trapped
//! instruction, which may name any register, they are stored before and loaded after.
//!
//! The EL1 registers stay loaded on a pCPU until it runs another vCPU: an idle pCPU keeps the last context.
//! FP/SIMD state is handled by [`crate::fpsimd`].

use crate::barrier::isb;
use crate::fpsimd;
use aarch64_cpu::registers::{
    AFSR0_EL1, AFSR1_EL1, AMAIR_EL1, CNTHCTL_EL2, CPTR_EL2, HCR_EL2, ID_AA64MMFR0_EL1, MDCR_EL2, MDSCR_EL1, MIDR_EL1,
    Readable, VTCR_EL2, Writeable,
};
use core::arch::asm;
use core::mem::{offset_of, size_of};
use core::sync::atomic::{AtomicU32, Ordering};

/// General registers, PC and PSTATE in the order in which the vectors store them: x0..x18, x30, x19..x29.
#[repr(C, align(64))]
pub struct VcpuContext {
    gp: [u64; 31],
    /// ELR_EL2, valid while the vCPU is not running.
    pub pc: u64,
    /// SPSR_EL2, valid while the vCPU is not running.
    pub pstate: u64,
    /// Stack pointer for handlers on the pCPU where this context is loaded.
    pub handler_sp: u64,
    /// Set of [`rare`] needs. Changed by the pCPU on which it is loaded.
    pub rare: u32,
    /// EL1 registers, valid while the context is not loaded.
    pub el1: El1State,
    /// What EL2 sets up for this vCPU.
    pub el2: El2State,
    /// Virtual GIC CPU interface, valid while the context is not loaded.
    pub gic: VgicState,
    /// FP/SIMD registers, valid while they are not loaded.
    pub fp: FpState,
}

macro_rules! el1_state {
    ($($first:ident $second:ident,)* $(; $rest:ident)*) => {
        /// Saved EL1 registers. Most are stored and loaded in pairs, some only for those that need them (see [`rare`]).
        #[derive(Clone, Copy, Default)]
        #[repr(C)]
        #[expect(missing_docs, reason = "the fields are registers under Arm's names")]
        pub struct El1State { $(pub $first: u64, pub $second: u64,)* $(pub $rest: u64,)* }

        /// Stores the EL1 registers of the loaded guest that come in pairs.
        ///
        /// # Safety
        /// `context` must be writable.
        #[inline(always)]
        unsafe fn save_pairs(context: *mut VcpuContext) {
            // SAFETY: the caller vouches for the memory; reading the registers has no other effect.
            unsafe {
                asm!($(concat!("mrs {a}, ", stringify!($first), "\nmrs {b}, ", stringify!($second),
                               "\nstp {a}, {b}, [{p}, #{", stringify!($first), "}]"),)*
                     a = out(reg) _, b = out(reg) _, p = in(reg) context,
                     $($first = const offset_of!(VcpuContext, el1.$first),)* options(nostack, preserves_flags));
            }
        }

        /// Loads them.
        ///
        /// # Safety
        /// `context` must be readable; no guest runs on this pCPU until its stage 2 is set up too.
        #[inline(always)]
        unsafe fn load_pairs(context: *const VcpuContext) {
            // SAFETY: the registers act on EL1 and EL0 only, which do not run now.
            unsafe {
                asm!($(concat!("ldp {a}, {b}, [{p}, #{", stringify!($first), "}]\nmsr ", stringify!($first),
                               ", {a}\nmsr ", stringify!($second), ", {b}"),)*
                     a = out(reg) _, b = out(reg) _, p = in(reg) context,
                     $($first = const offset_of!(VcpuContext, el1.$first),)* options(nostack, preserves_flags));
            }
        }
    };
}

el1_state! {
    sp_el0 sp_el1, elr_el1 spsr_el1, sctlr_el1 cpacr_el1, ttbr0_el1 ttbr1_el1, esr_el1 far_el1, mair_el1 vbar_el1,
    contextidr_el1 tpidr_el0, tpidrro_el0 tpidr_el1, cntkctl_el1 par_el1, csselr_el1 cntv_cval_el0,
    // These stand apart: see `save` and `load`, and `save_rare` and `load_rare`.
    ; cntv_ctl_el0; tcr_el1; mdscr_el1; afsr0_el1; afsr1_el1; amair_el1
}

/// What few vCPUs need when their registers are stored or loaded, as bits of [`VcpuContext::rare`].
pub mod rare {
    /// Its FP/SIMD registers are in the processor.
    pub const FP: u32 = 1 << 0;
    /// MDSCR_EL1 is not zero. Guests write it by a trap, so it is known.
    pub const DEBUG: u32 = 1 << 1;
    /// A processor has AFSR0_EL1, AFSR1_EL1 or AMAIR_EL1, which are RES0 in Arm's own.
    pub const AUXILIARY: u32 = 1 << 2;
}

/// Whether a processor needs [`rare::AUXILIARY`].
static AUXILIARY: AtomicU32 = AtomicU32::new(0);

/// EL2 registers that belong to a vCPU.
#[derive(Clone, Copy, Default)]
#[repr(C)]
#[expect(missing_docs, reason = "the fields are registers under Arm's names")]
pub struct El2State {
    pub vttbr_el2: u64,
    pub vmpidr_el2: u64,
    pub cntvoff_el2: u64,
}

/// The one list register and the state around it, in the layout of the GIC at hand.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct VgicState {
    /// List register 0.
    pub lr0: u64,
    /// Virtual machine control register.
    pub vmcr: u64,
    /// Active priorities.
    pub apr: u64,
}

/// FP/SIMD registers.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub struct FpState {
    /// V0..V31.
    pub v: [u128; 32],
    /// FPCR.
    pub fpcr: u64,
    /// FPSR.
    pub fpsr: u64,
}

// The vectors know the places of these.
const _: () = assert!(offset_of!(VcpuContext, gp) == 0);
const _: () = assert!(offset_of!(VcpuContext, pc) == 248 && offset_of!(VcpuContext, pstate) == 256);
const _: () = assert!(size_of::<VcpuContext>() <= 2048);

/// HCR_EL2 for a guest, without TWI. (Arm ARM DDI 0487, "HCR_EL2, Hypervisor Configuration Register")
///
/// Stage 2 on; physical interrupts and SErrors to EL2; TLB and barrier maintenance broadcast (a vCPU may move);
/// ID group 3, SMC, implementation-defined registers and ACTLR trapped; set/way invalidates also clean (SWIO); EL1 is AArch64.
/// ID group 1 (REVIDR_EL1, AIDR_EL1) is not trapped: as MIDR_EL1 is the machine's, so is what tells a kernel which errata of it are fixed.
pub const HCR_GUEST: u64 = HCR_EL2::VM::SET.value
    | HCR_EL2::SWIO::SET.value
    | HCR_EL2::PTW::SET.value
    | HCR_EL2::FMO::SET.value
    | HCR_EL2::IMO::SET.value
    | HCR_EL2::AMO::SET.value
    | HCR_EL2::FB::SET.value
    | HCR_EL2::BSU::InnerShareable.value
    | HCR_EL2::TID3::SET.value
    | HCR_EL2::TSC::SET.value
    | HCR_EL2::TIDCP::SET.value
    | HCR_EL2::TACR::SET.value
    | HCR_EL2::RW::SET.value;

/// EPD0 and EPD1 of TCR_EL1: no walks by either table base.
const TCR_EPD: u64 = 1 << 7 | 1 << 23;

/// PSTATE of a vCPU at power-on: EL1h, all interrupts masked. (boot contract)
pub const PSTATE_BOOT: u64 = 0x3c5;

/// SCTLR_EL1 at power-on: the RES1 bits of Armv8.0, MMU and caches off.
pub const SCTLR_EL1_BOOT: u64 = 0x30d0_0800;

impl VcpuContext {
    /// All registers zero but those of the boot contract. Once every pCPU is there (see [`init_cpu`]).
    pub fn at_power_on() -> Self {
        Self {
            gp: [0; 31],
            pc: 0,
            pstate: PSTATE_BOOT,
            handler_sp: 0,
            rare: AUXILIARY.load(Ordering::Relaxed),
            el1: El1State { sctlr_el1: SCTLR_EL1_BOOT, ..El1State::default() },
            el2: El2State { vttbr_el2: 0, vmpidr_el2: 0, cntvoff_el2: 0 },
            gic: VgicState { lr0: 0, vmcr: 0, apr: 0 },
            fp: FpState { v: [0; 32], fpcr: 0, fpsr: 0 },
        }
    }

    /// Reads Xn; 31 reads as zero (XZR).
    #[inline(always)]
    pub fn reg(&self, n: u8) -> u64 {
        match Self::slot(n) {
            Some(slot) => self.gp.get(slot).copied().unwrap_or(0),
            None => 0,
        }
    }

    /// Writes Xn; a write of 31 is dropped (XZR).
    #[inline(always)]
    pub fn set_reg(&mut self, n: u8, value: u64) {
        if let Some(cell) = Self::slot(n).and_then(|slot| self.gp.get_mut(slot)) {
            *cell = value;
        }
    }

    #[inline(always)]
    const fn slot(n: u8) -> Option<usize> {
        match n {
            0..=18 => Some(n as usize),
            30 => Some(19),
            19..=29 => Some(n as usize + 1),
            _ => None,
        }
    }
}

/// Stores the EL1 and timer registers of the loaded guest to `context`, but for what is [`rare`], and turns its timer off. Returns what
/// CNTV_CTL_EL0 was.
///
/// Leaves TCR_EL1 with both walks disabled, so that the half-switched state can't be walked speculatively
/// (Cortex-A72 erratum 1319367).
///
/// # Safety
/// `context` is the one that is loaded on this pCPU, and nobody else touches it.
#[inline(always)]
pub unsafe fn save(context: &mut VcpuContext) -> u64 {
    // SAFETY: `context` is exclusively borrowed.
    unsafe { save_pairs(context) };
    let (tcr, ctl);
    // SAFETY: no guest runs; the timer and the walks are turned off for good until the next `load`. With both walks disabled, nothing
    // else of TCR_EL1 has a meaning.
    unsafe {
        asm!("mrs {tcr}, tcr_el1", "mrs {ctl}, cntv_ctl_el0", "msr cntv_ctl_el0, xzr", "mov {t:w}, #{epd}",
             "msr tcr_el1, {t}", "isb",
             tcr = out(reg) tcr, ctl = out(reg) ctl, t = out(reg) _, epd = const TCR_EPD,
             options(nostack, preserves_flags));
    }
    (context.el1.cntv_ctl_el0, context.el1.tcr_el1) = (ctl, tcr);
    ctl
}

/// Loads EL1, timer and EL2 registers from `context`. The translation regime is complete at the next `eret`.
///
/// # Safety
/// Nothing is loaded on this pCPU ([`save`] or [`unload_stage2`] came before); `context` describes valid stage-2 tables; `hcr` is
/// [`HCR_GUEST`], maybe with TWI.
#[inline(always)]
pub unsafe fn load(context: &VcpuContext, hcr: u64) {
    // SAFETY: walks are disabled by EPD since `save`, so the order of what follows can't be seen.
    unsafe {
        asm!("msr vttbr_el2, {vttbr}", "msr vmpidr_el2, {mpidr}", "msr cntvoff_el2, {off}", "msr hcr_el2, {hcr}",
             vttbr = in(reg) context.el2.vttbr_el2, mpidr = in(reg) context.el2.vmpidr_el2,
             off = in(reg) context.el2.cntvoff_el2, hcr = in(reg) hcr, options(nostack, preserves_flags));
        load_pairs(context);
        // The new table bases must be seen before walks are enabled again.
        asm!("msr cntv_ctl_el0, {ctl}", "isb", "msr tcr_el1, {tcr}",
             ctl = in(reg) context.el1.cntv_ctl_el0, tcr = in(reg) context.el1.tcr_el1, options(nostack, preserves_flags));
    }
}

/// Stores what is [`rare`], after [`save`]. Others find the registers as if they had never been used.
///
/// # Safety
/// As for [`save`].
#[cold]
#[inline(never)]
pub unsafe fn save_rare(context: &mut VcpuContext) {
    if context.rare & rare::FP != 0 {
        // SAFETY: FP is allowed since the bit was set, and the state is this context's.
        unsafe { fpsimd::save(&mut context.fp) };
        context.rare &= !rare::FP;
    }
    let el1 = &mut context.el1;
    // SAFETY: no guest runs. MDSCR_EL1 itself is known.
    unsafe {
        asm!("msr mdscr_el1, xzr", "mrs {a}, afsr0_el1", "mrs {b}, afsr1_el1", "mrs {c}, amair_el1", "msr afsr0_el1, xzr",
             "msr afsr1_el1, xzr", "msr amair_el1, xzr", a = out(reg) el1.afsr0_el1, b = out(reg) el1.afsr1_el1,
             c = out(reg) el1.amair_el1, options(nostack, preserves_flags));
    }
}

/// Loads what is [`rare`], before [`load`].
///
/// # Safety
/// As for [`load`].
#[cold]
#[inline(never)]
pub unsafe fn load_rare(context: &VcpuContext) {
    let el1 = &context.el1;
    // SAFETY: no guest runs.
    unsafe {
        asm!("msr mdscr_el1, {m}", "msr afsr0_el1, {a}", "msr afsr1_el1, {b}", "msr amair_el1, {c}",
             m = in(reg) el1.mdscr_el1, a = in(reg) el1.afsr0_el1, b = in(reg) el1.afsr1_el1, c = in(reg) el1.amair_el1,
             options(nostack, preserves_flags));
    }
}

/// Points stage 2 at `empty_root`, so that tables of a domain that ends are no longer walked from here.
///
/// # Safety
/// The context was saved; `empty_root` is the physical address of a zeroed table.
pub unsafe fn unload_stage2(empty_root: u64) {
    // SAFETY: no guest context is loaded.
    unsafe { asm!("msr vttbr_el2, {}", "isb", in(reg) empty_root, options(nostack, preserves_flags)) };
}

/// Writes MDSCR_EL1 of the guest that is loaded.
pub fn set_mdscr(context: &mut VcpuContext, value: u64) {
    context.el1.mdscr_el1 = value;
    context.rare = context.rare & !rare::DEBUG | if value != 0 { rare::DEBUG } else { 0 };
    MDSCR_EL1.set(value);
}

/// Sets the EL2 registers that are the same for every guest on this pCPU.
///
/// * CPTR_EL2: RES1, FP trapped (lazy), no trap of CPACR.
/// * CNTHCTL_EL2: guests see neither the physical counter nor the physical timer; no event stream of theirs.
/// * MDCR_EL2: debug, OS-lock and PMU registers trap.
/// * HSTR_EL2, VPIDR_EL2: nothing trapped by coprocessor; the real MIDR.
/// * VTCR_EL2: 39-bit IPA from level 1, 4 KiB, write-back inner-shareable walks, 8-bit VMID.
///
/// Looks, too, whether this pCPU has the registers behind [`rare::AUXILIARY`].
pub fn init_cpu() {
    MDSCR_EL1.set(0);
    AFSR0_EL1.set(u64::MAX);
    AFSR1_EL1.set(u64::MAX);
    AMAIR_EL1.set(u64::MAX);
    isb();
    if AFSR0_EL1.get() | AFSR1_EL1.get() | AMAIR_EL1.get() != 0 {
        AUXILIARY.store(rare::AUXILIARY, Ordering::Relaxed);
    }
    AFSR0_EL1.set(0);
    AFSR1_EL1.set(0);
    AMAIR_EL1.set(0);
    MDCR_EL2.set(MDCR_EL2.get() & 0x1f | MDCR);
    CPTR_EL2.set(fpsimd::CPTR_TRAP);
    CNTHCTL_EL2.set(0);
    // PARange 5 is 48 bits, the most that 4 KiB tables without LPA can name.
    VTCR_EL2.set(VTCR_BASE | ID_AA64MMFR0_EL1.read(ID_AA64MMFR0_EL1::PARange).min(5) << 16);
    HCR_EL2.set(HCR_GUEST);
    let midr = MIDR_EL1.get() & 0xffff_ffff;
    // SAFETY: no guest is loaded; these act on EL1 and EL0.
    unsafe { asm!("msr hstr_el2, xzr", "msr vpidr_el2, {}", "isb", in(reg) midr, options(nostack)) };
}

/// TDRA, TDOSA, TDA, TPM and TPMCR of MDCR_EL2.
const MDCR: u64 = 1 << 11 | 1 << 10 | 1 << 9 | 1 << 6 | 1 << 5;
/// VTCR_EL2 without PS: RES1 bit 31, SH0 inner, ORGN0/IRGN0 write-back, SL0 = level 1, T0SZ = 64 - 39.
const VTCR_BASE: u64 = 1 << 31 | 3 << 12 | 1 << 10 | 1 << 8 | 1 << 6 | 25;
