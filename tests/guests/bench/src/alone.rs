//! What one guest with two vCPUs can measure: calls, timer, inter-processor interrupts.
//!
//! Alone, nobody else wants the processors: WFI is native. Shared, a computing guest waits on each processor.

use alloc::vec::Vec;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use portico_sdk::abi::{Call, psci};
use portico_sdk::port::Port;
use portico_sdk::{Handle, Status, dtb, hvc, port, smp, time};

use crate::cpu::{self, ANSWER, BIT, Cpu, QUESTION};
use crate::sample::{Figure, Samples};

/// Samples of a call.
const CALLS: usize = 1000;
/// Samples of an interrupt.
const INTERRUPTS: usize = 200;
/// How far ahead a timer is set while the guest computes.
const BUSY_TICKS: u64 = 200_000;
/// How far ahead a timer is set while the guest waits in WFI, and how long a vCPU waits before it is interrupted.
const WAIT_TICKS: u64 = 2_000_000;
/// The same beside computing guests, whose many YIELDs take QEMU long.
const SHARED_TICKS: u64 = 100_000;
/// The same for interrupts to a vCPU that spins.
const RUNNING_TICKS: u64 = 20_000;

/// What vCPU 1 does between interrupts.
static MODE: AtomicU64 = AtomicU64::new(0);
const SPIN: u64 = 1;
const WAIT: u64 = 2;
/// 1 when vCPU 1 is there, in the mode it was told.
static READY: AtomicU64 = AtomicU64::new(0);

/// Measures, alone or beside computing guests.
///
/// # Errors
/// Those of the calls.
pub fn measure(shared: bool) -> Result<Vec<Figure>, Status> {
    let (sender, receiver) = port::pair()?;
    let own = Port::bind_at(receiver, 0, BIT)?;
    // The manager has more to do for some time after it started this guest.
    time::sleep(core::time::Duration::from_millis(50));
    let here = cpu::take_over()?;
    let mut results = Vec::with_capacity(16);
    if shared {
        start_second()?;
        set_mode(WAIT);
        release_load()?;
        cpu::spin(SHARED_TICKS);
        results.push(timer(here, "timer_wfi_shared", SHARED_TICKS, true));
    } else {
        results.push(null_call());
        results.push(notify_pending(sender));
        results.push(stolen());
        results.push(timer(here, "timer_busy", BUSY_TICKS, false));
        results.push(timer(here, "timer_wfi_alone", WAIT_TICKS, true));
        start_second()?;
    }
    own.unbind()?;
    hvc::port_bind(receiver, 1, BIT)?;
    if shared {
        results.extend(ipi(sender, ["ipi_wfi_shared", "ipi_wfi_shared_oneway"], SHARED_TICKS)?);
    } else {
        set_mode(SPIN);
        results.extend(ipi(sender, ["ipi_running", "ipi_running_oneway"], RUNNING_TICKS)?);
        set_mode(WAIT);
        results.extend(ipi(sender, ["ipi_wfi_alone", "ipi_wfi_alone_oneway"], WAIT_TICKS)?);
    }
    cpu::give_back();
    Ok(results)
}

/// The whole of PSCI_VERSION, between two reads of the counter. Two instructions stand for the choice of conduit in the
/// guest that the other hypervisors were measured with.
fn null_call() -> Figure {
    let mut samples = Samples::new("null_call", CALLS, 8);
    for _ in 0..samples.wanted() {
        let (before, after): (u64, u64);
        // SAFETY: PSCI_VERSION changes x0 to x3 only.
        unsafe {
            asm!(
                "isb",
                "mrs {before}, cntvct_el0",
                "nop",
                "nop",
                "mov x0, {function}",
                "mov x1, xzr",
                "mov x2, xzr",
                "mov x3, xzr",
                "hvc #0",
                "isb",
                "mrs {after}, cntvct_el0",
                function = in(reg) u64::from(psci::PSCI_VERSION), before = out(reg) before, after = out(reg) after,
                out("x0") _, out("x1") _, out("x2") _, out("x3") _, options(nostack),
            );
        }
        samples.add(after - before);
    }
    samples.finish()
}

/// `port_notify` to a port whose pending byte is set and whose upcall is raised already.
fn notify_pending(sender: Handle) -> Figure {
    let mut samples = Samples::new("notify_pending", CALLS, 8);
    for _ in 0..samples.wanted() {
        let (before, after): (u64, u64);
        // SAFETY: `port_notify` changes x0 only; x1 to x3 may hold results of other calls.
        unsafe {
            asm!(
                "isb",
                "mrs {before}, cntvct_el0",
                "mov x0, {function}",
                "mov x1, {port}",
                "hvc #0",
                "isb",
                "mrs {after}, cntvct_el0",
                function = in(reg) u64::from(Call::PortNotify.function_id()), port = in(reg) u64::from(sender.raw()),
                before = out(reg) before, after = out(reg) after,
                out("x0") _, out("x1") _, out("x2") _, out("x3") _, options(nostack),
            );
        }
        samples.add(after - before);
    }
    // What is pending now is taken before the next row begins.
    cpu::let_in();
    samples.finish()
}

