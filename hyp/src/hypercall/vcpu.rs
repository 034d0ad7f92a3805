//! Management calls on vCPUs, and the blocking calls of a vCPU about itself.

use core::sync::atomic::Ordering;

use super::{Args, Outcome, only_bits};
use crate::graph::Graph;
use crate::object::vcpu::{self, Place, Vcpu, stop};
use crate::object::{domain, extent, handle};
use crate::sched::{control, queue};
use crate::{clock, fault, power};
use portico_abi::call::sched as class;
use portico_abi::record::{DomainState, EndReason, FaultVerb, RegisterId};
use portico_abi::{Rights, Status};
use portico_core::esr;
use portico_core::runq::Class;

/// Bits of an MPIDR that name a vCPU: Aff3, Aff2, Aff1, Aff0.
const MPIDR_AFFINITY: u64 = 0xff_00ff_ffff;

/// `vcpu_create(domain, index, mpidr, page_ipa, cookie) -> (vcpu)`.
pub fn create(args: &mut Args, graph: &mut Graph) -> Outcome {
    let domain = args.domain::<1>(graph, Rights::CONFIG)?;
    let (index, mpidr, page_ipa) = (args.get::<2>(), args.get::<3>(), args.get::<4>());
    if domain.state() != DomainState::Created {
        return Err(Status::BadState);
    }
    if index >= u64::from(domain.max_vcpus) || mpidr & !MPIDR_AFFINITY != 0 {
        return Err(Status::Invalid);
    }
    if domain.vcpu_at(index).is_some() || domain.vcpus().any(|other| other.mpidr == mpidr) {
        return Err(Status::Exists);
    }
    let vcpu = vcpu::create(graph, domain, index as u8, mpidr, page_ipa)?;
    let rights = Rights::INSPECT | Rights::COPY | Rights::CONFIG | Rights::RUN | Rights::SCHED | Rights::FAULT;
    let handle = handle::insert(graph, args.caller(), vcpu, rights, args.get::<5>()).inspect_err(|_| {
        // The vCPU is whole and belongs to its domain; only the name failed. Undo it so that the call can be made again.
        vcpu::unlink(graph, vcpu);
        extent::unmap_page(graph, domain, page_ipa, 1);
    })?;
    args.done([u64::from(handle.raw())])
}

/// `vcpu_start(vcpu, pc, x0)`.
pub fn start(args: &mut Args, graph: &mut Graph) -> Outcome {
    let vcpu = args.object::<1, Vcpu>(graph, Rights::RUN)?;
    if !matches!(vcpu.domain.state(), DomainState::Created | DomainState::Runnable | DomainState::Paused) {
        return Err(Status::BadState);
    }
    if vcpu.powered.get(graph) && vcpu.stop.load(Ordering::Acquire) & stop::ASKED != 0 {
        control::resume(vcpu, stop::ASKED);
        return Ok(Status::Ok);
    }
    let pc = args.get::<2>();
    if pc & 3 != 0 || pc >> vcpu.domain.ipa_bits != 0 {
        return Err(Status::Invalid);
    }
    power::on(graph, vcpu, pc, args.get::<3>()).map(|()| Status::Ok)
}

/// `vcpu_stop(vcpu)`.
pub fn stop(args: &mut Args, graph: &mut Graph) -> Outcome {
    let vcpu = args.object::<1, Vcpu>(graph, Rights::RUN)?;
    control::stop(vcpu, stop::ASKED);
    Ok(Status::Ok)
}

/// A register of a context at rest.
fn register(context: &mut portico_arch::context::VcpuContext, id: u64) -> Option<&mut u64> {
    let el1 = &mut context.el1;
    Some(match RegisterId::from_raw(id)? {
        RegisterId::X0 => return None,
        RegisterId::Pc => &mut context.pc,
        RegisterId::Pstate => &mut context.pstate,
        RegisterId::SpEl0 => &mut el1.sp_el0,
        RegisterId::SpEl1 => &mut el1.sp_el1,
        RegisterId::SctlrEl1 => &mut el1.sctlr_el1,
        RegisterId::VbarEl1 => &mut el1.vbar_el1,
        RegisterId::Ttbr0El1 => &mut el1.ttbr0_el1,
        RegisterId::Ttbr1El1 => &mut el1.ttbr1_el1,
        RegisterId::ElrEl1 => &mut el1.elr_el1,
        RegisterId::EsrEl1 => &mut el1.esr_el1,
        RegisterId::FarEl1 => &mut el1.far_el1,
        RegisterId::SpsrEl1 => &mut el1.spsr_el1,
    })
}

/// PSTATE bits that a state write may set: NZCV, SS cleared, DAIF, and M for EL0t, EL1t and EL1h of AArch64.
fn checked_pstate(value: u64) -> Result<u64, Status> {
    const ALLOWED: u64 = 0xf << 28 | 0xf << 6 | 0xf;
    let mode = value & 0x1f;
    if value & !ALLOWED == 0 && matches!(mode, 0b00000 | 0b00100 | 0b00101) { Ok(value) } else { Err(Status::Invalid) }
}

