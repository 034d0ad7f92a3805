//! Handle tables: how a domain names objects, and the rights it has on them.
//!
//! A table is up to 64 pages of 64 slots on the domain's budget. `port_notify` reads slots without a lock: it loads the tag, checks it,
//! loads the object, and checks that the tag did not change in between; a tag changes at each release, so a slot that was reused meanwhile
//! is noticed. All handles of an object are chained, so that the end of the object closes them all.

use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::graph::{Graph, GraphCell, Ref};
use crate::memory;
use crate::object::bind::{Bindable, Target};
use crate::object::domain::Domain;
use crate::object::extent::{self, Extent};
use crate::object::irq::Irq;
use crate::object::port::Port;
use crate::object::vcpu::Vcpu;
use portico_abi::{Handle, ObjectType, PAGE_SIZE, Rights, Status};
use portico_core::handle::{FreeSlots, Tag, TagStore, check, check_any};

/// Slots of a page.
const PAGE_SLOTS: usize = PAGE_SIZE as usize / size_of::<Slot>();
const PAGE_SLOTS_SHIFT: u32 = PAGE_SLOTS.trailing_zeros();
/// Pages of a table.
const TABLE_PAGES: usize = 64;
/// Handles that one object may have in all tables, so that closing them all is bounded.
const MAX_HANDLES_OF_ONE: u32 = 64;

const _: () = assert!(PAGE_SLOTS == 64);

/// One handle.
#[repr(C, align(64))]
pub struct Slot {
    tag: AtomicU64,
    object: AtomicPtr<()>,
    cookie: GraphCell<u64>,
    /// The domain in whose table it is.
    holder: GraphCell<*mut Domain>,
    next: GraphCell<*mut Slot>,
    prev: GraphCell<*mut Slot>,
    number: GraphCell<u16>,
}

/// The table of one domain.
pub struct HandleTable {
    pages: [AtomicPtr<Slot>; TABLE_PAGES],
    free: GraphCell<FreeSlots>,
}

/// All handles of one object.
pub struct HandleChain {
    head: GraphCell<*mut Slot>,
    count: GraphCell<u32>,
}

// SAFETY: the pointers are reached through `GraphCell`s only.
unsafe impl Sync for HandleChain {}
// SAFETY: as above.
unsafe impl Send for HandleChain {}

impl HandleChain {
    /// No handles.
    pub const fn new() -> Self {
        Self { head: GraphCell::new(null_mut()), count: GraphCell::new(0) }
    }
}

/// What handles can name.
pub trait Object {
    /// Its type.
    const TYPE: ObjectType;
    /// Its handles.
    fn handles(&self) -> &HandleChain;
}

/// Answer of `handle_info`.
pub struct Info {
    /// Type in bits 7:0, rights in bits 31:16.
    pub kind: u64,
    /// Cookie of the holder.
    pub cookie: u64,
    /// Depends on the type.
    pub state: u64,
}

impl HandleTable {
    /// An empty table.
    pub const fn new() -> Self {
        Self { pages: [const { AtomicPtr::new(null_mut()) }; TABLE_PAGES], free: GraphCell::new(FreeSlots::new()) }
    }

    /// The slot of a number, whether it is live or not.
    #[inline(never)]
    fn slot(&self, number: u16) -> Option<&Slot> {
        self.slot_hot(number)
    }

    #[inline(always)]
    fn slot_hot(&self, number: u16) -> Option<&Slot> {
        let page = self.pages.get(usize::from(number >> PAGE_SLOTS_SHIFT))?.load(Ordering::Acquire);
        if page.is_null() {
            return None;
        }
        // SAFETY: a page of the table holds PAGE_SLOTS slots and stays until its domain is freed.
        Some(unsafe { &*page.add(usize::from(number) & (PAGE_SLOTS - 1)) })
    }
}

/// The tags of a table, for `FreeSlots`.
struct Tags<'a>(&'a HandleTable);

