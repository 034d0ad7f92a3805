//! Calls on ports and interrupts, but for the hot ones in [`crate::trap`].

use super::{Args, Outcome};
use crate::graph::Graph;
use crate::object::bind::{Bindable, Target};
use crate::object::port;
use portico_abi::port::CLASS_DEFAULT;
use portico_abi::{ObjectType, Rights, Status};

/// `port_pair_create(domain_a, domain_b, cookie_a, cookie_b) -> (port_a, port_b)`.
pub fn pair_create(args: &mut Args, graph: &mut Graph) -> Outcome {
    let a = args.domain::<1>(graph, Rights::CREATE)?;
    let b = args.domain::<2>(graph, Rights::CREATE)?;
    let (port_a, port_b) = port::create_pair(graph, a, b, (args.get::<3>(), args.get::<4>()))?;
    args.done([u64::from(port_a.raw()), u64::from(port_b.raw())])
}

/// `port_bind(port, vcpu, bit, class)` and `irq_bind(irq, vcpu, bit)`, which begin alike.
pub fn bind<T: Bindable>(args: &mut Args, graph: &mut Graph) -> Outcome {
    let object = args.object::<1, T>(graph, Rights::BIND)?;
    if T::TYPE == ObjectType::Port && args.get::<4>() != CLASS_DEFAULT {
        return Err(Status::Invalid);
    }
    let vcpu = args.caller().vcpu_at(args.get::<2>()).ok_or(Status::NotFound)?;
    object.bind(graph, Target::new(vcpu, args.get::<3>())?);
    Ok(Status::Ok)
}

/// `port_unbind(port)` and `irq_unbind(irq)`.
pub fn unbind<T: Bindable>(args: &mut Args, graph: &mut Graph) -> Outcome {
    let object = args.object::<1, T>(graph, Rights::BIND)?;
    object.unbind(graph);
    Ok(Status::Ok)
}
