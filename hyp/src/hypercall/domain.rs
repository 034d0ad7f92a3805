//! Management calls on domains.

use core::sync::atomic::Ordering;

use super::{Args, Outcome};
use crate::graph::{Graph, Ref};
use crate::object::domain::{self, Domain, DomainSpec, destroy};
use crate::object::vcpu::stop;
use crate::object::{extent, handle};
use crate::sched::control;
use crate::{clock, machine, memory};
use portico_abi::call::{config, run};
use portico_abi::page::InfoPage;
use portico_abi::record::{DomainState, DomainStatus};
use portico_abi::{PAGE_SIZE, Rights, Status};
use portico_core::stage2::Attrs;

/// `domain_create(budget, max_vcpus, ipa_bits, flags, cookie) -> (domain)`.
pub fn create(args: &mut Args, graph: &mut Graph) -> Outcome {
    let caller = args.caller();
    // Only who has the System handle can spend the pool.
    handle::check_system(graph, caller)?;
    if args.get::<4>() != 0 {
        return Err(Status::Invalid);
    }
    let spec = DomainSpec {
        budget_pages: u32::try_from(args.get::<1>()).map_err(|_| Status::Invalid)?,
        max_vcpus: u8::try_from(args.get::<2>()).map_err(|_| Status::Invalid)?,
        ipa_bits: u8::try_from(args.get::<3>()).map_err(|_| Status::Invalid)?,
        watcher: Some(caller),
    };
    handle::check_room(graph, caller)?;
    let domain = domain::create(graph, &spec)?;
    let handle = handle::insert(graph, caller, domain, domain::OWNER_RIGHTS, args.get::<5>())?;
    args.done([u64::from(handle.raw())])
}

/// `domain_config(domain, key, value)`.
pub fn config(args: &mut Args, graph: &mut Graph) -> Outcome {
    let domain = args.domain::<1>(graph, Rights::CONFIG)?;
    let value = args.get::<3>();
    let key = args.get::<2>();
    if domain.is_dying() {
        return Err(Status::BadState);
    }
    match key {
        config::NAME_LO | config::NAME_HI => {
            let shift = if key == config::NAME_LO { 0 } else { 64 };
            let name = domain.name.get_mut(graph);
            *name = *name & !(u128::from(u64::MAX) << shift) | u128::from(value) << shift;
        }
        _ if domain.state() != DomainState::Created => return Err(Status::BadState),
        config::GICV_IPA => set_gicv(graph, domain, value)?,
        config::INFO_PAGE_IPA => set_info_page(graph, domain, value)?,
        config::FAULT_POLICY if value <= 1 => domain.faults_wait.set(graph, value == 1),
        _ => return Err(Status::Invalid),
    }
    Ok(Status::Ok)
}

/// Maps the virtual CPU interface of a GICv2; nothing on a GICv3.
///
/// # Errors
/// `Exists`, `NoBudget`, `Invalid`.
pub fn set_gicv(graph: &mut Graph, domain: Ref<Domain>, ipa: u64) -> Result<(), Status> {
    let Some(gicv) = machine::gicv() else { return Ok(()) };
    if domain.gicv_ipa.get(graph) != 0 {
        return Err(Status::Exists);
    }
    extent::map_page(graph, domain, ipa, gicv, Attrs::DEVICE)?;
    domain.gicv_ipa.set(graph, ipa);
    Ok(())
}

/// Allocates, fills and maps the information page.
///
/// # Errors
/// `Exists`, `NoBudget`, `Invalid`.
pub fn set_info_page(graph: &mut Graph, domain: Ref<Domain>, ipa: u64) -> Result<(), Status> {
    if !domain.info_page.load(Ordering::Acquire).is_null() {
        return Err(Status::Exists);
    }
    let page = extent::map_new_page(graph, domain, ipa, Attrs::READ)?;
    let info = memory::pool_va(page).cast::<InfoPage>().as_ptr();
    let rate = clock::rate();
    // SAFETY: the page is the domain's information page, which only EL2 writes.
    unsafe {
        (&raw mut (*info).magic).write_volatile(InfoPage::MAGIC);
        (&raw mut (*info).version).write_volatile(1);
        (&raw mut (*info).counter_hz).write_volatile(rate.hz());
        (&raw mut (*info).mult).write_volatile(rate.mult());
        (&raw mut (*info).shift).write_volatile(rate.shift());
        (&raw mut (*info).generation).write_volatile(1);
        portico_arch::cache::clean_invalidate_poc(info as usize, PAGE_SIZE as usize);
    }
    domain.info_page.store(info, Ordering::Release);
    domain.info_ipa.set(graph, ipa);
    Ok(())
}

/// `domain_run(domain, op)`.
pub fn run(args: &mut Args, graph: &mut Graph) -> Outcome {
    let domain = args.domain::<1>(graph, Rights::RUN)?;
    match (args.get::<2>(), domain.state()) {
        (run::PAUSE, DomainState::Runnable) => {
            domain.set_state(graph, DomainState::Paused);
            domain.vcpus().for_each(|vcpu| control::stop(vcpu, stop::PAUSED));
        }
        (run::RESUME, DomainState::Paused) => {
            domain.set_state(graph, DomainState::Runnable);
            domain.vcpus().for_each(|vcpu| control::resume(vcpu, stop::PAUSED));
        }
        (run::PAUSE, DomainState::Paused) | (run::RESUME, DomainState::Runnable) => {}
        (run::PAUSE | run::RESUME, _) => return Err(Status::BadState),
        _ => return Err(Status::Invalid),
    }
    Ok(Status::Ok)
}

/// `domain_destroy(domain)`. A domain cannot destroy itself.
pub fn destroy(args: &mut Args, graph: &mut Graph) -> Outcome {
    let domain = args.domain::<1>(graph, Rights::DESTROY)?;
    if domain == args.caller() {
        return Err(Status::BadState);
    }
    destroy::piece(graph, domain)
}

/// `domain_status(domain)`.
pub fn status(args: &mut Args, graph: &mut Graph) -> Outcome {
    let domain = args.domain::<1>(graph, Rights::INSPECT)?;
    let budget = domain.budget.get(graph);
    let (reason, code) = domain.end();
    let mut record = DomainStatus {
        state: domain.state() as u32,
        reason: reason as u32,
        code,
        budget_pages: budget.limit,
        used_pages: budget.used,
        mapped_pages: domain.mapped_pages.get(graph),
        name: domain.name.get(graph).to_le_bytes(),
        ..DomainStatus::default()
    };
    for vcpu in domain.vcpus() {
        let stats = vcpu.stats();
        record.vcpus += 1;
        record.vcpus_on += u32::from(vcpu.powered.get(graph));
        record.cpu_ns += stats.running_ns;
        record.calls += stats.calls;
    }
    args.vcpu.page().write_buffer(&record);
    Ok(Status::Ok)
}

/// `domain_budget(domain, pages)`.
pub fn budget(args: &mut Args, graph: &mut Graph) -> Outcome {
    let domain = args.domain::<1>(graph, Rights::CONFIG)?;
    handle::check_system(graph, args.caller())?;
    if domain.is_dying() {
        return Err(Status::BadState);
    }
    let pages = u32::try_from(args.get::<2>()).map_err(|_| Status::Invalid)?;
    memory::with_budget(graph, domain, |pool, budget| pool.set_limit(budget, pages)).map(|()| Status::Ok)
}