impl TagStore for Tags<'_> {
    fn get(&self, slot: u16) -> Tag {
        Tag::from_raw(self.0.slot(slot).map_or(0, |slot| slot.tag.load(Ordering::Relaxed)))
    }

    fn set(&mut self, slot: u16, tag: Tag) {
        if let Some(slot) = self.0.slot(slot) {
            slot.tag.store(tag.raw(), Ordering::Release);
        }
    }
}

/// Looks an object up without a lock, for hot paths.
///
/// # Errors
/// `BadHandle`, `WrongType`, `NoRights`.
#[inline(always)]
pub fn lookup_hot<T: Object>(domain: Ref<Domain>, handle: Handle, rights: Rights) -> Result<Ref<T>, Status> {
    let slot = domain.handles.slot_hot(handle.slot()).ok_or(Status::BadHandle)?;
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
    let slot = domain.handles.slot(handle.slot()).ok_or(Status::BadHandle)?;
    check(Tag::from_raw(slot.tag.load(Ordering::Acquire)), handle, ty, rights)?;
    NonNull::new(slot.object.load(Ordering::Acquire)).ok_or(Status::BadHandle)
}

/// A live slot with at least `rights`, of any type, and its tag.
fn live(domain: &Domain, handle: Handle, rights: Rights) -> Result<(&Slot, Tag, ObjectType), Status> {
    let slot = domain.handles.slot(handle.slot()).ok_or(Status::BadHandle)?;
    let tag = Tag::from_raw(slot.tag.load(Ordering::Acquire));
    check_any(tag, handle, rights)?;
    Ok((slot, tag, tag.object_type().ok_or(Status::BadHandle)?))
}

/// Checks the System handle.
///
/// # Errors
/// `BadHandle`, `WrongType`, `NoRights`.
pub fn lookup_system(_graph: &Graph, domain: Ref<Domain>, handle: Handle) -> Result<(), Status> {
    lookup_any(domain, handle, ObjectType::System, Rights::ROOT).map(drop)
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
    insert_any(graph, domain, T::TYPE, object.as_ptr().cast(), object.handles(), rights, cookie)
}

/// [`insert`] once for all types. `chain` is that of `object`.
#[inline(never)]
fn insert_any(
    graph: &mut Graph,
    domain: Ref<Domain>,
    ty: ObjectType,
    object: *mut (),
    chain: &HandleChain,
    rights: Rights,
    cookie: u64,
) -> Result<Handle, Status> {
    if chain.count.get(graph) >= MAX_HANDLES_OF_ONE {
        return Err(Status::Limit);
    }
    let (handle, slot) = take_slot(graph, domain, ty, rights, object, cookie)?;
    let head = chain.head.get(graph);
    slot.next.set(graph, head);
    slot.prev.set(graph, null_mut());
    // SAFETY: the head of a chain is a live slot.
    if let Some(head) = unsafe { head.as_ref() } {
        head.prev.set(graph, core::ptr::from_ref(slot).cast_mut());
    }
    chain.head.set(graph, core::ptr::from_ref(slot).cast_mut());
    let count = chain.count.get(graph);
    chain.count.set(graph, count + 1);
    Ok(handle)
}

/// Makes the System handle, which names no object of its own.
///
/// # Errors
/// `NoBudget`, `Limit`.
pub fn insert_system(graph: &mut Graph, domain: Ref<Domain>) -> Result<Handle, Status> {
    let object = NonNull::<()>::dangling().as_ptr();
    Ok(take_slot(graph, domain, ObjectType::System, Rights::ROOT | Rights::INSPECT, object, 0)?.0)
}

