//! A sibling vCPU that holds on to every word of the pages that EL2 writes. (Row 47 of the list of attacks.)

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use portico_sdk::abi::handle::SELF_DOMAIN;
use portico_sdk::{hvc, smp, time, vcpu};
use test_kit::Tap;

/// 0 before, 1 while it runs, 2 to end it, 3 when it has ended.
static PHASE: AtomicU64 = AtomicU64::new(0);
static TURNS: AtomicU64 = AtomicU64::new(0);

pub fn attempts(tap: &mut Tap) {
    if vcpu::count() < 2 {
        return;
    }
    tap.none("exclusive and plain stores to every word that EL2 writes stall nobody", hold());
}

fn hold() -> Option<&'static str> {
    let page = vcpu::current().page()?.base().addr();
    let patience = time::deadline(Duration::from_secs(10));
    while smp::start(1, spin, page).is_err() {
        // It is on its way off from an earlier attempt.
        if time::passed(patience) {
            return Some("the sibling does not start");
        }
        hvc::vcpu_yield();
    }
    while PHASE.load(Ordering::SeqCst) == 0 {
        if time::passed(patience) {
            return Some("the sibling does not run");
        }
        hvc::vcpu_yield();
    }
    let Ok((a, b)) = hvc::port_pair_create(SELF_DOMAIN, SELF_DOMAIN, 0, 0) else { return Some("no port") };
    let bound = hvc::port_bind(a, 0, 1000);
    let end = time::deadline(Duration::from_millis(400));
    let mut result = bound.is_err().then_some("no bit");
    while !time::passed(end) {
        // Everything that makes EL2 write to the page. Never without a deadline: the sibling may undo what EL2 stores.
        if hvc::port_notify(b).is_err() {
            result = Some("notify");
        }
        let _ = hvc::vcpu_block(time::now() + 1000);
        hvc::vcpu_yield();
        time::arm(0);
        let _ = hvc::port_notify_wait(b, time::now() + 1000);
    }
    time::disarm();
    PHASE.store(2, Ordering::SeqCst);
    let patience = time::deadline(Duration::from_secs(10));
    while PHASE.load(Ordering::SeqCst) != 3 {
        if time::passed(patience) {
            return Some("the sibling does not end");
        }
        hvc::vcpu_yield();
    }
    let _ = (hvc::handle_close(a), hvc::handle_close(b));
    result.or((TURNS.load(Ordering::SeqCst) == 0).then_some("the sibling did nothing"))
}

fn spin(page: usize) {
    PHASE.store(1, Ordering::SeqCst);
    // What EL2 writes: the upcall byte, the selectors, the times, the pending bytes, the buffer.
    let words = [0..64, 64..128, 128..192, 1024..1040, 2016..2048, 3072..3136];
    while PHASE.load(Ordering::SeqCst) == 1 {
        for word in words.iter().cloned().flatten().step_by(8) {
            for _ in 0..8 {
                // SAFETY: words of the page of vCPU 0, which outlives this. What is stored is what was there.
                unsafe {
                    asm!(
                        "ldxr {v}, [{a}]", "stxr {s:w}, {v}, [{a}]", "ldxr {v}, [{a}]", "clrex", "ldr {v}, [{a}]", "str {v}, [{a}]",
                        a = in(reg) page + word, v = out(reg) _, s = out(reg) _, options(nostack, preserves_flags),
                    );
                }
            }
        }
        TURNS.fetch_add(1, Ordering::Relaxed);
    }
    PHASE.store(3, Ordering::SeqCst);
}
