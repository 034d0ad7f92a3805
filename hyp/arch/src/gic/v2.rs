//! GICv2: everything by MMIO.
//!
//! All interrupts are in the group that this security state calls 0: the only one on a controller without the
//! Security Extensions, the non-secure view of Group 1 with them.

use super::{GicError, PRIORITY, Trigger, UPCALL_PRIORITY, UPCALL_VINTID};
use crate::context::VgicState;
use crate::mmio::{read8, read32, write8, write32};
use crate::mmu;
use crate::pcpu::{self, MAX_PCPUS};
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};

// Distributor.
const GICD_CTLR: usize = 0x0;
const GICD_TYPER: usize = 0x4;
const GICD_IGROUPR: usize = 0x80;
const GICD_ISENABLER: usize = 0x100;
const GICD_ICENABLER: usize = 0x180;
const GICD_ICPENDR: usize = 0x280;
const GICD_ICACTIVER: usize = 0x380;
const GICD_IPRIORITYR: usize = 0x400;
const GICD_ITARGETSR: usize = 0x800;
const GICD_ICFGR: usize = 0xc00;
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

static GICD: AtomicUsize = AtomicUsize::new(0);
static GICC: AtomicUsize = AtomicUsize::new(0);
static GICH: AtomicUsize = AtomicUsize::new(0);
/// The bit by which the distributor names each pCPU.
static TARGET: [AtomicU8; MAX_PCPUS] = [const { AtomicU8::new(0) }; MAX_PCPUS];

#[cold]
pub fn init(gicd: u64, gicc: u64, gich: u64) -> Result<u32, GicError> {
    let gicd = mmu::map_device(gicd, 0x1000).map_err(|_| GicError::Map)?;
    GICD.store(gicd, Relaxed);
    GICC.store(mmu::map_device(gicc, 0x2000).map_err(|_| GicError::Map)?, Relaxed);
    GICH.store(mmu::map_device(gich, 0x1000).map_err(|_| GicError::Map)?, Relaxed);
    // SAFETY: the distributor is mapped; nothing here makes it access memory.
    unsafe {
        write32(gicd + GICD_CTLR, 0);
        let words = (read32(gicd + GICD_TYPER) & 0x1f) as usize + 1;
        for word in 1..words {
            write32(gicd + GICD_ICENABLER + 4 * word, !0);
            write32(gicd + GICD_ICPENDR + 4 * word, !0);
            write32(gicd + GICD_ICACTIVER + 4 * word, !0);
            write32(gicd + GICD_IGROUPR + 4 * word, 0);
        }
        write32(gicd + GICD_CTLR, 1);
        Ok(words as u32 * 32)
    }
}

#[cold]
pub fn init_pcpu() -> Result<(), GicError> {
    let (gicd, gicc, gich) = (GICD.load(Relaxed), GICC.load(Relaxed), GICH.load(Relaxed));
    // SAFETY: mapped by `init`; the first words of the distributor are banked for this pCPU.
    unsafe {
        // Reads as this pCPU's own bit; as zero where there is only one.
        TARGET[pcpu::index()].store((read32(gicd + GICD_ITARGETSR) as u8).max(1), Relaxed);
        write32(gicd + GICD_ICENABLER, 0xffff_0000);
        write32(gicd + GICD_ICPENDR, 0xffff_0000);
        write32(gicd + GICD_ICACTIVER, !0);
        write32(gicd + GICD_IGROUPR, 0);
        for word in 0..8 {
            write32(gicd + GICD_IPRIORITYR + 4 * word, u32::from(PRIORITY) * 0x0101_0101);
        }
        write32(gicd + GICD_ISENABLER, 0x0000_ffff);
        write32(gich + GICH_LR0, 0);
        write32(gich + GICH_APR, 0);
        write32(gich + GICH_VMCR, 0);
        write32(gich + GICH_HCR, 1);
        write32(gicc + GICC_PMR, 0xff);
        write32(gicc + GICC_BPR, 0);
        write32(gicc + GICC_CTLR, GICC_CTLR_ENABLE | GICC_CTLR_EOIMODE);
    }
    Ok(())
}

#[inline(always)]
pub fn ack() -> u32 {
    // SAFETY: the CPU interface is mapped.
    unsafe { read32(GICC.load(Relaxed) + GICC_IAR) }
}

