//! GICv3: distributor and redistributors by MMIO, CPU interface by system registers.

use super::{Refusal, TOO_MANY_REGISTERS, UPCALL_PRIORITY, UPCALL_VINTID, distributor};
use crate::barrier::{dsb_ishst, isb, relax};
use crate::boot::MPIDR_AFFINITY;
use crate::context::VgicState;
use crate::mmio::{read32, read64, write32, write64};
use crate::mmu;
use crate::pcpu::{self, MAX_PCPUS};
use crate::sysreg::{
    ICC_BPR1_EL1, ICC_CTLR_EL1, ICC_DIR_EL1, ICC_EOIR1_EL1, ICC_IAR1_EL1, ICC_IGRPEN1_EL1, ICC_PMR_EL1, ICC_SGI1R_EL1,
    ICC_SRE_EL1,
};
use aarch64_cpu::registers::{
    ICC_SRE_EL2, ICH_AP0R0_EL2, ICH_AP1R0_EL2, ICH_HCR_EL2, ICH_LR0_EL2, ICH_VMCR_EL2, Readable, Writeable,
};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

// Distributor.
const IROUTER: usize = 0x6000;
/// Bytes of the distributor that are used, up to the last `GICD_IROUTER`.
const GICD_BYTES: u64 = 0x8000;
// Redistributor, control frame.
const GICR_TYPER: usize = 0x8;
const GICR_WAKER: usize = 0x14;
const GICR_SGI_FRAME: u64 = 0x1_0000;

const CTLR_ENABLE_GROUPS: u32 = 0b11;
const CTLR_ARE: u32 = 1 << 4;
const WAKER_PROCESSOR_SLEEP: u32 = 1 << 1;
const WAKER_CHILDREN_ASLEEP: u32 = 1 << 2;

const LR_PENDING: u64 = 1 << 62;
const LR_ACTIVE: u64 = 1 << 63;
const LR_GROUP1: u64 = 1 << 60;
const LR_UPCALL: u64 = LR_GROUP1 | (UPCALL_PRIORITY as u64) << 48 | UPCALL_VINTID as u64;

/// Control and SGI frame of each pCPU's redistributor.
static GICR: [(AtomicUsize, AtomicUsize); MAX_PCPUS] =
    [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; MAX_PCPUS];
/// `ICC_SGI1R_EL1` for each pCPU, without the number; and its `GICD_IROUTER` value.
static SGI_TARGET: [AtomicU64; MAX_PCPUS] = [const { AtomicU64::new(0) }; MAX_PCPUS];
static ROUTE: [AtomicU64; MAX_PCPUS] = [const { AtomicU64::new(0) }; MAX_PCPUS];

#[cold]
pub fn init(gicd: u64, gicr: impl Iterator<Item = (u64, u64)>, mpidrs: &[u64]) -> Result<(), Refusal> {
    distributor::init(gicd, GICD_BYTES, CTLR_ARE | CTLR_ENABLE_GROUPS)?;
    for (index, &mpidr) in mpidrs.iter().enumerate() {
        let (aff0, aff1, aff2, aff3) = (mpidr & 0xff, mpidr >> 8 & 0xff, mpidr >> 16 & 0xff, mpidr >> 32 & 0xff);
        // RS selects the group of 16 within affinity 0.
        let target = aff3 << 48 | (aff0 >> 4) << 44 | aff2 << 32 | aff1 << 16 | 1 << (aff0 & 15);
        SGI_TARGET[index & (MAX_PCPUS - 1)].store(target, Relaxed);
        ROUTE[index & (MAX_PCPUS - 1)].store(mpidr & MPIDR_AFFINITY, Relaxed);
    }
    find_redistributors(gicr, mpidrs)
}

