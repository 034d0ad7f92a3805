//! Starting the manager: the one domain that EL2 builds itself, with the handles to everything that is free.

use super::Boot;
use crate::graph::{self, Graph, Ref};
use crate::hypercall;
use crate::object::domain::{self, Domain, DomainSpec};
use crate::object::{extent, handle, system, vcpu};
use crate::{entropy, memory, phys, power};
use portico_abi::{BLOCK_SIZE, PAGE_SIZE, Rights, Status, dt};
use portico_arch::{cache, window};
use portico_boards::Range;
use portico_boards::ram::pieces;
use portico_core::addr::{IpaRange, Pa, PaRange};
use portico_core::bundle;
use portico_core::extent::PA_BITS;
use portico_core::stage2::Attrs;

/// Budget of the manager, in pages: its handle table is the large part.
const MANAGER_BUDGET: u32 = 192;
/// vCPUs of the manager.
const MANAGER_VCPUS: u8 = 1;
/// IPA at which the machine's device tree begins in the manager.
const MACHINE_DTB_IPA: u64 = 0x1f_0000_0000;

/// Builds the manager and makes it ready to run.
///
/// # Errors
/// A sentence that says what is wrong with the machine or the bundle.
pub fn start(boot: &mut Boot) -> Result<(), &'static str> {
    phys::claim(&boot.machine);
    entropy::feed(boot.machine.rng_seed);
    let Range { start, len } = boot.machine.bundle;
    if !start.is_multiple_of(PAGE_SIZE) {
        return Err("the bundle is not page-aligned");
    }
    let read = |offset, to: &mut [u8]| window::copy_from_pa(Pa::new(start + offset), to);
    let image = bundle::Manager::read(len, read)?;
    let bytes = image.memory_bytes.next_multiple_of(PAGE_SIZE);
    let ram = boot.free.take(bytes, PAGE_SIZE).ok_or("too little memory for the manager")?;
    build(&mut graph::lock(), boot, ram, image.file_bytes).map_err(Status::describe)
}

/// Builds it in `ram` from the Image in the bundle, of `file_bytes`.
fn build(graph: &mut Graph, boot: &Boot, ram: Range, file_bytes: u64) -> Result<(), Status> {
    memory::add_block(graph, Pa::new(boot.pool.start))?;
    let spec = DomainSpec { budget_pages: MANAGER_BUDGET, max_vcpus: MANAGER_VCPUS, ipa_bits: 39, watcher: None };
    let manager = domain::create(graph, &spec)?;
    manager.name.set(graph, u128::from(u64::from_le_bytes(*b"manager\0")));
    // The System handle is the first of its table: that is how calls recognise its holder.
    handle::insert(graph, manager, system::system(), Rights::ROOT | Rights::INSPECT, 0)?;
    give_memory(graph, manager, boot)?;
    own(graph, manager, ram, dt::RAM_BASE, Attrs::READ_WRITE_EXEC)?;
    // Its device tree is there, which it cannot spoil, and the Image, which is entered when it begins anew.
    own(graph, manager, boot.machine.bundle, bundle::IPA, Attrs::READ_EXEC)?;
    own(graph, manager, boot.dtb, MACHINE_DTB_IPA, Attrs::READ)?;
    hypercall::domain::set_info_page(graph, manager, dt::INFO_PAGE)?;
    hypercall::domain::set_gicv(graph, manager, dt::GICV)?;
    let vcpu = vcpu::create(graph, manager, 0, 0, dt::VCPU_PAGES)?;
    for page in (0..file_bytes).step_by(PAGE_SIZE as usize) {
        window::copy_page_clean(Pa::new(ram.start + page), Pa::new(boot.machine.bundle.start + bundle::IMAGE + page));
    }
    cache::invalidate_icache_all();
    graph.first.machine_tree = MACHINE_DTB_IPA + boot.dtb.start % PAGE_SIZE;
    power::on(graph, vcpu, dt::RAM_BASE, bundle::IPA + bundle::TREE)?;
    Ok(())
}

/// The extents of all free memory, each a multiple of a block, or within one.
fn give_memory(graph: &mut Graph, manager: Ref<Domain>, boot: &Boot) -> Result<(), Status> {
    for range in boot.free.ranges() {
        for range in pieces(*range, BLOCK_SIZE) {
            let Some(range) = pages_of(range) else { continue };
            extent::create(graph, manager, range, Attrs::READ_WRITE_EXEC, 0)?;
        }
    }
    Ok(())
}

/// Makes an extent of the manager's, of all pages that `range` touches, and maps it into it.
fn own(graph: &mut Graph, manager: Ref<Domain>, range: Range, ipa: u64, attrs: Attrs) -> Result<(), Status> {
    let pa = pages_of(range).ok_or(Status::Invalid)?;
    let (_, extent) = extent::create(graph, manager, pa, Attrs::READ_WRITE_EXEC, ipa)?;
    let target = IpaRange::new(ipa, pa.pages(), 39).ok_or(Status::Invalid)?;
    while extent::map_piece(graph, extent, manager, target, attrs)?.0 == Status::Again {}
    Ok(())
}

/// The pages that a range touches.
fn pages_of(range: Range) -> Option<PaRange> {
    let start = range.start & !(PAGE_SIZE - 1);
    PaRange::new(start, (range.end() - start).div_ceil(PAGE_SIZE), PA_BITS)
}
