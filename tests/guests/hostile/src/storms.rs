//! What is allowed, too often. (Rows 7, 30, 33 and 39 of the list of attacks.)

use core::arch::asm;
use core::time::Duration;
use portico_sdk::abi::handle::SELF_DOMAIN;
use portico_sdk::abi::{Call, Status};
use portico_sdk::{hvc, irq, time};
use test_kit::Tap;

/// How long each storm lasts.
const STORM: Duration = Duration::from_millis(150);

pub fn attempts(tap: &mut Tap) {
    for (what, storm) in STORMS {
        tap.holds(what, repeat(*storm) > 0);
    }
}

const STORMS: &[(&str, fn())] = &[
    ("a storm of vcpu_yield", hvc::vcpu_yield),
    ("a storm of WFE", wait_for_event),
    ("a storm of WFI with the timer due", wait_for_interrupt),
    ("a storm of YIELD", spin),
    ("a storm of blocks that time out", || _ = hvc::vcpu_block(0)),
    ("a storm of port pairs", || {
        if let Ok((a, b)) = hvc::port_pair_create(SELF_DOMAIN, SELF_DOMAIN, 0, 0) {
            let _ = (hvc::handle_close(a), hvc::handle_close(b));
        }
    }),
    ("a storm of unknown calls", || _ = hvc::raw(0xc600_ffff, [0; 6])),
    ("a storm of calls under the graph lock", || _ = hvc::raw(u64::from(Call::ExtentInfo.function_id()), [0; 6])),
    ("a storm of PSCI_VERSION", || _ = hvc::raw(0x8400_0000, [0; 6])),
    ("a storm of TRNG_RND", || _ = hvc::raw(0xc400_0053, [192, 0, 0, 0, 0, 0])),
    ("a storm of TLB invalidations", || {
        // SAFETY: drops cached translations only.
        unsafe { asm!("tlbi vmalle1is", "dsb ish", "isb", options(nostack, preserves_flags)) };
    }),
];

fn repeat(storm: fn()) -> u64 {
    let end = time::deadline(STORM);
    let mut count = 0;
    while !time::passed(end) {
        for _ in 0..50 {
            storm();
            count += 1;
        }
    }
    count
}

fn wait_for_event() {
    // SAFETY: a hint. SEVL lets the WFE end where it is executed natively.
    unsafe { asm!("sevl", "wfe", options(nomem, nostack, preserves_flags)) };
}

fn wait_for_interrupt() {
    // With interrupts masked: one that was handled before the WFI would not end it.
    irq::masked(|| {
        time::arm(0);
        // SAFETY: waits for an interrupt that is pending.
        unsafe { asm!("wfi", options(nostack, preserves_flags)) };
        time::disarm();
    });
}

fn spin() {
    // SAFETY: a hint.
    unsafe { asm!("yield", options(nomem, nostack, preserves_flags)) };
}

/// Writes to the hypervisor's log as fast as it can. Returns 0 if that was limited and otherwise well.
pub fn flood() -> u64 {
    let mut limited = 0_u64;
    for _ in 0..20_000 {
        match hvc::early_write(b"flood\n") {
            Ok(()) => {}
            Err(Status::RateLimited) => limited += 1,
            Err(_) => return 2,
        }
    }
    u64::from(limited == 0)
}
