//! Extents and grants: who has which physical memory, and where it is mapped.
//!
//! An extent is a range of RAM or device memory with one owner. A grant is a part of an extent lent to one borrower; it is an [`Extent`] with
//! a parent, so derivation has depth one and revoke is a walk over a list. Each has at most one mapping, whole.
//!
//! *Taint*: once another domain than the owner could write to an extent it carries that domain's serial number, and can be mapped only
//! there or in its owner until it was scrubbed.

mod mapping;

use core::ptr::null_mut;

pub use mapping::{forget_mappings, map_page, map_piece, translates, unmap_page, unmap_piece};

use crate::graph::{Graph, GraphCell, Ref};
use crate::object::domain::Domain;
use crate::object::handle::{self, HandleChain, Object};
use crate::object::slab;
use portico_abi::call::extent_flags;
use portico_abi::{Handle, ObjectType, Rights, Status};
use portico_arch::window;
use portico_core::addr::{Pa, PaRange};
use portico_core::extent as ranges;
use portico_core::stage2::Attrs;

/// An extent or grant.
#[repr(C)]
pub struct Extent {
    /// What memory it is.
    pub range: GraphCell<PaRange>,
    /// Its owner, or the borrower of a grant.
    pub owner: GraphCell<Ref<Domain>>,
    /// Of a grant: its extent.
    parent: GraphCell<*mut Extent>,
    /// Of an extent: its first grant. Of a grant: the next one.
    grants: GraphCell<*mut Extent>,
    pub(super) mapping: GraphCell<mapping::Mapping>,
    pub(super) next_mapped: GraphCell<*mut Extent>,
    /// Serial of the domain whose data it may hold; 0 for none but the owner's.
    taint: GraphCell<u32>,
    /// Pages scrubbed so far.
    scrubbed: GraphCell<u32>,
    traits: GraphCell<Traits>,
    handles: HandleChain,
}

#[derive(Clone, Copy)]
struct Traits {
    device: bool,
    revoking: bool,
    /// What a grant allows.
    limit: Attrs,
}

impl Object for Extent {
    const TYPE: ObjectType = ObjectType::Extent;

    fn handles(&self) -> &HandleChain {
        &self.handles
    }
}

/// Rights of the handle of an extent of one's own.
pub const OWNER_RIGHTS: Rights = Rights::INSPECT
    .union(Rights::OWN)
    .union(Rights::MAP)
    .union(Rights::WRITE)
    .union(Rights::SHARE)
    .union(Rights::DONATE);

/// Makes an extent that `owner` owns and pays for, with its handle.
///
/// # Errors
/// `NoBudget`, `Limit`.
pub fn create(
    graph: &mut Graph,
    owner: Ref<Domain>,
    range: PaRange,
    device: bool,
    cookie: u64,
) -> Result<Handle, Status> {
    let limit = ranges::full_attrs(device);
    let extent = slab::alloc(graph, owner, Extent::new(owner, range, null_mut(), device, limit))?;
    handle::insert(graph, owner, extent, OWNER_RIGHTS, cookie).inspect_err(|_| slab::free(graph, owner, extent))
}

impl Extent {
    fn new(owner: Ref<Domain>, range: PaRange, parent: *mut Extent, device: bool, limit: Attrs) -> Self {
        Self {
            range: GraphCell::new(range),
            owner: GraphCell::new(owner),
            parent: GraphCell::new(parent),
            grants: GraphCell::new(null_mut()),
            mapping: GraphCell::new(mapping::Mapping::NONE),
            next_mapped: GraphCell::new(null_mut()),
            taint: GraphCell::new(0),
            scrubbed: GraphCell::new(0),
            traits: GraphCell::new(Traits { device, revoking: false, limit }),
            handles: HandleChain::new(),
        }
    }

    /// Whether it is a grant.
    pub fn is_grant(&self, graph: &Graph) -> bool {
        !self.parent.get(graph).is_null()
    }

    /// Whether it is device memory.
    pub fn is_device(&self, graph: &Graph) -> bool {
        self.traits.get(graph).device
    }

