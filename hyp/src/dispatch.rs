//! From a function id to the call: an exhaustive match over the calls of the ABI.

use crate::graph::Ref;
use crate::hypercall::{Args, Outcome, domain, extent, handle, port, psci, system, this, vcpu};
use crate::object::vcpu::Vcpu;
use crate::sched;
use crate::trap::{Next, STAY};
use portico_abi::call::{FUNCTION_BASE, NUMBER_MASK};
use portico_abi::{Call, Status};

pub use psci::PSCI_1_1;

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
    this::count(vcpu);
    let mut args = Args::new(vcpu);
    match serve(call, &mut args) {
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

impl From<Outcome> for Served {
    fn from(outcome: Outcome) -> Self {
        Self::Done(outcome)
    }
}

fn leaves(result: Result<Next, Status>) -> Served {
    match result {
        Ok(next) => Served::Leaves(next),
        Err(status) => Served::Done(Err(status)),
    }
}

fn serve(call: Call, args: &mut Args) -> Served {
    match call {
        Call::AbiFeatures => this::abi_features(args).into(),
        Call::SelfInfo => this::self_info(args).into(),
        Call::EarlyWrite => this::early_write(args).into(),
        Call::SelfExit => leaves(this::self_exit(args)),
        Call::HandleInfo => handle::info(args).into(),
        Call::HandleNext => handle::next(args).into(),
        Call::HandleCopy => handle::copy(args).into(),
        Call::HandleClose => handle::close(args).into(),
        // The hot path serves these two; they get here in no other way.
        Call::PortNotify | Call::PortNotifyWait => Served::Done(Err(Status::NotSupported)),
        Call::PortPairCreate => port::pair_create(args).into(),
        Call::PortBind => port::bind(args).into(),
        Call::PortUnbind => port::unbind(args).into(),
        Call::VcpuBlock => Served::Leaves(sched::block(args.vcpu, args.get::<1>())),
        Call::VcpuYield => {
            crate::trap::set_status(args.vcpu, Ok(()));
            Served::Leaves(sched::yield_now(args.vcpu))
        }
        Call::IrqComplete => this::irq_complete(args).into(),
        Call::DomainCreate => domain::create(args).into(),
        Call::DomainConfig => domain::config(args).into(),
        Call::DomainRun => domain::run(args).into(),
        Call::DomainDestroy => domain::destroy(args).into(),
        Call::DomainStatus => domain::status(args).into(),
        Call::DomainBudget => domain::budget(args).into(),
        Call::VcpuCreate => vcpu::create(args).into(),
        Call::VcpuStart => vcpu::start(args).into(),
        Call::VcpuStop => vcpu::stop(args).into(),
        Call::VcpuState => vcpu::state(args).into(),
        Call::VcpuSchedSet => vcpu::sched_set(args).into(),
        Call::VcpuFaultGet => vcpu::fault_get(args).into(),
        Call::VcpuFaultReply => vcpu::fault_reply(args).into(),
        Call::VcpuStatsRead => vcpu::stats_read(args).into(),
        Call::ExtentSplit => extent::split(args).into(),
        Call::ExtentMerge => extent::merge(args).into(),
        Call::ExtentDonate => extent::donate(args).into(),
        Call::ExtentLend => extent::lend(args).into(),
        Call::ExtentMap => extent::map(args).into(),
        Call::ExtentUnmap => extent::unmap(args).into(),
        Call::ExtentRevoke => extent::revoke(args).into(),
        Call::ExtentScrub => extent::scrub(args).into(),
        Call::ExtentInfo => extent::info(args).into(),
        Call::PoolAdd => system::pool_add(args).into(),
        Call::PoolReclaim => system::pool_reclaim(args).into(),
        Call::PoolInfo => system::pool_info(args).into(),
        Call::IrqCreate => system::irq_create(args).into(),
        Call::IrqBind => system::irq_bind(args).into(),
        Call::IrqUnbind => system::irq_unbind(args).into(),
        Call::DeviceExtent => system::device_extent(args).into(),
        Call::EntropyFeed => system::entropy_feed(args).into(),
        Call::StatsRead => system::stats_read(args).into(),
        Call::SystemOff => leaves(system::system_off(args)),
        // Reserved numbers: known, and not offered in this version.
        Call::ExtentSeal | Call::DomainClone | Call::DirtyLog | Call::DomainTime => Served::Done(Err(Status::NotSupported)),
    }
}
