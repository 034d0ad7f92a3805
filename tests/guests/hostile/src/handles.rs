//! Handles of the wrong type, without rights, stale, and of nobody. (Rows 25 and 44 of the list of attacks.)

use portico_sdk::abi::call::extent_flags;
use portico_sdk::abi::handle::SELF_DOMAIN;
use portico_sdk::abi::{Call, Handle, ObjectType, Rights, Status};
use portico_sdk::{hvc, time};
use test_kit::{Random, Tap};

pub fn attempts(tap: &mut Tap) {
    tap.none("a port where an extent, domain, vCPU, interrupt or the machine is wanted is WrongType", wrong_type());
    tap.none("a handle without the right is NoRights, and a copy never gains one", without_rights());
    tap.none("a closed handle is BadHandle, also when its slot is used again", recycled());
    tap.none("a thousand slots of every generation name nothing that is not ours", guessed());
    tap.none("what one may do to oneself is little", oneself());
    tap.none("listing: wild cursors end", cursors());
}

fn raw(call: Call, arguments: [u64; 6]) -> i64 {
    hvc::raw(u64::from(call.function_id()), arguments)[0].cast_signed()
}

fn wrong_type() -> Option<(Call, i64)> {
    let Ok((a, b)) = hvc::port_pair_create(SELF_DOMAIN, SELF_DOMAIN, 0, 0) else {
        return Some((Call::PortPairCreate, 0));
    };
    let port = u64::from(a.raw());
    let wrong = Status::WrongType.raw();
    let calls = [
        Call::DomainConfig,
        Call::DomainRun,
        Call::DomainDestroy,
        Call::DomainStatus,
        Call::DomainBudget,
        Call::VcpuCreate,
        Call::VcpuStart,
        Call::VcpuStop,
        Call::VcpuState,
        Call::VcpuSchedSet,
        Call::VcpuFaultGet,
        Call::VcpuFaultReply,
        Call::VcpuStatsRead,
        Call::ExtentSplit,
        Call::ExtentMerge,
        Call::ExtentDonate,
        Call::ExtentLend,
        Call::ExtentUnmap,
        Call::ExtentRevoke,
        Call::ExtentScrub,
        Call::ExtentInfo,
        Call::PoolAdd,
        Call::PoolReclaim,
        Call::PoolInfo,
        Call::IrqCreate,
        Call::IrqBind,
        Call::IrqUnbind,
        Call::DeviceExtent,
        Call::ExtentAddress,
        Call::EntropyFeed,
        Call::StatsRead,
        Call::SystemOff,
        Call::IrqComplete,
        Call::HandleNext,
    ];
    let result = calls.into_iter().find_map(|call| {
        let got = raw(call, [port, u64::from(SELF_DOMAIN.raw()), 0, 0, 0, 0]);
        (got != wrong).then_some((call, got))
    });
    let _ = (hvc::handle_close(a), hvc::handle_close(b));
    result
}

fn without_rights() -> Option<(&'static str, Option<Status>)> {
    let Ok((a, b)) = hvc::port_pair_create(SELF_DOMAIN, SELF_DOMAIN, 0, 0) else { return Some(("a pair", None)) };
    let full = hvc::handle_info(a).map(|info| info.rights).unwrap_or(Rights::empty());
    let none = hvc::handle_copy(a, SELF_DOMAIN, Rights::COPY, 0);
    let expect = |what, got: Result<(), Status>| (got != Err(Status::NoRights)).then_some((what, got.err()));
    let result = match none {
        Err(status) => Some(("a copy", Some(status))),
        Ok(weak) => expect("notify", hvc::port_notify(weak))
            .or_else(|| expect("notify and wait", hvc::port_notify_wait(weak, 0)))
            .or_else(|| expect("bind", hvc::port_bind(weak, 0, 200)))
            .or_else(|| expect("unbind", hvc::port_unbind(weak)))
            .or_else(|| expect("copy with more rights", hvc::handle_copy(weak, SELF_DOMAIN, full, 0).map(|_| ())))
            .or_else(|| expect("copy with all rights", hvc::handle_copy(a, SELF_DOMAIN, Rights::all(), 0).map(|_| ())))
            .or_else(|| hvc::handle_close(weak).err().map(|status| ("close", Some(status)))),
    };
    let _ = (hvc::handle_close(a), hvc::handle_close(b));
    result
}

