//! Log lines of boot and lifecycle, to the UART. A healthy running guest logs nothing.
//!
//! Once the manager owns the UART nothing but an error is written. Before the logger is set up, [`raw`] serves. Lock: its own, last in the order.

use crate::lock::Lock;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use log::{Level, LevelFilter, Log, Metadata, Record};
use portico_abi::record::EarlyText;
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

/// Writes what the first domain says by `early_write`, with its name at the start of each line.
pub fn first_domain(bytes: impl Iterator<Item = u8>) {
    static IN_LINE: AtomicBool = AtomicBool::new(false);
    let Some(uart) = *UART.lock() else { return };
    for byte in bytes {
        if !IN_LINE.swap(byte != b'\n', Relaxed) {
            let _ = Sink(uart).write_str("[manager] ");
        }
        let _ = Sink(uart).write_char(byte as char);
    }
}

/// What other domains said by `early_write`, until the manager takes it. The UART is the manager's: written from here it would stand in the middle of a
/// line, and the caller would wait for it in EL2.
pub struct EarlyTexts {
    texts: [EarlyText; WAITING],
    /// Both count on; the difference is what waits.
    put: usize,
    taken: usize,
}

/// Texts that wait at most.
const WAITING: usize = 64;

impl EarlyTexts {
    /// Nothing waits.
    pub const fn new() -> Self {
        let empty = EarlyText { size: size_of::<EarlyText>() as u32, version: 1, name: [0; 16], len: 0, words: [0; 5] };
        Self { texts: [empty; WAITING], put: 0, taken: 0 }
    }

    /// Lets a text wait; says whether there is room.
    pub fn put(&mut self, name: &[u8; 16], len: usize, words: [u64; 5]) -> bool {
        let has_room = self.put.wrapping_sub(self.taken) < WAITING;
        if has_room {
            let text = &mut self.texts[self.put % WAITING];
            text.name.copy_from_slice(name);
            (text.len, text.words) = (len as u64, words);
            self.put = self.put.wrapping_add(1);
        }
        has_room
    }

    /// Takes the oldest text.
    pub fn take(&mut self) -> Option<EarlyText> {
        let at = self.taken;
        (at != self.put).then(|| {
            self.taken = at.wrapping_add(1);
            self.texts[at % WAITING]
        })
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
