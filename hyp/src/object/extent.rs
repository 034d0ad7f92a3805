//! Extents and grants: who has which physical memory, and where it is mapped.
//!
//! An extent is a range of RAM or device memory with one owner. A grant is a part of an extent lent to one borrower; it is an [`Extent`] with
//! a parent, so derivation has depth one and revoke is a walk over a list. Each has at most one mapping, whole.
//!
//! *Taint*: once another domain than the owner could write to an extent it carries that domain's serial number, and can be mapped only
//! there or in its owner until it was scrubbed.

mod mapping;

pub use mapping::{forget_mappings, map_new_page, map_page, map_piece, translates, unmap_all, unmap_page, unmap_piece};

use crate::graph::{Graph, GraphCell, Link, Ref};
use crate::object::domain::Domain;
use crate::object::handle::{self, HandleChain};
use crate::object::slab;
use portico_abi::call::extent_flags;
use portico_abi::{Handle, Rights, Status};
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
    pub owner: Ref<Domain>,
    /// What it can allow at most, and whether it is device memory.
    pub limit: Attrs,
    /// Of a grant: its extent.
    parent: Option<Ref<Extent>>,
    /// Of an extent: its first grant. Of a grant: the next one.
    grants: Link<Extent>,
    pub(super) mapping: GraphCell<Option<mapping::Mapping>>,
    /// The next that is mapped in the same domain.
    pub(super) next_mapped: Link<Extent>,
    /// Serial of the domain whose data it may hold; 0 for none but the owner's.
    taint: GraphCell<u32>,
    /// Pages scrubbed so far.
    scrubbed: GraphCell<u32>,
    revoking: GraphCell<bool>,
    /// Its handles.
    pub handles: HandleChain,
}

/// Makes an extent that `owner` owns and pays for, with its handle.
///
/// # Errors
/// `NoBudget`, `Limit`.
pub fn create(
    graph: &mut Graph,
    owner: Ref<Domain>,
    range: PaRange,
    limit: Attrs,
    cookie: u64,
) -> Result<(Handle, Ref<Extent>), Status> {
    let rights = Rights::INSPECT | Rights::OWN | Rights::MAP | Rights::WRITE | Rights::SHARE | Rights::DONATE;
    handle::create(graph, owner, Extent::new(owner, range, None, limit), rights, cookie)
}

impl Extent {
    fn new(owner: Ref<Domain>, range: PaRange, parent: Option<Ref<Extent>>, limit: Attrs) -> Self {
        Self {
            range: GraphCell::new(range),
            owner,
            limit,
            parent,
            grants: Link::new(None),
            mapping: GraphCell::new(None),
            next_mapped: Link::new(None),
            taint: GraphCell::new(0),
            scrubbed: GraphCell::new(0),
            revoking: GraphCell::new(false),
            handles: HandleChain::new(None),
        }
    }

    /// Whether it is a grant.
    pub fn is_grant(&self) -> bool {
        self.parent.is_some()
    }

    /// The extent that a grant is a part of, or itself.
    fn root(&self) -> &Extent {
        self.parent.as_deref().unwrap_or(self)
    }

    /// `flags` of `extent_info`.
    pub fn flags(&self, graph: &Graph) -> u64 {
        let mut flags = 0;
        let mut set = |condition: bool, flag: u64| flags |= if condition { flag } else { 0 };
        set(self.is_grant(), extent_flags::GRANT);
        set(self.limit.is_device(), extent_flags::DEVICE);
        set(self.taint.get(graph) != 0, extent_flags::DIRTY);
        set(self.mapping.get(graph).is_some(), extent_flags::MAPPED);
        set(!self.is_grant() && self.grants.get(graph).is_some(), extent_flags::LENT);
        set(self.root().revoking.get(graph), extent_flags::REVOKING);
        set(self.is_grant() && self.limit.can_write(), extent_flags::WRITE);
        flags
    }

    /// IPA of its mapping, or all ones.
    pub fn mapped_at(&self, graph: &Graph) -> u64 {
        self.mapping.get(graph).map_or(u64::MAX, |mapping| mapping.ipa.raw())
    }

    /// Refuses unless it is an extent of one's own, unmapped, unlent and not in the middle of anything.
    pub fn check_idle(&self, graph: &Graph) -> Result<(), Status> {
        let busy = self.mapping.get(graph).is_some() || self.grants.get(graph).is_some() || self.revoking.get(graph);
        if self.is_grant() || busy { Err(Status::BadState) } else { Ok(()) }
    }

    /// Refuses a mapping in `domain` that would show it another domain's data.
    pub(super) fn check_taint(&self, graph: &Graph, domain: Ref<Domain>) -> Result<(), Status> {
        let root = self.root();
        let taint = root.taint.get(graph);
        if root.owner == domain || taint == 0 || taint == domain.serial { Ok(()) } else { Err(Status::Dirty) }
    }

    /// Notes that `domain` can write from now on.
    pub(super) fn taint_by(&self, graph: &mut Graph, domain: Ref<Domain>) {
        let root = self.root();
        if root.owner != domain && !root.limit.is_device() {
            root.taint.set(graph, domain.serial);
            root.scrubbed.set(graph, 0);
        }
    }

