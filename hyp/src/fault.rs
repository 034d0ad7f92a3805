//! Synchronous exceptions of guests other than calls: answered here if the answer is short and named, else a fault of the domain.

use crate::graph::{self, Ref};
use crate::object::domain;
use crate::object::extent;
use crate::object::vcpu::{Place, Vcpu};
use crate::sched::{self, queue};
use crate::trap::{Next, STAY, set_result};
use crate::{machine, trace};
use portico_abi::psci::ret;
use portico_abi::record::{EndReason, FaultKind, FaultRecord};
use portico_arch::context::{self, VcpuContext, rare};
use portico_arch::fpsimd;
use portico_arch::registers::{
    ELR_EL1, ELR_EL2, ESR_EL1, FAR_EL2, HPFAR_EL2, Readable, SPSR_EL1, SPSR_EL2, VBAR_EL1, Writeable,
};
use portico_core::esr::{self, Exception};
use portico_core::sysreg::{self, Answer};
use portico_core::trace::Event;

/// `flags` of a fault record.
mod flag {
    pub const WRITE: u32 = 1 << 0;
    pub const FETCH: u32 = 1 << 1;
    pub const SYNDROME: u32 = 1 << 2;
}

/// Whether a syndrome is that of a WFI: the one exception whose cost matters.
#[inline(always)]
pub const fn is_wfi(esr: u64) -> bool {
    const TRAPPED_INSTRUCTION: u64 = 3;
    esr::class(esr) == esr::ec::WFX && esr & TRAPPED_INSTRUCTION == 0
}

/// Serves a trapped WFI.
#[inline]
pub fn wait_for_interrupt(vcpu: Ref<Vcpu>, esr: u64) -> Next {
    step_over(esr);
    queue::block_wfi(vcpu)
}

/// Serves an exception that is not `hvc #0`.
#[inline(never)]
pub fn synchronous(vcpu: Ref<Vcpu>, esr: u64) -> Next {
    match esr::decode(esr) {
        Exception::FpSimd => {
            use_fp(vcpu);
            STAY
        }
        Exception::Wfx { event: false } => wait_for_interrupt(vcpu, esr),
        Exception::Wfx { event: true } => {
            step_over(esr);
            sched::yield_now(vcpu)
        }
        // `hvc #0` never gets here; another immediate is nothing that the ABI offers. The trap has stepped over it already.
        Exception::Hvc64 => {
            ELR_EL2.set(ELR_EL2.get().wrapping_sub(4));
            undefined()
        }
        Exception::Smc64 => {
            step_over(esr);
            set_result(vcpu, ret::NOT_SUPPORTED as u64);
            STAY
        }
        Exception::Sysreg(access) => system_register(vcpu, esr, access),
        Exception::DataAbort(abort) => {
            let write = if abort.is_write() { flag::WRITE } else { 0 };
            let syndrome = if abort.access().is_some() { flag::SYNDROME } else { 0 };
            memory_abort(vcpu, esr, abort, write | syndrome)
        }
        Exception::InstrAbort(abort) => memory_abort(vcpu, esr, abort, flag::FETCH),
        // A privileged instruction of AArch32 EL0, SVE and the like: the guest's kernel gets it.
        Exception::Other => undefined(),
    }
}

/// An SError while the guest ran: imprecise, but nobody else ran here since.
pub fn serror(vcpu: Ref<Vcpu>, esr: u64) -> Next {
    fault(vcpu, record(FaultKind::SError, esr, 0))
}

fn step_over(esr: u64) {
    ELR_EL2.set(ELR_EL2.get().wrapping_add(esr::instruction_bytes(esr)));
}

/// First use of FP since the switch-in: load this vCPU's registers.
fn use_fp(vcpu: Ref<Vcpu>) {
    // SAFETY: it runs here, and no other reference to its context is live.
    let guest = unsafe { vcpu.context() };
    // SAFETY: as above.
    unsafe { fpsimd::load(&guest.fp) };
    guest.rare |= rare::FP;
}

fn system_register(vcpu: Ref<Vcpu>, esr: u64, access: esr::SysregAccess) -> Next {
    // SAFETY: it runs here, and no other reference to its context is live.
    let guest = unsafe { vcpu.context() };
    match sysreg::answer(access.id, access.read) {
        Answer::Value(value) => guest.set_reg(access.rt, value),
        Answer::Ignore => {}
        Answer::IdRegister => match machine::id_register(access.id) {
            Some(value) => guest.set_reg(access.rt, value),
            None => return undefined(),
        },
        Answer::Mdscr { writable } => {
            if access.read {
                guest.set_reg(access.rt, guest.el1.mdscr_el1);
            } else {
                context::set_mdscr(guest, guest.reg(access.rt) & writable);
            }
        }
        Answer::Refuse => return undefined(),
    }
    step_over(esr);
    STAY
}

