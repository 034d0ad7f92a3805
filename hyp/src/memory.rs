//! Pool pages: where every kernel object, page table and page shared with a guest lives.
//!
//! A thin layer over [`portico_core::pool`]: it zeroes what it hands out and knows where EL2 maps it. EL2 maps pool blocks at a
//! fixed distance from their physical address and maps no other RAM.

use core::ptr::NonNull;

use crate::graph::{Graph, Ref};
use crate::object::domain::Domain;
use portico_abi::Status;
use portico_arch::mmu;
use portico_core::addr::Pa;
use portico_core::pool::{Books, Budget, Owner, Pool};

/// Blocks of 2 MiB that the pool can hold.
pub const MAX_BLOCKS: usize = 64;

/// Maps a block that is nobody's any more and adds it to the pool.
///
/// # Errors
/// Those of [`add_block`](portico_core::pool::Pool::add_block); `Limit` also if EL2 cannot map it.
pub fn add_block(graph: &mut Graph, base: Pa) -> Result<(), Status> {
    graph.pool.add_block(base, || {
        let books = NonNull::new(mmu::map_pool_block(base)? as *mut Books)?;
        // SAFETY: the block's first page, mapped a moment ago and nobody's.
        unsafe { books.write(Books::default()) };
        // SAFETY: written above; the pool has the only reference, and drops it before the block is unmapped.
        Some(unsafe { &mut *books.as_ptr() })
    })
}

/// Does something with the pool that changes the budget of `domain`.
pub fn with_budget<R>(
    graph: &mut Graph,
    domain: Ref<Domain>,
    work: impl FnOnce(&mut Pool<MAX_BLOCKS>, &mut Budget) -> R,
) -> R {
    let mut budget = domain.budget.get(graph);
    let result = work(&mut graph.pool, &mut budget);
    domain.budget.set(graph, budget);
    result
}

/// Takes a zeroed page on the budget of `domain`. The zeros are cleaned to the point of coherency, so that a guest that is given the
/// page and reads it with its caches off finds them too.
///
/// # Errors
/// `NoBudget`.
pub fn alloc_page(graph: &mut Graph, domain: Ref<Domain>) -> Result<Pa, Status> {
    let pa = with_budget(graph, domain, |pool, budget| pool.alloc(Owner::domain(domain.id), budget))?;
    // SAFETY: the page is in the pool, mapped writable, and nobody has it.
    unsafe { portico_arch::cache::zero_page_to_poc(pool_va(pa).as_ptr()) };
    Ok(pa)
}

/// Gives a page back.
pub fn free_page(graph: &mut Graph, domain: Ref<Domain>, pa: Pa) {
    let freed = with_budget(graph, domain, |pool, budget| pool.free(pa, Owner::domain(domain.id), budget));
    debug_assert!(freed);
}

/// Where EL2 maps a physical address of the pool.
pub fn pool_va(pa: Pa) -> NonNull<u8> {
    // SAFETY: the pool is mapped far above 0, and no physical address is large enough for the sum to wrap.
    unsafe { NonNull::new_unchecked(mmu::pool_va(pa) as *mut u8) }
}
