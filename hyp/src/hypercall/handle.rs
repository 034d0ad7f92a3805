//! Calls on handles.

use super::{Args, Outcome};
use crate::graph::Graph;
use crate::object::handle;
use portico_abi::{Rights, Status};

/// `handle_info(handle) -> (kind, cookie, state)`.
pub fn info(args: &mut Args, graph: &mut Graph) -> Outcome {
    args.done(handle::info(graph, args.caller(), args.handle::<1>())?)
}

/// `handle_next(domain, cursor) -> (handle, next, kind)`.
pub fn next(args: &mut Args, graph: &mut Graph) -> Outcome {
    let domain = args.domain::<1>(graph, Rights::INSPECT)?;
    let (found, cursor) = handle::next(graph, domain, args.get::<2>())?;
    let [kind, ..] = handle::info(graph, domain, found)?;
    args.done([u64::from(found.raw()), cursor, kind])
}

/// `handle_copy(handle, domain, rights, cookie) -> (copy)`.
pub fn copy(args: &mut Args, graph: &mut Graph) -> Outcome {
    let domain = args.domain::<2>(graph, Rights::CREATE)?;
    let rights = u16::try_from(args.get::<3>()).ok().and_then(Rights::from_bits).ok_or(Status::Invalid)?;
    let copy = handle::copy(graph, args.caller(), args.handle::<1>(), domain, rights, args.get::<4>())?;
    args.done([u64::from(copy.raw())])
}

/// `handle_close(handle)`.
pub fn close(args: &mut Args, graph: &mut Graph) -> Outcome {
    handle::close(graph, args.caller(), args.handle::<1>()).map(|()| Status::Ok)
}
