//! ABI.md, "Time": the counter, the information page, the virtual timer.

use crate::tap::Tap;
use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use portico_sdk::abi::dt;
use portico_sdk::abi::page::InfoPage;
use portico_sdk::{irq, time};

static TICKS: AtomicU32 = AtomicU32::new(0);

fn count(_bit: u16, _argument: usize) {
    TICKS.fetch_add(1, Ordering::SeqCst);
}

/// All checks.
pub fn check(tap: &mut Tap) {
    information(tap);
    counter(tap);
    deadlines(tap);
    masking(tap);
    waking(tap);
}

fn information(tap: &mut Tap) {
    // SAFETY: the information page is mapped here, as `self_info` was checked to say; its first word is the magic.
    let magic = unsafe { core::ptr::with_exposed_provenance::<u32>(dt::INFO_PAGE as usize).read_volatile() };
    tap.is("info page: magic", magic, InfoPage::MAGIC);
    let scale = time::Scale::read();
    tap.is("info page: frequency is that of CNTFRQ_EL0", scale.hz, time::counter_hz());
    tap.holds(
        "info page: mult and shift make a second of it",
        scale.ns(u64::from(scale.hz)).abs_diff(1_000_000_000) <= 100,
    );
}

fn counter(tap: &mut Tap) {
    let mut before = time::now();
    let mut monotonic = true;
    for _ in 0..10_000 {
        let now = time::now();
        monotonic &= now >= before;
        before = now;
    }
    tap.holds("counter: never goes back", monotonic);
}

/// Whether it fires within `after`, not counting what was before.
fn fired_within(after: Duration) -> bool {
    fired_since(TICKS.load(Ordering::SeqCst), after)
}

/// Arms it, and says whether it fires within half a second: maybe before this returns from arming.
fn fires_at(deadline: u64) -> bool {
    let before = TICKS.load(Ordering::SeqCst);
    time::arm(deadline);
    fired_since(before, Duration::from_millis(500))
}

fn fired_since(before: u32, after: Duration) -> bool {
    let end = time::deadline(after);
    while TICKS.load(Ordering::SeqCst) == before {
        if time::passed(end) {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}

fn control() -> u64 {
    let control: u64;
    // SAFETY: reads a register of the guest's timer.
    unsafe { asm!("mrs {}, cntv_ctl_el0", out(reg) control, options(nomem, nostack)) };
    control
}

fn deadlines(tap: &mut Tap) {
    let port = time::timer_port();
    port.on_notify(count, 0);
    let soon = time::deadline(Duration::from_millis(1));
    tap.holds("timer: fires on a busy vCPU", fires_at(soon));
    tap.holds("timer: not before its deadline", time::now() >= soon);
    tap.is("timer: IMASK is set after it fired", control() & 0b10, 0b10);
    tap.holds("timer: does not fire again", !fired_within(Duration::from_millis(2)));
    tap.holds("timer: armed in the past, fires at once", fires_at(1));
    tap.holds("timer: armed at 0, fires at once", fires_at(0));
    for far in [u64::MAX, u64::MAX - 1, i64::MAX as u64, 1 << 62] {
        time::arm(far);
        tap.holds("timer: a deadline near 2^64 does not fire", !fired_within(Duration::from_millis(1)));
    }
    tap.holds("timer: works after that", fires_at(time::deadline(Duration::from_millis(1))));
    let mut lost = 0;
    for _ in 0..200 {
        lost += u32::from(!fires_at(time::now() + 2000));
    }
    tap.is("timer: two hundred short deadlines, none lost", lost, 0);
    time::arm(time::deadline(Duration::from_millis(1)));
    time::disarm();
    tap.holds("timer: disarmed, does not fire", !fired_within(Duration::from_millis(3)));
}

fn masking(tap: &mut Tap) {
    let port = time::timer_port();
    port.mask();
    time::arm(1);
    tap.holds("timer: masked, no upcall", !fired_within(Duration::from_millis(2)));
    tap.holds("timer: but pending", port.is_pending());
    let before = TICKS.load(Ordering::SeqCst);
    port.unmask();
    tap.is("timer: unmask runs the handler", TICKS.load(Ordering::SeqCst), before + 1);
}

fn waking(tap: &mut Tap) {
    let before = TICKS.load(Ordering::SeqCst);
    time::arm(time::deadline(Duration::from_millis(2)));
    let end = time::deadline(Duration::from_millis(500));
    while TICKS.load(Ordering::SeqCst) == before && !time::passed(end) {
        irq::masked(|| {
            if TICKS.load(Ordering::SeqCst) == before {
                irq::wait();
            }
        });
    }
    tap.is("timer: wakes from WFI", TICKS.load(Ordering::SeqCst), before + 1);
    time::arm(time::deadline(Duration::from_millis(2)));
    let woken = portico_sdk::port::wait_until(end, || TICKS.load(Ordering::SeqCst) == before + 2);
    tap.is("timer: wakes from vcpu_block", woken, Ok(()));
    time::disarm();
}
