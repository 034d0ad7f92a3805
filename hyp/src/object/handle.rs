//! Handle tables: how a domain names objects, and the rights it has on them.
//!
//! A table is up to 64 pages of 64 slots on the domain's budget. `port_notify` reads slots without a lock: it loads the tag, checks it,
//! loads the object, and checks that the tag did not change in between; a tag changes at each release, so a slot that was reused meanwhile
//! is noticed. All handles of an object are chained, so that the end of the object closes them all.

use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::graph::{Graph, GraphCell, Link, Ref};
use crate::memory;
use crate::object::bind::{Bindable, Target};
use crate::object::domain::Domain;
use crate::object::extent::{self, Extent};
use crate::object::irq::Irq;
use crate::object::port::Port;
use crate::object::slab;
use crate::object::system::System;
use crate::object::vcpu::Vcpu;
use portico_abi::handle::SELF_DOMAIN;
use portico_abi::{Handle, ObjectType, PAGE_SIZE, Rights, Status};
use portico_core::handle::{FreeSlots, Tag, Tags, check, check_any};

/// Slots of a page.
const PAGE_SLOTS: usize = PAGE_SIZE as usize / size_of::<Slot>();
const PAGE_SLOTS_SHIFT: u32 = PAGE_SLOTS.trailing_zeros();
/// Pages of a table.
const TABLE_PAGES: usize = 64;
/// Handles that one object may have in all tables, so that what goes through them all is bounded.
const MAX_HANDLES_OF_ONE: usize = 64;

const _: () = assert!(PAGE_SLOTS == 64 && TABLE_PAGES * PAGE_SLOTS <= SELF_DOMAIN.slot() as usize);

/// One handle.
#[repr(C, align(64))]
pub struct Slot {
    tag: AtomicU64,
    object: AtomicPtr<()>,
    cookie: GraphCell<u64>,
    /// The domain in whose table it is.
    holder: GraphCell<Option<Ref<Domain>>>,
    /// The chain of the object.
    chain: GraphCell<Option<Ref<HandleChain>>>,
    next: Link<Slot>,
    number: GraphCell<u16>,
}

/// The table of one domain.
pub struct HandleTable {
    pages: [AtomicPtr<Slot>; TABLE_PAGES],
    free: GraphCell<FreeSlots>,
}

/// All handles of one object.
pub type HandleChain = Link<Slot>;

/// What handles can name.
pub trait Object {
    /// Its type.
    const TYPE: ObjectType;
    /// Its handles.
    fn handles(&self) -> &HandleChain;
}

macro_rules! objects {
    ($($name:ident)*) => {$(
        impl Object for $name {
            const TYPE: ObjectType = ObjectType::$name;

            fn handles(&self) -> &HandleChain {
                &self.handles
            }
        }
    )*};
}

objects! { System Domain Vcpu Port Extent Irq }

impl HandleTable {
    /// An empty table.
    pub const fn new() -> Self {
        Self { pages: [const { AtomicPtr::new(null_mut()) }; TABLE_PAGES], free: GraphCell::new(FreeSlots::new()) }
    }

    /// The slot of a number, whether it is live or not.
    #[inline(never)]
    fn slot(&self, number: u16) -> Option<Ref<Slot>> {
        self.slot_hot(number)
    }

    #[inline(always)]
    fn slot_hot(&self, number: u16) -> Option<Ref<Slot>> {
        let page = self.pages.get(usize::from(number >> PAGE_SLOTS_SHIFT))?.load(Ordering::Acquire);
        // SAFETY: a page of the table holds PAGE_SLOTS slots and stays until its domain is freed.
        Some(unsafe { Ref::new(NonNull::new(page)?.add(usize::from(number) & (PAGE_SLOTS - 1))) })
    }
}

impl Tags for HandleTable {
    fn tag(&self, slot: u16) -> Option<&AtomicU64> {
        // SAFETY: slots stay as long as their table.
        self.slot(slot).map(|slot| unsafe { &(*slot.as_ptr()).tag })
    }
}