/// Walks the regions and maps the two frames of each pCPU's redistributor, no others.
#[cold]
fn find_redistributors(regions: impl Iterator<Item = (u64, u64)>, mpidrs: &[u64]) -> Result<(), Refusal> {
    let mut missing = mpidrs.len();
    for (start, bytes) in regions {
        let mut frame = start;
        while missing > 0 && frame.saturating_add(2 * GICR_SGI_FRAME) <= start.saturating_add(bytes) {
            let control = mmu::map_device(frame, 4096).ok_or(TOO_MANY_REGISTERS)?;
            // SAFETY: the register is mapped.
            let typer = unsafe { read64::<GICR_TYPER>(control) };
            let affinity = typer >> 32 & 0xff_ffff | (typer >> 56) << 32;
            match mpidrs.iter().position(|&mpidr| mpidr & MPIDR_AFFINITY == affinity) {
                Some(index) => {
                    let sgi = mmu::map_device(frame + GICR_SGI_FRAME, 4096).ok_or(TOO_MANY_REGISTERS)?;
                    let frames = &GICR[index & (MAX_PCPUS - 1)];
                    frames.0.store(control, Relaxed);
                    frames.1.store(sgi, Relaxed);
                    missing -= 1;
                }
                None => mmu::unmap_last_device_page(),
            }
            if typer & 1 << 4 != 0 {
                break;
            }
            // Two more frames if virtual LPIs are implemented.
            frame += GICR_SGI_FRAME * if typer & 1 << 1 != 0 { 4 } else { 2 };
        }
    }
    if missing == 0 { Ok(()) } else { Err("a processor has no GICv3 redistributor") }
}

#[cold]
pub fn init_pcpu() -> Result<(), Refusal> {
    let (control, sgi) = &GICR[pcpu::index() & (MAX_PCPUS - 1)];
    let (control, sgi) = (control.load(Relaxed), sgi.load(Relaxed));
    // SAFETY: both frames of this pCPU's redistributor are mapped.
    unsafe {
        let waker = read32::<GICR_WAKER>(control);
        write32::<GICR_WAKER>(control, waker & !WAKER_PROCESSOR_SLEEP);
        while read32::<GICR_WAKER>(control) & WAKER_CHILDREN_ASLEEP != 0 {
            relax();
        }
        distributor::init_private(sgi);
    }
    // SRE, bypasses off, EL1 may use its own.
    ICC_SRE_EL2.set(0xf);
    isb();
    if ICC_SRE_EL2.get() & 1 == 0 {
        return Err("the GICv3 system registers cannot be enabled");
    }
    ICC_SRE_EL1.set(0x7);
    isb();
    ICH_LR0_EL2.set(0);
    ICH_AP0R0_EL2.set(0);
    ICH_AP1R0_EL2.set(0);
    ICH_VMCR_EL2.set(0);
    ICH_HCR_EL2.set(1);
    ICC_PMR_EL1.set(0xff);
    ICC_BPR1_EL1.set(0);
    ICC_CTLR_EL1.set(1 << 1); // EOImode
    ICC_IGRPEN1_EL1.set(1);
    isb();
    Ok(())
}

#[inline(always)]
pub fn ack() -> u32 {
    ICC_IAR1_EL1.get() as u32
}

#[inline(always)]
pub fn eoi(acknowledged: u32) {
    ICC_EOIR1_EL1.set(u64::from(acknowledged));
}

#[inline(always)]
pub fn deactivate(acknowledged: u32) {
    ICC_DIR_EL1.set(u64::from(acknowledged));
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
    ICC_SGI1R_EL1.set(SGI_TARGET[index & (MAX_PCPUS - 1)].load(Relaxed) | u64::from(number) << 24);
    isb();
}

pub fn route_spi(intid: u32, target: usize) {
    let route = ROUTE[target & (MAX_PCPUS - 1)].load(Relaxed);
    // SAFETY: as above.
    unsafe { write64::<0>(distributor::base() + IROUTER + 8 * (intid as usize & 0x3ff), route) };
}

#[inline(always)]
pub const fn with_upcall_pending(lr0: u64) -> u64 {
    lr0 & LR_ACTIVE | LR_UPCALL | LR_PENDING
}

#[inline(always)]
pub fn pend_upcall() {
    ICH_LR0_EL2.set(with_upcall_pending(ICH_LR0_EL2.get()));
}

/// Writes ICH_HCR_EL2.En.
#[inline(always)]
pub fn enable_virtual(on: bool) {
    ICH_HCR_EL2.set(u64::from(on));
}

#[inline]
pub fn save(state: &mut VgicState) {
    *state = VgicState { lr0: ICH_LR0_EL2.get(), vmcr: ICH_VMCR_EL2.get(), apr: ICH_AP1R0_EL2.get() };
}

#[inline]
pub fn restore(state: &VgicState) {
    let VgicState { lr0, vmcr, apr } = *state;
    ICH_LR0_EL2.set(lr0);
    ICH_VMCR_EL2.set(vmcr);
    ICH_AP1R0_EL2.set(apr);
}

/// The SGI frame of this pCPU's redistributor.
pub fn sgi_frame() -> usize {
    GICR[pcpu::index() & (MAX_PCPUS - 1)].1.load(Relaxed)
}
