//! Small objects (ports, extents, interrupts): 32 slots of 128 bytes to a pool page, each page one domain's own.
//!
//! A freed object is *retired*: its slot is used again only after every pCPU was seen outside EL2, because one may just be following a pointer
//! to it without a lock. So the free slots are a queue: in front those that nobody can be looking at, behind them the retired ones, oldest
//! first. Pages go back to the pool when the domain is destroyed.

use core::mem::{MaybeUninit, align_of, size_of};

use crate::graph::{Graph, GraphCell, Link, Ref};
use crate::memory;
use crate::object::domain::Domain;
use crate::quiesce::{self, Epoch};
use portico_abi::{PAGE_SIZE, Status};

/// Bytes of a slot.
const SLOT_BYTES: usize = 128;
/// Slots of a page.
const PAGE_SLOTS: usize = PAGE_SIZE as usize / SLOT_BYTES;
/// Most bytes of an object.
const OBJECT_BYTES: usize = SLOT_BYTES - size_of::<Link<Slot>>() - size_of::<GraphCell<Epoch>>();

/// The free slots of one domain.
pub struct Slab {
    first: Link<Slot>,
    last: Link<Slot>,
}

/// A slot. While it is free the object's bytes stay as they were: a late reader sees the object.
#[repr(C, align(128))]
struct Slot {
    object: GraphCell<MaybeUninit<[u8; OBJECT_BYTES]>>,
    next: Link<Slot>,
    /// When it can be used again.
    epoch: GraphCell<Epoch>,
}

const _: () = assert!(size_of::<Slot>() == SLOT_BYTES);

impl Slab {
    /// No slots.
    pub const fn new() -> Self {
        Self { first: Link::new(None), last: Link::new(None) }
    }

    fn push_front(&self, graph: &mut Graph, slot: Ref<Slot>) {
        slot.epoch.set(graph, Epoch::PAST);
        self.first.push(graph, slot, |slot| &slot.next);
        if slot.next.get(graph).is_none() {
            self.last.set(graph, Some(slot));
        }
    }
}

/// Puts `value` into a slot of `domain`, on its budget.
///
/// # Errors
/// `NoBudget`; `BadState` if the domain is being destroyed; `Again` if there is no budget but what retired slots will give back soon:
/// nobody sees the time that quiescence takes.
pub fn alloc<T>(graph: &mut Graph, domain: Ref<Domain>, value: T) -> Result<Ref<T>, Status> {
    const { assert!(size_of::<T>() <= OBJECT_BYTES && align_of::<T>() <= SLOT_BYTES) };
    if domain.is_dying() {
        return Err(Status::BadState);
    }
    let slab = &domain.slab;
    let front = slab.first.get(graph);
    if !front.is_some_and(|slot| quiesce::passed(slot.epoch.get(graph))) {
        let page = memory::alloc_page(graph, domain).map_err(|status| front.map_or(status, |_| Status::Again))?;
        let slots = memory::pool_va(page).cast::<Slot>();
        for index in (0..PAGE_SLOTS).rev() {
            // SAFETY: the slot is inside the page, which is zeroed and the domain's alone until the domain is freed.
            let slot = unsafe { Ref::new(slots.add(index)) };
            slab.push_front(graph, slot);
        }
    }
    let slot = slab.first.get(graph).ok_or(Status::NoBudget)?;
    slab.first.remove(graph, slot, |slot| &slot.next);
    // SAFETY: the slot is large and aligned enough (asserted) and nobody's; it is freed by this module only.
    unsafe {
        slot.as_ptr().cast::<T>().write(value);
        Ok(slot.cast())
    }
}

/// The slot of an object.
fn slot_of<T>(object: Ref<T>) -> Ref<Slot> {
    // SAFETY: an object from `alloc` stands at the beginning of a slot.
    unsafe { object.cast() }
}

/// Frees an object that no other pCPU can have seen.
pub fn free<T>(graph: &mut Graph, domain: Ref<Domain>, object: Ref<T>) {
    domain.slab.push_front(graph, slot_of(object));
}

/// Frees an object that is unlinked from everything, once no pCPU can be looking at it any more.
pub fn retire<T>(graph: &mut Graph, domain: Ref<Domain>, object: Ref<T>) {
    let (slab, slot) = (&domain.slab, slot_of(object));
    slot.epoch.set(graph, quiesce::begin());
    slot.next.set(graph, None);
    let last = slab.last.get(graph).filter(|_| slab.first.get(graph).is_some());
    let end = last.as_ref().map_or(&slab.first, |last| &last.next);
    end.set(graph, Some(slot));
    slab.last.set(graph, Some(slot));
}