    /// What can be allowed at most.
    pub fn limit(&self, graph: &Graph) -> Attrs {
        self.traits.get(graph).limit
    }

    /// The extent that a grant is a part of, or itself.
    fn root(&self, graph: &Graph) -> Ref<Extent> {
        let own = core::ptr::from_ref(self).cast_mut();
        let parent = self.parent.get(graph);
        let root = if parent.is_null() { own } else { parent };
        // SAFETY: both live in slots; a parent outlives its grants.
        unsafe { Ref::new(core::ptr::NonNull::new_unchecked(root)) }
    }

    /// `flags` of `extent_info`.
    pub fn flags(&self, graph: &Graph) -> u64 {
        let traits = self.traits.get(graph);
        let mut flags = 0;
        let mut set = |condition: bool, flag: u64| flags |= if condition { flag } else { 0 };
        set(self.is_grant(graph), extent_flags::GRANT);
        set(traits.device, extent_flags::DEVICE);
        set(self.taint.get(graph) != 0, extent_flags::DIRTY);
        set(self.mapping.get(graph).is_some(), extent_flags::MAPPED);
        set(!self.is_grant(graph) && !self.grants.get(graph).is_null(), extent_flags::LENT);
        set(self.root(graph).traits.get(graph).revoking, extent_flags::REVOKING);
        set(self.is_grant(graph) && traits.limit.can_write(), extent_flags::WRITE);
        flags
    }

    /// IPA of its mapping, or all ones.
    pub fn mapped_at(&self, graph: &Graph) -> u64 {
        let mapping = self.mapping.get(graph);
        if mapping.is_some() { mapping.ipa.raw() } else { u64::MAX }
    }

    /// Refuses unless it is an extent of one's own, unmapped, unlent and not in the middle of anything.
    pub fn check_idle(&self, graph: &Graph) -> Result<(), Status> {
        let busy =
            self.mapping.get(graph).is_some() || !self.grants.get(graph).is_null() || self.traits.get(graph).revoking;
        if self.is_grant(graph) || busy { Err(Status::BadState) } else { Ok(()) }
    }

    /// Refuses a mapping in `domain` that would show it another domain's data.
    pub(super) fn check_taint(&self, graph: &Graph, domain: Ref<Domain>) -> Result<(), Status> {
        let root = self.root(graph);
        let taint = root.taint.get(graph);
        let own = root.owner.get(graph) == domain;
        if own || taint == 0 || taint == domain.serial { Ok(()) } else { Err(Status::Dirty) }
    }

    /// Notes that `domain` can write from now on.
    pub(super) fn taint_by(&self, graph: &mut Graph, domain: Ref<Domain>) {
        let root = self.root(graph);
        if root.owner.get(graph) != domain && !root.traits.get(graph).device {
            root.taint.set(graph, domain.serial);
            root.scrubbed.set(graph, 0);
        }
    }

    /// Refuses new uses while its extent is being revoked.
    pub(super) fn check_not_revoking(&self, graph: &Graph) -> Result<(), Status> {
        if self.root(graph).traits.get(graph).revoking { Err(Status::BadState) } else { Ok(()) }
    }
}

/// Cuts an idle extent at `offset` pages; returns the handle of the upper part.
///
/// # Errors
/// `BadState`, `Invalid`, `NoBudget`, `Limit`.
pub fn split(graph: &mut Graph, extent: Ref<Extent>, offset: u64) -> Result<Handle, Status> {
    extent.check_idle(graph)?;
    let (lower, upper) = ranges::split(extent.range.get(graph), offset)?;
    let owner = extent.owner.get(graph);
    let handle = create(graph, owner, upper, extent.is_device(graph), 0)?;
    let part: Ref<Extent> = handle::lookup(graph, owner, handle, Rights::empty())?;
    let taint = extent.taint.get(graph);
    part.taint.set(graph, taint);
    extent.range.set(graph, lower);
    extent.scrubbed.set(graph, 0);
    Ok(handle)
}