/// Looks an object up without a lock, for hot paths.
///
/// # Errors
/// `BadHandle`, `WrongType`, `NoRights`.
#[inline(always)]
pub fn lookup_hot<T: Object>(domain: Ref<Domain>, handle: Handle, rights: Rights) -> Result<Ref<T>, Status> {
    let slot = domain.table.slot_hot(handle.slot()).ok_or(Status::BadHandle)?;
    let tag = slot.tag.load(Ordering::Acquire);
    check(Tag::from_raw(tag), handle, T::TYPE, rights)?;
    let object = slot.object.load(Ordering::Acquire);
    if slot.tag.load(Ordering::Relaxed) != tag {
        return Err(Status::BadHandle);
    }
    // SAFETY: a live slot of type `T::TYPE` holds what `as_ptr` gave for such an object; it is freed only after quiescence.
    unsafe { Ref::from_ptr(object.cast()) }.ok_or(Status::BadHandle)
}

/// Looks an object up.
///
/// # Errors
/// `BadHandle`, `WrongType`, `NoRights`.
#[inline(always)]
pub fn lookup<T: Object>(
    _graph: &Graph,
    domain: Ref<Domain>,
    handle: Handle,
    rights: Rights,
) -> Result<Ref<T>, Status> {
    let object = lookup_any(domain, handle, T::TYPE, rights)?;
    // SAFETY: a live slot of type `T::TYPE` holds what `as_ptr` gave for such an object, and nothing is freed under the graph lock.
    Ok(unsafe { Ref::new(object.cast()) })
}

/// [`lookup`] once for all types, under the graph lock: no slot changes meanwhile.
#[inline(never)]
fn lookup_any(domain: Ref<Domain>, handle: Handle, ty: ObjectType, rights: Rights) -> Result<NonNull<()>, Status> {
    let slot = domain.table.slot(handle.slot()).ok_or(Status::BadHandle)?;
    check(Tag::from_raw(slot.tag.load(Ordering::Acquire)), handle, ty, rights)?;
    NonNull::new(slot.object.load(Ordering::Acquire)).ok_or(Status::BadHandle)
}

/// A live slot with at least `rights`, of any type, and its tag.
fn live(domain: Ref<Domain>, handle: Handle, rights: Rights) -> Result<(Ref<Slot>, Tag, ObjectType), Status> {
    let slot = domain.table.slot(handle.slot()).ok_or(Status::BadHandle)?;
    let tag = Tag::from_raw(slot.tag.load(Ordering::Acquire));
    check_any(tag, handle, rights)?;
    Ok((slot, tag, tag.object_type().ok_or(Status::BadHandle)?))
}

/// Puts a new object on the budget of `domain`, with its first handle in the domain's table.
///
/// # Errors
/// Those of [`slab::alloc`]; `Limit`.
pub fn create<T: Object>(
    graph: &mut Graph,
    domain: Ref<Domain>,
    object: T,
    rights: Rights,
    cookie: u64,
) -> Result<(Handle, Ref<T>), Status> {
    let object = slab::alloc(graph, domain, object)?;
    let handle = insert(graph, domain, object, rights, cookie).inspect_err(|_| slab::free(graph, domain, object))?;
    Ok((handle, object))
}

/// Makes a handle to `object` in the table of `domain`.
///
/// # Errors
/// `NoBudget`, `Limit`.
#[inline(always)]
pub fn insert<T: Object>(
    graph: &mut Graph,
    domain: Ref<Domain>,
    object: Ref<T>,
    rights: Rights,
    cookie: u64,
) -> Result<Handle, Status> {
    // SAFETY: the chain lives as long as the object.
    let chain = unsafe { Ref::new(NonNull::from_ref(object.handles())) };
    insert_any(graph, domain, T::TYPE, object.as_ptr().cast(), chain, rights, cookie)
}

/// [`insert`] once for all types. `chain` is that of `object`.
#[inline(never)]
fn insert_any(
    graph: &mut Graph,
    domain: Ref<Domain>,
    ty: ObjectType,
    object: *mut (),
    chain: Ref<HandleChain>,
    rights: Rights,
    cookie: u64,
) -> Result<Handle, Status> {
    if chain.iter(graph, |slot| &slot.next).count() >= MAX_HANDLES_OF_ONE {
        return Err(Status::Limit);
    }
    // Its table may have been emptied already: what came in now would outlive it.
    if domain.is_dying() {
        return Err(Status::BadState);
    }
    check_room(graph, domain)?;
    let table = &domain.table;
    let number = table.free.get(graph).peek().ok_or(Status::Limit)?;
    let slot = table.slot(number).ok_or(Status::Limit)?;
    // The object goes in before the tag makes the slot live: a reader that sees the tag sees the object.
    slot.object.store(object, Ordering::Release);
    slot.cookie.set(graph, cookie);
    slot.holder.set(graph, Some(domain));
    slot.chain.set(graph, Some(chain));
    slot.number.set(graph, number);
    chain.push(graph, slot, |slot| &slot.next);
    table.free.get_mut(graph).alloc(table, ty, rights).ok_or(Status::Limit)
}