fn memory_abort(vcpu: Ref<Vcpu>, esr: u64, abort: esr::Abort, flags: u32) -> Next {
    if abort.is_external() {
        return fault(vcpu, record(FaultKind::SError, esr, flags));
    }
    let ipa = esr::fault_ipa(HPFAR_EL2.get(), FAR_EL2.get());
    // Another pCPU may have been changing the table at that moment: if it is good now, the guest never hears of it.
    let good_now = extent::translates(&mut graph::lock(), vcpu.domain, ipa).is_some_and(|attrs| {
        (flags & flag::WRITE == 0 || attrs.can_write()) && (flags & flag::FETCH == 0 || attrs.can_execute())
    });
    if good_now && abort.is_stage2() {
        return STAY;
    }
    let mut found = record(FaultKind::Stage2, esr, flags);
    found.ipa = ipa.raw();
    if let Some(access) = abort.access().filter(|_| flags & flag::WRITE != 0) {
        // SAFETY: it runs here.
        found.value = unsafe { vcpu.context() }.reg(access.register());
    }
    fault(vcpu, found)
}

fn record(kind: FaultKind, esr: u64, flags: u32) -> FaultRecord {
    FaultRecord {
        kind: kind as u32,
        flags,
        syndrome: esr,
        far: FAR_EL2.get(),
        pc: ELR_EL2.get(),
        pstate: SPSR_EL2.get(),
        ..FaultRecord::default()
    }
}

/// Stops the vCPU with a record, or ends the domain, as its policy says.
fn fault(vcpu: Ref<Vcpu>, record: FaultRecord) -> Next {
    trace::record_wide(Event::Fault, vcpu.id, record.syndrome);
    let graph = &mut *graph::lock();
    vcpu.fault.set(graph, record);
    if vcpu.domain.faults_wait.get(graph) {
        // Before this pCPU decides who is next: that may be the watcher, whose upcall is then made pending with its registers. It cannot ask
        // before the graph's lock is free, so it finds the vCPU faulted, and at rest as soon as this pCPU has let go of it.
        domain::tell_watcher(graph, vcpu.domain);
        return sched::leave(vcpu, Place::Faulted);
    }
    domain::end(graph, vcpu.domain, EndReason::Fault, u64::from(vcpu.index));
    sched::reconsider(vcpu)
}

/// ESR_EL1 of an undefined instruction: EC 0, IL 1.
pub const UNDEFINED: u64 = 1 << 25;

/// ESR_EL1 of a synchronous external abort at `pstate`: data, or instruction if the trapped `syndrome` was one. An abort from EL1 itself has a class of
/// its own, one above.
pub const fn external_abort(syndrome: u64, pstate: u64) -> u64 {
    const FSC_EXTERNAL: u64 = 0x10;
    let lower: u64 = if esr::class(syndrome) == esr::ec::INSTR_ABORT_LOWER { 0x20 } else { 0x24 };
    let from_el1 = pstate & 0x1c == 0x04;
    (lower + from_el1 as u64) << 26 | 1 << 25 | FSC_EXTERNAL
}

/// Offset of the synchronous vector for an exception from `pstate`. (Arm DDI 0487, "Exception vectors")
const fn vector_offset(pstate: u64) -> u64 {
    match pstate & 0x1f {
        0x04 => 0x000,
        0x05 => 0x200,
        mode if mode & 0x10 != 0 => 0x600,
        _ => 0x400,
    }
}

/// PSTATE at the guest's handler: EL1h, DAIF masked.
const HANDLER_PSTATE: u64 = 0x3c5;

/// Gives the running guest an undefined-instruction exception at its EL1.
fn undefined() -> Next {
    let pstate = SPSR_EL2.get();
    ELR_EL1.set(ELR_EL2.get());
    SPSR_EL1.set(pstate);
    ESR_EL1.set(UNDEFINED);
    ELR_EL2.set(VBAR_EL1.get().wrapping_add(vector_offset(pstate)));
    SPSR_EL2.set(HANDLER_PSTATE);
    STAY
}

/// Gives a guest at rest an exception at its EL1, for when it runs again.
pub fn inject_saved(guest: &mut VcpuContext, esr: u64, far: u64) {
    guest.el1.elr_el1 = guest.pc;
    guest.el1.spsr_el1 = guest.pstate;
    guest.el1.esr_el1 = esr;
    guest.el1.far_el1 = far;
    guest.pc = guest.el1.vbar_el1.wrapping_add(vector_offset(guest.pstate));
    guest.pstate = HANDLER_PSTATE;
}