fn take_slot(
    graph: &mut Graph,
    domain: Ref<Domain>,
    ty: ObjectType,
    rights: Rights,
    object: *mut (),
    cookie: u64,
) -> Result<(Handle, &'static Slot), Status> {
    // Its table may have been emptied already: what came in now would outlive it.
    if domain.is_dying() {
        return Err(Status::BadState);
    }
    let table = with_room(graph, domain)?;
    let mut free = table.free.get(graph);
    // The object goes in before the tag makes the slot live: a reader that sees the tag sees the object.
    let number = free.peek().ok_or(Status::Limit)?;
    let slot = table.slot(number).ok_or(Status::Limit)?;
    slot.object.store(object, Ordering::Release);
    slot.cookie.set(graph, cookie);
    slot.holder.set(graph, domain.as_ptr());
    slot.number.set(graph, number);
    slot.next.set(graph, null_mut());
    slot.prev.set(graph, null_mut());
    let handle = free.alloc(&mut Tags(table), ty, rights).ok_or(Status::Limit)?;
    table.free.set(graph, free);
    Ok((handle, slot))
}

/// The table of a domain, which grows if no slot is free.
fn with_room(graph: &mut Graph, domain: Ref<Domain>) -> Result<&'static HandleTable, Status> {
    // SAFETY: the table lives in the domain, which outlives this stay in EL2.
    let table: &'static HandleTable = unsafe { &(*domain.as_ptr()).handles };
    let mut free = table.free.get(graph);
    if free.used() == free.slots() {
        let entry = table.pages.get(free.slots() as usize / PAGE_SLOTS).ok_or(Status::Limit)?;
        let page = memory::alloc_page(graph, domain)?;
        entry.store(page.va.as_ptr().cast(), Ordering::Release);
        free.grow(&mut Tags(table), PAGE_SLOTS as u32);
        table.free.set(graph, free);
    }
    Ok(table)
}

/// Takes a handle out of its table without any effect on the object.
pub fn remove(graph: &mut Graph, domain: Ref<Domain>, handle: Handle) {
    if let Some(slot) = domain.handles.slot(handle.slot()) {
        unlink(graph, slot);
    }
}

/// Unlinks a live slot from its chain and frees it.
fn unlink(graph: &mut Graph, slot: &Slot) {
    let (next, prev) = (slot.next.get(graph), slot.prev.get(graph));
    let object = slot.object.load(Ordering::Relaxed);
    let tag = Tag::from_raw(slot.tag.load(Ordering::Relaxed));
    // SAFETY: neighbours in a chain are live slots.
    if let Some(next) = unsafe { next.as_ref() } {
        next.prev.set(graph, prev);
    }
    // SAFETY: as above.
    if let Some(prev) = unsafe { prev.as_ref() } {
        prev.next.set(graph, next);
    }
    if let Some(chain) = chain_of(tag, object) {
        if prev.is_null() {
            chain.head.set(graph, next);
        }
        let count = chain.count.get(graph);
        chain.count.set(graph, count.saturating_sub(1));
    }
    // SAFETY: the holder of a live slot is a live domain.
    if let Some(holder) = unsafe { slot.holder.get(graph).as_ref() } {
        let mut free = holder.handles.free.get(graph);
        let number = slot.number.get(graph);
        free.release(&mut Tags(&holder.handles), number);
        holder.handles.free.set(graph, free);
    }
}

fn chain_of(tag: Tag, object: *mut ()) -> Option<&'static HandleChain> {
    // SAFETY: a live slot's object is live and of the tag's type; chains are used under the graph lock only.
    unsafe {
        match tag.object_type()? {
            ObjectType::System => None,
            ObjectType::Domain => Some((*object.cast::<Domain>()).handles()),
            ObjectType::Vcpu => Some((*object.cast::<Vcpu>()).handles()),
            ObjectType::Port => Some((*object.cast::<Port>()).handles()),
            ObjectType::Extent => Some((*object.cast::<Extent>()).handles()),
            ObjectType::Irq => Some((*object.cast::<Irq>()).handles()),
        }
    }
}

/// Closes all handles of an object that ends. Bounded by [`MAX_HANDLES_OF_ONE`].
pub fn close_all(graph: &mut Graph, chain: &HandleChain) {
    // SAFETY: the head of a chain is a live slot.
    while let Some(slot) = unsafe { chain.head.get(graph).as_ref() } {
        unlink(graph, slot);
    }
}

