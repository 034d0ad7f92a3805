//! Log lines of boot and lifecycle, to the UART. A healthy running guest logs nothing.
//!
//! Once the manager owns the UART nothing but an error is written. Before the logger is set up, [`raw`] serves. Lock: its own, last in the order.

use crate::lock::Lock;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use log::{Level, LevelFilter, Log, Metadata, Record};
use portico_boards::Uart;

static UART: Lock<Option<Uart>> = Lock::new(None);
/// The same for a panic, whose lock nobody holds while it logs.
static LAST_UART: Lock<Option<Uart>> = Lock::new(None);

struct Logger;

/// Writes to a UART, with carriage returns.
struct Sink(Uart);

impl Write for Sink {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.0.put(b'\r');
            }
            self.0.put(byte);
        }
        Ok(())
    }
}

/// Text in a line. The library's way to show a `str` knows widths and precision, which is a kilobyte that no line needs.
pub struct Text<'a>(pub &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Takes a UART and becomes the logger.
pub fn init(uart: Option<Uart>, max: LevelFilter) {
    *UART.lock() = uart;
    *LAST_UART.lock() = uart;
    // Fails only if a logger is set already, and there is one call.
    let _ = log::set_logger(&Logger);
    log::set_max_level(max);
}

/// Writes a line with no regard to locks and owners: for a panic, and before there is a logger.
pub fn raw(uart: Uart, line: fmt::Arguments<'_>) {
    // The sink does not fail.
    let _ = writeln!(Sink(uart), "portico: {line}");
}

/// The UART for a panic's last words. Waits a moment for another's line to end, then takes no notice of its lock.
pub fn for_panic() -> Option<Uart> {
    for _ in 0..100_000 {
        if UART.try_lock().is_some() {
            break;
        }
        portico_arch::cpu::relax();
    }
    *LAST_UART.lock()
}

/// Writes what a guest says by `early_write`, with its name at the start of each line. Control characters are shown as dots, so that no guest can
/// write into another's line.
pub fn guest_bytes(domain: u16, name: impl fmt::Display, bytes: &[u8]) {
    /// The domain whose line is open, plus one; 0 for none.
    static OPEN: AtomicU32 = AtomicU32::new(0);
    // Held to the end, so that what two guests say at once is not mixed within a call.
    let held = UART.lock();
    let Some(uart) = *held else { return };
    let mut sink = Sink(uart);
    let own = u32::from(domain) + 1;
    for &byte in bytes {
        let open = OPEN.load(Relaxed);
        if open != own {
            let _ = if open == 0 { Ok(()) } else { sink.write_str("\n") };
            let _ = write!(sink, "[{name}] ");
        }
        let shown = match byte {
            b'\n' => '\n',
            b'\t' | b' '..=b'~' => byte as char,
            _ => '.',
        };
        let _ = sink.write_char(shown);
        OPEN.store(if byte == b'\n' { 0 } else { own }, Relaxed);
    }
}

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if let (true, Some(uart)) = (self.enabled(record.metadata()), *UART.lock()) {
            let mark = match record.level() {
                Level::Error => "error: ",
                Level::Warn => "warning: ",
                _ => "",
            };
            let _ = writeln!(Sink(uart), "portico: {}{}", Text(mark), record.args());
        }
    }

    fn flush(&self) {}
}
