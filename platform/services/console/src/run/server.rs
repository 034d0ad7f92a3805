//! The main loop: one thread, nothing is ever waited for but notifications.

use alloc::vec::Vec;
use core::mem::offset_of;
use core::sync::atomic::Ordering;

use portico_abi::channel::{ChannelHeader, ChannelState, console};
use portico_abi::handle::SELF_DOMAIN;
use portico_abi::{Handle, ObjectType};
use portico_console::desk::Desk;
use portico_console::layout;
use portico_console::mux::Mux;
use portico_sdk::port::{self, Port};
use portico_sdk::window::Window;
use portico_sdk::{dtb, hvc, irq, println, time};
use portico_service::control::Control;

use crate::receive::Received;
use crate::registers::Slot;
use crate::terminal::Terminal;

/// Exit code of a service that was not started as one.
const NO_SERVICE: u64 = 1;
/// Bytes given to the UART, and keys taken from it, in a turn.
const PER_TURN: usize = 1024;
const KEYS_PER_TURN: usize = 64;
/// How often a UART that takes nothing, or cannot interrupt, is looked at, in nanoseconds.
const POLL_NS: u64 = 1_000_000;

struct Server {
    control: Control,
    terminal: Terminal,
    mux: Mux,
    /// Ports of the guests' consoles. All share a bit.
    ports: Vec<Option<Handle>>,
    port: Port,
}

/// Serves, and does not end.
pub fn serve() -> u64 {
    // The loop polls; no handler is ever run.
    irq::mask();
    let Some(server) = Server::open() else {
        println!("the console service is started by the manager, and needs a UART that it knows");
        return NO_SERVICE;
    };
    server.run()
}

/// The windows of a guest, which the manager has mapped before the guest is in the table.
fn open(source: usize) -> Option<(Window, Window)> {
    // SAFETY: the manager lends the windows for the life of the domain, and nothing else is there.
    let window = unsafe { Window::new(layout::console_ipa(source), console::WINDOW_BYTES) }?;
    // SAFETY: as above.
    let history = unsafe { Window::new(layout::history_ipa(source), layout::HISTORY_BYTES) }?;
    // A new life of the console: for guests that want to know.
    let epoch = window.word(offset_of!(ChannelHeader, epoch0))?;
    epoch.store(epoch.load(Ordering::Relaxed).wrapping_add(1).max(1), Ordering::Release);
    window.word(offset_of!(ChannelHeader, state0))?.store(ChannelState::Connected as u32, Ordering::Release);
    Some((window, history))
}

impl Server {
    fn open() -> Option<Server> {
        let control = Control::open()?;
        let terminal = Terminal::open()?;
        // SAFETY: the manager lends both for the life of the domain, and nothing else is there.
        let desk = unsafe { Window::new(layout::DESK_IPA, layout::DESK_BYTES) }?;
        // SAFETY: as above.
        let letters = unsafe { Window::new(layout::BOX_IPA, layout::BOX_BYTES) }?;
        let is_quiet = dtb::bootarg("portico.quiet").is_some();
        let mux = Mux::new(Desk::new(desk, letters)?, is_quiet, open);
        let port = Port::fixed(portico_sdk::vcpu::index(), port::take_bit().ok()?);
        let mut server = Server { control, terminal, mux, ports: Vec::new(), port };
        server.find_ports();
        server.control.ready();
        Some(server)
    }

    fn run(mut self) -> ! {
        loop {
            self.control.beat();
            if self.control.has_changed() {
                self.mux.look(open);
                self.find_ports();
            }
            let now_ns = time::now_ns();
            let is_busy = self.turn(now_ns);
            let again = self.mux.rest(now_ns);
            // What comes from now on notifies.
            let is_waiting = self.mux.has_output() || self.mux.has_input();
            if !(is_busy && (is_waiting || self.terminal.is_ready())) {
                self.sleep(now_ns, again, is_waiting);
            }
        }
    }

    /// Looks at everything once. Returns whether anything was done.
    fn turn(&mut self, now_ns: u64) -> bool {
        // Before the rings are looked at: whatever comes then wakes again.
        self.port.take();
        let mut is_busy = self.take_keys(now_ns);
        is_busy |= self.mux.turn(now_ns);
        if self.send() {
            is_busy = true;
            if self.mux.is_prompt_wanted() && !self.mux.has_output() {
                // Below what has just left.
                self.mux.tick(now_ns);
                self.send();
            }
        }
        if self.mux.is_closing() {
            self.terminal.flush();
            self.mux.closed();
        }
        while let Some(source) = self.mux.take_notice() {
            if let Some(port) = self.ports.get(source).copied().flatten() {
                let _ = hvc::port_notify(port);
            }
        }
        if self.mux.take_letter_sent() {
            self.control.notify();
        }
        is_busy
    }

    /// Gives the UART what it takes. Returns whether that was anything.
    fn send(&mut self) -> bool {
        let sender = self.terminal.sender();
        let room = || sender.room();
        // Which it is, is asked once and not for each byte.
        let sent = match sender.slot() {
            Slot::Wide(data) => self.mux.send(PER_TURN, room, |byte| data.write(byte)),
            Slot::Narrow(data) => self.mux.send(PER_TURN, room, |byte| data.write(byte)),
        };
        sent > 0
    }

    fn take_keys(&mut self, now_ns: u64) -> bool {
        if !self.terminal.has_input() {
            return false;
        }
        for count in 0..KEYS_PER_TURN {
            if !self.mux.takes_keys() {
                return count > 0;
            }
            match self.terminal.get() {
                Received::Byte(byte) => self.mux.key(byte, now_ns),
                Received::Break => self.mux.line_break(),
                Received::Nothing => return count > 0,
            }
        }
        true
    }

    /// Finds the port of each guest's console by its cookie: every life of a guest has another.
    fn find_ports(&mut self) {
        let mut found: Vec<Option<Handle>> = Vec::new();
        let mut cursor = 0;
        while let Ok((handle, next)) = hvc::handle_next(SELF_DOMAIN, cursor) {
            cursor = next;
            let Ok(info) = hvc::handle_info(handle) else { continue };
            let source = layout::source_of(info.cookie).filter(|_| info.object == Some(ObjectType::Port));
            let Some(source) = source.filter(|_| info.state == 0) else { continue };
            if found.len() <= source {
                found.resize(source + 1, None);
            }
            if self.ports.get(source).copied().flatten() != Some(handle) {
                let _ = Port::bind_at(handle, portico_sdk::vcpu::index(), self.port.bit());
            }
            if let Some(slot) = found.get_mut(source) {
                *slot = Some(handle);
            }
        }
        self.ports = found;
    }

    /// Blocks until something happens, or it is time for guests that are to be looked at `again`, or for what `is_waiting`.
    fn sleep(&mut self, now_ns: u64, again: Option<u64>, is_waiting: bool) {
        let is_polled = self.terminal.needs_polling() || is_waiting;
        let poll = is_polled.then(|| now_ns.saturating_add(POLL_NS));
        let due = poll.into_iter().chain(again).chain(self.mux.deadline()).min().map(|at| {
            let ticks = time::Scale::read().ticks(at.saturating_sub(now_ns));
            time::now().saturating_add(ticks)
        });
        let deadline = self.control.deadline();
        let _ = port::wait(due.map_or(deadline, |due| due.min(deadline)));
    }
}
