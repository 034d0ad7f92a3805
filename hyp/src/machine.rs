//! Facts of the machine that calls need, set once at boot.

use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use portico_abi::psci::{ARCH_WORKAROUND_1, ARCH_WORKAROUND_3, PSCI_FEATURES, SMCCC_ARCH_FEATURES, SMCCC_VERSION, ret};
use portico_arch::gic::{self, GicKind};
use portico_arch::psci;
use portico_core::addr::PaRange;
use portico_core::esr::SysregId;
use portico_core::extent::PA_BITS;
use portico_core::idregs;

static GICV: AtomicU64 = AtomicU64::new(0);
static WORKAROUND_1: AtomicI32 = AtomicI32::new(ret::NOT_SUPPORTED as i32);
static WORKAROUND_3: AtomicI32 = AtomicI32::new(ret::NOT_SUPPORTED as i32);
static HAS_PSCI: AtomicBool = AtomicBool::new(false);

/// Pages of the GICv2 virtual CPU interface: the second holds GICV_DIR.
const GICV_PAGES: u64 = 2;

/// Tells where the virtual CPU interface of a GICv2 is.
pub fn set_gicv(pa: u64) {
    GICV.store(pa, Ordering::Relaxed);
}

/// The virtual CPU interface of a GICv2; `None` on a GICv3.
pub fn gicv() -> Option<PaRange> {
    match GICV.load(Ordering::Relaxed) {
        0 => None,
        pa => PaRange::new(pa, GICV_PAGES, PA_BITS),
    }
}

/// Whether the machine's firmware answers PSCI by SMC.
pub fn has_psci() -> bool {
    HAS_PSCI.load(Ordering::Relaxed)
}

/// Finds out which workarounds there are: those of the firmware, if it answers PSCI by SMC (`has_psci`), and EL2's own cleaning of the branch history at
/// each entry (`bhb`).
pub fn find_workarounds(has_psci: bool, bhb: bool) {
    // Discovery is there from SMCCC 1.1 on, which PSCI_FEATURES tells; older firmware answers NOT_SUPPORTED to all of it.
    let has_discovery = has_psci
        && psci::call(PSCI_FEATURES, [SMCCC_VERSION.into(), 0, 0]) >= 0
        && psci::call(SMCCC_VERSION, [0; 3]) >= 0x1_0001;
    let first = if has_discovery {
        psci::call(SMCCC_ARCH_FEATURES, [ARCH_WORKAROUND_1.into(), 0, 0])
    } else {
        ret::NOT_SUPPORTED
    };
    let third = if bhb { ret::SUCCESS } else { ret::NOT_SUPPORTED };
    HAS_PSCI.store(has_psci, Ordering::Relaxed);
    WORKAROUND_1.store(first as i32, Ordering::Relaxed);
    WORKAROUND_3.store(third as i32, Ordering::Relaxed);
}

/// Runs ARCH_WORKAROUND_1 in the firmware, for a guest that was told that it is offered.
pub fn clean_branch_predictor() {
    psci::call(ARCH_WORKAROUND_1, [0; 3]);
}

/// What SMCCC_ARCH_FEATURES answers for a workaround of the branch predictor: negative for not supported, 0 for needed, 1 for supported but not
/// needed.
pub fn workaround_needed(function: u32) -> i64 {
    match function {
        ARCH_WORKAROUND_1 => i64::from(WORKAROUND_1.load(Ordering::Relaxed)),
        ARCH_WORKAROUND_3 => i64::from(WORKAROUND_3.load(Ordering::Relaxed)),
        _ => ret::NOT_SUPPORTED,
    }
}

/// An ID register as guests see it; `None` for another register.
#[inline(never)]
pub fn id_register(reg: SysregId) -> Option<u64> {
    idregs::read(reg, &portico_arch::cpu::id_registers(), gic::kind() == GicKind::V3)
}
