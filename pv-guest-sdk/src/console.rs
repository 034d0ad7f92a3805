//! The console of the domain.
//!
//! Output goes to the console channel that the device tree names, or, where there is none or it is not up yet, to the
//! hypervisor's log (`early_write`). Printing never blocks for ever, whatever the console service does: if it does not make room for
//! [`LEAST`] bytes within [`PATIENCE`], or its index makes no sense again and again, the rest of that output is dropped and counted. The console
//! service may die and come back meanwhile: the rings and the port outlive it.

use crate::pipe::{Consumer, Pipe, Producer, Want};
use crate::port::Port;
use crate::sync::Lock;
use crate::window::Window;
use crate::{dtb, hvc, time};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use portico_abi::channel::{ChannelHeader, ChannelState, console as layout};
use portico_abi::{Handle, Status};

/// How long a print waits for room, all its pieces together.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes that begin this time anew when they were taken: no terminal is so slow, and a service that takes one byte at a time holds nobody up.
pub const LEAST: usize = 64;
/// How often in a print the service's index may make no sense. A service that changes it without end would else be followed without end.
const LIES: u32 = 4;
/// How long one wait for room is, before the next look.
const NAP: Duration = Duration::from_millis(5);
/// How often an early line is tried again when the hypervisor limits the rate.
const EARLY_TRIES: u32 = 20;

struct Channel {
    window: Window,
    out: Producer,
    input: Consumer,
    /// The console wants to hear of output.
    out_want: Want,
    /// We want to hear of room.
    space_want: Want,
    /// A line feed was written since the console was told, or needed not be.
    has_line: bool,
    handle: Handle,
    port: Option<Port>,
}

#[expect(clippy::large_enum_variant, reason = "there is one, which nobody moves")]
enum Console {
    Early,
    Channel(Channel),
}

static CONSOLE: Lock<Console> = Lock::new(Console::Early);
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Opens the console channel that the device tree names; without one the console stays the early one.
pub fn init() {
    let Some(node) = dtb::console() else { return };
    // SAFETY: the manager mapped the window for the life of the domain, and nothing else of the guest is there.
    let Some(window) = (unsafe { Window::new(node.window.base, node.window.len as usize) }) else { return };
    let Some(channel) = open(window, node.port) else { return };
    *CONSOLE.lock() = Console::Channel(channel);
}