fn recycled() -> Option<(&'static str, u32)> {
    let Ok((old, peer)) = hvc::port_pair_create(SELF_DOMAIN, SELF_DOMAIN, 0, 0) else { return Some(("a pair", 0)) };
    let _ = (hvc::handle_close(old), hvc::handle_close(peer));
    for round in 0..3000_u32 {
        for stale in [old, peer] {
            if hvc::port_notify(stale) != Err(Status::BadHandle) || hvc::handle_info(stale) != Err(Status::BadHandle) {
                return Some(("a stale handle is good", round));
            }
            if hvc::handle_close(stale) != Err(Status::BadHandle) {
                return Some(("a stale handle closes", round));
            }
        }
        let Some((a, b)) = patient_pair() else { return Some(("a pair", round)) };
        if a == old || b == old || a == peer || b == peer {
            return Some(("the same handle came again", round));
        }
        if hvc::handle_close(a).is_err() || hvc::handle_close(b).is_err() {
            return Some(("a fresh handle does not close", round));
        }
    }
    None
}

/// A pair of ports. What was closed a moment ago counts against the budget until every processor has let go of it.
fn patient_pair() -> Option<(Handle, Handle)> {
    let end = time::deadline(core::time::Duration::from_secs(5));
    loop {
        match hvc::port_pair_create(SELF_DOMAIN, SELF_DOMAIN, 0, 0) {
            Ok(pair) => return Some(pair),
            Err(Status::NoBudget | Status::Limit) if !time::passed(end) => hvc::vcpu_yield(),
            Err(_) => return None,
        }
    }
}

fn guessed() -> Option<(u32, u64)> {
    let mut random = Random::new(44);
    for _ in 0..100_000 {
        let handle = Handle::new(random.below(1024) as u16, random.below(64) as u16);
        if let Ok(info) = hvc::handle_info(handle) {
            // Only what was given to it: its console's port and window.
            let granted = || hvc::extent_info(handle).is_ok_and(|extent| extent.flags & extent_flags::GRANT != 0);
            let is_ours = match info.object {
                Some(ObjectType::Port) => true,
                Some(ObjectType::Extent) => granted(),
                _ => false,
            };
            if !is_ours {
                return Some((handle.raw(), info.cookie));
            }
        }
    }
    None
}

fn oneself() -> Option<(Call, i64)> {
    let own = u64::from(SELF_DOMAIN.raw());
    let refused = [
        (Call::DomainConfig, [own, 1, 0x41, 0, 0, 0]),
        (Call::DomainRun, [own, 1, 0, 0, 0, 0]),
        (Call::DomainDestroy, [own, 0, 0, 0, 0, 0]),
        (Call::DomainBudget, [own, 1000, 0, 0, 0, 0]),
        (Call::VcpuCreate, [own, 7, 7, 0x0900_0000, 0, 0]),
        (Call::DomainCreate, [10, 1, 36, 0, 0, 0]),
        (Call::StatsRead, [own, 0, 0, 0, 0, 0]),
        (Call::SystemOff, [own, 0, 0, 0, 0, 0]),
        (Call::PoolInfo, [own, 0, 0, 0, 0, 0]),
        (Call::ExtentInfo, [own, 0, 0, 0, 0, 0]),
        (Call::HandleClose, [own, 0, 0, 0, 0, 0]),
        (Call::PortNotify, [own, 0, 0, 0, 0, 0]),
    ];
    refused.into_iter().find_map(|(call, arguments)| {
        let got = raw(call, arguments);
        (got >= 0).then_some((call, got))
    })
}

fn cursors() -> Option<(u64, Result<u64, Status>)> {
    for cursor in [1 << 16, (1 << 16) - 1, 1 << 32, 1 << 63, u64::MAX] {
        let got = hvc::handle_next(SELF_DOMAIN, cursor).map(|(_, next)| next);
        if got != Err(Status::NotFound) {
            return Some((cursor, got));
        }
    }
    let (mut cursor, mut count) = (0, 0);
    while let Ok((_, next)) = hvc::handle_next(SELF_DOMAIN, cursor) {
        count += 1;
        if next <= cursor || count > 0x1_0000 {
            return Some((cursor, Ok(next)));
        }
        cursor = next;
    }
    None
}