    /// Refuses new uses while its extent is being revoked.
    pub(super) fn check_not_revoking(&self, graph: &Graph) -> Result<(), Status> {
        if self.root().revoking.get(graph) { Err(Status::BadState) } else { Ok(()) }
    }
}

/// Cuts an idle extent at `offset` pages; returns the handle of the upper part.
///
/// # Errors
/// `BadState`, `Invalid`, `NoBudget`, `Limit`.
pub fn split(graph: &mut Graph, extent: Ref<Extent>, offset: u64) -> Result<Handle, Status> {
    extent.check_idle(graph)?;
    let (lower, upper) = ranges::split(extent.range.get(graph), offset)?;
    let (handle, part) = create(graph, extent.owner, upper, extent.limit, 0)?;
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
    if first == second || first.limit != second.limit || first.owner != second.owner {
        return Err(Status::Invalid);
    }
    let whole = ranges::merge(first.range.get(graph), second.range.get(graph))?;
    let (one, other) = (first.taint.get(graph), second.taint.get(graph));
    // Data of two domains: only a scrub can make it anyone's.
    let taint = match (one, other) {
        (taint, 0) | (0, taint) => taint,
        _ if one == other => one,
        _ => u32::MAX,
    };
    first.range.set(graph, whole);
    first.taint.set(graph, taint);
    first.scrubbed.set(graph, 0);
    consume(graph, second);
    Ok(())
}

/// Takes an extent or grant that nothing hangs on out of existence, with its handles: its memory now belongs to something else.
pub fn consume(graph: &mut Graph, extent: Ref<Extent>) {
    handle::close_all(graph, &extent.handles);
    slab::retire(graph, extent.owner, extent);
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
    let (handle, _) = create(graph, to, extent.range.get(graph), extent.limit, 0)?;
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
    if extent.is_grant() || to.is_dying() {
        return Err(Status::BadState);
    }
    extent.check_not_revoking(graph)?;
    let range = ranges::part(extent.range.get(graph), part.0, part.1)?;
    let attrs = ranges::checked_attrs(attrs, extent.limit, Rights::all())?;
    // A window lent to several is shared by agreement of the owner, so only data from before the sharing counts as taint.
    if extent.grants.get(graph).is_none() {
        extent.check_taint(graph, to)?;
    }
    let grant = Extent::new(to, range, Some(extent), attrs);
    let (handle, grant) = handle::create(graph, to, grant, ranges::grant_rights(attrs), 0)?;
    extent.grants.push(graph, grant, |grant| &grant.grants);
    Ok(handle)
}

/// Ends a grant that is not mapped, with its handles. An extent would be lost.
///
/// # Errors
/// `BadState`.
pub fn give_back(graph: &mut Graph, grant: Ref<Extent>) -> Result<(), Status> {
    if !grant.is_grant() || grant.mapping.get(graph).is_some() {
        return Err(Status::BadState);
    }
    grant.root().grants.remove(graph, grant, |grant| &grant.grants);
    consume(graph, grant);
    Ok(())
}

/// Does one piece of a revoke. `Ok` when no borrower has anything of it any more.
pub fn revoke_piece(graph: &mut Graph, extent: Ref<Extent>) -> Result<Status, Status> {
    if extent.is_grant() {
        return Err(Status::BadState);
    }
    let first = extent.grants.get(graph);
    extent.revoking.set(graph, first.is_some());
    let Some(grant) = first else { return Ok(Status::Ok) };
    if grant.mapping.get(graph).is_some() {
        unmap_piece(graph, grant)?;
    } else {
        give_back(graph, grant)?;
    }
    Ok(Status::Again)
}

/// Number of grants that are left, for the progress of a revoke. Counts no further than 1000.
pub fn grants_left(graph: &Graph, extent: Ref<Extent>) -> u64 {
    extent.grants.iter(graph, |grant| &grant.grants).take(1000).count() as u64
}

/// Pages zeroed in one piece: 64 KiB, some ten thousand instructions.
const SCRUB_PIECE: u64 = 16;

/// Zeroes a piece of an idle extent; returns the pages done so far.
///
/// # Errors
/// `BadState`; `Invalid` for device memory.
pub fn scrub_piece(graph: &mut Graph, extent: Ref<Extent>) -> Result<(Status, u64), Status> {
    extent.check_idle(graph)?;
    if extent.limit.is_device() {
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
    if extent.grants.get(graph).is_some() {
        return revoke_piece(graph, extent);
    }
    if extent.mapping.get(graph).is_some() {
        unmap_piece(graph, extent)?;
        return Ok(Status::Again);
    }
    let owner = extent.owner;
    let heir = owner.watcher.get(graph).or(graph.domains.first().copied().flatten()).filter(|heir| *heir != owner);
    if let Some(heir) = heir {
        let (_, theirs) = create(graph, heir, extent.range.get(graph), extent.limit, 0)?;
        if !extent.limit.is_device() {
            theirs.taint.set(graph, u32::MAX);
        }
    }
    consume(graph, extent);
    Ok(Status::Ok)
}