fn open(window: Window, handle: Handle) -> Option<Channel> {
    let magic = window.word(core::mem::offset_of!(ChannelHeader, magic))?;
    if magic.load(Ordering::Acquire) != ChannelHeader::MAGIC {
        return None;
    }
    let out = Producer::new(Pipe::console_out(window)?);
    let input = Consumer::new(Pipe::console_in(window)?);
    let epoch = window.word(core::mem::offset_of!(ChannelHeader, epoch1))?;
    epoch.store(epoch.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    let state = window.word(core::mem::offset_of!(ChannelHeader, state1))?;
    state.store(ChannelState::Connected as u32, Ordering::Release);
    Some(Channel {
        window,
        out,
        input,
        out_want: Want::new(window, layout::OUT_WANT),
        space_want: Want::new(window, layout::OUT_SPACE_WANT),
        has_line: false,
        handle,
        port: Port::bind(handle).ok(),
    })
}

/// Goes back to the early console: a new machine.
#[cfg(not(target_os = "none"))]
pub(crate) fn reset() {
    *CONSOLE.lock() = Console::Early;
}

/// Prints. Use [`print!`](crate::print).
pub fn print(text: fmt::Arguments<'_>) {
    let mut console = CONSOLE.lock();
    let _ = Writer::new(&mut console).write_fmt(text);
    console.tell();
}

/// Prints a line. Use [`println!`](crate::println).
pub fn print_line(text: fmt::Arguments<'_>) {
    let mut console = CONSOLE.lock();
    let mut writer = Writer::new(&mut console);
    let _ = writer.write_fmt(text);
    let _ = writer.write_char('\n');
    console.tell();
}

/// Writes bytes as they are.
pub fn write(bytes: &[u8]) {
    let mut console = CONSOLE.lock();
    console.write(bytes, &mut Patience::default());
    console.tell();
}

/// Writes as many bytes as there is room for, without waiting; returns how many. If that is not all the console's port will announce room.
/// Without a console channel everything is written, as early output.
pub fn write_some(bytes: &[u8]) -> usize {
    let mut console = CONSOLE.lock();
    let count = match &mut *console {
        Console::Early => {
            early(bytes);
            bytes.len()
        }
        Console::Channel(channel) => channel.write_some(bytes),
    };
    console.tell();
    count
}

#[cfg_attr(not(target_os = "none"), expect(dead_code, reason = "for panics on the target"))]
/// Prints even if this vCPU holds the console already: for panics.
pub(crate) fn print_urgently(text: fmt::Arguments<'_>) {
    match CONSOLE.try_lock() {
        Some(mut console) => {
            let _ = Writer::new(&mut console).write_fmt(text);
            console.tell();
        }
        None => {
            let _ = Writer::new(&mut Console::Early).write_fmt(text);
        }
    }
}

/// Reads what was typed, without waiting; returns how many bytes.
pub fn read(to: &mut [u8]) -> usize {
    let mut console = CONSOLE.lock();
    let Console::Channel(channel) = &mut *console else { return 0 };
    channel.input.read(to).unwrap_or_else(|_| {
        channel.input.resynchronize();
        0
    })
}

/// Reads what was typed, at least one byte.
///
/// # Errors
/// `TimedOut` at `deadline`; `NotFound` without a console channel.
pub fn read_wait(to: &mut [u8], deadline: u64) -> Result<usize, Status> {
    let port = port().ok_or(Status::NotFound)?;
    loop {
        let count = read(to);
        if count > 0 || to.is_empty() {
            return Ok(count);
        }
        port.wait(deadline)?;
    }
}

/// The console's port: notified when something was typed or room came free.
pub fn port() -> Option<Port> {
    match &*CONSOLE.lock() {
        Console::Channel(channel) => channel.port,
        Console::Early => None,
    }
}

/// Bytes that were not printed because nobody made room.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// How many break conditions of the terminal's line came while the guest had the keyboard. The console's port announces them.
pub fn breaks() -> u32 {
    load(layout::BREAKS)
}

/// Counts the lives of the console service. A new one goes on with the next byte: a guest has nothing to do then.
pub fn epoch() -> u32 {
    load(core::mem::offset_of!(ChannelHeader, epoch0))
}

fn load(at: usize) -> u32 {
    match &*CONSOLE.lock() {
        Console::Channel(channel) => channel.window.word(at).map_or(0, |word| word.load(Ordering::Acquire)),
        Console::Early => 0,
    }
}

/// Tells the console that there is output, whether it asked or not.
pub fn flush() {
    if let Some(console) = CONSOLE.try_lock()
        && let Console::Channel(channel) = &*console
    {
        let _ = hvc::port_notify(channel.handle);
    }
}

impl Console {
    fn write(&mut self, bytes: &[u8], patience: &mut Patience) {
        match self {
            Console::Early => early(bytes),
            Console::Channel(channel) => channel.write(bytes, patience),
        }
    }

    /// Notifies the console if it wants that.
    fn tell(&mut self) {
        if let Console::Channel(channel) = self
            && channel.is_to_be_told()
        {
            let _ = hvc::port_notify(channel.handle);
        }
    }
}

impl Channel {
    fn write(&mut self, mut bytes: &[u8], patience: &mut Patience) {
        while !bytes.is_empty() {
            match self.out.write(bytes) {
                Err(_) if patience.bears_a_lie() => self.out.resynchronize(),
                Ok(0) if patience.lasts() => self.wait_for_room(),
                Err(_) | Ok(0) => {
                    DROPPED.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    return;
                }
                Ok(count) => {
                    self.note_line(bytes, count);
                    bytes = bytes.get(count..).unwrap_or(&[]);
                    patience.moved(count);
                }
            }
        }
    }

    /// Sees whether the first `count` of `bytes` have a line feed; most often it is the last one.
    fn note_line(&mut self, bytes: &[u8], count: usize) {
        let bytes = bytes.get(..count).unwrap_or(bytes);
        self.has_line = self.has_line || bytes.last() == Some(&b'\n') || bytes.contains(&b'\n');
    }

    /// Whether the console wants to hear of what was written.
    fn is_to_be_told(&mut self) -> bool {
        let has_line = core::mem::take(&mut self.has_line);
        match self.out_want.value() {
            0 => false,
            layout::WANT_LINES => has_line || self.out.room().is_ok_and(|room| (room as usize) < layout::OUT_BYTES / 2),
            _ => true,
        }
    }

    /// Process, arm, re-check: see [`Want`]. What the want was before is forgotten.
    fn write_some(&mut self, bytes: &[u8]) -> usize {
        self.space_want.clear();
        let mut written = self.put(bytes);
        if written < bytes.len() {
            self.space_want.set();
            // Room that came before the console could see that we want to hear of it.
            written += self.put(bytes.get(written..).unwrap_or(&[]));
        }
        written
    }

    /// Puts what there is room for into the ring, round its end.
    fn put(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        let mut patience = Patience::default();
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match self.out.write(rest) {
                Err(_) if patience.bears_a_lie() => self.out.resynchronize(),
                Err(_) | Ok(0) => break,
                Ok(count) => {
                    self.note_line(rest, count);
                    written += count;
                }
            }
        }
        written
    }

    /// Process, arm, re-check: see [`Want`]. Called with interrupts masked, and must not run handlers: they may print.
    fn wait_for_room(&mut self) {
        let _ = hvc::port_notify(self.handle);
        self.space_want.set();
        if self.out.room() == Ok(0) && hvc::vcpu_block(time::deadline(NAP)).is_ok() {
            // Something is pending that only the caller's unmasking can clear: block does not wait.
            hvc::vcpu_yield();
        }
        self.space_want.clear();
    }
}

