//! Management calls on extents and grants.

use super::{Args, Outcome, only_bits};
use crate::graph::{Graph, Ref};
use crate::object::domain::Domain;
use crate::object::extent::{self, Extent};
use crate::object::handle;
use portico_abi::call::attrs;
use portico_abi::handle::SELF_DOMAIN;
use portico_abi::{Handle, Rights, Status};
use portico_core::addr::IpaRange;
use portico_core::extent as ranges;

/// `extent_split(extent, offset) -> (upper)`.
pub fn split(args: &mut Args, graph: &mut Graph) -> Outcome {
    let extent = args.object::<1, Extent>(graph, Rights::OWN)?;
    let upper = extent::split(graph, extent, args.get::<2>())?;
    args.done([u64::from(upper.raw())])
}

/// `extent_merge(first, second)`.
pub fn merge(args: &mut Args, graph: &mut Graph) -> Outcome {
    let first = args.object::<1, Extent>(graph, Rights::OWN)?;
    let second = args.object::<2, Extent>(graph, Rights::OWN)?;
    extent::merge(graph, first, second).map(|()| Status::Ok)
}

/// `extent_donate(extent, domain) -> (theirs)`.
pub fn donate(args: &mut Args, graph: &mut Graph) -> Outcome {
    let extent = args.object::<1, Extent>(graph, Rights::DONATE)?;
    let to = args.domain::<2>(graph, Rights::CREATE)?;
    let theirs = extent::donate(graph, extent, to)?;
    args.done([u64::from(theirs.raw())])
}

/// `extent_lend(extent, domain, offset, pages, attrs) -> (grant)`.
pub fn lend(args: &mut Args, graph: &mut Graph) -> Outcome {
    let extent = args.object::<1, Extent>(graph, Rights::SHARE)?;
    let to = args.domain::<2>(graph, Rights::CREATE)?;
    let attrs = only_bits(args.get::<5>(), attrs::ALL)?;
    let grant = extent::lend(graph, extent, to, (args.get::<3>(), args.get::<4>()), attrs)?;
    args.done([u64::from(grant.raw())])
}

/// An extent or grant, the domain in which it is or will be mapped, and the rights of the handle by which it was named.
type Target = (Ref<Extent>, Ref<Domain>, Rights);

/// What `extent_map` and `extent_unmap` act on.
fn target(args: &Args, graph: &Graph, theirs: Handle) -> Result<Target, Status> {
    let (caller, own) = (args.caller(), args.handle::<1>());
    let target = if args.handle::<2>() == SELF_DOMAIN { caller } else { args.domain::<2>(graph, Rights::CONFIG)? };
    let (table, handle) = if theirs == Handle::NONE { (caller, own) } else { (target, theirs) };
    if theirs != Handle::NONE && own != Handle::NONE {
        return Err(Status::Invalid);
    }
    let extent: Ref<Extent> = handle::lookup(graph, table, handle, Rights::MAP)?;
    if extent.is_grant() && extent.owner != target {
        return Err(Status::NoRights);
    }
    Ok((extent, target, handle::rights(graph, table, handle)?))
}

/// `extent_map(extent, domain, ipa, attrs, theirs) -> (done)`.
pub fn map(args: &mut Args, graph: &mut Graph) -> Outcome {
    let (extent, domain, rights) = target(args, graph, args.handle::<5>())?;
    let raw = only_bits(args.get::<4>(), attrs::ALL)?;
    let attrs = ranges::checked_attrs(raw, extent.limit, rights)?;
    let pages = extent.range.get(graph).pages();
    let range = IpaRange::new(args.get::<3>(), pages, u32::from(domain.ipa_bits)).ok_or(Status::Invalid)?;
    args.piece(extent::map_piece(graph, extent, domain, range, attrs)?)
}

/// `extent_unmap(extent, domain, theirs) -> (done)`.
pub fn unmap(args: &mut Args, graph: &mut Graph) -> Outcome {
    let (extent, ..) = target(args, graph, args.handle::<3>())?;
    args.piece(extent::unmap_piece(graph, extent)?)
}

/// `extent_revoke(extent) -> (left)`.
pub fn revoke(args: &mut Args, graph: &mut Graph) -> Outcome {
    let extent = args.object::<1, Extent>(graph, Rights::OWN)?;
    let status = extent::revoke_piece(graph, extent)?;
    args.piece((status, extent::grants_left(graph, extent)))
}

/// `extent_scrub(extent) -> (done)`.
pub fn scrub(args: &mut Args, graph: &mut Graph) -> Outcome {
    let extent = args.object::<1, Extent>(graph, Rights::OWN)?;
    args.piece(extent::scrub_piece(graph, extent)?)
}

/// `extent_info(extent) -> (pages, flags, ipa)`.
pub fn info(args: &mut Args, graph: &mut Graph) -> Outcome {
    let extent = args.object::<1, Extent>(graph, Rights::INSPECT)?;
    args.done([extent.range.get(graph).pages(), extent.flags(graph), extent.mapped_at(graph)])
}
