//! Calls on ports, but for the hot ones in [`crate::trap`].

use super::{Args, Outcome};
use crate::graph::{Graph, Ref};
use crate::object::port::Port;
use crate::object::{handle, port};
use portico_abi::port::CLASS_DEFAULT;
use portico_abi::{Rights, Status};

/// `port_pair_create(domain_a, domain_b, cookie_a, cookie_b) -> (port_a, port_b)`.
pub fn pair_create(args: &mut Args, graph: &mut Graph) -> Outcome {
    let a = args.domain::<1>(graph, Rights::CREATE)?;
    let b = args.domain::<2>(graph, Rights::CREATE)?;
    let (port_a, port_b) = port::create_pair(graph, a, b, (args.get::<3>(), args.get::<4>()))?;
    args.done([u64::from(port_a.raw()), u64::from(port_b.raw())])
}

/// `port_bind(port, vcpu, bit, class)`.
pub fn bind(args: &mut Args, graph: &mut Graph) -> Outcome {
    let port: Ref<Port> = handle::lookup(graph, args.caller(), args.handle::<1>(), Rights::BIND)?;
    if args.get::<4>() != CLASS_DEFAULT {
        return Err(Status::Invalid);
    }
    let vcpu = args.caller().vcpu_at(args.get::<2>()).ok_or(Status::NotFound)?;
    let bit = u16::try_from(args.get::<3>()).map_err(|_| Status::Invalid)?;
    port.bind(graph, vcpu, bit)?;
    Ok(Status::Ok)
}

/// `port_unbind(port)`.
pub fn unbind(args: &mut Args, graph: &mut Graph) -> Outcome {
    let port: Ref<Port> = handle::lookup(graph, args.caller(), args.handle::<1>(), Rights::BIND)?;
    port.unbind(graph);
    Ok(Status::Ok)
}
