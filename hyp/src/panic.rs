//! The end: an invariant of EL2 is broken.
//!
//! The first pCPU to get here writes the epitaph to a fixed symbol, stops the others, says why on the UART and dumps the
//! newest trace records. Nothing returns; no guest runs on. (Compare Hubris `fail.rs`.)

use crate::log::{self, Part};
use crate::percpu::{self, SGI_HALT};
use crate::trace;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use portico_arch::{cpu, gic};

/// Bytes of reason that are kept.
const REASON_BYTES: usize = 160;

/// `Epitaph::magic` once it is filled: "EPITAPH!" in memory order.
const MAGIC: u64 = u64::from_le_bytes(*b"EPITAPH!");

/// Trace records of each pCPU that are printed.
const TRACE_RECORDS: usize = 16;

/// What a debugger finds.
#[repr(C)]
pub struct Epitaph {
    magic: AtomicU64,
    pcpu: AtomicU64,
    /// Number of the exception vector, or all ones for a Rust panic.
    vector: AtomicU64,
    esr: AtomicU64,
    elr: AtomicU64,
    far: AtomicU64,
    sp: AtomicU64,
    reason_len: AtomicUsize,
    reason: [AtomicU8; REASON_BYTES],
}

/// Under a name that a debugger looks up in the image's symbols.
#[unsafe(no_mangle)]
static PORTICO_EPITAPH: Epitaph = Epitaph {
    magic: AtomicU64::new(0),
    pcpu: AtomicU64::new(0),
    vector: AtomicU64::new(0),
    esr: AtomicU64::new(0),
    elr: AtomicU64::new(0),
    far: AtomicU64::new(0),
    sp: AtomicU64::new(0),
    reason_len: AtomicUsize::new(0),
    reason: [const { AtomicU8::new(0) }; REASON_BYTES],
};

static PANICKED: AtomicBool = AtomicBool::new(false);

/// Adds a byte to the epitaph's reason until it is full.
fn note(byte: u8) {
    let at = PORTICO_EPITAPH.reason_len.load(Relaxed);
    if let Some(slot) = PORTICO_EPITAPH.reason.get(at) {
        slot.store(byte, Relaxed);
        PORTICO_EPITAPH.reason_len.store(at + 1, Relaxed);
    }
}

/// Says where, not what: the line shows which check failed, and the library's messages would bring its formatting with them.
#[panic_handler]
fn panicked(info: &PanicInfo<'_>) -> ! {
    let (file, line) = info.location().map_or(("", 0), |place| (place.file(), place.line()));
    die(
        u64::MAX,
        &[Part::Text("broken invariant at "), Part::Text(file), Part::Text(":"), Part::Decimal(u64::from(line))],
    )
}

/// An exception in EL2 itself, from the vectors.
#[unsafe(no_mangle)]
extern "C" fn portico_fatal(vector: u64, esr: u64, elr: u64, far: u64, sp: u64) -> ! {
    if !PANICKED.load(Relaxed) {
        PORTICO_EPITAPH.esr.store(esr, Relaxed);
        PORTICO_EPITAPH.elr.store(elr, Relaxed);
        PORTICO_EPITAPH.far.store(far, Relaxed);
        PORTICO_EPITAPH.sp.store(sp, Relaxed);
    }
    let what = match vector & 3 {
        0 => "exception",
        1 => "IRQ",
        2 => "FIQ",
        _ => "SError",
    };
    let [esr_is, elr_is, far_is, sp_is] = [" in EL2: esr ", " elr ", " far ", " sp "].map(Part::Text);
    let [esr, elr, far, sp] = [esr, elr, far, sp].map(Part::Hex);
    die(vector, &[Part::Text(what), esr_is, esr, elr_is, elr, far_is, far, sp_is, sp])
}

/// Stops this pCPU because another one asked.
pub fn halt_this() -> ! {
    cpu::halt()
}

fn die(vector: u64, reason: &[Part<'_>]) -> ! {
    // A second panic, here or elsewhere, has nothing to add.
    if PANICKED.swap(true, Relaxed) {
        halt_this();
    }
    let own = percpu::index();
    PORTICO_EPITAPH.pcpu.store(own as u64, Relaxed);
    PORTICO_EPITAPH.vector.store(vector, Relaxed);
    reason.iter().for_each(|part| part.write(&mut note));
    PORTICO_EPITAPH.magic.store(MAGIC, Relaxed);
    for other in (0..percpu::online()).filter(|&index| index != own) {
        gic::send_sgi(other, SGI_HALT);
    }
    if let Some(uart) = log::for_panic() {
        log::raw(uart, &[Part::Text("PANIC on pCPU "), Part::Decimal(own as u64)]);
        log::raw(uart, reason);
        for index in 0..percpu::online() {
            trace::newest(index, TRACE_RECORDS, |[first, second]| {
                let number = Part::Decimal(index as u64);
                let space = Part::Text(" ");
                log::raw(uart, &[Part::Text("trace "), number, space, Part::Hex(first), space, Part::Hex(second)]);
            });
        }
        log::raw(uart, &[Part::Text("stopped")]);
        uart.flush();
    }
    halt_this()
}
