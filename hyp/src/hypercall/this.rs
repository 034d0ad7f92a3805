//! Calls about the caller itself.

use core::sync::atomic::Ordering;

use super::{Args, Outcome};
use crate::graph::{self, Graph, Ref};
use crate::object::irq::Irq;
use crate::object::{domain, handle};
use crate::trap::Next;
use crate::{clock, log, sched};
use portico_abi::call::{exit, features, info};
use portico_abi::record::EndReason;
use portico_abi::{MANAGEMENT_VERSION, Rights, Status, VERSION_MAJOR, VERSION_MINOR};
use portico_arch::gic::{self, GicKind, UPCALL_VINTID};
use portico_arch::timer;
use portico_core::ratelimit::Rate;

/// `abi_features(page) -> (version, features, management)`.
pub fn abi_features(args: &mut Args) -> Outcome {
    let results = match args.get::<1>() {
        0 => [
            u64::from(VERSION_MAJOR) << 16 | u64::from(VERSION_MINOR),
            features::PORTS | features::RESERVATION | features::STOLEN_TIME,
            u64::from(MANAGEMENT_VERSION),
        ],
        _ => [0; 3],
    };
    args.done(results)
}

/// `self_info(key, index) -> (value)`.
pub fn self_info(args: &mut Args, graph: &mut Graph) -> Outcome {
    let own = args.caller();
    let peer = || own.vcpu_at(args.get::<2>()).ok_or(Status::NotFound);
    let (kind, is_first) = (gic::kind(), own.id.raw() == 0);
    let value = match args.get::<1>() {
        info::UPCALL_VINTID => u64::from(UPCALL_VINTID),
        info::UPCALL_KIND => kind as u64,
        info::UPCALL_GICV_IPA if kind == GicKind::V2 => own.gicv_ipa.get(graph),
        info::VCPU_PAGE_IPA => peer()?.page_ipa,
        info::VCPU_INDEX => u64::from(args.vcpu.index),
        info::VCPU_COUNT => own.vcpus().count() as u64,
        info::VCPU_MPIDR => peer()?.mpidr,
        info::INFO_PAGE_IPA if !own.info_page.load(Ordering::Acquire).is_null() => own.info_ipa.get(graph),
        info::GENERATION => 1,
        info::BUDGET_LEFT => u64::from(own.budget.get(graph).left()),
        info::SYSTEM_HANDLE if handle::check_system(graph, own).is_ok() => u64::from(handle::SYSTEM.raw()),
        // SAFETY: the caller is current on this pCPU, and no other reference to its context is live.
        info::COUNTER_OFFSET if is_first => unsafe { args.vcpu.context() }.el2.cntvoff_el2,
        info::RESTARTS if is_first => graph.first.restarts,
        info::MACHINE_TREE if is_first => graph.first.machine_tree,
        _ => return Err(Status::NotFound),
    };
    args.done([value])
}

/// Bytes that one `early_write` carries at most.
const EARLY_BYTES: usize = 40;

/// `early_write(len, w0..w4)`.
pub fn early_write(args: &mut Args) -> Outcome {
    let len = usize::try_from(args.get::<1>()).map_err(|_| Status::Invalid)?;
    if !(1..=EARLY_BYTES).contains(&len) {
        return Err(Status::Invalid);
    }
    let rate = Rate { burst: 16384, per_second: 16384, hz: clock::rate().hz() };
    let own = args.caller();
    if !own.early_lines.lock().take(rate, timer::now(), len as u32) {
        return Err(Status::RateLimited);
    }
    let words = [args.get::<2>(), args.get::<3>(), args.get::<4>(), args.get::<5>(), args.get::<6>()];
    let mut graph = graph::lock();
    if own.watcher.get(&graph).is_none() {
        // Who would show it? The lock does not wait for the UART.
        drop(graph);
        log::first_domain(words.iter().flat_map(|word| word.to_le_bytes()).take(len));
        return Ok(Status::Ok);
    }
    let name = own.name.get(&graph).to_le_bytes();
    if !graph.early.put(&name, len, words) {
        return Err(Status::RateLimited);
    }
    domain::tell_watcher(&graph, own);
    Ok(Status::Ok)
}

/// `self_exit(kind, code)`: does not return, but for a wrong `kind`.
pub fn self_exit(args: &mut Args) -> Result<Next, Status> {
    let reason = match args.get::<1>() {
        exit::EXIT => EndReason::Exit,
        exit::PANIC => EndReason::Panic,
        exit::REBOOT => EndReason::Reboot,
        _ => return Err(Status::Invalid),
    };
    domain::end(&mut graph::lock(), args.caller(), reason, args.get::<2>());
    Ok(sched::reconsider(args.vcpu))
}

/// `irq_complete(irq)`.
pub fn irq_complete(args: &mut Args) -> Outcome {
    // Without the graph lock: a device's driver makes this call once for each interrupt.
    let irq: Ref<Irq> = handle::lookup_hot(args.caller(), args.handle::<1>(), Rights::BIND)?;
    irq.complete();
    Ok(Status::Ok)
}
