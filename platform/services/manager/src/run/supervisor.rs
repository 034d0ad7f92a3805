//! The manager's state, and its loop.
//!
//! One thread, and no interrupt but the [`alarm`](crate::alarm)'s does anything: each turn looks at everything that may have happened, does a bounded piece of each
//! thing that is under way, and blocks only when nothing is left to do. No guest can make a turn long: pieces of destroying and
//! scrubbing, and bytes copied are all bounded per turn.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::iter;
use portico_abi::port::{BIT_EVENT, DEADLINE_NEVER};
use portico_bundle::cpio::Archive;
use portico_bundle::description::ServiceKind;
use portico_console::message::Kind;
use portico_sdk::port::{self, Port};
use portico_sdk::{hvc, irq, time};

use crate::alarm;
use crate::balloon::Kept;
use crate::channels::Channels;
use crate::clock::Clock;
use crate::console::Console;
use crate::control::Control;
use crate::desk::{Desk, Heard};
use crate::devices::Devices;
use crate::guest::{Guest, State};
use crate::hv::{Calls, Machine};
use crate::keeper::Keeper;
use crate::report::TopSample;

/// How often a console service that takes nothing is looked at, in nanoseconds.
const POLL_NS: u64 = 1_000_000;
/// How long the console service may take to print the last lines, in nanoseconds.
const CLOSE_NS: u64 = 2_000_000_000;

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
    /// The console service.
    pub desk: Desk,
    /// The bundle.
    pub bundle: Archive<'static>,
    /// Options.
    pub options: Options,
    /// A `top` under way.
    pub top: Option<TopSample>,
    /// Set when the machine is to end: `system_off`'s operation.
    pub ending: Option<u64>,
    /// Set when it is to end as soon as the guests have: the operation, and until when they have time, in nanoseconds.
    pub leaving: Option<(u64, u64)>,
    /// The time of day.
    pub clock: Clock,
    /// What is kept for the manager's next life.
    pub keeper: Option<Keeper>,
    /// EL2 may have text of guests.
    has_early_texts: bool,
    /// Until when the console service may print the last lines, once the machine is to end.
    closing: Option<u64>,
}

impl Manager {
    /// A manager of nothing yet.
    pub fn new(machine: Machine, bundle: Archive<'static>, options: Options) -> Self {
        Self {
            machine,
            guests: Vec::new(),
            channels: Channels::default(),
            devices: Devices::default(),
            desk: Desk::default(),
            bundle,
            options,
            top: None,
            ending: None,
            leaving: None,
            clock: Clock::default(),
            keeper: None,
            has_early_texts: false,
            closing: None,
        }
    }

    /// Runs until the machine is to end.
    pub fn run(mut self) -> ! {
        let event = Port::fixed(0, BIT_EVENT);
        alarm::begin();
        loop {
            alarm::turn();
            self.machine.make_room(0);
            let now = time::now_ns();
            self.hear(now);
            let is_told = event.take();
            self.has_early_texts |= is_told;
            self.read_early_texts();
            if is_told {
                self.look_for_ended(now);
            }
            let mut is_busy = self.step_guests(now);
            self.step_balloons(now);
            is_busy |= self.machine.memory.scrub_step(&mut Calls);
            self.service_timers(now);
            self.end_if_idle();
            if let Some(op) = self.ending {
                self.end_machine(op, now);
            }
            if self.desk.pump()
                && let Some(control) = self.console_control()
            {
                control.notify();
            }
            if !is_busy {
                self.block();
            }
        }
    }

