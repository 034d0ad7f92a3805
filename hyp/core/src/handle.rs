//! The handle-table slot: a packed tag, its check, and the list of free slots.
//!
//! A domain's handle table is an array of slots; each has a tag of 64 bits, whose check is all that a
//! hot call does before it touches the object. Where the tags lie and who locks them is the caller's business:
//! readers need no lock if the tag is loaded once.
//!
//! ```text
//! 63       48 47    40  39  38              16 15       0
//! generation | type   | 1  | 0                | rights      a live slot
//! generation | 0      | 0  | next free + 1    | 0           a free slot
//! ```
//! The generation of a slot grows at each release and is never 0, so no stale handle and no zero names anything
//! until 65535 reuses of one slot; the free list is first-in-first-out to keep those apart.

use core::sync::atomic::{AtomicU64, Ordering};

use portico_abi::{Handle, ObjectType, Rights, Status};

const LIVE: u64 = 1 << 39;
const TYPE_SHIFT: u32 = 40;
const GENERATION_SHIFT: u32 = 48;
const LINK_SHIFT: u32 = 16;
const LINK_MASK: u32 = (1 << 23) - 1;

/// The packed state of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Tag(u64);

impl Tag {
    /// Wraps a stored tag.
    #[inline(always)]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// Composes a live tag.
    pub const fn live(generation: u16, ty: ObjectType, rights: Rights) -> Self {
        Self((generation as u64) << GENERATION_SHIFT | (ty as u64) << TYPE_SHIFT | LIVE | rights.bits() as u64)
    }

    fn free(generation: u16, next: Option<u16>) -> Self {
        let link = next.map_or(0, |slot| u64::from(slot) + 1);
        Self(u64::from(generation) << GENERATION_SHIFT | link << LINK_SHIFT)
    }

    fn next_free(self) -> Option<u16> {
        let link = (self.0 >> LINK_SHIFT) as u32 & LINK_MASK;
        link.checked_sub(1).map(|slot| slot as u16)
    }

    /// Says whether the slot names an object.
    #[inline(always)]
    pub const fn is_live(self) -> bool {
        self.0 & LIVE != 0
    }

    /// Generation of the slot.
    #[inline(always)]
    pub const fn generation(self) -> u16 {
        (self.0 >> GENERATION_SHIFT) as u16
    }

    /// Type of the object; `None` if the slot is free.
    pub const fn object_type(self) -> Option<ObjectType> {
        ObjectType::from_raw((self.0 >> TYPE_SHIFT) as u8)
    }

    /// Rights of the holder.
    #[inline(always)]
    pub const fn rights(self) -> Rights {
        Rights::from_bits_retain(self.0 as u16)
    }
}

/// Checks that the slot is live, of the handle's generation and of type `ty`, and has all of `rights`.
///
/// # Errors
/// `BadHandle`, `WrongType` or `NoRights`, the first that applies in this order.
#[inline(always)]
pub const fn check(tag: Tag, handle: Handle, ty: ObjectType, rights: Rights) -> Result<(), Status> {
    // One comparison for generation, type and life, one for the rights, and a single branch for both:
    // which of them failed is worked out only on the cold path.
    let want = ((handle.raw() & 0xffff_0000) as u64) << 32 | (ty as u64) << TYPE_SHIFT | LIVE;
    let differs = (tag.0 ^ want) >> 39;
    let lacks = rights.bits() as u64 & !tag.0;
    if differs | lacks == 0 { Ok(()) } else { Err(refusal(tag, handle, ty)) }
}

/// Checks that the slot is live and of the handle's generation, whatever its type.
///
/// # Errors
/// `BadHandle`, or `NoRights` if it lacks one of `rights`.
#[inline]
pub const fn check_any(tag: Tag, handle: Handle, rights: Rights) -> Result<(), Status> {
    if !tag.is_live() || tag.generation() != handle.generation() {
        Err(Status::BadHandle)
    } else if rights.bits() as u64 & !tag.0 != 0 {
        Err(Status::NoRights)
    } else {
        Ok(())
    }
}

#[cold]
const fn refusal(tag: Tag, handle: Handle, ty: ObjectType) -> Status {
    match check_any(tag, handle, Rights::empty()) {
        Err(status) => status,
        Ok(()) if (tag.0 >> TYPE_SHIFT) as u8 != ty as u8 => Status::WrongType,
        Ok(()) => Status::NoRights,
    }
}

