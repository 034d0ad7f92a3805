//! Lines of boot and lifecycle, to the UART. A healthy running guest logs nothing.
//!
//! A line is a list of [`Part`]s rather than a format string: the library's formatting is several times the code of all lines that EL2 has.
//! Once the manager owns the UART nothing but an error is written. Lock: its own, last in the order.

use crate::lock::Lock;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use portico_abi::record::EarlyText;
use portico_boards::Uart;

static UART: Lock<Option<Uart>> = Lock::new(None);
/// The same for a panic, whose lock nobody holds while it logs.
static LAST_UART: Lock<Option<Uart>> = Lock::new(None);
static QUIET: AtomicBool = AtomicBool::new(false);

/// A part of a line.
#[derive(Clone, Copy)]
pub enum Part<'a> {
    /// Text as it is.
    Text(&'a str),
    /// What a guest may have chosen, up to the first NUL, with dots for what is not a visible character.
    Name(&'a [u8; 16]),
    /// A number in decimal.
    Decimal(u64),
    /// A number in hexadecimal, with its `0x`.
    Hex(u64),
}

impl Part<'_> {
    /// Gives its bytes to `put`.
    pub fn write(self, put: &mut dyn FnMut(u8)) {
        match self {
            Self::Text(text) => text.bytes().for_each(put),
            Self::Name(name) => name.iter().take_while(|byte| **byte != 0).for_each(|byte| put(visible(*byte))),
            Self::Decimal(value) => number(value, 10, put),
            Self::Hex(value) => {
                put(b'0');
                put(b'x');
                number(value, 16, put);
            }
        }
    }
}

fn number(value: u64, base: u64, put: &mut dyn FnMut(u8)) {
    let mut unit: u64 = 1;
    while value / unit >= base {
        unit *= base;
    }
    while unit > 0 {
        put(b"0123456789abcdef"[(value / unit % base) as usize & 15]);
        unit /= base;
    }
}

const fn visible(byte: u8) -> u8 {
    if byte == b' ' || byte.is_ascii_graphic() { byte } else { b'.' }
}

/// Takes a UART for the lines from now on, if there is one; `quiet` lets only guests' lines and a panic's through.
pub fn init(uart: Option<Uart>, quiet: bool) {
    QUIET.store(quiet, Relaxed);
    *UART.lock() = uart;
    *LAST_UART.lock() = uart;
}

/// Writes a line.
pub fn line(parts: &[Part<'_>]) {
    if let (Some(uart), false) = (*UART.lock(), QUIET.load(Relaxed)) {
        raw(uart, parts);
    }
}

/// Writes a line with no regard to locks: for a panic, and before [`init`].
pub fn raw(uart: Uart, parts: &[Part<'_>]) {
    for part in [Part::Text("portico: ")].iter().chain(parts) {
        part.write(&mut |byte| uart.put(byte));
    }
    uart.put(b'\r');
    uart.put(b'\n');
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
    let put = &mut |byte| uart.put(byte);
    for byte in bytes {
        if !IN_LINE.swap(byte != b'\n', Relaxed) {
            Part::Text("[manager] ").write(put);
        }
        if byte == b'\n' {
            put(b'\r');
        }
        put(byte);
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
        let empty = EarlyText { size: 0, version: 0, name: [0; 16], len: 0, words: [0; 5] };
        Self { texts: [empty; WAITING], put: 0, taken: 0 }
    }

    /// Lets a text wait; says whether there is room.
    pub fn put(&mut self, name: &[u8; 16], len: usize, words: [u64; 5]) -> bool {
        let has_room = self.put.wrapping_sub(self.taken) < WAITING;
        if has_room {
            let text = &mut self.texts[self.put % WAITING];
            (text.name, text.len, text.words) = (*name, len as u64, words);
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