/// Makes sure that the next [`insert`] for `domain` finds a slot: its table grows if none is free.
///
/// # Errors
/// `NoBudget`, `Limit`.
pub fn check_room(graph: &mut Graph, domain: Ref<Domain>) -> Result<(), Status> {
    let table = &domain.table;
    let free = table.free.get(graph);
    if free.peek().is_none() {
        let entry = table.pages.get(usize::from(free.slots()) / PAGE_SLOTS).ok_or(Status::Limit)?;
        let page = memory::alloc_page(graph, domain)?;
        entry.store(memory::pool_va(page).as_ptr().cast(), Ordering::Release);
        table.free.get_mut(graph).grow(table, PAGE_SLOTS as u16);
    }
    Ok(())
}

/// Unlinks a live slot from its chain and frees it.
fn unlink(graph: &mut Graph, slot: Ref<Slot>) {
    if let (Some(chain), Some(holder)) = (slot.chain.get_mut(graph).take(), slot.holder.get(graph)) {
        chain.remove(graph, slot, |slot| &slot.next);
        let number = slot.number.get(graph);
        holder.table.free.get_mut(graph).release(&holder.table, number);
    }
}

/// Closes all handles of an object that ends. Bounded by [`MAX_HANDLES_OF_ONE`].
pub fn close_all(graph: &mut Graph, chain: &HandleChain) {
    while let Some(slot) = chain.get(graph) {
        unlink(graph, slot);
    }
}

/// Closes one handle; the last one to an object has the effect that the ABI gives for its type.
///
/// # Errors
/// `BadHandle`; `BadState` where the object would be left without a name.
pub fn close(graph: &mut Graph, domain: Ref<Domain>, handle: Handle) -> Result<(), Status> {
    let none = Rights::empty();
    let (slot, _, ty) = live(domain, handle, none)?;
    let is_last = slot.chain.get(graph).is_some_and(|chain| chain.iter(graph, |slot| &slot.next).nth(1).is_none());
    match ty {
        ObjectType::Port => close_bindable(graph, domain, lookup::<Port>(graph, domain, handle, none)?, slot),
        ObjectType::Irq => close_bindable(graph, domain, lookup::<Irq>(graph, domain, handle, none)?, slot),
        _ if !is_last => unlink(graph, slot),
        ObjectType::Extent => extent::give_back(graph, lookup(graph, domain, handle, none)?)?,
        ObjectType::System | ObjectType::Domain | ObjectType::Vcpu => return Err(Status::BadState),
    }
    Ok(())
}

/// Closes a handle to a port or interrupt. Nothing of `domain` may hang on to the object by another's handle: a binding to one of the domain's
/// vCPUs ends, and if `domain` pays for the object and has no other handle to it, the object ends, since its memory will go with the domain.
fn close_bindable<T: Bindable>(graph: &mut Graph, domain: Ref<Domain>, object: Ref<T>, slot: Ref<Slot>) {
    unlink(graph, slot);
    let is_payer = object.owner() == domain;
    let counts = |slot: Ref<Slot>| !is_payer || slot.holder.get(graph) == Some(domain);
    let stays = object.handles().iter(graph, |slot| &slot.next).any(counts);
    if !stays {
        close_all(graph, object.handles());
        T::retire(graph, object);
    } else if Target::load(object.target()).is_some_and(|target| target.vcpu.domain == domain) {
        object.unbind(graph);
    }
}

