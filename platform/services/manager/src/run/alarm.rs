//! The alarm: a manager that hangs ends itself, and is begun anew.
//!
//! The loop takes no interrupts but this one's: what the others mean it finds by looking. A turn of the loop is a bounded piece of work, so one
//! that has had [`LIMIT_NS`] of a processor's time will not end. Time in which the manager waited for a processor does not count.
//!
//! For tests it also ends the manager at a moment that has nothing to do with what it is doing.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use portico_abi::call::exit;
use portico_abi::port::{BIT_TIMER, DEADLINE_NEVER};
use portico_sdk::{hvc, irq, port, time, vcpu};

/// Most time on a processor for a turn of the loop, in nanoseconds.
const LIMIT_NS: u64 = 5_000_000_000;
/// Code with which a manager that hangs ends itself: `"HUNG"`.
pub const HUNG: u64 = 0x4748_5548;

/// [`busy_ns`] when the turn began.
static TURN: AtomicU64 = AtomicU64::new(0);
/// The counter's value at which the manager is to end.
static END: AtomicU64 = AtomicU64::new(DEADLINE_NEVER);

/// Begins to watch.
pub fn begin() {
    port::set_handler(BIT_TIMER, ring, 0);
    turn();
    irq::unmask();
}

/// A turn of the loop begins.
pub fn turn() {
    TURN.store(busy_ns(), Ordering::Relaxed);
    arm(time::deadline(Duration::from_nanos(LIMIT_NS)));
}

/// The loop is about to block: that may be for long.
pub fn rest() {
    arm(DEADLINE_NEVER);
}

/// Ends the manager after this time, whatever it does then.
pub fn end_after(time: Duration) {
    END.store(time::deadline(time), Ordering::Relaxed);
    turn();
}

fn arm(deadline: u64) {
    match deadline.min(END.load(Ordering::Relaxed)) {
        DEADLINE_NEVER => time::disarm(),
        deadline => time::arm(deadline),
    }
}

/// The timer's interrupt. Whoever it came upon may hold a lock, so nothing is done that could take one.
fn ring(_bit: u16, _argument: usize) {
    if time::passed(END.load(Ordering::Relaxed)) {
        hvc::self_exit(exit::PANIC, 0);
    }
    let spent = busy_ns().saturating_sub(TURN.load(Ordering::Relaxed));
    if spent >= LIMIT_NS {
        hvc::self_exit(exit::PANIC, HUNG);
    }
    arm(time::deadline(Duration::from_nanos(LIMIT_NS - spent)));
}

/// Time since the counter was 0 in which the manager neither waited for a processor nor blocked, in nanoseconds.
fn busy_ns() -> u64 {
    let (_, ready, blocked) = vcpu::current().page().map_or((0, 0, 0), |page| page.run_state());
    time::now_ns().saturating_sub(ready).saturating_sub(blocked)
}
