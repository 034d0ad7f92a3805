//! GICv3: distributor and redistributors by MMIO, CPU interface by system registers.

use super::{GicError, PRIORITY, Trigger, UPCALL_PRIORITY, UPCALL_VINTID};
use crate::barrier::{isb, yield_now};
use crate::boot::MPIDR_AFFINITY;
use crate::context::VgicState;
use crate::mmio::{read32, read64, write8, write32, write64};
use crate::mmu;
use crate::pcpu::{self, MAX_PCPUS};
use crate::sysreg::{
    ICC_BPR1_EL1, ICC_CTLR_EL1, ICC_DIR_EL1, ICC_EOIR1_EL1, ICC_IAR1_EL1, ICC_IGRPEN1_EL1, ICC_PMR_EL1, ICC_SGI1R_EL1,
    ICC_SRE_EL1, ICC_SRE_EL2, ICH_AP0R0_EL2, ICH_AP1R0_EL2, ICH_HCR_EL2, ICH_LR0_EL2, ICH_VMCR_EL2,
};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

// Distributor, and SGI frame of a redistributor, which has the same layout for the first 32.
const CTLR: usize = 0x0;
const TYPER: usize = 0x4;
const IGROUPR: usize = 0x80;
const ISENABLER: usize = 0x100;
const ICENABLER: usize = 0x180;
const ICPENDR: usize = 0x280;
const ICACTIVER: usize = 0x380;
const IPRIORITYR: usize = 0x400;
const ICFGR: usize = 0xc00;
const IGRPMODR: usize = 0xd00;
const IROUTER: usize = 0x6000;
/// Bytes of the distributor that are used, up to the last `GICD_IROUTER`.
const GICD_BYTES: u64 = 0x8000;
// Redistributor, control frame.
const GICR_TYPER: usize = 0x8;
const GICR_WAKER: usize = 0x14;
const GICR_SGI_FRAME: u64 = 0x1_0000;

const CTLR_ENABLE_GROUPS: u32 = 0b11;
const CTLR_ARE: u32 = 1 << 4;
const CTLR_RWP: u32 = 1 << 31;
const WAKER_PROCESSOR_SLEEP: u32 = 1 << 1;
const WAKER_CHILDREN_ASLEEP: u32 = 1 << 2;

const LR_PENDING: u64 = 1 << 62;
const LR_ACTIVE: u64 = 1 << 63;
const LR_GROUP1: u64 = 1 << 60;
const LR_UPCALL: u64 = LR_GROUP1 | (UPCALL_PRIORITY as u64) << 48 | UPCALL_VINTID as u64;

static GICD: AtomicUsize = AtomicUsize::new(0);
/// Control and SGI frame of each pCPU's redistributor.
static GICR: [(AtomicUsize, AtomicUsize); MAX_PCPUS] =
    [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; MAX_PCPUS];
/// `ICC_SGI1R_EL1` for each pCPU, without the number; and its `GICD_IROUTER` value.
static SGI_TARGET: [AtomicU64; MAX_PCPUS] = [const { AtomicU64::new(0) }; MAX_PCPUS];
static ROUTE: [AtomicU64; MAX_PCPUS] = [const { AtomicU64::new(0) }; MAX_PCPUS];

