//! What each pCPU owns, reached through TPIDR_EL2.
//!
//! Fields are atomics since others look at them (and poke the pCPU), but only the owner writes `current`, `loaded` and what is marked so.

use core::cell::UnsafeCell;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};

use crate::graph::Ref;
use crate::lock::Lock;
use crate::object::vcpu::Vcpu;
use crate::sched::queue::{QUEUES, Queue};
use crate::trace::{PORTICO_TRACE, Ring};
use portico_arch::context::HCR_GUEST;
use portico_arch::pcpu::{MAX_PCPUS, PcpuBase, current_raw, set_current};

/// SGI by which one pCPU asks another to look at its flags.
pub const SGI_POKE: u32 = 0;
/// SGI by which a pCPU that panics stops the others.
pub const SGI_HALT: u32 = 1;

/// One pCPU.
#[repr(C, align(64))]
pub struct Pcpu {
    base: UnsafeCell<PcpuBase>,
    /// Its run queue.
    pub queue: &'static Lock<Queue>,
    /// Its ring of the trace.
    pub ring: &'static Ring,
    /// The vCPU that runs here; null while idle. Written by the owner.
    pub current: AtomicPtr<Vcpu>,
    /// The vCPU whose EL1 registers are loaded; null for none. Written by the owner.
    pub loaded: AtomicPtr<Vcpu>,
    /// Somebody changed what this pCPU should run.
    pub resched: AtomicBool,
    /// Whether vCPUs were ready here as of the last decision; its bit of the scheduler's mask. Written by the owner.
    pub waiting: AtomicBool,
    /// Number, plus one, of a blocked vCPU that belongs here and shall be woken with the next decision; 0 for none. A number, since the vCPU may
    /// be gone by then.
    pub woken: AtomicU32,
    /// Somebody wants the loaded context out.
    pub unload: AtomicBool,
    /// HCR_EL2 of whoever runs here: with TWI if others wait, so that its WFI traps. Written by the owner.
    pub hcr: AtomicU64,
    /// CNTHP deadline that is programmed; `u64::MAX` for none. Written by the owner.
    pub timer: AtomicU64,
    /// When the running vCPU's slice ends; `u64::MAX` for never. Written by the owner.
    pub slice_end: AtomicU64,
    /// VMID tag with which a guest runs or is loaded here. Written by the owner.
    pub active_vmid: AtomicU64,
    /// VMID generation up to which the TLB was invalidated. Written by the owner.
    pub vmid_generation: AtomicU64,
    /// vCPUs whose run queue is here.
    pub homed: AtomicU8,
    /// Ticks idle. Written by the owner.
    pub idle_ticks: AtomicU64,
    /// Counter when it came up.
    pub up_since: AtomicU64,
    /// vCPU switches. Written by the owner.
    pub switches: AtomicU64,
    /// Interrupts taken. Written by the owner.
    pub irqs: AtomicU64,
}

// SAFETY: `base` is written once, at boot, before its pCPU runs (see `init`); the rest are atomics.
unsafe impl Sync for Pcpu {}

impl Pcpu {
    const fn new(index: usize) -> Self {
        Self {
            base: UnsafeCell::new(PcpuBase::new()),
            queue: &QUEUES[index],
            ring: &PORTICO_TRACE[index],
            current: AtomicPtr::new(null_mut()),
            loaded: AtomicPtr::new(null_mut()),
            resched: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
            woken: AtomicU32::new(0),
            unload: AtomicBool::new(false),
            hcr: AtomicU64::new(HCR_GUEST),
            timer: AtomicU64::new(u64::MAX),
            slice_end: AtomicU64::new(u64::MAX),
            active_vmid: AtomicU64::new(0),
            vmid_generation: AtomicU64::new(0),
            homed: AtomicU8::new(0),
            idle_ticks: AtomicU64::new(0),
            up_since: AtomicU64::new(0),
            switches: AtomicU64::new(0),
            irqs: AtomicU64::new(0),
        }
    }

    /// Its number.
    #[inline(always)]
    pub fn index(&self) -> usize {
        self.base().index as usize
    }

    /// What the vectors and the arch crate know of it.
    #[inline(always)]
    pub fn base(&self) -> &PcpuBase {
        // SAFETY: written once before the pCPU runs.
        unsafe { &*self.base.get() }
    }

    /// The vCPU that runs here.
    #[inline(always)]
    pub fn current(&self) -> Option<Ref<Vcpu>> {
        // SAFETY: the pointer was made by `as_ptr`; a vCPU leaves its pCPU before it is freed.
        unsafe { Ref::from_ptr(self.current.load(Ordering::Relaxed)) }
    }

    /// The vCPU whose registers are loaded here.
    #[inline(always)]
    pub fn loaded(&self) -> Option<Ref<Vcpu>> {
        // SAFETY: as above.
        unsafe { Ref::from_ptr(self.loaded.load(Ordering::Relaxed)) }
    }

    /// Adds to a counter that only this pCPU writes: no exclusive access is needed.
    #[inline(always)]
    pub fn count(counter: &AtomicU64, n: u64) {
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }
}

static PCPUS: [Pcpu; MAX_PCPUS] = {
    use Pcpu as P;
    [P::new(0), P::new(1), P::new(2), P::new(3), P::new(4), P::new(5), P::new(6), P::new(7)]
};
static COUNT: AtomicU8 = AtomicU8::new(1);

/// The pCPU that executes this.
#[inline(always)]
pub fn this() -> &'static Pcpu {
    // SAFETY: TPIDR_EL2 was set at boot to an element of PCPUS.
    unsafe { &*current_raw().cast::<Pcpu>() }
}

/// Its number.
#[inline(always)]
pub fn index() -> usize {
    this().index()
}

/// A pCPU by number, which is below [`MAX_PCPUS`].
#[inline(always)]
pub fn of(index: usize) -> &'static Pcpu {
    &PCPUS[index & (MAX_PCPUS - 1)]
}

/// Fills in pCPU `index`, which executes this, and makes it [`this`].
///
/// # Safety
/// At boot, before this pCPU asks for its data.
pub unsafe fn init(index: usize, base: PcpuBase) {
    let pcpu = of(index);
    // SAFETY: nobody reads it yet.
    unsafe { *pcpu.base.get() = base };
    // SAFETY: an element of a static that belongs to this pCPU.
    unsafe { set_current(pcpu.base.get()) };
}

/// How many pCPUs take part, numbered from 0.
#[inline(always)]
pub fn online() -> usize {
    usize::from(COUNT.load(Ordering::Relaxed))
}

/// Says that pCPUs 0 to `count` - 1 take part.
pub fn set_online(count: usize) {
    COUNT.store(count.min(MAX_PCPUS) as u8, Ordering::Release);
}

/// Makes another pCPU enter EL2 and look at its flags.
#[inline]
pub fn poke(index: usize) {
    portico_arch::gic::send_sgi(index, SGI_POKE);
}