/// Where the tags of one table lie.
pub trait Tags {
    /// The tag of a slot, if the table has that.
    fn tag(&self, slot: u16) -> Option<&AtomicU64>;

    /// Reads a tag; a slot that is not there is free.
    fn read(&self, slot: u16) -> Tag {
        Tag(self.tag(slot).map_or(0, |tag| tag.load(Ordering::Acquire)))
    }

    /// Writes a tag. Who reads it without a lock sees what was stored before.
    fn write(&self, slot: u16, tag: Tag) {
        self.tag(slot).into_iter().for_each(|stored| stored.store(tag.0, Ordering::Release));
    }
}

/// The free slots of one table: a queue threaded through the tags.
#[derive(Clone, Copy, Debug, Default)]
pub struct FreeSlots {
    head: Option<u16>,
    tail: Option<u16>,
    slots: u16,
}

impl FreeSlots {
    /// A table without slots.
    pub const fn new() -> Self {
        Self { head: None, tail: None, slots: 0 }
    }

    /// Slots that the table has, at most 65535, so that no handle equals [`SELF_DOMAIN`](portico_abi::handle::SELF_DOMAIN).
    pub const fn slots(&self) -> u16 {
        self.slots
    }

    /// Adds `count` slots behind those that the table has; their tags are written. Stops at 65535 slots.
    pub fn grow(&mut self, tags: &(impl Tags + ?Sized), count: u16) {
        let end = self.slots.saturating_add(count);
        for slot in self.slots..end {
            self.append(tags, slot, 1);
        }
        self.slots = end;
    }

    /// The slot that [`FreeSlots::alloc`] would take next; `None` if the table is full.
    pub const fn peek(&self) -> Option<u16> {
        self.head
    }

    /// Takes a free slot and makes it live; `None` if the table is full.
    pub fn alloc(&mut self, tags: &(impl Tags + ?Sized), ty: ObjectType, rights: Rights) -> Option<Handle> {
        let slot = self.head?;
        let tag = tags.read(slot);
        self.head = tag.next_free();
        tags.write(slot, Tag::live(tag.generation(), ty, rights));
        Some(Handle::new(slot, tag.generation()))
    }

    /// Frees a live slot and changes its generation. Does nothing to a free one.
    pub fn release(&mut self, tags: &(impl Tags + ?Sized), slot: u16) {
        let tag = tags.read(slot);
        if tag.is_live() {
            self.append(tags, slot, next_generation(tag.generation()));
        }
    }

    fn append(&mut self, tags: &(impl Tags + ?Sized), slot: u16, generation: u16) {
        tags.write(slot, Tag::free(generation, None));
        match self.tail.filter(|_| self.head.is_some()) {
            Some(tail) => tags.write(tail, Tag::free(tags.read(tail).generation(), Some(slot))),
            None => self.head = Some(slot),
        }
        self.tail = Some(slot);
    }
}

/// The generation after `generation`: never 0.
pub const fn next_generation(generation: u16) -> u16 {
    match generation.wrapping_add(1) {
        0 => 1,
        next => next,
    }
}

#[cfg(test)]
mod tests {
    use super::{FreeSlots, Tag, Tags, check, check_any, next_generation};
    use core::sync::atomic::{AtomicU64, Ordering};
    use portico_abi::handle::SELF_DOMAIN;
    use portico_abi::{Handle, ObjectType, Rights, Status};
    use proptest::prelude::*;

    impl Tags for [AtomicU64] {
        fn tag(&self, slot: u16) -> Option<&AtomicU64> {
            self.get(usize::from(slot))
        }
    }

    fn used(tags: &[AtomicU64]) -> usize {
        tags.iter().filter(|tag| Tag::from_raw(tag.load(Ordering::Relaxed)).is_live()).count()
    }