#[cold]
pub fn init(gicd: u64, gicr: &[(u64, u64)], mpidrs: &[u64]) -> Result<u32, GicError> {
    let gicd = mmu::map_device(gicd, GICD_BYTES).map_err(|_| GicError::Map)?;
    GICD.store(gicd, Relaxed);
    // SAFETY: the distributor is mapped; nothing here makes it access memory.
    let intids = unsafe {
        write32(gicd + CTLR, 0);
        wait_distributor();
        let words = (read32(gicd + TYPER) & 0x1f) as usize + 1;
        for word in 1..words {
            write32(gicd + ICENABLER + 4 * word, !0);
            write32(gicd + ICPENDR + 4 * word, !0);
            write32(gicd + ICACTIVER + 4 * word, !0);
            write32(gicd + IGROUPR + 4 * word, !0);
            write32(gicd + IGRPMODR + 4 * word, 0);
        }
        write32(gicd + CTLR, CTLR_ARE | CTLR_ENABLE_GROUPS);
        wait_distributor();
        words as u32 * 32
    };
    for (index, &mpidr) in mpidrs.iter().enumerate() {
        let (aff0, aff1, aff2, aff3) = (mpidr & 0xff, mpidr >> 8 & 0xff, mpidr >> 16 & 0xff, mpidr >> 32 & 0xff);
        // RS selects the group of 16 within affinity 0.
        let target = aff3 << 48 | (aff0 >> 4) << 44 | aff2 << 32 | aff1 << 16 | 1 << (aff0 & 15);
        SGI_TARGET[index].store(target, Relaxed);
        ROUTE[index].store(mpidr & MPIDR_AFFINITY, Relaxed);
    }
    find_redistributors(gicr, mpidrs)?;
    Ok(intids)
}

