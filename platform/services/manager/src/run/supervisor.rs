//! The manager's state, and its loop.
//!
//! One thread, interrupts masked: each turn looks at everything that may have happened, does a bounded piece of each
//! thing that is under way, and blocks only when nothing is left to do. No guest can make a turn long: bytes read from
//! a console, pieces of destroying and scrubbing, and bytes copied are all bounded per turn.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::iter;
use portico_abi::port::{BIT_EVENT, DEADLINE_NEVER};
use portico_bundle::cpio::Archive;
use portico_manager::mux::{Action, Focus, Mux};
use portico_sdk::port::{self, Port};
use portico_sdk::{hvc, time};

use crate::channels::Channels;
use crate::devices::Devices;
use crate::guest::{Guest, State};
use crate::hv::{Calls, Machine};
use crate::report::TopSample;
use crate::terminal::Terminal;

/// Bytes read from one guest's console in a turn.
const CONSOLE_BYTES: usize = 1024;
/// How often a UART that takes nothing, or cannot interrupt, is looked at, in nanoseconds.
const POLL_NS: u64 = 1_000_000;

/// Options from the manager's command line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// `portico.exit_when_idle`: power off when every guest has ended.
    pub exit_when_idle: bool,
    /// `portico.quiet`: no banner, and no prompt before a key is pressed.
    pub quiet: bool,
    /// `portico.backoff_ms=N`: first and longest wait before a restart, instead of the usual ones.
    pub backoff_ms: Option<u64>,
}

/// The manager.
#[derive(Debug)]
pub struct Manager {
    /// Its right to the machine, and free memory.
    pub machine: Machine,
    /// The guests, in the order in which they start.
    pub guests: Vec<Guest>,
    /// Windows between them.
    pub channels: Channels,
    /// Devices of the machine, for services.
    pub devices: Devices,
    /// The terminal, shared.
    pub mux: Mux,
    /// The terminal itself.
    pub terminal: Terminal,
    /// The bundle.
    pub bundle: Archive<'static>,
    /// Options.
    pub options: Options,
    /// A `top` under way.
    pub top: Option<TopSample>,
    /// Set when the machine is to end: `system_off`'s operation.
    pub ending: Option<u64>,
    /// The guest whose console is read first in the next turn.
    first: usize,
    /// EL2 may have text of guests.
    has_early_texts: bool,
}

impl Manager {
    /// A manager of nothing yet.
    pub fn new(machine: Machine, terminal: Terminal, bundle: Archive<'static>, options: Options) -> Self {
        Self {
            machine,
            guests: Vec::new(),
            channels: Channels::default(),
            devices: Devices::default(),
            mux: Mux::new(!options.quiet),
            terminal,
            bundle,
            options,
            top: None,
            ending: None,
            first: 0,
            has_early_texts: false,
        }
    }

    /// Runs until the machine is to end.
    pub fn run(mut self) -> ! {
        let event = Port::fixed(0, BIT_EVENT);
        loop {
            let now = time::now_ns();
            let mut is_busy = self.service_keyboard(now);
            let is_told = event.take();
            self.has_early_texts |= is_told;
            self.read_early_texts(now);
            if is_told {
                self.look_for_ended(now);
            }
            is_busy |= self.service_consoles(now);
            is_busy |= self.step_guests(now);
            is_busy |= self.machine.memory.scrub_step(&mut Calls);
            self.service_timers(now);
            self.mux.tick(now);
            is_busy |= self.service_output();
            self.end_if_idle();
            if let Some(op) = self.ending {
                self.power(op);
            }
            if !is_busy {
                self.block();
            } else {
                // Notifications that came meanwhile keep their pending bytes; this clears the upcall's.
                port::scan();
            }
        }
    }