/// Describes a handle as `handle_info` does: its type in bits 7:0 and its rights in bits 31:16, the cookie of its holder, and a state that depends on
/// the type.
///
/// # Errors
/// `BadHandle`.
pub fn info(graph: &Graph, domain: Ref<Domain>, handle: Handle) -> Result<[u64; 3], Status> {
    let (slot, tag, ty) = live(domain, handle, Rights::empty())?;
    let none = Rights::empty();
    let state = match ty {
        ObjectType::Domain => lookup::<Domain>(graph, domain, handle, none)?.state() as u64,
        ObjectType::Port => u64::from(lookup::<Port>(graph, domain, handle, none)?.peer_gone()),
        ObjectType::Vcpu => lookup::<Vcpu>(graph, domain, handle, none)?.place() as u64,
        ObjectType::Extent => lookup::<Extent>(graph, domain, handle, none)?.flags(graph),
        ObjectType::System | ObjectType::Irq => 0,
    };
    Ok([ty as u64 | u64::from(tag.rights().bits()) << 16, slot.cookie.get(graph), state])
}

/// The first live handle from slot `cursor` on, and the cursor after it. Looks at no more than the 4096 slots of a table.
///
/// # Errors
/// `NotFound` at the end.
pub fn next(graph: &Graph, domain: Ref<Domain>, cursor: u64) -> Result<(Handle, u64), Status> {
    let slots = domain.table.free.get(graph).slots();
    let first = u16::try_from(cursor).map_err(|_| Status::NotFound)?;
    let number = (first..slots).find(|&number| domain.table.read(number).is_live()).ok_or(Status::NotFound)?;
    Ok((Handle::new(number, domain.table.read(number).generation()), u64::from(number) + 1))
}

/// Copies a handle to another table with fewer rights.
///
/// # Errors
/// `BadHandle`; `NoRights` without COPY or for rights that the original lacks; `Invalid` for a type that is not copied (there is one System,
/// and an extent has one owner); `NoBudget`, `Limit`.
pub fn copy(
    graph: &mut Graph,
    from: Ref<Domain>,
    handle: Handle,
    to: Ref<Domain>,
    rights: Rights,
    cookie: u64,
) -> Result<Handle, Status> {
    let (slot, _, ty) = live(from, handle, Rights::COPY | rights)?;
    match slot.chain.get(graph) {
        Some(chain) if !matches!(ty, ObjectType::System | ObjectType::Extent) => {
            insert_any(graph, to, ty, slot.object.load(Ordering::Relaxed), chain, rights, cookie)
        }
        _ => Err(Status::Invalid),
    }
}

/// Closes up to `count` handles of a dying domain from slot `cursor` on; returns where to go on, `None` at the end. Extents of its own go
/// to its watcher.
///
/// # Errors
/// `NoBudget` or `Limit` if the watcher has no room for an extent.
pub fn close_some(graph: &mut Graph, domain: Ref<Domain>, cursor: u16, count: u16) -> Result<Option<u16>, Status> {
    let slots = domain.table.free.get(graph).slots();
    let end = cursor.saturating_add(count).min(slots);
    for number in cursor..end {
        let tag = domain.table.read(number);
        let handle = Handle::new(number, tag.generation());
        if !tag.is_live() || close(graph, domain, handle).is_ok() {
            continue;
        }
        if let Ok(extent) = lookup::<Extent>(graph, domain, handle, Rights::empty()) {
            if extent::bequeath(graph, extent)? == Status::Again {
                return Ok(Some(number));
            }
        } else if let Some(slot) = domain.table.slot(number) {
            // A domain or vCPU without another name is reached by other roads; this name goes.
            unlink(graph, slot);
        }
    }
    Ok(if end < slots { Some(end) } else { None })
}

/// Rights of a live handle.
///
/// # Errors
/// `BadHandle`.
pub fn rights(_graph: &Graph, domain: Ref<Domain>, handle: Handle) -> Result<Rights, Status> {
    Ok(live(domain, handle, Rights::empty())?.1.rights())
}

/// The System handle, which only the domain that EL2 built has: it is made before any other and never closed.
pub const SYSTEM: Handle = Handle::new(0, 1);

/// Refuses a domain that does not have the System handle.
///
/// # Errors
/// `NoRights`.
pub fn check_system(graph: &Graph, domain: Ref<Domain>) -> Result<(), Status> {
    lookup::<System>(graph, domain, SYSTEM, Rights::ROOT).map(drop).map_err(|_| Status::NoRights)
}
