//! Beginning the manager anew when it has ended.

use crate::clock;
use crate::graph::{Graph, Ref};
use crate::object::domain::Domain;
use portico_arch::{context, timer};

/// How the first domain is begun anew after it ended.
pub struct Again {
    /// Where the image is in the bundle, as the domain sees it.
    pub entry: u64,
    /// IPA of its device tree.
    pub tree: u64,
    /// How often that was done.
    pub count: u64,
    /// When as much time has passed as all restarts are worth, a second each.
    pub due: u64,
}

/// Begins the domain that EL2 built anew, on the pCPU on which its one vCPU has just ended it; false for any other domain. EL2 says nothing, since the
/// UART is another's now: the manager reads in its own status why it ended.
///
/// Its handles, budget and mappings stay. It is entered with its MMU off where the bundle, which it cannot write, holds its image: that copies
/// itself over what is left of the last life. So EL2 copies nothing, and no piece of work is long.
///
/// One that ends too often stays ended; guests run on.
pub fn begin_again(graph: &mut Graph, domain: Ref<Domain>) -> bool {
    let (now, second) = (timer::now(), u64::from(clock::rate().hz()));
    // Eight restarts may follow each other at once, and one more is allowed each second.
    let due = graph.again.due.max(now) + second;
    let is_allowed = domain.id.raw() == 0 && due <= now + 8 * second;
    let Some(vcpu) = domain.vcpu_at(0).filter(|_| is_allowed) else { return false };
    (graph.again.due, graph.again.count) = (due, graph.again.count + 1);
    context::set_live_pc(graph.again.entry);
    context::set_live_pstate(context::PSTATE_BOOT);
    context::set_live_sctlr_el1(context::SCTLR_EL1_BOOT);
    // SAFETY: it is current here, and no other reference to its context is live.
    unsafe { vcpu.context() }.set_reg(0, graph.again.tree);
    true
}
