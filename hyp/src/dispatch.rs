//! From a function id to the call: an exhaustive match over the calls of the ABI.

use crate::graph::{self, Graph, Ref};
use crate::hypercall::{Args, Outcome, domain, extent, handle, port, psci, system, this, vcpu};
use crate::object::irq::Irq;
use crate::object::port::Port;
use crate::object::vcpu::Vcpu;
use crate::percpu::Pcpu;
use crate::sched;
use crate::trap::{Next, STAY};
use portico_abi::call::{FUNCTION_BASE, NUMBER_MASK};
use portico_abi::{Call, Status};
use portico_arch::registers::{ELR_EL2, Readable, Writeable};

pub use psci::PSCI_1_1;

/// Bytes of the instruction that made the call.
const HVC_BYTES: u64 = 4;

/// Serves every call but the hot ones, which [`crate::trap`] has served already.
#[inline(never)]
pub fn call(vcpu: Ref<Vcpu>, function: u32) -> Next {
    if function & !NUMBER_MASK != FUNCTION_BASE {
        return psci::call(vcpu, function);
    }
    let Some(call) = Call::from_number(function & NUMBER_MASK) else {
        system::count_bad_call();
        crate::trap::set_status(vcpu, Err(Status::NotSupported));
        return STAY;
    };
    Pcpu::count(&vcpu.calls, 1);
    let mut args = Args::new(vcpu);
    match serve(call, &mut args) {
        // Nothing was done yet: the caller's HVC is executed again, after whatever interrupts wait for this pCPU.
        Served::Done(Err(Status::Again)) => {
            ELR_EL2.set(ELR_EL2.get().wrapping_sub(HVC_BYTES));
            sched::after_call(vcpu)
        }
        Served::Done(Ok(status) | Err(status)) => {
            args.finish(status);
            sched::after_call(vcpu)
        }
        Served::Leaves(next) => next,
    }
}

/// How a call ends.
enum Served {
    /// With a status, on the same vCPU.
    Done(Outcome),
    /// With a decision who runs next; the caller's registers are written.
    Leaves(Next),
}

fn leaves(result: Result<Next, Status>) -> Served {
    match result {
        Ok(next) => Served::Leaves(next),
        Err(status) => Served::Done(Err(status)),
    }
}

/// The calls that take no lock, or not for all of their time. All others are one bounded piece of work under the graph lock.
fn serve(call: Call, args: &mut Args) -> Served {
    match call {
        Call::AbiFeatures => Served::Done(this::abi_features(args)),
        Call::EarlyWrite => Served::Done(this::early_write(args)),
        Call::SelfExit => leaves(this::self_exit(args)),
        Call::VcpuBlock => Served::Leaves(sched::block(args.vcpu, args.get::<1>())),
        Call::VcpuYield => {
            crate::trap::set_status(args.vcpu, Ok(()));
            Served::Leaves(sched::yield_now(args.vcpu))
        }
        Call::IrqComplete => Served::Done(this::irq_complete(args)),
        Call::SystemOff => leaves(system::system_off(args)),
        _ => Served::Done(serve_locked(call, args, &mut graph::lock())),
    }
}

fn serve_locked(call: Call, args: &mut Args, graph: &mut Graph) -> Outcome {
    match call {
        Call::SelfInfo => this::self_info(args, graph),
        Call::HandleInfo => handle::info(args, graph),
        Call::HandleNext => handle::next(args, graph),
        Call::HandleCopy => handle::copy(args, graph),
        Call::HandleClose => handle::close(args, graph),
        Call::PortPairCreate => port::pair_create(args, graph),
        Call::PortBind => port::bind::<Port>(args, graph),
        Call::PortUnbind => port::unbind::<Port>(args, graph),
        Call::DomainCreate => domain::create(args, graph),
        Call::DomainConfig => domain::config(args, graph),
        Call::DomainRun => domain::run(args, graph),
        Call::DomainDestroy => domain::destroy(args, graph),
        Call::DomainStatus => domain::status(args, graph),
        Call::DomainBudget => domain::budget(args, graph),
        Call::VcpuCreate => vcpu::create(args, graph),
        Call::VcpuStart => vcpu::start(args, graph),
        Call::VcpuStop => vcpu::stop(args, graph),
        Call::VcpuState => vcpu::state(args, graph),
        Call::VcpuSchedSet => vcpu::sched_set(args, graph),
        Call::VcpuFaultGet => vcpu::fault_get(args, graph),
        Call::VcpuFaultReply => vcpu::fault_reply(args, graph),
        Call::VcpuStatsRead => vcpu::stats_read(args, graph),
        Call::ExtentSplit => extent::split(args, graph),
        Call::ExtentMerge => extent::merge(args, graph),
        Call::ExtentDonate => extent::donate(args, graph),
        Call::ExtentLend => extent::lend(args, graph),
        Call::ExtentMap => extent::map(args, graph),
        Call::ExtentUnmap => extent::unmap(args, graph),
        Call::ExtentRevoke => extent::revoke(args, graph),
        Call::ExtentScrub => extent::scrub(args, graph),
        Call::ExtentInfo => extent::info(args, graph),
        Call::PoolAdd => system::pool_add(args, graph),
        Call::PoolReclaim => system::pool_reclaim(args, graph),
        Call::PoolInfo => system::pool_info(args, graph),
        Call::IrqCreate => system::irq_create(args, graph),
        Call::IrqBind => port::bind::<Irq>(args, graph),
        Call::IrqUnbind => port::unbind::<Irq>(args, graph),
        Call::DeviceExtent => system::device_extent(args, graph),
        Call::ExtentAddress => system::extent_address(args, graph),
        Call::EntropyFeed => system::entropy_feed(args, graph),
        Call::StatsRead => system::stats_read(args, graph),
        Call::LogRead => system::log_read(args, graph),
        // Reserved numbers: known, and not offered in this version.
        Call::ExtentSeal | Call::DomainClone | Call::DirtyLog | Call::DomainTime => Err(Status::NotSupported),
        // Served above, the first two by the hot path: they do not get here.
        Call::PortNotify | Call::PortNotifyWait | Call::AbiFeatures | Call::EarlyWrite => Err(Status::NotSupported),
        Call::SelfExit | Call::VcpuBlock | Call::VcpuYield => Err(Status::NotSupported),
        Call::IrqComplete | Call::SystemOff => Err(Status::NotSupported),
    }
}
