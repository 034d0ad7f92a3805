//! The end of a domain, in pieces that any holder of the right can drive.
//!
//! Each call does one bounded piece and leaves the domain in a phase from which the next goes on; a domain that is DYING refuses every new
//! use, so phases only move forward. The domain's own page is freed last, with every handle to it.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::graph::{Graph, Ref};
use crate::object::domain::Domain;
use crate::object::extent;
use crate::object::handle::{self, Object};
use crate::object::vcpu::stop;
use crate::sched::control;
use crate::{hypercall, memory, quiesce, vmid};
use portico_abi::Status;
use portico_abi::record::DomainState;
use portico_arch::{mmu, tlb};
use portico_core::pool::Owner;

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Stop the vCPUs.
    Stop,
    /// Wait until no pCPU runs one or has one loaded.
    Rest,
    /// Empty the root table and every TLB.
    Unmap,
    /// Forget what was mapped.
    Mappings,
    /// Close its handles, from this slot on.
    Handles(u32),
    /// Unlink vCPUs and watchers.
    Unlink,
    /// Wait until no pCPU can hold a pointer into it.
    Quiesce(quiesce::Epoch),
    /// Free pages, from this block of the pool on.
    Free(u32),
    /// Free the domain itself.
    Last,
}

static SERIAL: AtomicU32 = AtomicU32::new(1);

/// A serial number that no domain had before.
pub fn next_serial() -> u32 {
    SERIAL.fetch_add(1, Ordering::Relaxed)
}

/// Extents forgotten in one piece.
const MAPPINGS_PIECE: usize = 32;
/// Handles closed in one piece.
const HANDLES_PIECE: u32 = 16;

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
            Phase::Rest
        }
        Phase::Rest => {
            if domain.vcpus().all(control::is_at_rest) {
                Phase::Unmap
            } else {
                domain.vcpus().for_each(control::evict);
                Phase::Rest
            }
        }
        Phase::Unmap => {
            clear_root(domain);
            tlb::stage2_all(vmid::last_vttbr(domain));
            Phase::Mappings
        }
        Phase::Mappings => {
            if extent::forget_mappings(graph, domain, MAPPINGS_PIECE) {
                Phase::Handles(0)
            } else {
                Phase::Mappings
            }
        }
        Phase::Handles(cursor) => match handle::close_some(graph, domain, cursor, HANDLES_PIECE)? {
            Some(cursor) => Phase::Handles(cursor),
            None => Phase::Unlink,
        },
        Phase::Unlink => {
            unlink(graph, domain);
            Phase::Quiesce(quiesce::begin())
        }
        Phase::Quiesce(epoch) => {
            if quiesce::passed(epoch) {
                Phase::Free(0)
            } else {
                Phase::Quiesce(epoch)
            }
        }
        Phase::Free(cursor) => {
            let mut budget = domain.budget.get(graph);
            let next = graph.pool.free_owner(Owner::domain(domain.id), &mut budget, cursor);
            domain.budget.set(graph, budget);
            next.map_or(Phase::Last, Phase::Free)
        }
        Phase::Last => {
            free_last(graph, domain);
            return Ok(Status::Ok);
        }
    };
    domain.phase.set(graph, next);
    Ok(Status::Again)
}

fn clear_root(domain: Ref<Domain>) {
    let Some(root) = memory::pool_va(domain.stage2_root) else { return };
    for index in 0..512 {
        // SAFETY: the root is a page of the pool with 512 entries; no vCPU of the domain is loaded anywhere.
        unsafe { root.as_ptr().cast::<u64>().add(index).write_volatile(0) };
    }
}

fn unlink(graph: &mut Graph, domain: Ref<Domain>) {
    for vcpu in domain.vcpus() {
        handle::close_all(graph, vcpu.handles());
        hypercall::vcpu::unlink(graph, vcpu);
    }
    for slot in 0..graph.domains.len() {
        if let Some(Some(other)) = graph.domains.get(slot).copied()
            && other.watcher.get(graph) == Some(domain)
        {
            other.watcher.set(graph, None);
        }
    }
}

fn free_last(graph: &mut Graph, domain: Ref<Domain>) {
    handle::close_all(graph, domain.handles());
    let mut budget = domain.budget.get(graph);
    let pa = mmu::pool_pa(domain.as_ptr() as usize);
    let slot = domain.id.index();
    // From here on `domain` is not touched: its page is free.
    graph.pool.free(pa, Owner::EL2, &mut budget);
    debug_assert!(budget.used == 0);
    graph.pool.unpromise(budget.limit);
    if let Some(entry) = graph.domains.get_mut(slot) {
        *entry = None;
    }
}
