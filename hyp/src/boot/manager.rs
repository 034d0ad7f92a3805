//! Starting the manager: the one domain that EL2 builds itself, with the handles to everything that is free.

use super::Boot;
use crate::graph::{self, Graph, Ref};
use crate::hypercall;
use crate::object::domain::{self, Domain, DomainSpec};
use crate::object::{extent, handle, system, vcpu};
use crate::{entropy, machine, memory, phys, power};
use portico_abi::{BLOCK_SIZE, PAGE_SHIFT, PAGE_SIZE, Rights, Status, dt};
use portico_arch::{cache, window};
use portico_boards::Range;
use portico_boards::machine::Gic;
use portico_bundle::cpio;
use portico_core::addr::{IpaRange, Pa, PaRange};
use portico_core::extent::PA_BITS;
use portico_core::image::{HEADER_BYTES, Image};
use portico_core::stage2::Attrs;

/// Budget of the manager, in pages: its handle table is the large part.
const MANAGER_BUDGET: u32 = 192;
/// vCPUs of the manager.
const MANAGER_VCPUS: u8 = 1;
/// IPA at which the bundle begins in the manager.
const BUNDLE_IPA: u64 = 0x20_0000_0000;
/// IPA at which the machine's device tree begins in the manager.
const MACHINE_DTB_IPA: u64 = 0x1f_0000_0000;
/// Bytes of the manager's own device tree.
const FDT_BYTES: u64 = 4096;
/// Bytes of the manager's memory for its heap, to begin with: it takes more itself when it needs more.
const HEAP_BYTES: u64 = 128 << 10;

/// Builds the manager and makes it ready to run.
///
/// # Errors
/// A sentence that says what is wrong with the machine or the bundle.
pub fn start(boot: &mut Boot) -> Result<(), &'static str> {
    claim_memory(boot);
    let mut read = |offset: u64, buffer: &mut [u8]| {
        window::copy_from_pa(Pa::new(boot.bundle.start + offset), buffer);
        true
    };
    let found = cpio::locate(boot.bundle.len, "manager", &mut read).map_err(|_| "the bundle is damaged")?;
    let (offset, len) = found.ok_or("the bundle has no file named manager")?;
    let file = Range { start: boot.bundle.start + offset, len };
    let mut header = [0; HEADER_BYTES];
    window::copy_from_pa(Pa::new(file.start), &mut header);
    let image = Image::parse(&header).ok_or("the bundle's manager is not an arm64 Image")?;
    if file.start & (PAGE_SIZE - 1) != 0 {
        return Err("the bundle's manager is not page-aligned");
    }
    let bytes = image.text_offset + image.memory_bytes.max(len) + HEAP_BYTES + FDT_BYTES;
    let ram =
        boot.free.take(bytes.next_multiple_of(PAGE_SIZE), PAGE_SIZE).ok_or("too little memory for the manager")?;
    // Each range is then a multiple of a block, or lies within one.
    boot.free.split(BLOCK_SIZE);
    build(&mut graph::lock(), boot, ram, file, &image).map_err(Status::describe)
}

/// Builds it in `ram` from the image that is the bundle's `file`.
fn build(graph: &mut Graph, boot: &Boot, ram: Range, file: Range, image: &Image) -> Result<(), Status> {
    memory::add_block(graph, Pa::new(boot.pool.start))?;
    let spec = DomainSpec { budget_pages: MANAGER_BUDGET, max_vcpus: MANAGER_VCPUS, ipa_bits: 39, watcher: None };
    let manager = domain::create(graph, &spec)?;
    manager.name.set(graph, u128::from(u64::from_le_bytes(*b"manager\0")));
    // The System handle is the first of its table: that is how calls recognise its holder.
    handle::insert(graph, manager, system::system(), Rights::ROOT | Rights::INSPECT, 0)?;
    give_memory(graph, manager, boot)?;
    // Its device tree is in its last page, which it cannot spoil: it is read again if it begins anew.
    let tree = Range { start: ram.end() - FDT_BYTES, len: FDT_BYTES };
    let ram = Range { len: ram.len - FDT_BYTES, ..ram };
    own(graph, manager, ram, dt::RAM_BASE, Attrs::READ_WRITE_EXEC)?;
    own(graph, manager, tree, dt::RAM_BASE + ram.len, Attrs::READ)?;
    // Executable, as the image in it is entered when the manager begins anew.
    own(graph, manager, pages_of(boot.bundle), BUNDLE_IPA, Attrs::READ_EXEC)?;
    own(graph, manager, pages_of(boot.dtb), MACHINE_DTB_IPA, Attrs::READ)?;
    hypercall::domain::set_info_page(graph, manager, dt::INFO_PAGE)?;
    hypercall::domain::set_gicv(graph, manager, dt::GICV)?;
    let vcpu = vcpu::create(graph, manager, 0, 0, dt::VCPU_PAGES)?;
    let load = ram.start + image.text_offset;
    for page in (0..file.len).step_by(PAGE_SIZE as usize) {
        window::copy_page_clean(Pa::new(load + page), Pa::new(file.start + page));
    }
    write_fdt(tree.start, boot, Range { len: ram.len + FDT_BYTES, ..ram })?;
    cache::invalidate_icache_all();
    graph.again.tree = dt::RAM_BASE + ram.len;
    graph.again.entry = BUNDLE_IPA + file.start - (boot.bundle.start & !(PAGE_SIZE - 1));
    power::on(graph, vcpu, dt::RAM_BASE + image.text_offset, graph.again.tree)?;
    Ok(())
}

