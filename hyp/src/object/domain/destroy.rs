//! The end of a domain, in pieces that any holder of the right can drive.
//!
//! Each call does one bounded piece and leaves the domain in a phase from which the next goes on; a domain that is DYING refuses every new
//! use, so phases only move forward. The domain's own page is freed last, with every handle to it.

use crate::graph::{Graph, MAX_DOMAINS, Ref};
use crate::object::domain::Domain;
use crate::object::vcpu::{self, stop};
use crate::object::{extent, handle};
use crate::sched::control;
use crate::{memory, quiesce};
use portico_abi::Status;
use portico_abi::record::DomainState;
use portico_arch::mmu;
use portico_core::pool::Owner;

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Stop the vCPUs.
    Stop,
    /// Wait until no pCPU runs one or has one loaded; then empty the root table and every TLB.
    Unmap,
    /// Forget what was mapped.
    Mappings,
    /// Close its handles, from this slot on.
    Handles(u16),
    /// Unlink vCPUs and watchers.
    Unlink,
    /// Wait until no pCPU can hold a pointer into it.
    Quiesce(quiesce::Epoch),
    /// Free pages, from this block of the pool on; after all blocks, the domain itself.
    Free(usize),
}

/// Extents forgotten in one piece.
const MAPPINGS_PIECE: usize = 32;
/// Handles closed in one piece.
const HANDLES_PIECE: u16 = 16;

/// Does one piece. `Ok` when the domain is gone, `Again` before.
///
/// # Errors
/// `NoBudget` if an extent of its own cannot be handed to its watcher for want of a handle slot.
pub fn piece(graph: &mut Graph, domain: Ref<Domain>) -> Result<Status, Status> {
    let next = match domain.phase.get(graph) {
        Phase::Stop => {
            domain.set_state(graph, DomainState::Dying);
            for vcpu in domain.vcpus() {
                control::stop(vcpu, stop::ENDED);
            }
            Phase::Unmap
        }
        Phase::Unmap if domain.vcpus().all(control::is_at_rest) => {
            extent::unmap_all(domain);
            Phase::Mappings
        }
        Phase::Unmap => {
            domain.vcpus().for_each(control::evict);
            Phase::Unmap
        }
        Phase::Mappings if extent::forget_mappings(graph, domain, MAPPINGS_PIECE) => Phase::Handles(0),
        Phase::Mappings => Phase::Mappings,
        Phase::Handles(cursor) => match handle::close_some(graph, domain, cursor, HANDLES_PIECE)? {
            Some(cursor) => Phase::Handles(cursor),
            None => Phase::Unlink,
        },
        Phase::Unlink => {
            unlink(graph, domain);
            Phase::Quiesce(quiesce::begin())
        }
        Phase::Quiesce(epoch) if quiesce::passed(epoch) => Phase::Free(0),
        Phase::Quiesce(epoch) => Phase::Quiesce(epoch),
        Phase::Free(block) => {
            let owner = Owner::domain(domain.id);
            if !memory::with_budget(graph, domain, |pool, budget| pool.free_owner(owner, budget, block)) {
                free_last(graph, domain);
                return Ok(Status::Ok);
            }
            Phase::Free(block + 1)
        }
    };
    domain.phase.set(graph, next);
    Ok(Status::Again)
}

fn unlink(graph: &mut Graph, domain: Ref<Domain>) {
    for vcpu in domain.vcpus() {
        handle::close_all(graph, &vcpu.handles);
        vcpu::unlink(graph, vcpu);
    }
    for slot in 0..MAX_DOMAINS {
        if let Some(other) = graph.domains[slot]
            && other.watcher.get(graph) == Some(domain)
        {
            other.watcher.set(graph, None);
        }
    }
}

fn free_last(graph: &mut Graph, domain: Ref<Domain>) {
    handle::close_all(graph, &domain.handles);
    let mut budget = domain.budget.get(graph);
    let pa = mmu::pool_pa(domain.as_ptr() as usize);
    graph.domains[usize::from(domain.id.raw()) & (MAX_DOMAINS - 1)] = None;
    // From here on `domain` is not touched: its page is free.
    graph.pool.free(pa, Owner::EL2, &mut budget);
    let is_paid_back = graph.pool.set_limit(&mut budget, 0).is_ok();
    debug_assert!(is_paid_back);
}
