//! Physical interrupts that belong to a domain, delivered as ports.
//!
//! The interrupt handler finds the target without a lock, in a table by interrupt number. A level interrupt stays active, and so quiet, until
//! the guest's `irq_complete`; an edge is deactivated before its port is made pending.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use crate::graph::{Graph, Ref};
use crate::lock::Lock;
use crate::notify;
use crate::object::bind::{Bindable, Target};
use crate::object::domain::Domain;
use crate::object::handle::{self, HandleChain};
use crate::object::slab;
use portico_abi::{Handle, Rights, Status};
use portico_arch::gic::{self, FIRST_SPECIAL_INTID, FIRST_SPI};

/// A physical interrupt with a handle.
#[repr(C, align(64))]
pub struct Irq {
    intid: u32,
    edge: bool,
    /// vCPU and bit; 0 while unbound.
    target: AtomicU64,
    /// Taken and not yet completed.
    active: AtomicBool,
    owner: Ref<Domain>,
    /// Its handles.
    pub handles: HandleChain,
}

const SPIS: usize = (FIRST_SPECIAL_INTID - FIRST_SPI) as usize;

/// Interrupts by number, for the handler.
static BY_INTID: [AtomicPtr<Irq>; SPIS] = [const { AtomicPtr::new(null_mut()) }; SPIS];

/// Serialises read-modify-writes of shared distributor registers.
static DISTRIBUTOR: Lock<()> = Lock::new(());

fn entry(intid: u32) -> Option<&'static AtomicPtr<Irq>> {
    BY_INTID.get(intid.checked_sub(FIRST_SPI)? as usize)
}

/// Makes the handle of an interrupt.
///
/// # Errors
/// `Invalid` for a number that is no SPI of this machine, `Exists` if it has an owner, `NoBudget`, `Limit`.
pub fn create(graph: &mut Graph, owner: Ref<Domain>, intid: u64, edge: bool, cookie: u64) -> Result<Handle, Status> {
    let intid = u32::try_from(intid).map_err(|_| Status::Invalid)?;
    if !(FIRST_SPI..gic::intids()).contains(&intid) {
        return Err(Status::Invalid);
    }
    let entry = entry(intid).ok_or(Status::Invalid)?;
    if !entry.load(Ordering::Acquire).is_null() {
        return Err(Status::Exists);
    }
    let irq = Irq {
        intid,
        edge,
        target: AtomicU64::new(0),
        active: AtomicBool::new(false),
        owner,
        handles: HandleChain::new(None),
    };
    const RIGHTS: Rights = Rights::INSPECT.union(Rights::COPY).union(Rights::BIND);
    let (handle, irq) = handle::create(graph, owner, irq, RIGHTS, cookie)?;
    gic::reset_spi(intid);
    entry.store(irq.as_ptr(), Ordering::Release);
    Ok(handle)
}

/// Delivers an interrupt that was acknowledged; true if it stays active until its guest completes it.
#[inline]
pub fn deliver(intid: u32) -> bool {
    let Some(entry) = entry(intid) else { return false };
    // SAFETY: made by `as_ptr`; taken out of the table before the object is freed.
    let Some(irq) = (unsafe { Ref::from_ptr(entry.load(Ordering::Acquire)) }) else {
        gic::disable(intid);
        return false;
    };
    let Some(Target { vcpu, bit }) = Target::load(&irq.target) else {
        let _distributor = DISTRIBUTOR.lock();
        // Another pCPU may have bound it since, and turned it on.
        if Target::load(&irq.target).is_none() {
            gic::disable(intid);
        }
        return false;
    };
    if irq.edge {
        gic::deactivate(intid);
    } else {
        irq.active.store(true, Ordering::Release);
    }
    notify::pend(vcpu, bit);
    true
}

impl Irq {
    /// The guest handled it: it can fire again. Completing one that is not active has no effect.
    pub fn complete(&self) {
        if self.active.swap(false, Ordering::AcqRel) {
            gic::deactivate(self.intid);
        }
    }
}

impl Bindable for Irq {
    fn target(&self) -> &AtomicU64 {
        &self.target
    }

    fn owner(&self) -> Ref<Domain> {
        self.owner
    }

    /// Turns the interrupt on.
    fn bind(&self, _graph: &mut Graph, target: Target) {
        self.target.store(target.raw(), Ordering::Release);
        let _distributor = DISTRIBUTOR.lock();
        gic::disable(self.intid);
        gic::configure_spi(self.intid, self.edge, target.vcpu.pcpu.load(Ordering::Relaxed).into());
        gic::enable(self.intid);
    }

    /// Turns the interrupt off. It starts clean for whoever binds it next.
    fn unbind(&self, _graph: &mut Graph) {
        let _distributor = DISTRIBUTOR.lock();
        gic::disable(self.intid);
        self.target.store(0, Ordering::Release);
        self.active.store(false, Ordering::Release);
        gic::reset_spi(self.intid);
    }

    fn retire(graph: &mut Graph, irq: Ref<Self>) {
        irq.unbind(graph);
        entry(irq.intid).into_iter().for_each(|entry| entry.store(null_mut(), Ordering::Release));
        slab::retire(graph, irq.owner, irq);
    }
}
