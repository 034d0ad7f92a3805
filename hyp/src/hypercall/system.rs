//! Management calls on the machine: pool, interrupts, device memory, entropy, counts, power.

use core::sync::atomic::{AtomicU64, Ordering};

use super::{Args, Outcome, only_bits};
use crate::graph::{self, Graph};
use crate::object::extent::{self, Extent};
use crate::object::{handle, irq};
use crate::trap::{Next, STAY};
use crate::{clock, entropy, memory, percpu, phys};
use portico_abi::call::power;
use portico_abi::psci::{SYSTEM_OFF, SYSTEM_RESET};
use portico_abi::record::{PcpuStats, SystemStats};
use portico_abi::{BLOCK_SIZE, PAGE_SIZE, Rights, Status};
use portico_arch::{cpu, gic, mmu, psci, timer};
use portico_core::addr::PaRange;
use portico_core::extent::PA_BITS;
use portico_core::stage2::Attrs;

static BAD_CALLS: AtomicU64 = AtomicU64::new(0);

/// Counts a call that was unknown.
pub fn count_bad_call() {
    BAD_CALLS.fetch_add(1, Ordering::Relaxed);
}

/// `pool_add(system, extent)`.
pub fn pool_add(args: &mut Args, graph: &mut Graph) -> Outcome {
    args.system(graph)?;
    let extent = args.object::<2, Extent>(graph, Rights::OWN)?;
    extent.check_idle(graph)?;
    let range = extent.range.get(graph);
    if extent.limit.is_device() || range.bytes() != BLOCK_SIZE || !range.first().is_aligned(BLOCK_SIZE) {
        return Err(Status::Invalid);
    }
    memory::add_block(graph, range.first())?;
    extent::consume(graph, extent);
    Ok(Status::Ok)
}

/// `pool_reclaim(system) -> (extent)`.
pub fn pool_reclaim(args: &mut Args, graph: &mut Graph) -> Outcome {
    args.system(graph)?;
    handle::check_room(graph, args.caller())?;
    let base = graph.pool.remove_free_block().ok_or(Status::BadState)?;
    let range = PaRange::new(base.raw(), BLOCK_SIZE / PAGE_SIZE, PA_BITS).ok_or(Status::Invalid)?;
    let (handle, _) = extent::create(graph, args.caller(), range, Attrs::READ_WRITE_EXEC, 0).inspect_err(|_| {
        // It was there a moment ago, so there is room for it.
        let _ = memory::add_block(graph, base);
    })?;
    mmu::unmap_pool_block(base);
    args.done([u64::from(handle.raw())])
}

/// `pool_info(system) -> (pages, promised, used)`.
pub fn pool_info(args: &mut Args, graph: &mut Graph) -> Outcome {
    args.system(graph)?;
    let pool = &graph.pool;
    args.done([u64::from(pool.pages()), u64::from(pool.promised()), u64::from(pool.used())])
}

/// `irq_create(system, intid, flags, cookie) -> (irq)`.
pub fn irq_create(args: &mut Args, graph: &mut Graph) -> Outcome {
    args.system(graph)?;
    let edge = only_bits(args.get::<3>(), 1)? == 1;
    let handle = irq::create(graph, args.caller(), args.get::<2>(), edge, args.get::<4>())?;
    args.done([u64::from(handle.raw())])
}

/// `device_extent(system, pa, pages, cookie) -> (extent)`.
pub fn device_extent(args: &mut Args, graph: &mut Graph) -> Outcome {
    args.system(graph)?;
    let range = PaRange::new(args.get::<2>(), args.get::<3>(), cpu::pa_bits()).ok_or(Status::Invalid)?;
    if !phys::is_free_device(range) {
        return Err(Status::Invalid);
    }
    let (handle, _) = extent::create(graph, args.caller(), range, Attrs::DEVICE, args.get::<4>())?;
    args.done([u64::from(handle.raw())])
}

/// `extent_address(system, extent) -> (address)`.
pub fn extent_address(args: &mut Args, graph: &mut Graph) -> Outcome {
    args.system(graph)?;
    let extent = args.object::<2, Extent>(graph, Rights::OWN)?;
    args.done([extent.range.get(graph).first().raw()])
}

/// `entropy_feed(system, w0, w1, w2, w3)`.
pub fn entropy_feed(args: &mut Args, graph: &mut Graph) -> Outcome {
    args.system(graph)?;
    let seed = [args.get::<2>(), args.get::<3>(), args.get::<4>(), args.get::<5>()].map(u64::to_le_bytes);
    entropy::feed(seed.as_flattened());
    Ok(Status::Ok)
}

/// `stats_read(system, index)`.
pub fn stats_read(args: &mut Args, graph: &mut Graph) -> Outcome {
    args.system(graph)?;
    let index = usize::try_from(args.get::<2>()).map_err(|_| Status::Invalid)?;
    let page = args.vcpu.page();
    match index.checked_sub(1) {
        None => page.write_buffer(&system_stats(graph)),
        Some(index) => page.write_buffer(&pcpu_stats(index).ok_or(Status::NotFound)?),
    }
    Ok(Status::Ok)
}

fn system_stats(graph: &Graph) -> SystemStats {
    SystemStats {
        pcpus: percpu::online() as u32,
        gic: gic::kind() as u32,
        pool_pages: u64::from(graph.pool.pages()),
        pool_used: u64::from(graph.pool.used()),
        image_bytes: mmu::image_range().1,
        bad_calls: BAD_CALLS.load(Ordering::Relaxed),
        ..SystemStats::default()
    }
}

fn pcpu_stats(index: usize) -> Option<PcpuStats> {
    if index >= percpu::online() {
        return None;
    }
    let pcpu = percpu::of(index);
    let rate = clock::rate();
    let reserved = crate::sched::queue::of(index).lock().admission.permille();
    Some(PcpuStats {
        mpidr: pcpu.base().mpidr,
        idle_ns: rate.to_ns(pcpu.idle_ticks.load(Ordering::Relaxed)),
        up_ns: rate.to_ns(timer::now().saturating_sub(pcpu.up_since.load(Ordering::Relaxed))),
        switches: pcpu.switches.load(Ordering::Relaxed),
        irqs: pcpu.irqs.load(Ordering::Relaxed),
        reserved_permille: u64::from(reserved),
        ..PcpuStats::default()
    })
}

/// `log_read(system)`.
pub fn log_read(args: &mut Args, graph: &mut Graph) -> Outcome {
    args.system(graph)?;
    let text = graph.early.take().ok_or(Status::NotFound)?;
    args.vcpu.page().write_buffer(&text);
    Ok(Status::Ok)
}

/// `system_off(system, op)`: returns only if it is refused.
pub fn system_off(args: &mut Args) -> Result<Next, Status> {
    args.system(&graph::lock())?;
    if !crate::machine::has_psci() {
        // The firmware offers no such call: whoever drives the board's power controller does it.
        return Err(Status::NotSupported);
    }
    match args.get::<2>() {
        power::OFF => psci::call(SYSTEM_OFF, [0; 3]),
        power::RESET => psci::call(SYSTEM_RESET, [0; 3]),
        _ => return Err(Status::Invalid),
    };
    // The firmware did not do it.
    Ok(STAY)
}