/// Everything that must never be handed out as device memory.
fn claim_memory(boot: &Boot) {
    for range in boot.machine.memory.iter() {
        phys::claim(range.start, range.len);
    }
    match &boot.machine.gic {
        Gic::None => {}
        Gic::V2 { gicd, gicc, gich, gicv, .. } => {
            for range in [gicd, gicc, gich, gicv] {
                phys::claim(range.start, range.len);
            }
            machine::set_gicv(gicv.start);
        }
        Gic::V3 { gicd, gicr } => {
            phys::claim(gicd.start, gicd.len);
            for range in gicr.iter() {
                phys::claim(range.start, range.len);
            }
        }
    }
    if !boot.machine.rng_seed.is_empty() {
        entropy::feed(boot.machine.rng_seed);
    }
}

/// The extents of all free memory.
fn give_memory(graph: &mut Graph, manager: Ref<Domain>, boot: &Boot) -> Result<(), Status> {
    for range in boot.free.ranges() {
        let Some(range) = PaRange::new(range.start, range.len >> PAGE_SHIFT, PA_BITS) else { continue };
        extent::create(graph, manager, range, Attrs::READ_WRITE_EXEC, 0)?;
    }
    Ok(())
}

/// Makes an extent of the manager's and maps it into it.
fn own(graph: &mut Graph, manager: Ref<Domain>, range: Range, ipa: u64, attrs: Attrs) -> Result<(), Status> {
    let pa = PaRange::new(range.start, range.len >> PAGE_SHIFT, PA_BITS).ok_or(Status::Invalid)?;
    let (_, extent) = extent::create(graph, manager, pa, Attrs::READ_WRITE_EXEC, ipa)?;
    let target = IpaRange::new(ipa, pa.pages(), 39).ok_or(Status::Invalid)?;
    while extent::map_piece(graph, extent, manager, target, attrs)?.0 == Status::Again {}
    Ok(())
}

/// The pages that a range touches.
fn pages_of(range: Range) -> Range {
    let start = range.start & !(PAGE_SIZE - 1);
    let end = (range.start + range.len).next_multiple_of(PAGE_SIZE);
    Range { start, len: end - start }
}

/// The manager's device tree, as `build.rs` makes it.
struct Tree {
    bytes: &'static [u8],
    /// Bytes of boot arguments, with a NUL, that fit.
    arguments_bytes: usize,
    /// Offsets of what boot fills in.
    arguments: usize,
    memory: usize,
    bundle: usize,
    machine: usize,
}

include!(concat!(env!("OUT_DIR"), "/manager_tree.rs"));

const _: () = assert!(TREE.bytes.len() <= FDT_BYTES as usize);

/// Writes the manager's device tree, which names its `ram`, to `pa`.
fn write_fdt(pa: u64, boot: &Boot, ram: Range) -> Result<(), Status> {
    let put = |offset: usize, bytes: &[u8]| window::copy_to_pa(Pa::new(pa + offset as u64), bytes);
    let put_reg = |offset: usize, ipa: u64, range: Range| {
        let address = ipa + (range.start & (PAGE_SIZE - 1));
        put(offset, [address.to_be_bytes(), range.len.to_be_bytes()].as_flattened());
    };
    let arguments = boot.machine.bootargs;
    if arguments.len() >= TREE.arguments_bytes {
        return Err(Status::Limit);
    }
    put(0, TREE.bytes);
    put_reg(TREE.memory, dt::RAM_BASE, ram);
    put_reg(TREE.bundle, BUNDLE_IPA, boot.bundle);
    put_reg(TREE.machine, MACHINE_DTB_IPA, boot.dtb);
    put(TREE.arguments - 8, &(arguments.len() as u32 + 1).to_be_bytes());
    put(TREE.arguments, arguments);
    put(TREE.arguments + arguments.len(), &[0]);
    Ok(())
}