/// A million instructions of pure computing: the excess is time stolen.
fn stolen() -> Figure {
    const COUNT: u64 = 500_000;
    let mut samples = Samples::new("stolen_ppm", 50, 0);
    for _ in 0..samples.wanted() {
        let (before, after): (u64, u64);
        // SAFETY: counts a register down.
        unsafe {
            asm!(
                "isb",
                "mrs {before}, cntvct_el0",
                "1: subs {count}, {count}, #1",
                "b.ne 1b",
                "isb",
                "mrs {after}, cntvct_el0",
                count = inout(reg) COUNT => _, before = out(reg) before, after = out(reg) after, options(nostack),
            );
        }
        samples.add(after - before);
    }
    // From one read of the counter to the next there is also the first read and an ISB.
    samples.finish_excess_ppm(2 * COUNT + 2)
}

/// From the deadline of the virtual timer to the second instruction after the vector.
fn timer(here: &Cpu, name: &'static str, ahead: u64, waits: bool) -> Figure {
    let mut samples = Samples::new(name, INTERRUPTS, 4);
    for _ in 0..samples.wanted() {
        let taken = here.taken.load(Ordering::Relaxed);
        let deadline = time::now() + ahead;
        // SAFETY: arms the virtual timer, which nothing else uses meanwhile.
        unsafe {
            asm!("msr cntv_cval_el0, {}", "msr cntv_ctl_el0, {}", "isb", in(reg) deadline, in(reg) 1_u64, options(nostack))
        };
        if !waits {
            portico_sdk::irq::unmask();
        }
        while here.taken.load(Ordering::Relaxed) == taken {
            if waits {
                cpu::wait_native();
            }
        }
        portico_sdk::irq::mask();
        samples.add(here.entered.load(Ordering::Relaxed).wrapping_sub(deadline));
    }
    samples.finish()
}

/// From before the notification to when vCPU 0 sees in memory that the handler of vCPU 1 ran; and, for the second name, to the
/// vector of vCPU 1.
///
/// QEMU lets vCPU 0 go on only when the processor of vCPU 1 halts or yields. So the round trip holds what vCPU 1 does after
/// its handler too, to its next WFI, as it does in the figures of the other hypervisors.
fn ipi(sender: Handle, names: [&'static str; 2], gap: u64) -> Result<[Figure; 2], Status> {
    let there = cpu::of(1).ok_or(Status::Limit)?;
    let [mut samples, mut one_way] = names.map(|name| Samples::new(name, INTERRUPTS, 4));
    let function = u64::from(Call::PortNotify.function_id());
    for _ in 0..samples.wanted() {
        cpu::spin(gap);
        let question = QUESTION.load(Ordering::Relaxed) + 1;
        QUESTION.store(question, Ordering::Relaxed);
        let before = time::now();
        // SAFETY: `port_notify` changes x0 only. The barrier orders the question before it.
        unsafe {
            asm!(
                "dsb ishst",
                "hvc #0",
                inout("x0") function => _, inout("x1") u64::from(sender.raw()) => _, out("x2") _, out("x3") _, options(nostack),
            );
        }
        while ANSWER.load(Ordering::Relaxed) != question {
            cpu::relax();
        }
        samples.add(time::now() - before);
        one_way.add(there.entered.load(Ordering::Relaxed).wrapping_sub(before));
    }
    Ok([samples.finish(), one_way.finish()])
}

fn start_second() -> Result<(), Status> {
    smp::start(1, second, 0).map_err(|_| Status::BadState)?;
    while READY.load(Ordering::Acquire) == 0 {
        cpu::relax();
    }
    Ok(())
}

fn set_mode(mode: u64) {
    MODE.store(mode, Ordering::Release);
    cpu::spin(RUNNING_TICKS);
}

/// vCPU 1.
fn second(_: usize) {
    if cpu::take_over().is_err() {
        return;
    }
    READY.store(1, Ordering::Release);
    loop {
        match MODE.load(Ordering::Acquire) {
            SPIN => {
                portico_sdk::irq::unmask();
                while MODE.load(Ordering::Relaxed) == SPIN {
                    cpu::relax();
                }
                portico_sdk::irq::mask();
            }
            WAIT => {
                while MODE.load(Ordering::Relaxed) == WAIT {
                    cpu::wait_native();
                }
            }
            _ => cpu::relax(),
        }
    }
}

/// Tells the computing guests to begin.
fn release_load() -> Result<(), Status> {
    for channel in dtb::channels() {
        hvc::port_notify(channel.port)?;
    }
    Ok(())
}

/// Computes for ever once it is told to.
///
/// # Errors
/// Those of binding its port.
pub fn load() -> Result<Vec<Figure>, Status> {
    let channel = dtb::channels().next().ok_or(Status::NotFound)?;
    Port::bind(channel.port)?.wait(portico_sdk::abi::port::DEADLINE_NEVER)?;
    loop {
        // Few instructions between the YIELDs: they count in what is measured across processors.
        // SAFETY: counts a register down.
        unsafe { asm!("1: subs {0}, {0}, #1", "b.ne 1b", inout(reg) 8_u64 => _, options(nostack)) };
        cpu::relax();
    }
}
