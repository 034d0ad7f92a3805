//! PSCI with wild arguments. (Row 37 of the list of attacks.)

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use portico_sdk::abi::call::info;
use portico_sdk::abi::psci::{self, ret};
use portico_sdk::{hvc, irq, smp, time};
use test_kit::{Random, Tap};

pub fn attempts(tap: &mut Tap) {
    tap.none("CPU_ON and AFFINITY_INFO with a wild MPIDR", wild_mpidrs());
    tap.none("CPU_ON with a wild entry", wild_entries());
    tap.none("CPU_SUSPEND to power-down is refused", suspend());
    tap.none("CPU_ON of a vCPU that runs, again and again, and CPU_OFF", on_and_off());
    tap.none("TRNG with wild sizes", trng());
}

fn call(function: u32, arguments: [u64; 3]) -> i64 {
    let [a, b, c] = arguments;
    hvc::raw(u64::from(function), [a, b, c, 0, 0, 0])[0].cast_signed()
}

fn own(index: u64) -> Option<u64> {
    hvc::self_info(info::VCPU_MPIDR, index).ok().map(|mpidr| mpidr & 0xff_00ff_ffff)
}

fn wild_mpidrs() -> Option<(u64, i64)> {
    let mut random = Random::new(37);
    let vcpus = [own(0), own(1)];
    let wild = [u64::MAX, 1 << 31, 1 << 24, 1 << 30, 0xff, 0xff00, 0xff_0000, 0xff_0000_0000, 1 << 40, 1 << 63];
    wild.into_iter().chain((0..2000).map(|_| random.next())).find_map(|mpidr| {
        if vcpus.contains(&Some(mpidr)) {
            return None;
        }
        [call(psci::CPU_ON_64, [mpidr, 0x4000_0000, 0]), call(psci::AFFINITY_INFO_64, [mpidr, 0, 0])]
            .into_iter()
            .find(|&got| got != ret::INVALID_PARAMETERS)
            .map(|got| (mpidr, got))
    })
}

fn wild_entries() -> Option<(u64, i64)> {
    let mpidr = own(1)?;
    [1, 2, 3, 0x4000_0001, 1 << 40, 1 << 48, u64::MAX, u64::MAX - 3].into_iter().find_map(|entry| {
        let got = call(psci::CPU_ON_64, [mpidr, entry, 0]);
        (!matches!(got, ret::INVALID_ADDRESS | ret::INVALID_PARAMETERS)).then_some((entry, got))
    })
}

fn suspend() -> Option<i64> {
    let got = call(psci::CPU_SUSPEND_64, [1 << 16, 0x4000_0000, 0]);
    // A standby ends with whatever comes up; the timer is that. With interrupts masked it cannot be handled before.
    let standby = irq::masked(|| {
        time::arm(time::deadline(Duration::from_millis(1)));
        let got = call(psci::CPU_SUSPEND_64, [0, 0, 0]);
        time::disarm();
        got
    });
    [got]
        .into_iter()
        .find(|&got| got != ret::INVALID_PARAMETERS && got != ret::DENIED)
        .or((standby != 0).then_some(standby))
}

/// Starts of the other vCPU. Each takes a stack for good.
const ROUNDS: u64 = 40;

static STARTED: AtomicU64 = AtomicU64::new(0);

fn short(_: usize) {
    STARTED.fetch_add(1, Ordering::SeqCst);
}

fn on_and_off() -> Option<(u64, i64)> {
    let mpidr = own(1)?;
    for round in 0..ROUNDS {
        let before = STARTED.load(Ordering::SeqCst);
        let end = time::deadline(Duration::from_secs(5));
        // It may still be on its way off.
        loop {
            match smp::start(1, short, 0) {
                Ok(()) => break,
                Err(smp::StartError::Psci(ret::ALREADY_ON | ret::ON_PENDING)) if !time::passed(end) => {
                    hvc::vcpu_yield()
                }
                Err(smp::StartError::Psci(got)) => return Some((round, got)),
                Err(_) => return Some((round, 0)),
            }
        }
        // A second CPU_ON while it starts, runs or ends: never a second start.
        for _ in 0..20 {
            let got = call(psci::CPU_ON_64, [mpidr, 0x4000_0001, 0]);
            if !matches!(got, ret::ALREADY_ON | ret::ON_PENDING | ret::INVALID_ADDRESS) {
                return Some((round, got));
            }
            let _ = call(psci::AFFINITY_INFO_64, [mpidr, 0, 0]);
        }
        while STARTED.load(Ordering::SeqCst) == before {
            if time::passed(end) {
                return Some((round, -100));
            }
            hvc::vcpu_yield();
        }
    }
    let started = STARTED.load(Ordering::SeqCst);
    (started != ROUNDS).then_some((started, 0))
}

fn trng() -> Option<(u64, i64)> {
    [0, 193, 1 << 32, u64::MAX].into_iter().find_map(|bits| {
        let got = call(psci::TRNG_RND_64, [bits, 0, 0]);
        (got != ret::INVALID_PARAMETERS).then_some((bits, got))
    })
}
