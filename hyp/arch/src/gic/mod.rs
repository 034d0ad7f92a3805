//! The interrupt controller, GICv2 or GICv3, as EL2 drives it.
//!
//! Split end of interrupt (EOImode 1): [`eoi`] drops the priority, [`deactivate`] ends it, so a passed-through level
//! interrupt stays active, and quiet, until its guest is done. Guests see one virtual interrupt, the upcall, in list
//! register 0; pending on top of active is enough, so maintenance interrupts are not used.
//! Everything has one priority. Functions on SPIs may run on any pCPU; [`configure_spi`] changes shared registers by
//! read-modify-write and runs under the caller's distributor lock. No security state is managed: on `virt` without
//! EL3 there is one, on a board the firmware has made all interrupts ours.
//! (Arm IHI 0048B, GICv2; Arm IHI 0069H, GICv3)

mod distributor;
mod v2;
mod v3;

pub use distributor::{disable, enable, intids, reset_spi};

use crate::context::VgicState;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use portico_core::addr::PcpuId;

/// The virtual interrupt by which a guest learns of pending ports.
pub const UPCALL_VINTID: u32 = 31;

/// Priority of the upcall in the guest's eyes: below a PMR of 0xf0, and the lowest usable one of a guest that counts 16 priorities.
pub const UPCALL_PRIORITY: u8 = 0xe0;

/// Priority of every physical interrupt.
const PRIORITY: u8 = 0xa0;

/// Interrupt numbers from here up mean "none" when acknowledged.
pub const FIRST_SPECIAL_INTID: u32 = 1020;

/// First shared interrupt.
pub const FIRST_SPI: u32 = 32;

/// Which programming interface the machine has, by its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GicKind {
    /// Memory-mapped CPU interface.
    V2 = 2,
    /// System registers.
    V3 = 3,
}

/// Why the controller cannot be used, in words.
pub type Refusal = &'static str;

/// [`Refusal`]: its registers do not fit into EL2's device addresses.
const TOO_MANY_REGISTERS: Refusal = "the interrupt controller has too many registers";

/// How an interrupt is signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// As long as the line is high.
    Level,
    /// On its rising edge.
    Edge,
}

static IS_V3: AtomicBool = AtomicBool::new(false);

/// Tells the programming interface: one load.
#[inline(always)]
#[must_use]
pub fn kind() -> GicKind {
    if IS_V3.load(Relaxed) { GicKind::V3 } else { GicKind::V2 }
}

macro_rules! by_kind {
    ($call:ident ( $($arg:expr),* )) => {
        match kind() { GicKind::V3 => v3::$call($($arg),*), GicKind::V2 => v2::$call($($arg),*) }
    };
}

/// Sets up a GICv2 with virtualization, all shared interrupts off: distributor, CPU interface and virtual interface control at these physical
/// addresses. Runs once, on the boot pCPU; [`init_pcpu`] follows on each.
///
/// # Errors
/// If it has too many registers.
#[cold]
pub fn init_v2(gicd: u64, gicc: u64, gich: u64) -> Result<(), Refusal> {
    v2::init(gicd, gicc, gich)
}

/// As [`init_v2`] for a GICv3 or later, with the address and bytes of each redistributor region. `mpidrs[i]` is the affinity of pCPU i.
///
/// # Errors
/// If it has too many registers, or a pCPU has no redistributor.
#[cold]
pub fn init_v3(gicd: u64, gicr: impl Iterator<Item = (u64, u64)>, mpidrs: &[u64]) -> Result<(), Refusal> {
    IS_V3.store(true, Relaxed);
    v3::init(gicd, gicr, mpidrs)
}

/// Sets up this pCPU's interface: SGIs on, PPIs off, list registers empty.
///
/// # Errors
/// If the system register interface of a GICv3 cannot be turned on.
#[cold]
pub fn init_pcpu() -> Result<(), Refusal> {
    by_kind!(init_pcpu())
}

/// Acknowledges the next interrupt. The result goes to [`intid`], [`eoi`] and [`deactivate`].
#[inline(always)]
#[must_use]
pub fn ack() -> u32 {
    by_kind!(ack())
}

/// The interrupt number in what [`ack`] returned; [`FIRST_SPECIAL_INTID`] or above if there was none.
#[inline(always)]
#[must_use]
pub const fn intid(acknowledged: u32) -> u32 {
    acknowledged & 0x3ff
}

/// Drops the running priority: others may interrupt again, this one stays active.
#[inline(always)]
pub fn eoi(acknowledged: u32) {
    by_kind!(eoi(acknowledged));
}

/// Ends an interrupt that was acknowledged (here, or for an SPI on any pCPU): it may be signalled again.
#[inline(always)]
pub fn deactivate(acknowledged: u32) {
    by_kind!(deactivate(acknowledged));
}

/// [`eoi`] and [`deactivate`] at once: all there is to do for EL2's own interrupts.
#[inline(always)]
pub fn end(acknowledged: u32) {
    match kind() {
        GicKind::V3 => (v3::eoi(acknowledged), v3::deactivate(acknowledged)),
        GicKind::V2 => (v2::eoi(acknowledged), v2::deactivate(acknowledged)),
    };
}

/// Sends SGI `number` (0 to 15) to a pCPU. Completes earlier stores first, so that the receiver sees them.
#[inline(always)]
pub fn send_sgi(target: PcpuId, number: u8) {
    crate::barrier::dsb_ishst();
    by_kind!(send_sgi(usize::from(target.raw()), u32::from(number & 15)));
}

/// Sets trigger and target of an SPI, which is off. Under the caller's distributor lock.
pub fn configure_spi(intid: u32, trigger: Trigger, target: PcpuId) {
    if (FIRST_SPI..intids()).contains(&intid) {
        distributor::configure_spi(intid, trigger);
        by_kind!(route_spi(intid, usize::from(target.raw())));
    }
}

/// Sends an SPI to another pCPU from now on.
pub fn route_spi(intid: u32, target: PcpuId) {
    if (FIRST_SPI..intids()).contains(&intid) {
        by_kind!(route_spi(intid, usize::from(target.raw())));
    }
}

/// Turns the virtual CPU interface of this pCPU on or off. Off, an upcall that the loaded vCPU has not acknowledged stays pending in its list register
/// but does not signal: otherwise it would end every WFI of EL2's own.
#[inline(always)]
pub fn enable_virtual(on: bool) {
    by_kind!(enable_virtual(on));
}

/// Makes the upcall pending for the vCPU that is loaded here.
#[inline(always)]
pub fn pend_upcall() {
    by_kind!(pend_upcall());
}

/// Makes the upcall pending in a saved state: what `restore` will load.
#[inline]
pub fn pend_upcall_saved(state: &mut VgicState) {
    state.lr0 = by_kind!(with_upcall_pending(state.lr0));
}

/// Saves the virtual interface of the vCPU that is loaded here.
#[inline]
pub fn save(state: &mut VgicState) {
    by_kind!(save(state));
}

/// Loads the virtual interface of a vCPU.
#[inline]
pub fn restore(state: &VgicState) {
    by_kind!(restore(state));
}