#[inline(always)]
pub fn eoi(acknowledged: u32) {
    // SAFETY: as above.
    unsafe { write32(GICC.load(Relaxed) + GICC_EOIR, acknowledged) };
}

#[inline(always)]
pub fn deactivate(acknowledged: u32) {
    // SAFETY: as above.
    unsafe { write32(GICC.load(Relaxed) + GICC_DIR, acknowledged) };
}

#[inline(always)]
pub fn send_sgi(index: usize, number: u32) {
    let target = u32::from(TARGET[index & (MAX_PCPUS - 1)].load(Relaxed));
    // SAFETY: the distributor is mapped.
    unsafe { write32(GICD.load(Relaxed) + GICD_SGIR, target << 16 | number) };
}

pub fn enable(intid: u32) {
    // SAFETY: as above; the offset stays inside for any 10-bit number.
    unsafe { write32(GICD.load(Relaxed) + GICD_ISENABLER + word(intid), bit(intid)) };
}

pub fn disable(intid: u32) {
    // SAFETY: as above. A read back waits for the write.
    unsafe {
        write32(GICD.load(Relaxed) + GICD_ICENABLER + word(intid), bit(intid));
        let _ = read32(GICD.load(Relaxed) + GICD_CTLR);
    }
}

pub fn configure_spi(intid: u32, trigger: Trigger, target: usize) {
    let gicd = GICD.load(Relaxed);
    let shift = (intid % 16) * 2 + 1;
    let offset = GICD_ICFGR + 4 * (intid as usize / 16);
    // SAFETY: as above.
    unsafe {
        let old = read32(gicd + offset) & !(1 << shift);
        write32(gicd + offset, old | u32::from(trigger == Trigger::Edge) << shift);
        write8(gicd + GICD_IPRIORITYR + intid as usize, PRIORITY);
    }
    route_spi(intid, target);
}

pub fn route_spi(intid: u32, target: usize) {
    let target = TARGET[target & (MAX_PCPUS - 1)].load(Relaxed);
    let at = GICD.load(Relaxed) + GICD_ITARGETSR + (intid as usize & 0x3ff);
    // SAFETY: as above.
    unsafe {
        if read8(at) != target {
            write8(at, target);
        }
    }
}

pub fn reset_spi(intid: u32) {
    disable(intid);
    let gicd = GICD.load(Relaxed);
    // SAFETY: as above.
    unsafe {
        write32(gicd + GICD_ICPENDR + word(intid), bit(intid));
        write32(gicd + GICD_ICACTIVER + word(intid), bit(intid));
    }
}

#[inline(always)]
pub const fn with_upcall_pending(lr0: u64) -> u64 {
    lr0 & LR_ACTIVE | LR_UPCALL | LR_PENDING
}

#[inline(always)]
pub fn lr0_read() -> u64 {
    // SAFETY: the virtual interface is mapped.
    u64::from(unsafe { read32(GICH.load(Relaxed) + GICH_LR0) })
}

/// Writes GICH_HCR.En.
#[inline(always)]
pub fn enable_virtual(on: bool) {
    // SAFETY: GICH is mapped; the register is this pCPU's own.
    unsafe { write32(GICH.load(Relaxed) + GICH_HCR, u32::from(on)) };
}

#[inline(always)]
pub fn lr0_write(value: u64) {
    // SAFETY: as above.
    unsafe { write32(GICH.load(Relaxed) + GICH_LR0, value as u32) };
}

#[inline]
pub fn save(state: &mut VgicState) {
    let gich = GICH.load(Relaxed);
    // SAFETY: as above.
    unsafe {
        state.lr0 = u64::from(read32(gich + GICH_LR0));
        state.vmcr = u64::from(read32(gich + GICH_VMCR));
        state.apr = u64::from(read32(gich + GICH_APR));
    }
}

#[inline]
pub fn restore(state: &VgicState) {
    let gich = GICH.load(Relaxed);
    // SAFETY: as above.
    unsafe {
        write32(gich + GICH_LR0, state.lr0 as u32);
        write32(gich + GICH_VMCR, state.vmcr as u32);
        write32(gich + GICH_APR, state.apr as u32);
    }
}

const fn word(intid: u32) -> usize {
    4 * ((intid as usize & 0x3ff) / 32)
}

const fn bit(intid: u32) -> u32 {
    1 << (intid % 32)
}