/// Writes to the hypervisor's log, by what fits into registers.
fn early(bytes: &[u8]) {
    for chunk in bytes.chunks(40) {
        for _ in 0..EARLY_TRIES {
            match hvc::early_write(chunk) {
                Err(Status::RateLimited) => {
                    let _ = hvc::vcpu_block(time::deadline(Duration::from_millis(1)));
                }
                _ => break,
            }
        }
    }
}

/// What a print bears from the console service.
#[derive(Default)]
struct Patience {
    /// When it ends, a value of CNTVCT_EL0: since it waits.
    limit: Option<u64>,
    /// Bytes written since.
    written: usize,
    lies: u32,
}

impl Patience {
    /// Whether it may wait once more.
    fn lasts(&mut self) -> bool {
        !time::passed(*self.limit.get_or_insert_with(|| time::deadline(PATIENCE)))
    }

    /// Bytes were written.
    fn moved(&mut self, count: usize) {
        self.written = self.written.saturating_add(count);
        if self.written >= LEAST {
            (self.limit, self.written) = (None, 0);
        }
    }

    /// Whether it goes on where the service's index is, which makes no sense.
    fn bears_a_lie(&mut self) -> bool {
        self.lies += 1;
        self.lies <= LIES
    }
}

/// Writes the pieces of a print.
struct Writer<'a> {
    console: &'a mut Console,
    patience: Patience,
}

impl<'a> Writer<'a> {
    fn new(console: &'a mut Console) -> Writer<'a> {
        Writer { console, patience: Patience::default() }
    }
}

impl Write for Writer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.console.write(text.as_bytes(), &mut self.patience);
        Ok(())
    }
}