/// Joins two idle extents of one owner; the second is gone afterwards.
///
/// # Errors
/// `BadState`, `Invalid`.
pub fn merge(graph: &mut Graph, first: Ref<Extent>, second: Ref<Extent>) -> Result<(), Status> {
    first.check_idle(graph)?;
    second.check_idle(graph)?;
    if first == second
        || first.is_device(graph) != second.is_device(graph)
        || first.owner.get(graph) != second.owner.get(graph)
    {
        return Err(Status::Invalid);
    }
    let whole = ranges::merge(first.range.get(graph), second.range.get(graph))?;
    let (one, other) = (first.taint.get(graph), second.taint.get(graph));
    // Data of two domains: only a scrub can make it anyone's.
    let taint = if one == other || other == 0 {
        one
    } else if one == 0 {
        other
    } else {
        u32::MAX
    };
    first.range.set(graph, whole);
    first.taint.set(graph, taint);
    first.scrubbed.set(graph, 0);
    consume(graph, second);
    Ok(())
}

/// Takes an idle extent out of existence, with its handles: its memory now belongs to something else.
pub fn consume(graph: &mut Graph, extent: Ref<Extent>) {
    handle::close_all(graph, &extent.handles);
    let owner = extent.owner.get(graph);
    slab::retire(graph, owner, extent);
}

/// Hands an idle extent over; returns the new owner's handle.
///
/// # Errors
/// `BadState`, `Dirty`, `NoBudget`, `Limit`.
pub fn donate(graph: &mut Graph, extent: Ref<Extent>, to: Ref<Domain>) -> Result<Handle, Status> {
    extent.check_idle(graph)?;
    if to.is_dying() {
        return Err(Status::BadState);
    }
    extent.check_taint(graph, to)?;
    let handle = create(graph, to, extent.range.get(graph), extent.is_device(graph), 0)?;
    consume(graph, extent);
    Ok(handle)
}

/// Lends a part to a borrower, who pays for the grant; returns the borrower's handle.
///
/// # Errors
/// `BadState`, `Invalid`, `NoRights`, `Dirty`, `NoBudget`, `Limit`.
pub fn lend(
    graph: &mut Graph,
    extent: Ref<Extent>,
    to: Ref<Domain>,
    part: (u64, u64),
    attrs: u64,
) -> Result<Handle, Status> {
    if extent.is_grant(graph) || to.is_dying() {
        return Err(Status::BadState);
    }
    extent.check_not_revoking(graph)?;
    let range = ranges::part(extent.range.get(graph), part.0, part.1)?;
    let attrs = ranges::checked_attrs(attrs, extent.limit(graph), Rights::all())?;
    // A window lent to several is shared by agreement of the owner, so only data from before the sharing counts as taint.
    if extent.grants.get(graph).is_null() {
        extent.check_taint(graph, to)?;
    }
    let grant = slab::alloc(graph, to, Extent::new(to, range, extent.as_ptr(), extent.is_device(graph), attrs))?;
    let handle = handle::insert(graph, to, grant, ranges::grant_rights(attrs), 0)
        .inspect_err(|_| slab::free(graph, to, grant))?;
    let next = extent.grants.get(graph);
    grant.grants.set(graph, next);
    extent.grants.set(graph, grant.as_ptr());
    Ok(handle)
}

/// Unlinks a grant from its extent.
fn unlink_grant(graph: &mut Graph, grant: Ref<Extent>) {
    let root = grant.root(graph);
    let next = grant.grants.get(graph);
    let mut at = root;
    loop {
        let link = at.grants.get(graph);
        if link == grant.as_ptr() {
            at.grants.set(graph, next);
            return;
        }
        // SAFETY: links in the list are live grants of this extent.
        match unsafe { Ref::from_ptr(link) } {
            Some(grant) => at = grant,
            None => return,
        }
    }
}