/// A slot's object.
///
/// # Safety
/// The slot is or was live just now, and its object is of type `T` and not freed.
unsafe fn object_in<T>(object: *mut ()) -> Result<Ref<T>, Status> {
    // SAFETY: by the contract.
    unsafe { Ref::from_ptr(object.cast()) }.ok_or(Status::BadHandle)
}

/// Closes one handle; the last one to an object has the effect that the ABI gives for its type.
///
/// # Errors
/// `BadHandle`; `BadState` where the object would be left without a name.
pub fn close(graph: &mut Graph, domain: Ref<Domain>, handle: Handle) -> Result<(), Status> {
    let (slot, tag, ty) = live(&domain, handle, Rights::empty())?;
    let object = slot.object.load(Ordering::Relaxed);
    let last = chain_of(tag, object).is_none_or(|chain| chain.count.get(graph) == 1);
    if !last {
        unlink(graph, slot);
        drop_ties(graph, domain, ty, object);
        return Ok(());
    }
    match ty {
        ObjectType::System | ObjectType::Domain | ObjectType::Vcpu => return Err(Status::BadState),
        ObjectType::Port => {
            unlink(graph, slot);
            // SAFETY: the slot held a live port, whose last handle is gone.
            Port::retire(graph, unsafe { object_in(object)? });
        }
        ObjectType::Irq => {
            unlink(graph, slot);
            // SAFETY: as above.
            Irq::retire(graph, unsafe { object_in(object)? });
        }
        ObjectType::Extent => {
            // SAFETY: as above.
            let extent = unsafe { object_in(object)? };
            extent::check_closable(graph, extent)?;
            unlink(graph, slot);
            extent::retire(graph, extent);
        }
    }
    Ok(())
}

/// After one of several handles to a port or interrupt is closed: nothing of `domain` may hang on to it by another's handle.
fn drop_ties(graph: &mut Graph, domain: Ref<Domain>, ty: ObjectType, object: *mut ()) {
    // SAFETY: the slot just closed held a live object of this type, which has other handles.
    unsafe {
        match ty {
            ObjectType::Port => drop_ties_to::<Port>(graph, domain, object),
            ObjectType::Irq => drop_ties_to::<Irq>(graph, domain, object),
            ObjectType::System | ObjectType::Domain | ObjectType::Vcpu | ObjectType::Extent => {}
        }
    }
}

/// A binding to one of the domain's vCPUs ends, and if `domain` pays for the object and has no other handle to it, the object ends, since its
/// memory will go with the domain.
///
/// # Safety
/// As [`object_in`].
unsafe fn drop_ties_to<T: Bindable>(graph: &mut Graph, domain: Ref<Domain>, object: *mut ()) {
    // SAFETY: by the contract.
    let Ok(object) = (unsafe { object_in::<T>(object) }) else { return };
    if Target::load(object.target()).is_some_and(|target| target.vcpu.domain == domain) {
        object.unbind(graph);
    }
    if object.owner(graph) == domain && !is_held_by(graph, object.handles(), domain) {
        close_all(graph, object.handles());
        T::retire(graph, object);
    }
}

/// Whether a domain holds one of the handles. Bounded by [`MAX_HANDLES_OF_ONE`].
fn is_held_by(graph: &Graph, chain: &HandleChain, domain: Ref<Domain>) -> bool {
    let mut at = chain.head.get(graph);
    // SAFETY: links of a chain are live slots.
    while let Some(slot) = unsafe { at.as_ref() } {
        if slot.holder.get(graph) == domain.as_ptr() {
            return true;
        }
        at = slot.next.get(graph);
    }
    false
}

/// Describes a handle.
///
/// # Errors
/// `BadHandle`.
pub fn info(graph: &Graph, domain: Ref<Domain>, handle: Handle) -> Result<Info, Status> {
    let (slot, tag, ty) = live(&domain, handle, Rights::empty())?;
    let object = slot.object.load(Ordering::Relaxed);
    // SAFETY: a live slot's object is live and of the tag's type.
    let state = unsafe {
        match ty {
            ObjectType::Domain => (*object.cast::<Domain>()).state() as u64,
            ObjectType::Port => u64::from((*object.cast::<Port>()).peer_gone()),
            ObjectType::Vcpu => (*object.cast::<Vcpu>()).place() as u64,
            ObjectType::Extent => (*object.cast::<Extent>()).flags(graph),
            ObjectType::System | ObjectType::Irq => 0,
        }
    };
    let kind = ty as u64 | u64::from(tag.rights().bits()) << 16;
    Ok(Info { kind, cookie: slot.cookie.get(graph), state })
}

