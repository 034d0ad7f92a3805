//! ABI.md, "Starting", of further vCPUs; interrupts between vCPUs.

use crate::tap::Tap;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use core::time::Duration;
use portico_sdk::abi::call::info;
use portico_sdk::abi::psci;
use portico_sdk::smp::{self, Ipi};
use portico_sdk::{hvc, irq, port, sync, time, vcpu};

static UP: AtomicU32 = AtomicU32::new(0);
static ARGUMENT: AtomicU64 = AtomicU64::new(0);
static INDEX: AtomicU64 = AtomicU64::new(u64::MAX);
static MPIDR: AtomicU64 = AtomicU64::new(0);
static RECEIVED: AtomicU32 = AtomicU32::new(0);
static STOP: AtomicBool = AtomicBool::new(false);

/// What the other vCPU does: tells what it sees, then takes interrupts, blocked or busy, until it is told to stop.
fn other(argument: usize) {
    ARGUMENT.store(argument as u64, Ordering::Relaxed);
    INDEX.store(hvc::self_info(info::VCPU_INDEX, 0).unwrap_or(u64::MAX), Ordering::Relaxed);
    let mpidr: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mrs {}, mpidr_el1", out(reg) mpidr, options(nomem, nostack)) };
    MPIDR.store(mpidr, Ordering::Relaxed);
    UP.fetch_add(1, Ordering::Release);
    while !STOP.load(Ordering::Acquire) {
        // Half of the time busy, half of it blocked.
        if RECEIVED.load(Ordering::Relaxed) & 64 == 0 {
            sync::relax();
        } else {
            let _ = port::wait(time::deadline(Duration::from_millis(1)));
        }
    }
}

fn received(_bit: u16, _argument: usize) {
    RECEIVED.fetch_add(1, Ordering::Release);
}

/// Waits until a condition holds, at most 2 s.
fn until(condition: impl Fn() -> bool) -> bool {
    let end = time::deadline(Duration::from_secs(2));
    while !condition() {
        if time::passed(end) {
            return false;
        }
        sync::relax();
    }
    true
}

fn affinity_info(mpidr: u64) -> u64 {
    hvc::raw(u64::from(psci::AFFINITY_INFO_64), [mpidr & 0xff_00ff_ffff, 0, 0, 0, 0, 0])[0]
}

/// All checks.
pub fn check(tap: &mut Tap) {
    if vcpu::count() < 2 {
        tap.skip("SMP: all checks", "one vCPU");
        return;
    }
    tap.is("SMP: a vCPU that is not there", smp::start(1000, other, 0), Err(smp::StartError::NoSuchVcpu));
    tap.is("SMP: start vCPU 1", smp::start(1, other, 0x1234), Ok(()));
    tap.holds("SMP: it runs", until(|| UP.load(Ordering::Acquire) == 1));
    tap.is("SMP: with its argument", ARGUMENT.load(Ordering::Relaxed), 0x1234);
    tap.is("SMP: it knows its index", INDEX.load(Ordering::Relaxed), 1);
    let mpidr = hvc::self_info(info::VCPU_MPIDR, 1).unwrap_or(0) & 0xff_00ff_ffff;
    tap.is("SMP: MPIDR_EL1 is as self_info says", MPIDR.load(Ordering::Relaxed) & 0xff_00ff_ffff, mpidr);
    tap.is("SMP: AFFINITY_INFO says on", affinity_info(mpidr), 0);
    tap.is(
        "SMP: a second start is refused",
        smp::start(1, other, 0),
        Err(smp::StartError::Psci(psci::ret::ALREADY_ON)),
    );
    interrupts(tap);
    STOP.store(true, Ordering::Release);
    tap.holds("SMP: CPU_OFF turns it off", until(|| affinity_info(mpidr) == 1));
    STOP.store(false, Ordering::Release);
    // Going off and on again: PSCI may say that it is still on its way.
    let started = until(|| smp::start(1, other, 0x5678).is_ok());
    tap.holds("SMP: and it can be started again", started && until(|| UP.load(Ordering::Acquire) == 2));
    tap.is("SMP: with its new argument", ARGUMENT.load(Ordering::Relaxed), 0x5678);
    STOP.store(true, Ordering::Release);
    let _ = until(|| affinity_info(mpidr) == 1);
}

fn interrupts(tap: &mut Tap) {
    let Ok(ipi) = Ipi::new(1, received, 0) else {
        tap.holds("IPI: a port pair to vCPU 1", false);
        return;
    };
    tap.holds("IPI: a port pair to vCPU 1", true);
    let before = RECEIVED.load(Ordering::Acquire);
    let mut lost = 0;
    for _ in 0..1000 {
        let seen = RECEIVED.load(Ordering::Acquire);
        if ipi.send().is_err() || !until(|| RECEIVED.load(Ordering::Acquire) > seen) {
            lost += 1;
            if lost > 3 {
                break;
            }
        }
    }
    tap.is("IPI: a thousand, one at a time, to a busy and a blocked vCPU: none is lost", lost, 0);
    tap.is("IPI: and none is doubled", RECEIVED.load(Ordering::Acquire) - before, 1000);
    let here = irq::masked(|| {
        vcpu::current().page().is_some_and(|page| page.pending(ipi.receiver().bit()).load(Ordering::Relaxed) == 0)
    });
    tap.holds("IPI: nothing is pending on the sender", here);
}