/// Whether the last handle can be closed: a grant that is not mapped is returned; an extent would be lost.
///
/// # Errors
/// `BadState`.
pub fn check_closable(graph: &Graph, extent: Ref<Extent>) -> Result<(), Status> {
    if extent.is_grant(graph) && !extent.mapping.get(graph).is_some() { Ok(()) } else { Err(Status::BadState) }
}

/// Ends a grant whose handles are closed.
pub fn retire(graph: &mut Graph, grant: Ref<Extent>) {
    unlink_grant(graph, grant);
    let borrower = grant.owner.get(graph);
    slab::retire(graph, borrower, grant);
}

/// Does one piece of a revoke. `Ok` when no borrower has anything of it any more.
pub fn revoke_piece(graph: &mut Graph, extent: Ref<Extent>) -> Result<Status, Status> {
    if extent.is_grant(graph) {
        return Err(Status::BadState);
    }
    let mut traits = extent.traits.get(graph);
    // SAFETY: links in the list are live grants of this extent.
    let Some(grant) = (unsafe { Ref::from_ptr(extent.grants.get(graph)) }) else {
        traits.revoking = false;
        extent.traits.set(graph, traits);
        return Ok(Status::Ok);
    };
    traits.revoking = true;
    extent.traits.set(graph, traits);
    if grant.mapping.get(graph).is_some() {
        unmap_piece(graph, grant)?;
    } else {
        handle::close_all(graph, &grant.handles);
        retire(graph, grant);
    }
    Ok(Status::Again)
}

/// Number of grants that are left, for the progress of a revoke. Counts no further than 1000.
pub fn grants_left(graph: &Graph, extent: Ref<Extent>) -> u64 {
    let mut count = 0;
    let mut link = extent.grants.get(graph);
    // SAFETY: links in the list are live grants of this extent.
    while let Some(grant) = unsafe { Ref::from_ptr(link) } {
        count += 1;
        if count == 1000 {
            break;
        }
        link = grant.grants.get(graph);
    }
    count
}

/// Pages zeroed in one piece: 64 KiB, some ten thousand instructions.
const SCRUB_PIECE: u64 = 16;

/// Zeroes a piece of an idle extent; returns the pages done so far.
///
/// # Errors
/// `BadState`; `Invalid` for device memory.
pub fn scrub_piece(graph: &mut Graph, extent: Ref<Extent>) -> Result<(Status, u64), Status> {
    extent.check_idle(graph)?;
    if extent.is_device(graph) {
        return Err(Status::Invalid);
    }
    let range = extent.range.get(graph);
    let done = u64::from(extent.scrubbed.get(graph));
    let end = (done + SCRUB_PIECE).min(range.pages());
    for page in done..end {
        window::zero_page_clean(Pa::new(range.first().raw() + page * portico_abi::PAGE_SIZE));
    }
    if end == range.pages() {
        extent.scrubbed.set(graph, 0);
        extent.taint.set(graph, 0);
        return Ok((Status::Ok, end));
    }
    extent.scrubbed.set(graph, end as u32);
    Ok((Status::Again, end))
}

/// An extent of a dying domain goes to its watcher, tainted; if there is none, to the domain that EL2 started.
///
/// # Errors
/// `NoBudget`, `Limit`.
pub fn bequeath(graph: &mut Graph, extent: Ref<Extent>) -> Result<Status, Status> {
    if !extent.grants.get(graph).is_null() {
        revoke_piece(graph, extent)?;
        return Ok(Status::Again);
    }
    if extent.mapping.get(graph).is_some() {
        unmap_piece(graph, extent)?;
        return Ok(Status::Again);
    }
    let owner = extent.owner.get(graph);
    let heir = owner.watcher.get(graph).or(graph.domains.first().copied().flatten()).filter(|heir| *heir != owner);
    if let Some(heir) = heir {
        let device = extent.is_device(graph);
        let handle = create(graph, heir, extent.range.get(graph), device, 0)?;
        if !device {
            let theirs: Ref<Extent> = handle::lookup(graph, heir, handle, Rights::empty())?;
            theirs.taint.set(graph, u32::MAX);
        }
    }
    consume(graph, extent);
    Ok(Status::Ok)
}