    /// Finds a guest by name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.guests.iter().position(|guest| guest.name() == name)
    }

    /// Prints what happened.
    pub fn event(&mut self, text: &str) {
        self.desk.event(text);
    }

    /// Tells the console service that a guest writes no more.
    pub fn end_console(&mut self, id: usize) {
        let Some(written) = self.guests.get(id).and_then(|guest| guest.console.as_ref()).map(Console::written) else {
            return;
        };
        self.desk.say(Kind::Ended, id, &written.to_le_bytes());
    }

    /// The console service, if it is known here.
    pub fn console_service(&self) -> Option<&Guest> {
        self.guests.iter().find(|guest| guest.service == Some(ServiceKind::Console))
    }

    fn console_control(&self) -> Option<&Control> {
        self.console_service().and_then(|guest| guest.control.as_ref())
    }

    /// Does what a person asks for.
    fn hear(&mut self, now: u64) {
        // Forgotten before its windows are looked at.
        let _ = self.console_control().map(Control::take);
        for heard in self.desk.hear() {
            match heard {
                Heard::Line(line) => {
                    self.command(&line, now);
                    self.desk.say(Kind::Done, 0, &[]);
                }
                Heard::Complete => self.complete(),
                Heard::Closed => self.closing = self.closing.map(|_| 0),
            }
        }
    }

    /// Shows what guests wrote without their console: at their start, and in a panic. What there is no room for stays in EL2, which then
    /// takes no more.
    fn read_early_texts(&mut self) {
        while self.has_early_texts && !self.desk.has_waiting() {
            let Ok(text) = hvc::log_read(self.machine.system) else {
                self.has_early_texts = false;
                return;
            };
            let is_its =
                |guest: &Guest| guest.name().bytes().chain(iter::repeat(0)).take(text.name.len()).eq(text.name);
            let Some(id) = self.guests.iter().position(is_its) else { continue };
            let bytes: Vec<u8> =
                text.words.iter().flat_map(|word| word.to_le_bytes()).take(text.len as usize).collect();
            if self.guests.get(id).is_some_and(|guest| guest.console.is_some()) {
                self.desk.say(Kind::Output, id, &bytes);
            } else {
                let line = String::from_utf8_lossy(&bytes);
                self.event(&format!(
                    "guest \"{}\" says: {}",
                    self.guests.get(id).map_or("", Guest::name),
                    line.trim_end()
                ));
            }
        }
    }

    fn complete(&mut self) {
        let names: Vec<String> = self.guests.iter().map(|guest| String::from(guest.name())).collect();
        let commands = portico_manager::shell::names().map(|name| -> &str { name });
        for word in commands.chain(names.iter().map(String::as_str)) {
            self.desk.say(Kind::Word, 0, word.as_bytes());
        }
        self.desk.say(Kind::WordsEnd, 0, &[]);
    }

    fn service_timers(&mut self, now: u64) {
        for id in 0..self.guests.len() {
            self.check_watchdog(id, now);
        }
        self.check_asked(now);
        if let Some(sample) = self.top.take_if(|sample| now >= sample.until_ns) {
            let text = self.top_table(&sample, now);
            self.desk.reply(&text);
        }
    }

    fn end_if_idle(&mut self) {
        let is_idle = !self.guests.iter().any(|guest| guest.service.is_none() && guest.is_alive());
        if self.options.exit_when_idle && is_idle && self.ending.is_none() {
            if !self.machine.memory_is_settled() {
                return;
            }
            let text = self.machine.balance(self.held_pages());
            self.event(&format!("all guests have ended, powering off; {text}"));
            self.ending = Some(portico_abi::call::power::OFF);
        }
    }

    /// Ends the machine as soon as the last lines are printed, or have had their time.
    fn end_machine(&mut self, op: u64, now: u64) {
        let Some(limit) = self.closing else {
            self.desk.say(Kind::Close, 0, &[]);
            self.closing = Some(if self.desk.is_open() { now.saturating_add(CLOSE_NS) } else { now });
            return;
        };
        if now < limit {
            return;
        }
        self.ending = None;
        self.closing = None;
        self.options.exit_when_idle = false;
        let why = crate::power::end(self.machine.system, op);
        self.event(&format!("the machine cannot be ended: {}", why.describe()));
    }

    /// Pages that are the services' own, the manager's heap, or kept for consoles.
    fn held_pages(&self) -> u64 {
        let ram: u64 = self.guests.iter().map(Guest::ram_pages).sum();
        let kept = self.guests.iter().filter(|guest| guest.kept.is_some()).count() as u64 * Kept::PAGES;
        let consoles = self.guests.iter().filter(|guest| guest.console.is_some()).count() as u64 * Console::ALL_PAGES;
        let controls = self.guests.iter().filter(|guest| guest.control.is_some()).count() as u64;
        let windows = self.desk.pages() + self.channels.held_pages() + self.devices.held_pages();
        ram + kept + consoles + controls + windows + self.machine.heap.pages()
    }

    /// Blocks until something is pending, or until something is due.
    fn block(&mut self) {
        // What a timer has just begun: nothing else might ever wake the manager for it.
        if self.guests.iter().any(|guest| matches!(guest.state, State::Destroying(_) | State::Loading(_))) {
            return;
        }
        let now = time::now_ns();
        let watched = self.guests.iter().filter_map(Guest::watchdog_deadline);
        let due = self.guests.iter().filter_map(|guest| match guest.state {
            State::Due(at) => Some(at),
            _ => None,
        });
        let top = self.top.iter().map(|sample| sample.until_ns);
        let poll = self.desk.has_waiting().then(|| now.saturating_add(POLL_NS));
        let balloons = self.guests.iter().filter_map(|guest| guest.balloon()?.deadline());
        let next = watched
            .chain(due)
            .chain(balloons)
            .chain(top)
            .chain(poll)
            .chain(self.closing)
            .chain(self.asked_deadline(now))
            .min();
        let deadline = match next {
            None => DEADLINE_NEVER,
            Some(at) => {
                let scale = time::Scale::read();
                time::now().saturating_add(scale.ticks(at.saturating_sub(now)))
            }
        };
        let _masked = irq::Guard::new();
        // What came since it was looked at, and its interrupt was taken: nothing would wake the manager.
        let mut is_told = self.console_control().is_some_and(Control::is_told);
        is_told |= self.guests.iter().any(Guest::is_balloon_told);
        if is_told || Port::fixed(0, BIT_EVENT).is_pending() {
            return;
        }
        alarm::rest();
        let _ = port::wait(deadline);
    }
}
