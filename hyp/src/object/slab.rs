//! Small objects (ports, extents, interrupts): 32 slots of 128 bytes to a pool page, each page one domain's own.
//!
//! A freed object is *retired*: it goes back to its domain's free list only after every pCPU was seen outside EL2, because one
//! may just be following a pointer to it without a lock. Pages go back to the pool when the domain is destroyed.

use core::mem::{align_of, size_of};
use core::ptr::{NonNull, null_mut};

use crate::graph::{Graph, GraphCell, Ref};
use crate::memory;
use crate::object::domain::Domain;
use crate::quiesce;
use portico_abi::{PAGE_SIZE, Status};

/// Bytes of a slot.
const SLOT_BYTES: usize = 128;

/// The free slots of one domain.
pub struct Slab {
    /// Ready for use.
    free: GraphCell<*mut FreeSlot>,
    /// Retired, oldest first, waiting for the epoch in each.
    retired_head: GraphCell<*mut FreeSlot>,
    retired_tail: GraphCell<*mut FreeSlot>,
}

// SAFETY: the pointers are reached through `GraphCell`s only.
unsafe impl Sync for Slab {}

struct FreeSlot {
    next: *mut FreeSlot,
    epoch: quiesce::Epoch,
}

impl Slab {
    /// No slots.
    pub const fn new() -> Self {
        Self {
            free: GraphCell::new(null_mut()),
            retired_head: GraphCell::new(null_mut()),
            retired_tail: GraphCell::new(null_mut()),
        }
    }
}

/// Puts `value` into a slot of `domain`, on its budget.
///
/// # Errors
/// `NoBudget`; `BadState` if the domain is being destroyed; `Again` if there is no budget but what retired slots will give back soon:
/// nobody sees the time that quiescence takes.
pub fn alloc<T>(graph: &mut Graph, domain: Ref<Domain>, value: T) -> Result<Ref<T>, Status> {
    const { assert!(size_of::<T>() <= SLOT_BYTES && align_of::<T>() <= SLOT_BYTES) };
    if domain.is_dying() {
        return Err(Status::BadState);
    }
    let slab = &domain.slab;
    if slab.free.get(graph).is_null() {
        reuse_retired(graph, slab);
    }
    if slab.free.get(graph).is_null() {
        let page = memory::alloc_page(graph, domain)
            .map_err(|status| if slab.retired_head.get(graph).is_null() { status } else { Status::Again })?;
        for index in (0..PAGE_SIZE as usize / SLOT_BYTES).rev() {
            // SAFETY: the slot is inside the page, which is the domain's alone.
            let slot = unsafe { page.va.as_ptr().add(index * SLOT_BYTES) };
            push_free(graph, slab, slot.cast());
        }
    }
    let slot = slab.free.get(graph);
    // SAFETY: a slot on the free list is nobody's; its head is a `FreeSlot`.
    let next = unsafe { (*slot).next };
    slab.free.set(graph, next);
    let object: *mut T = slot.cast();
    // SAFETY: the slot is large and aligned enough (asserted) and nobody's; it is freed by this module only.
    unsafe {
        object.write(value);
        Ok(Ref::new(NonNull::new_unchecked(object)))
    }
}

/// Frees an object that no other pCPU can have seen.
pub fn free<T>(graph: &mut Graph, domain: Ref<Domain>, object: Ref<T>) {
    push_free(graph, &domain.slab, object.as_ptr().cast());
}

/// Frees an object that is unlinked from everything, once no pCPU can be looking at it any more.
///
/// Only the slot's first words are overwritten, after the epoch has passed: a late reader sees the object as it was.
pub fn retire<T>(graph: &mut Graph, domain: Ref<Domain>, object: Ref<T>) {
    const { assert!(size_of::<T>() + size_of::<FreeSlot>() <= SLOT_BYTES) };
    let slab = &domain.slab;
    // SAFETY: the tail of the slot lies behind the object (asserted), so a late reader does not see the link.
    let link = unsafe { object.as_ptr().cast::<u8>().add(SLOT_BYTES - size_of::<FreeSlot>()).cast::<FreeSlot>() };
    // SAFETY: as above; the graph lock is held.
    unsafe { link.write(FreeSlot { next: null_mut(), epoch: quiesce::begin() }) };
    let tail = slab.retired_tail.get(graph);
    if tail.is_null() {
        slab.retired_head.set(graph, link);
    } else {
        // SAFETY: the tail is a retired slot of this domain.
        unsafe { (*tail).next = link };
    }
    slab.retired_tail.set(graph, link);
}

/// Moves retired slots whose epoch has passed to the free list, a few at a time.
fn reuse_retired(graph: &mut Graph, slab: &Slab) {
    const BATCH: usize = 16;
    for _ in 0..BATCH {
        let link = slab.retired_head.get(graph);
        // SAFETY: a link on the list is a retired slot of this domain.
        let Some(FreeSlot { next, epoch }) = (unsafe { link.as_ref() }) else { return };
        if !quiesce::passed(*epoch) {
            return;
        }
        let next = *next;
        slab.retired_head.set(graph, next);
        if next.is_null() {
            slab.retired_tail.set(graph, null_mut());
        }
        // SAFETY: the link stands at the end of its slot.
        let slot = unsafe { link.cast::<u8>().sub(SLOT_BYTES - size_of::<FreeSlot>()) };
        push_free(graph, slab, slot.cast());
    }
}

fn push_free(graph: &mut Graph, slab: &Slab, slot: *mut FreeSlot) {
    let next = slab.free.get(graph);
    // SAFETY: the slot is nobody's.
    unsafe { slot.write(FreeSlot { next, epoch: quiesce::Epoch::PAST }) };
    slab.free.set(graph, slot);
}
