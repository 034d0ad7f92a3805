//! GICv2: everything by MMIO.
//!
//! All interrupts are in the group that this security state calls 0: the only one on a controller without the
//! Security Extensions, the non-secure view of Group 1 with them.

use super::{Refusal, TOO_MANY_REGISTERS, UPCALL_PRIORITY, UPCALL_VINTID, distributor};
use crate::barrier::dsb_ishst;
use crate::context::VgicState;
use crate::mmio::{read8, read32, write8, write32};
use crate::mmu;
use crate::pcpu::{self, MAX_PCPUS};
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};

// Distributor.
const GICD_ITARGETSR: usize = 0x800;
const GICD_SGIR: usize = 0xf00;
// CPU interface.
const GICC_CTLR: usize = 0x0;
const GICC_PMR: usize = 0x4;
const GICC_BPR: usize = 0x8;
const GICC_IAR: usize = 0xc;
const GICC_EOIR: usize = 0x10;
const GICC_DIR: usize = 0x1000;
const GICC_CTLR_ENABLE: u32 = 1;
const GICC_CTLR_EOIMODE: u32 = 1 << 9;
// Virtual interface control.
const GICH_HCR: usize = 0x0;
const GICH_VMCR: usize = 0x8;
const GICH_APR: usize = 0xf0;
const GICH_LR0: usize = 0x100;

const LR_PENDING: u64 = 1 << 28;
const LR_ACTIVE: u64 = 1 << 29;
const LR_UPCALL: u64 = (UPCALL_PRIORITY as u64 >> 3) << 23 | UPCALL_VINTID as u64;

static GICC: AtomicUsize = AtomicUsize::new(0);
static GICH: AtomicUsize = AtomicUsize::new(0);
/// The bit by which the distributor names each pCPU.
static TARGET: [AtomicU8; MAX_PCPUS] = [const { AtomicU8::new(0) }; MAX_PCPUS];

#[cold]
pub fn init(gicd: u64, gicc: u64, gich: u64) -> Result<(), Refusal> {
    GICC.store(mmu::map_device(gicc, 0x2000).ok_or(TOO_MANY_REGISTERS)?, Relaxed);
    GICH.store(mmu::map_device(gich, 0x1000).ok_or(TOO_MANY_REGISTERS)?, Relaxed);
    distributor::init(gicd, 0x1000, 1)
}

#[cold]
pub fn init_pcpu() -> Result<(), Refusal> {
    let (gicd, gicc, gich) = (distributor::base(), GICC.load(Relaxed), GICH.load(Relaxed));
    // SAFETY: mapped by `init`; the first words of the distributor are banked for this pCPU.
    unsafe {
        // Reads as this pCPU's own bit; as zero where there is only one.
        TARGET[pcpu::index() & (MAX_PCPUS - 1)].store((read32::<GICD_ITARGETSR>(gicd) as u8).max(1), Relaxed);
        distributor::init_private(gicd);
        write32::<GICH_LR0>(gich, 0);
        write32::<GICH_APR>(gich, 0);
        write32::<GICH_VMCR>(gich, 0);
        write32::<GICH_HCR>(gich, 1);
        write32::<GICC_PMR>(gicc, 0xff);
        write32::<GICC_BPR>(gicc, 0);
        write32::<GICC_CTLR>(gicc, GICC_CTLR_ENABLE | GICC_CTLR_EOIMODE);
    }
    Ok(())
}

#[inline(always)]
pub fn ack() -> u32 {
    // SAFETY: the CPU interface is mapped.
    unsafe { read32::<GICC_IAR>(GICC.load(Relaxed)) }
}

#[inline(always)]
pub fn eoi(acknowledged: u32) {
    // SAFETY: as above.
    unsafe { write32::<GICC_EOIR>(GICC.load(Relaxed), acknowledged) };
}

#[inline(always)]
pub fn deactivate(acknowledged: u32) {
    // SAFETY: as above.
    unsafe { write32::<GICC_DIR>(GICC.load(Relaxed), acknowledged) };
}

/// See [`super::end`].
#[inline(always)]
pub fn end(acknowledged: u32) {
    eoi(acknowledged);
    deactivate(acknowledged);
}

#[inline(always)]
pub fn send_sgi(index: usize, number: u32) {
    dsb_ishst();
    let target = u32::from(TARGET[index & (MAX_PCPUS - 1)].load(Relaxed));
    // SAFETY: the distributor is mapped.
    unsafe { write32::<GICD_SGIR>(distributor::base(), target << 16 | number) };
}

pub fn route_spi(intid: u32, target: usize) {
    let target = TARGET[target & (MAX_PCPUS - 1)].load(Relaxed);
    let at = distributor::base() + GICD_ITARGETSR + (intid as usize & 0x3ff);
    // SAFETY: as above.
    unsafe {
        if read8::<0>(at) != target {
            write8::<0>(at, target);
        }
    }
}

#[inline(always)]
pub const fn with_upcall_pending(lr0: u64) -> u64 {
    lr0 & LR_ACTIVE | LR_UPCALL | LR_PENDING
}

#[inline(always)]
pub fn pend_upcall() {
    let gich = GICH.load(Relaxed);
    // SAFETY: the virtual interface is mapped.
    unsafe {
        let lr0 = with_upcall_pending(read32::<GICH_LR0>(gich).into());
        write32::<GICH_LR0>(gich, lr0 as u32);
    }
}

/// Writes GICH_HCR.En.
#[inline(always)]
pub fn enable_virtual(on: bool) {
    // SAFETY: GICH is mapped; the register is this pCPU's own.
    unsafe { write32::<GICH_HCR>(GICH.load(Relaxed), u32::from(on)) };
}

#[inline]
pub fn save(state: &mut VgicState) {
    let gich = GICH.load(Relaxed);
    // SAFETY: as above.
    unsafe {
        state.lr0 = u64::from(read32::<GICH_LR0>(gich));
        state.vmcr = u64::from(read32::<GICH_VMCR>(gich));
        state.apr = u64::from(read32::<GICH_APR>(gich));
    }
}

#[inline]
pub fn restore(state: &VgicState) {
    let gich = GICH.load(Relaxed);
    // SAFETY: as above.
    unsafe {
        write32::<GICH_LR0>(gich, state.lr0 as u32);
        write32::<GICH_VMCR>(gich, state.vmcr as u32);
        write32::<GICH_APR>(gich, state.apr as u32);
    }
}