    #[test]
    fn each_refusal() {
        let rights = Rights::NOTIFY | Rights::BIND;
        let tag = Tag::live(7, ObjectType::Port, rights);
        let handle = Handle::new(3, 7);
        assert_eq!(check(tag, handle, ObjectType::Port, Rights::NOTIFY), Ok(()));
        assert_eq!(check(tag, handle, ObjectType::Port, Rights::empty()), Ok(()));
        assert_eq!(check(tag, handle, ObjectType::Port, Rights::COPY), Err(Status::NoRights));
        assert_eq!(check(tag, handle, ObjectType::Irq, Rights::NOTIFY), Err(Status::WrongType));
        assert_eq!(check(tag, Handle::new(3, 8), ObjectType::Port, Rights::NOTIFY), Err(Status::BadHandle));
        assert_eq!(check(Tag::from_raw(0), Handle::NONE, ObjectType::Port, Rights::empty()), Err(Status::BadHandle));
        assert_eq!(check_any(tag, handle, Rights::BIND), Ok(()));
        assert_eq!(check_any(tag, handle, Rights::OWN), Err(Status::NoRights));
        assert_eq!((tag.rights(), tag.object_type()), (rights, Some(ObjectType::Port)));
    }

    #[test]
    fn generation_is_never_zero() {
        assert_eq!((next_generation(1), next_generation(0xffff)), (2, 1));
        let tags = [AtomicU64::new(0)];
        let mut slots = FreeSlots::new();
        slots.grow(&tags[..], 1);
        for _ in 0..70_000 {
            let handle = slots.alloc(&tags[..], ObjectType::Irq, Rights::empty()).unwrap();
            assert_ne!(handle.generation(), 0);
            assert_eq!((slots.peek(), used(&tags)), (None, 1));
            slots.release(&tags[..], handle.slot());
        }
        assert_eq!(used(&tags), 0);
    }

    #[test]
    fn no_handle_is_self() {
        let tags: Vec<_> = (0..0x1_0000).map(|_| AtomicU64::new(0)).collect();
        let mut slots = FreeSlots::new();
        slots.grow(&tags[..], 0xfffe);
        slots.grow(&tags[..], 0xfffe);
        assert_eq!(slots.slots(), 0xffff);
        assert_eq!(SELF_DOMAIN.slot(), 0xffff);
    }

    proptest! {
        #[test]
        fn check_equals_the_long_way(
            raw: u64, handle: u32, ty in 1u8..7, rights: u16, match_generation: bool, match_type: bool)
        {
            let mut raw = raw;
            if match_generation {
                raw = raw & !(0xffff << 48) | u64::from(handle >> 16) << 48;
            }
            if match_type {
                raw = raw & !(0xff << 40) | u64::from(ty) << 40;
            }
            let (tag, handle) = (Tag::from_raw(raw), Handle::from_raw(handle));
            let ty = ObjectType::from_raw(ty).unwrap();
            let rights = Rights::from_bits_retain(rights);
            let want = if !tag.is_live() || tag.generation() != handle.generation() {
                Err(Status::BadHandle)
            } else if tag.object_type() != Some(ty) {
                Err(Status::WrongType)
            } else if !tag.rights().contains(rights) {
                Err(Status::NoRights)
            } else {
                Ok(())
            };
            prop_assert_eq!(check(tag, handle, ty, rights), want);
        }

        #[test]
        fn stale_handles_stay_refused(steps in prop::collection::vec((any::<bool>(), 0usize..16), 1..200)) {
            let tags = [const { AtomicU64::new(0) }; 16];
            let mut slots = FreeSlots::new();
            slots.grow(&tags[..], 8);
            slots.grow(&tags[..], 8);
            let (mut live, mut dead): (Vec<Handle>, Vec<Handle>) = (vec![], vec![]);
            for (make, which) in steps {
                if make {
                    match slots.alloc(&tags[..], ObjectType::Port, Rights::BIND) {
                        Some(handle) => live.push(handle),
                        None => prop_assert_eq!(live.len(), 16),
                    }
                } else if which < live.len() {
                    let handle = live.swap_remove(which);
                    slots.release(&tags[..], handle.slot());
                    dead.push(handle);
                }
                let ok = |h: &Handle| check(tags.read(h.slot()), *h, ObjectType::Port, Rights::BIND);
                prop_assert!(live.iter().all(|h| ok(h).is_ok()));
                prop_assert!(dead.iter().all(|h| ok(h) == Err(Status::BadHandle)));
                prop_assert_eq!(used(&tags), live.len());
            }
        }
    }
}
