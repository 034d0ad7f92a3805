//! The distributor's registers that GICv2 and GICv3 have alike, and those of a redistributor's SGI frame, which has the same
//! layout for the first 32 interrupts.

use super::{FIRST_SPECIAL_INTID, FIRST_SPI, GicKind, PRIORITY, Refusal, TOO_MANY_REGISTERS, kind, v3};
use crate::barrier::relax;
use crate::mmio::{read32, write8, write32};
use crate::mmu;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

const CTLR: usize = 0x0;
const TYPER: usize = 0x4;
const IGROUPR: usize = 0x80;
const ISENABLER: usize = 0x100;
const ICENABLER: usize = 0x180;
const ICPENDR: usize = 0x280;
const ICACTIVER: usize = 0x380;
const IPRIORITYR: usize = 0x400;
const ICFGR: usize = 0xc00;
/// GICv3.
const IGRPMODR: usize = 0xd00;

/// GICv3: a write has not taken effect everywhere yet. Reads as zero on a GICv2.
const CTLR_RWP: u32 = 1 << 31;

static GICD: AtomicUsize = AtomicUsize::new(0);
static INTIDS: AtomicU32 = AtomicU32::new(0);

/// Tells how many interrupt numbers the distributor has.
pub fn intids() -> u32 {
    INTIDS.load(Relaxed)
}

/// Where the distributor is mapped.
#[inline(always)]
pub fn base() -> usize {
    GICD.load(Relaxed)
}

/// Maps the distributor, turns all shared interrupts off and the distributor on.
pub fn init(pa: u64, bytes: u64, control: u32) -> Result<(), Refusal> {
    let gicd = mmu::map_device(pa, bytes).ok_or(TOO_MANY_REGISTERS)?;
    GICD.store(gicd, Relaxed);
    // SAFETY: the distributor is mapped; nothing here makes it access memory.
    unsafe {
        write32::<CTLR>(gicd, 0);
        wait();
        let words = (read32::<TYPER>(gicd) & 0x1f) + 1;
        INTIDS.store((words * 32).min(FIRST_SPECIAL_INTID), Relaxed);
        for word in 1..words as usize {
            init_word(gicd + 4 * word);
        }
        write32::<CTLR>(gicd, control);
        wait();
    }
    Ok(())
}

/// Sets up the 32 private interrupts in `frame`: SGIs on, PPIs off.
///
/// # Safety
/// `frame` is the distributor or the SGI frame of this pCPU's redistributor, mapped.
pub unsafe fn init_private(frame: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        init_word(frame);
        for word in 0..8 {
            write32::<0>(frame + IPRIORITYR + 4 * word, u32::from(PRIORITY) * 0x0101_0101);
        }
        write32::<ISENABLER>(frame, 0x0000_ffff);
    }
}

/// Turns 32 interrupts off and puts them into the group that is used, 1 on a GICv3.
///
/// # Safety
/// `at` is a frame plus 4 for each 32 interrupts before.
unsafe fn init_word(at: usize) {
    let is_v3 = kind() == GicKind::V3;
    // SAFETY: the caller's contract.
    unsafe {
        write32::<ICENABLER>(at, !0);
        write32::<ICPENDR>(at, !0);
        write32::<ICACTIVER>(at, !0);
        write32::<IGROUPR>(at, if is_v3 { !0 } else { 0 });
        if is_v3 {
            write32::<IGRPMODR>(at, 0);
        }
    }
}

/// Turns on an interrupt; a PPI or SGI only for this pCPU.
pub fn enable(intid: u32) {
    set(ISENABLER, intid);
}

/// Turns off an interrupt, complete on return; a PPI or SGI only for this pCPU.
pub fn disable(intid: u32) {
    set(ICENABLER, intid);
    wait();
}

/// Turns an SPI off and forgets that it is pending or active: before it gets a new owner.
pub fn reset_spi(intid: u32) {
    if (FIRST_SPI..intids()).contains(&intid) {
        disable(intid);
        set(ICPENDR, intid);
        set(ICACTIVER, intid);
    }
}

/// Sets trigger and priority.
pub fn configure_spi(intid: u32, edge: bool) {
    let at = base() + ICFGR + 4 * (intid as usize % 1024 / 16);
    let shift = (intid % 16) * 2 + 1;
    // SAFETY: the distributor is mapped, and the offsets stay inside.
    unsafe {
        let old = read32::<0>(at) & !(1 << shift);
        write32::<0>(at, old | u32::from(edge) << shift);
        write8::<0>(base() + IPRIORITYR + intid as usize % 1024, PRIORITY);
    }
}

/// Writes the bit of an interrupt to a register of one bit each.
fn set(register: usize, intid: u32) {
    let frame = if intid < FIRST_SPI && kind() == GicKind::V3 { v3::sgi_frame() } else { base() };
    // SAFETY: the frame is mapped; the offset stays inside for any 10-bit number.
    unsafe { write32::<0>(frame + register + 4 * (intid as usize % 1024 / 32), 1 << (intid % 32)) };
}

/// Waits until the distributor has done what was written.
fn wait() {
    // SAFETY: the distributor is mapped.
    while unsafe { read32::<CTLR>(base()) } & CTLR_RWP != 0 {
        relax();
    }
}