    /// Finds a guest by name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.guests.iter().position(|guest| guest.name() == name)
    }

    /// Prints what happened.
    pub fn event(&mut self, text: &str) {
        self.mux.event(text);
    }

    /// Reads everything that is left in a guest's console: it writes no more.
    pub fn drain_console(&mut self, id: usize, now: u64) {
        // The pipe holds 16 KiB, so this ends.
        for _ in 0..64 {
            if self.read_console(id, now) == 0 {
                break;
            }
        }
        if let Some(guest) = self.guests.get(id) {
            self.mux.guest_ended(guest.source);
        }
    }

    fn read_console(&mut self, id: usize, now: u64) -> usize {
        let mut buffer = [0u8; CONSOLE_BYTES];
        let Some(guest) = self.guests.get_mut(id) else { return 0 };
        let Some(console) = guest.console.as_mut() else { return 0 };
        let bytes = console.read(&mut buffer);
        self.mux.guest_output(guest.source, bytes, now);
        bytes.len()
    }

    /// Shows what guests wrote without their console: at their start, and in a panic. What there is no room for stays in EL2, which then
    /// takes no more.
    fn read_early_texts(&mut self, now: u64) {
        while self.has_early_texts && !self.mux.is_congested() {
            let Ok(text) = hvc::log_read(self.machine.system) else {
                self.has_early_texts = false;
                return;
            };
            let is_its =
                |guest: &&Guest| guest.name().bytes().chain(iter::repeat(0)).take(text.name.len()).eq(text.name);
            let Some(source) = self.guests.iter().find(is_its).map(|guest| guest.source) else { continue };
            let bytes: Vec<u8> =
                text.words.iter().flat_map(|word| word.to_le_bytes()).take(text.len as usize).collect();
            self.mux.guest_output(source, &bytes, now);
        }
    }

    /// Reads a piece from every guest that has something, a different one first each turn.
    fn service_consoles(&mut self, now: u64) -> bool {
        let count = self.guests.len();
        let mut is_busy = false;
        self.first = (self.first + 1) % count.max(1);
        for step in 0..count {
            if self.mux.is_congested() {
                break;
            }
            let id = (self.first + step) % count;
            let has_some = self.guests.get_mut(id).and_then(|guest| guest.console.as_mut()).is_some_and(|c| c.poll());
            if has_some {
                is_busy |= self.read_console(id, now) > 0;
            }
        }
        is_busy
    }

    fn service_keyboard(&mut self, now: u64) -> bool {
        let mut keys = Vec::new();
        let is_busy = self.terminal.read(|byte| keys.push(byte));
        for key in keys {
            match self.mux.key(key, now) {
                Action::None => {}
                Action::Command(line) => self.command(&line, now),
                Action::Complete => self.complete(now),
                Action::Input(source, byte) => self.type_to(source, byte),
            }
        }
        is_busy
    }

    fn type_to(&mut self, source: usize, byte: u8) {
        let guest = self.guests.iter_mut().find(|guest| guest.source == source);
        let taken = guest.and_then(|guest| guest.console.as_mut()).is_some_and(|console| console.write(byte));
        if !taken {
            self.mux.bell();
        }
    }

    fn complete(&mut self, now: u64) {
        let names: Vec<String> = self.guests.iter().map(|guest| String::from(guest.name())).collect();
        let commands = portico_manager::shell::names().map(|name| -> &str { name });
        let words = commands.chain(names.iter().map(String::as_str));
        self.mux.complete(words, now);
    }

    /// Gives the terminal what it takes. Returns whether it took something and more is left.
    fn service_output(&mut self) -> bool {
        let mut written = 0;
        loop {
            let pending = self.mux.pending_output();
            if pending.is_empty() {
                return false;
            }
            let taken = self.terminal.write(pending);
            self.mux.consume_output(taken);
            written += taken;
            if taken == 0 || written >= CONSOLE_BYTES {
                return written > 0;
            }
        }
    }

    fn service_timers(&mut self, now: u64) {
        for id in 0..self.guests.len() {
            self.check_watchdog(id, now);
        }
        if let Some(sample) = self.top.take_if(|sample| now >= sample.until_ns) {
            let text = self.top_table(&sample, now);
            self.mux.reply(&text);
        }
    }

    fn end_if_idle(&mut self) {
        let is_idle = !self.guests.iter().any(|guest| guest.service.is_none() && guest.is_alive());
        if self.options.exit_when_idle && is_idle && self.ending.is_none() {
            if !self.machine.memory_is_settled() {
                return;
            }
            let text = self.machine.balance();
            self.event(&format!("all guests have ended, powering off; {text}"));
            self.ending = Some(portico_abi::call::power::OFF);
        }
    }

    fn power(&mut self, op: u64) {
        self.mux.close();
        let limit = time::now_ns().saturating_add(2_000_000_000);
        while !self.mux.pending_output().is_empty() && time::now_ns() < limit {
            self.service_output();
        }
        self.terminal.flush();
        self.ending = None;
        self.options.exit_when_idle = false;
        let why = crate::power::end(self.machine.system, op);
        self.event(&format!("the machine cannot be ended: {}", why.describe()));
    }

    /// Blocks until something is pending, or until something is due.
    fn block(&mut self) {
        let now = time::now_ns();
        let watched = self.guests.iter().filter_map(Guest::watchdog_deadline);
        let due = self.guests.iter().filter_map(|guest| match guest.state {
            State::Due(at) => Some(at),
            _ => None,
        });
        let top = self.top.iter().map(|sample| sample.until_ns);
        let polled = !self.mux.pending_output().is_empty() || self.terminal.needs_polling();
        let poll = polled.then(|| now.saturating_add(POLL_NS));
        let next = watched.chain(due).chain(top).chain(poll).chain(self.mux.deadline()).min();
        let deadline = match next {
            None => DEADLINE_NEVER,
            Some(at) => {
                let scale = time::Scale::read();
                time::now().saturating_add(scale.ticks(at.saturating_sub(now)))
            }
        };
        let _ = port::wait(deadline);
    }

    /// The guest that has the keyboard, if one has.
    pub fn focused(&self) -> Option<usize> {
        match self.mux.focus() {
            Focus::Manager => None,
            Focus::Guest(source) => self.guests.iter().position(|guest| guest.source == source),
        }
    }
}
