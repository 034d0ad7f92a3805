//! Beginning the manager anew when it has ended.

use crate::clock;
use crate::graph::{Graph, Ref};
use crate::object::domain::Domain;
use portico_arch::registers::{ELR_EL2, SCTLR_EL1, SPSR_EL2, Writeable};
use portico_arch::{context, timer};
use portico_core::bundle;

/// What EL2 keeps of the domain that it built itself.
pub struct First {
    /// IPA of the machine's device tree.
    pub machine_tree: u64,
    /// How often it was begun anew.
    pub restarts: u64,
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
    let due = graph.first.due.max(now) + second;
    let is_allowed = domain.id.raw() == 0 && due <= now + 8 * second;
    let Some(vcpu) = domain.vcpu_at(0).filter(|_| is_allowed) else { return false };
    (graph.first.due, graph.first.restarts) = (due, graph.first.restarts + 1);
    ELR_EL2.set(bundle::IPA + bundle::IMAGE);
    SPSR_EL2.set(context::PSTATE_BOOT);
    SCTLR_EL1.set(context::SCTLR_EL1_BOOT);
    // SAFETY: it is current here, and no other reference to its context is live.
    unsafe { vcpu.context() }.set_reg(0, bundle::IPA + bundle::TREE);
    true
}