/// The first live handle from slot `cursor` on, and the cursor after it. Looks at no more than the 4096 slots of a table.
///
/// # Errors
/// `NotFound` at the end.
pub fn next(graph: &Graph, domain: Ref<Domain>, cursor: u64) -> Result<(Handle, u64), Status> {
    let slots = u64::from(domain.handles.free.get(graph).slots());
    for number in cursor..slots {
        let Some(slot) = domain.handles.slot(number as u16) else { break };
        let tag = Tag::from_raw(slot.tag.load(Ordering::Acquire));
        if tag.is_live() {
            return Ok((Handle::new(number as u16, tag.generation()), number + 1));
        }
    }
    Err(Status::NotFound)
}

/// Copies a handle to another table with fewer rights.
///
/// # Errors
/// `BadHandle`; `NoRights` without COPY or for rights that the original lacks; `Invalid` for a type that is not copied (an extent has one
/// owner); `NoBudget`, `Limit`.
pub fn copy(
    graph: &mut Graph,
    from: Ref<Domain>,
    handle: Handle,
    to: Ref<Domain>,
    rights: Rights,
    cookie: u64,
) -> Result<Handle, Status> {
    let (slot, tag, ty) = live(&from, handle, Rights::COPY | rights)?;
    let object = slot.object.load(Ordering::Relaxed);
    match chain_of(tag, object) {
        Some(chain) if ty != ObjectType::Extent => insert_any(graph, to, ty, object, chain, rights, cookie),
        _ => Err(Status::Invalid),
    }
}

/// Closes up to `count` handles of a dying domain from slot `cursor` on; returns where to go on, `None` at the end. Extents of its own go
/// to its watcher.
///
/// # Errors
/// `NoBudget` or `Limit` if the watcher has no room for an extent.
pub fn close_some(graph: &mut Graph, domain: Ref<Domain>, cursor: u32, count: u32) -> Result<Option<u32>, Status> {
    let slots = domain.handles.free.get(graph).slots();
    let end = cursor.saturating_add(count).min(slots);
    for number in cursor..end {
        let Some(slot) = domain.handles.slot(number as u16) else { continue };
        let tag = Tag::from_raw(slot.tag.load(Ordering::Acquire));
        if !tag.is_live() {
            continue;
        }
        let handle = Handle::new(number as u16, tag.generation());
        if close(graph, domain, handle).is_ok() {
            continue;
        }
        if let Ok(extent) = lookup::<Extent>(graph, domain, handle, Rights::empty()) {
            if extent::bequeath(graph, extent)? == Status::Again {
                return Ok(Some(number));
            }
        } else {
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
    Ok(live(&domain, handle, Rights::empty())?.1.rights())
}

/// The System handle of a domain: it is made before any other, so it is the first slot or none.
///
/// # Errors
/// `NotFound`.
pub fn find_system(_graph: &Graph, domain: Ref<Domain>) -> Result<Handle, Status> {
    let slot = domain.handles.slot(0).ok_or(Status::NotFound)?;
    let tag = Tag::from_raw(slot.tag.load(Ordering::Acquire));
    let handle = Handle::new(0, tag.generation());
    if check(tag, handle, ObjectType::System, Rights::ROOT).is_ok() { Ok(handle) } else { Err(Status::NotFound) }
}

/// Makes sure that the next [`insert`] for `domain` finds a slot.
///
/// # Errors
/// `NoBudget`, `Limit`.
pub fn check_room(graph: &mut Graph, domain: Ref<Domain>) -> Result<(), Status> {
    with_room(graph, domain).map(drop)
}
