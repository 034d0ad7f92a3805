//! Mapping extents and EL2's own pages into domains: where the graph meets stage 2.

use core::sync::atomic::{AtomicU64, Ordering};

use super::Extent;
use crate::graph::{Graph, Ref};
use crate::object::domain::Domain;
use crate::{memory, vmid};
use portico_abi::Status;
use portico_arch::{barrier, cache, tlb};
use portico_core::addr::{Ipa, IpaRange, Pa, PaRange};
use portico_core::extent::PA_BITS;
use portico_core::stage2::{self, Attrs, ENTRIES, Tables};

/// Entries made in one piece. What unmaps takes those of a whole table.
const PIECE_ENTRIES: usize = 64;

/// The one mapping of an extent or grant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// Lives: its destruction forgets its mappings first.
    domain: Ref<Domain>,
    /// First address in the domain.
    pub ipa: Ipa,
    /// Pages mapped so far while it is being made, or still mapped while it is being undone.
    pages: u32,
    attrs: Attrs,
    undoing: bool,
}

/// A domain's tables, on its budget.
struct DomainTables<'a> {
    graph: &'a mut Graph,
    domain: Ref<Domain>,
}

/// The entries of a table.
#[inline(always)]
fn entries(table: Pa) -> &'static [AtomicU64; ENTRIES] {
    // SAFETY: a table is a page of the pool; hardware walks it, EL2 reaches it only by this atomic view.
    unsafe { memory::pool_va(table).cast().as_ref() }
}

impl Tables for DomainTables<'_> {
    fn read(&self, table: Pa, index: usize) -> u64 {
        entries(table)[index & (ENTRIES - 1)].load(Ordering::Relaxed)
    }

    fn write(&mut self, table: Pa, index: usize, desc: u64) {
        // Release: a table that this entry points to is filled before a walker can follow it.
        entries(table)[index & (ENTRIES - 1)].store(desc, Ordering::Release);
    }

    fn alloc(&mut self) -> Option<Pa> {
        memory::alloc_page(self.graph, self.domain).ok()
    }

    fn free(&mut self, table: Pa) {
        memory::free_page(self.graph, self.domain, table);
    }

    fn sync_break(&mut self) {
        barrier::dsb_ishst();
        tlb::stage2_all(vmid::last_vttbr(self.domain));
    }
}

/// Maps the next piece of an extent or grant at `ipa` in `domain`. A call with other arguments than those with which it began is refused.
///
/// Returns the pages done. Checks are the caller's but for taint and state.
///
/// # Errors
/// `BadState`, `Dirty`, `Exists`, `NoBudget`, `Invalid`.
pub fn map_piece(
    graph: &mut Graph,
    extent: Ref<Extent>,
    domain: Ref<Domain>,
    ipa: IpaRange,
    attrs: Attrs,
) -> Result<(Status, u64), Status> {
    if domain.is_dying() {
        return Err(Status::BadState);
    }
    extent.check_not_revoking(graph)?;
    let range = extent.range.get(graph);
    let begun = extent.mapping.get(graph);
    let fresh = Mapping { domain, ipa: ipa.first(), pages: 0, attrs, undoing: false };
    // A grant was checked when it was lent; what other borrowers of a shared window wrote since then is meant for this one.
    if begun.is_none() && !extent.is_grant() {
        extent.check_taint(graph, domain)?;
    }
    let mapping = begun.unwrap_or(fresh);
    if mapping != (Mapping { pages: mapping.pages, ..fresh }) {
        return Err(Status::BadState);
    }
    let done = u64::from(mapping.pages);
    let (Some(left), Some(left_pa)) = (ipa.skip(done), range.skip(done)) else { return Err(Status::BadState) };
    let mut tables = DomainTables { graph, domain };
    let pages = stage2::map(&mut tables, domain.stage2_root, left, left_pa.first(), attrs, PIECE_ENTRIES)?;
    // The walkers see the entries before anyone is told that they are there.
    barrier::dsb_ishst();
    if done == 0 {
        domain.mapped.push(graph, extent, |extent| &extent.next_mapped);
        if attrs.can_write() {
            extent.taint_by(graph, domain);
        }
    }
    let done = done + pages;
    extent.mapping.set(graph, Some(Mapping { pages: done as u32, ..mapping }));
    *domain.mapped_pages.get_mut(graph) += pages;
    if done < range.pages() {
        return Ok((Status::Again, done));
    }
    if attrs.can_execute() {
        // What the builder wrote and cleaned must not meet instructions fetched from this memory's former life.
        cache::invalidate_icache_all();
    }
    Ok((Status::Ok, range.pages()))
}