/// `vcpu_state(vcpu, op, id, value) -> (value)`.
pub fn state(args: &mut Args, graph: &mut Graph) -> Outcome {
    let vcpu = args.object::<1, Vcpu>(graph, Rights::FAULT)?;
    let (op, id, value) = (args.get::<2>(), args.get::<3>(), args.get::<4>());
    let (_home, _) = queue::lock_home(vcpu);
    if !control::is_at_rest(vcpu) {
        return Err(Status::BadState);
    }
    // SAFETY: it is at rest and its queue's lock is held.
    let context = unsafe { vcpu.context() };
    let is_write = only_bits(op, 1)? == 1;
    if id <= 30 {
        if is_write {
            context.set_reg(id as u8, value);
        }
        return args.done([context.reg(id as u8)]);
    }
    let register = register(context, id).ok_or(Status::NotFound)?;
    if is_write {
        *register = if id == RegisterId::Pstate as u64 { checked_pstate(value)? } else { value };
    }
    args.done([*register])
}

/// `vcpu_sched_set(vcpu, class_weight, cap, period_ns, budget_ns, affinity)`.
pub fn sched_set(args: &mut Args, graph: &mut Graph) -> Outcome {
    let vcpu = args.object::<1, Vcpu>(graph, Rights::SCHED)?;
    let (class_weight, cap) = (args.get::<2>(), args.get::<3>());
    let rate = clock::rate();
    let weight = u32::try_from(class_weight >> 8).map_err(|_| Status::Invalid)?;
    let wanted = match class_weight & 0xff {
        class::WEIGHTED => Class::Weighted {
            weight: if weight == 0 { class::DEFAULT_WEIGHT as u32 } else { weight },
            cap_permille: u32::try_from(cap).map_err(|_| Status::Invalid)?,
        },
        class::RESERVATION => {
            Class::Reservation { period: rate.to_ticks(args.get::<4>()), budget: rate.to_ticks(args.get::<5>()) }
        }
        _ => return Err(Status::Invalid),
    };
    control::configure(vcpu, wanted, args.get::<6>(), rate.ticks_per_ms()).map(|()| Status::Ok)
}

/// `vcpu_fault_get(vcpu)`.
pub fn fault_get(args: &mut Args, graph: &mut Graph) -> Outcome {
    let vcpu = args.object::<1, Vcpu>(graph, Rights::FAULT)?;
    let record = vcpu.fault.get(graph);
    if record.kind == 0 {
        return Err(Status::NotFound);
    }
    args.vcpu.page().write_buffer(&record);
    Ok(Status::Ok)
}

/// `vcpu_fault_reply(vcpu, verb, value)`.
pub fn fault_reply(args: &mut Args, graph: &mut Graph) -> Outcome {
    let vcpu = args.object::<1, Vcpu>(graph, Rights::FAULT)?;
    let verb = FaultVerb::from_raw(args.get::<2>()).ok_or(Status::Invalid)?;
    if vcpu.place() != Place::Faulted || !control::is_at_rest(vcpu) {
        return Err(Status::BadState);
    }
    let record = vcpu.fault.get(graph);
    // SAFETY: it is at rest, and only this call, under the graph lock, takes it out of that place.
    let context = unsafe { vcpu.context() };
    match verb {
        FaultVerb::Retry => {}
        FaultVerb::Skip => {
            match esr::decode(record.syndrome) {
                esr::Exception::DataAbort(abort) if abort.is_load() => {
                    if let Some(access) = abort.access() {
                        context.set_reg(access.register(), access.extend(args.get::<3>()));
                    }
                }
                esr::Exception::Sysreg(access) if access.read => context.set_reg(access.rt, args.get::<3>()),
                _ => {}
            }
            context.pc = context.pc.wrapping_add(esr::instruction_bytes(record.syndrome));
        }
        FaultVerb::InjectAbort => {
            let esr = fault::external_abort(record.syndrome, context.pstate);
            fault::inject_saved(context, esr, record.far);
        }
        FaultVerb::InjectUndef => fault::inject_saved(context, fault::UNDEFINED, 0),
        FaultVerb::End => {
            domain::end(graph, vcpu.domain, EndReason::Fault, u64::from(vcpu.index));
            return Ok(Status::Ok);
        }
    }
    control::start(vcpu).map(|()| Status::Ok)
}

/// `vcpu_stats_read(vcpu)`.
pub fn stats_read(args: &mut Args, graph: &mut Graph) -> Outcome {
    let vcpu = args.object::<1, Vcpu>(graph, Rights::INSPECT)?;
    args.vcpu.page().write_buffer(&vcpu.stats());
    Ok(Status::Ok)
}
