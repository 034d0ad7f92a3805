//! Two domains that notify each other in turn: the round trip of a request and its answer, without work.

use alloc::vec::Vec;
use core::arch::asm;
use core::sync::atomic::Ordering;
use portico_sdk::abi::Call;
use portico_sdk::abi::port::DEADLINE_NEVER;
use portico_sdk::{Handle, Status, dtb, hvc, time};

use crate::cpu::{self, BIT, Cpu};
use crate::sample::{Figure, Samples};

/// Round trips.
const ROUNDS: usize = 500;

/// How a side waits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// `port_notify`, then WFI.
    Native,
    /// `port_notify_wait`: both in one call.
    Call,
}

/// Begins each round, and measures: from before its notification to when it has handled the answer's interrupt.
///
/// # Errors
/// Those of the calls.
pub fn ping(wait: Wait) -> Result<Vec<Figure>, Status> {
    let (here, port) = open()?;
    let name = if wait == Wait::Native { "pingpong" } else { "pingpong_1p" };
    let mut samples = Samples::new(name, ROUNDS, 16);
    for _ in 0..samples.wanted() {
        let seen = here.seen.load(Ordering::Relaxed);
        let before = time::now();
        say(wait, port);
        listen(wait, here, seen);
        samples.add(time::now() - before);
    }
    cpu::give_back();
    Ok(Vec::from([samples.finish()]))
}

/// Answers each round.
///
/// # Errors
/// Those of the calls.
pub fn pong(wait: Wait) -> Result<Vec<Figure>, Status> {
    let (here, port) = open()?;
    listen(wait, here, 0);
    loop {
        let seen = here.seen.load(Ordering::Relaxed);
        say(wait, port);
        listen(wait, here, seen);
    }
}

fn open() -> Result<(&'static Cpu, Handle), Status> {
    let channel = dtb::channels().next().ok_or(Status::NotFound)?;
    // The manager has more to do for some time after it started this guest.
    time::sleep(core::time::Duration::from_millis(50));
    let here = cpu::take_over()?;
    hvc::port_bind(channel.port, 0, BIT)?;
    Ok((here, channel.port))
}

/// Notifies the other side; in one call with the waiting if that is asked for.
#[inline(always)]
fn say(wait: Wait, port: Handle) {
    let function = if wait == Wait::Native { Call::PortNotify } else { Call::PortNotifyWait }.function_id();
    // SAFETY: the calls change x0 only.
    unsafe {
        asm!(
            "hvc #0",
            inout("x0") u64::from(function) => _, inout("x1") u64::from(port.raw()) => _, inout("x2") DEADLINE_NEVER => _,
            out("x3") _, options(nostack),
        );
    }
    if wait == Wait::Call {
        cpu::let_in();
    }
}

/// Waits until more notifications than `seen` were handled.
#[inline(always)]
fn listen(wait: Wait, here: &Cpu, seen: u64) {
    while here.seen.load(Ordering::Relaxed) == seen {
        if wait == Wait::Native {
            cpu::wait_native();
        } else {
            let _ = hvc::vcpu_block(DEADLINE_NEVER);
            cpu::let_in();
        }
    }
}