/// Undoes a piece of a mapping, from its end. When it says `Ok` no pCPU reaches the memory through it.
///
/// # Errors
/// `NotFound` if it is not mapped.
pub fn unmap_piece(graph: &mut Graph, extent: Ref<Extent>) -> Result<(Status, u64), Status> {
    let Some(mapping) = extent.mapping.get(graph) else { return Err(Status::NotFound) };
    let (domain, left) = (mapping.domain, u64::from(mapping.pages));
    let total = extent.range.get(graph).pages();
    let mut begin = 0;
    // A piece from the end keeps the record a prefix: what is mapped is always the first `pages` pages.
    if let Some(whole) = IpaRange::new(mapping.ipa.raw(), left, 39) {
        let mut tables = DomainTables { graph, domain };
        let range = stage2::tail(&tables, domain.stage2_root, whole);
        begin = left - range.pages();
        // One turn does it, as the part ends with one table; but the record must never say less than the tables.
        let mut left_of_it = Some(range);
        while let Some(part) = left_of_it {
            let pages = stage2::unmap(&mut tables, domain.stage2_root, part)?;
            left_of_it = part.skip(pages);
        }
        barrier::dsb_ishst();
        tlb::stage2_range(vmid::last_vttbr(domain), range.first(), range.pages());
        let mapped = domain.mapped_pages.get_mut(graph);
        *mapped = mapped.saturating_sub(range.pages());
    }
    if begin != 0 {
        extent.mapping.set(graph, Some(Mapping { pages: begin as u32, undoing: true, ..mapping }));
        return Ok((Status::Again, total - begin));
    }
    domain.mapped.remove(graph, extent, |extent| &extent.next_mapped);
    extent.mapping.set(graph, None);
    Ok((Status::Ok, total))
}

/// Empties the root table of a domain that runs nowhere, and every TLB.
pub fn unmap_all(domain: Ref<Domain>) {
    entries(domain.stage2_root).iter().for_each(|entry| entry.store(0, Ordering::Relaxed));
    tlb::stage2_all(vmid::last_vttbr(domain));
}

/// Forgets up to `count` mappings of a domain whose root table is empty already; true when none is left.
pub fn forget_mappings(graph: &mut Graph, domain: Ref<Domain>, count: usize) -> bool {
    for _ in 0..count {
        let Some(extent) = domain.mapped.get(graph) else { return true };
        domain.mapped.remove(graph, extent, |extent| &extent.next_mapped);
        extent.mapping.set(graph, None);
    }
    domain.mapped.get(graph).is_none()
}

/// Maps one page or a few of EL2's or the machine's at `ipa`: vCPU page, information page, GIC CPU interface.
///
/// # Errors
/// `Invalid`, `Exists`, `NoBudget`.
pub fn map_page(graph: &mut Graph, domain: Ref<Domain>, ipa: u64, pa: PaRange, attrs: Attrs) -> Result<(), Status> {
    let range = IpaRange::new(ipa, pa.pages(), u32::from(domain.ipa_bits)).ok_or(Status::Invalid)?;
    let mut tables = DomainTables { graph, domain };
    let done = stage2::map(&mut tables, domain.stage2_root, range, pa.first(), attrs, PIECE_ENTRIES)?;
    barrier::dsb_ishst();
    if done == pa.pages() { Ok(()) } else { Err(Status::Invalid) }
}

/// Takes a page on the budget of `domain` and maps it at `ipa` there.
///
/// # Errors
/// `Invalid`, `Exists`, `NoBudget`.
pub fn map_new_page(graph: &mut Graph, domain: Ref<Domain>, ipa: u64, attrs: Attrs) -> Result<Pa, Status> {
    let page = memory::alloc_page(graph, domain)?;
    PaRange::new(page.raw(), 1, PA_BITS)
        .ok_or(Status::Invalid)
        .and_then(|range| map_page(graph, domain, ipa, range, attrs))
        .inspect_err(|_| memory::free_page(graph, domain, page))?;
    Ok(page)
}

/// Takes back what [`map_page`] mapped.
pub fn unmap_page(graph: &mut Graph, domain: Ref<Domain>, ipa: u64, pages: u64) {
    let Some(range) = IpaRange::new(ipa, pages, u32::from(domain.ipa_bits)) else { return };
    let mut tables = DomainTables { graph, domain };
    // What is not mapped counts as done, so there is nothing to report.
    let _ = stage2::unmap(&mut tables, domain.stage2_root, range);
    barrier::dsb_ishst();
    tlb::stage2_range(vmid::last_vttbr(domain), range.first(), range.pages());
}

/// What an IPA translates to now, for a fault that may have met a table in change.
pub fn translates(graph: &mut Graph, domain: Ref<Domain>, ipa: Ipa) -> Option<Attrs> {
    let tables = DomainTables { graph, domain };
    stage2::lookup(&tables, domain.stage2_root, ipa).map(|found| found.attrs)
}