/// Walks the regions and maps the two frames of each pCPU's redistributor, no others.
#[cold]
fn find_redistributors(regions: &[(u64, u64)], mpidrs: &[u64]) -> Result<(), GicError> {
    let mut missing = mpidrs.len();
    for &(start, bytes) in regions {
        let mut frame = start;
        while missing > 0 && frame.saturating_add(2 * GICR_SGI_FRAME) <= start.saturating_add(bytes) {
            let control = mmu::map_device(frame, 4096).map_err(|_| GicError::Map)?;
            // SAFETY: the register is mapped.
            let typer = unsafe { read64(control + GICR_TYPER) };
            let affinity = typer >> 32 & 0xff_ffff | (typer >> 56) << 32;
            match mpidrs.iter().position(|&mpidr| mpidr & MPIDR_AFFINITY == affinity) {
                Some(index) => {
                    let sgi = mmu::map_device(frame + GICR_SGI_FRAME, 4096).map_err(|_| GicError::Map)?;
                    GICR[index].0.store(control, Relaxed);
                    GICR[index].1.store(sgi, Relaxed);
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
    if missing == 0 { Ok(()) } else { Err(GicError::NoRedistributor) }
}

#[cold]
pub fn init_pcpu() -> Result<(), GicError> {
    let (control, sgi) = &GICR[pcpu::index()];
    let (control, sgi) = (control.load(Relaxed), sgi.load(Relaxed));
    // SAFETY: both frames of this pCPU's redistributor are mapped.
    unsafe {
        let waker = read32(control + GICR_WAKER);
        write32(control + GICR_WAKER, waker & !WAKER_PROCESSOR_SLEEP);
        while read32(control + GICR_WAKER) & WAKER_CHILDREN_ASLEEP != 0 {
            yield_now();
        }
        write32(sgi + ICENABLER, 0xffff_0000);
        write32(sgi + ICPENDR, !0);
        write32(sgi + ICACTIVER, !0);
        write32(sgi + IGROUPR, !0);
        write32(sgi + IGRPMODR, 0);
        for word in 0..8 {
            write32(sgi + IPRIORITYR + 4 * word, u32::from(PRIORITY) * 0x0101_0101);
        }
        write32(sgi + ISENABLER, 0x0000_ffff);
    }
    // SRE, bypasses off, EL1 may use its own.
    ICC_SRE_EL2::write(0xf);
    isb();
    if ICC_SRE_EL2::read() & 1 == 0 {
        return Err(GicError::NoSystemRegisters);
    }
    ICC_SRE_EL1::write(0x7);
    isb();
    ICH_LR0_EL2::write(0);
    ICH_AP0R0_EL2::write(0);
    ICH_AP1R0_EL2::write(0);
    ICH_VMCR_EL2::write(0);
    ICH_HCR_EL2::write(1);
    ICC_PMR_EL1::write(0xff);
    ICC_BPR1_EL1::write(0);
    ICC_CTLR_EL1::write(1 << 1); // EOImode
    ICC_IGRPEN1_EL1::write(1);
    isb();
    Ok(())
}

#[inline(always)]
pub fn ack() -> u32 {
    ICC_IAR1_EL1::read() as u32
}

#[inline(always)]
pub fn eoi(acknowledged: u32) {
    ICC_EOIR1_EL1::write(u64::from(acknowledged));
}

#[inline(always)]
pub fn deactivate(acknowledged: u32) {
    ICC_DIR_EL1::write(u64::from(acknowledged));
}

#[inline(always)]
pub fn send_sgi(index: usize, number: u32) {
    ICC_SGI1R_EL1::write(SGI_TARGET[index & (MAX_PCPUS - 1)].load(Relaxed) | u64::from(number) << 24);
    isb();
}

pub fn enable(intid: u32) {
    // SAFETY: distributor or this pCPU's SGI frame, both mapped; the offset stays inside for any 10-bit number.
    unsafe { write32(frame(intid) + ISENABLER + word(intid), bit(intid)) };
}

pub fn disable(intid: u32) {
    // SAFETY: as above.
    unsafe { write32(frame(intid) + ICENABLER + word(intid), bit(intid)) };
    wait_distributor();
}

pub fn configure_spi(intid: u32, trigger: Trigger, target: usize) {
    let gicd = GICD.load(Relaxed);
    let shift = (intid % 16) * 2 + 1;
    let offset = ICFGR + 4 * (intid as usize / 16);
    // SAFETY: as above.
    unsafe {
        let old = read32(gicd + offset) & !(1 << shift);
        write32(gicd + offset, old | u32::from(trigger == Trigger::Edge) << shift);
        write8(gicd + IPRIORITYR + intid as usize, PRIORITY);
    }
    route_spi(intid, target);
}

pub fn route_spi(intid: u32, target: usize) {
    let route = ROUTE[target & (MAX_PCPUS - 1)].load(Relaxed);
    // SAFETY: as above.
    unsafe { write64(GICD.load(Relaxed) + IROUTER + 8 * (intid as usize & 0x3ff), route) };
}

pub fn reset_spi(intid: u32) {
    disable(intid);
    // SAFETY: as above.
    unsafe {
        write32(frame(intid) + ICPENDR + word(intid), bit(intid));
        write32(frame(intid) + ICACTIVER + word(intid), bit(intid));
    }
}

#[inline(always)]
pub const fn with_upcall_pending(lr0: u64) -> u64 {
    lr0 & LR_ACTIVE | LR_UPCALL | LR_PENDING
}

#[inline(always)]
pub fn lr0_read() -> u64 {
    ICH_LR0_EL2::read()
}

/// Writes ICH_HCR_EL2.En.
#[inline(always)]
pub fn enable_virtual(on: bool) {
    ICH_HCR_EL2::write(u64::from(on));
}

#[inline(always)]
pub fn lr0_write(value: u64) {
    ICH_LR0_EL2::write(value);
}

#[inline]
pub fn save(state: &mut VgicState) {
    *state = VgicState { lr0: ICH_LR0_EL2::read(), vmcr: ICH_VMCR_EL2::read(), apr: ICH_AP1R0_EL2::read() };
}

#[inline]
pub fn restore(state: &VgicState) {
    let VgicState { lr0, vmcr, apr } = *state;
    ICH_LR0_EL2::write(lr0);
    ICH_VMCR_EL2::write(vmcr);
    ICH_AP1R0_EL2::write(apr);
}

/// The frame that holds the registers of an interrupt.
fn frame(intid: u32) -> usize {
    if intid < super::FIRST_SPI { GICR[pcpu::index()].1.load(Relaxed) } else { GICD.load(Relaxed) }
}

const fn word(intid: u32) -> usize {
    4 * ((intid as usize & 0x3ff) / 32)
}

const fn bit(intid: u32) -> u32 {
    1 << (intid % 32)
}

/// Waits until the distributor has done what was written.
fn wait_distributor() {
    // SAFETY: the distributor is mapped.
    while unsafe { read32(GICD.load(Relaxed) + CTLR) } & CTLR_RWP != 0 {
        yield_now();
    }
}
