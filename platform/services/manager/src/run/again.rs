//! A manager that was begun anew: it takes over what its last life left.
//!
//! EL2 keeps the handle table and all mappings, and guests and services run on. What a handle is for is told by its [`cookie`], by where an extent is
//! mapped ([`place`](crate::place)), and by the state of what it names; what these cannot tell (which guest is to exist, how often it was restarted) is
//! kept in memory of the manager's own ([`Keeper`]), and written before a handle is used accordingly. A domain that runs, is paused or has ended is taken
//! over; one that was being built or taken down is taken down, and built again if it is to exist.
//!
//! A window of the manager's is taken over if it is lent, to the manager itself or to a guest: it was whole before. Which guest has which piece of
//! RAM is not kept: what is mapped or lent is in use, and free when it no longer is ([`Machine::reclaim`](crate::hv::Machine::reclaim)).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use portico_abi::Handle;
use portico_abi::call::{info, run};
use portico_abi::handle::SELF_DOMAIN;
use portico_abi::port::{BIT_EVENT, PORT_BITS};
use portico_abi::record::{DomainState, EndReason};
use portico_console::message::Kind;
use portico_manager::memory::Piece;
use portico_manager::saved::{Intent, Record};
use portico_manager::watchdog::Watchdog;
use portico_sdk::{hvc, vcpu};

use crate::balloon::{Balloon, Kept};
use crate::console::Console;
use crate::control::Control;
use crate::guest::{Guest, Instance, Next, State};
use crate::supervisor::Manager;
use crate::{alarm, cookie};

/// What the last life left, but for free memory and devices.
#[derive(Debug, Default)]
pub struct Left {
    /// Domains with their cookies.
    pub domains: Vec<(Handle, u64)>,
    /// vCPUs with their cookies.
    pub vcpus: Vec<(Handle, u64)>,
    /// Ports with their cookies.
    pub ports: Vec<(Handle, u64)>,
    /// Memory that is mapped in the manager and lent, with its IPA.
    pub windows: Vec<(Piece<Handle>, u64)>,
    /// Memory that is mapped in the manager and not lent, with its IPA.
    pub unlent: Vec<(Piece<Handle>, u64)>,
}

impl Left {
    /// Takes the window of this length at `ipa`.
    pub fn window(&mut self, ipa: u64, pages: u64) -> Option<Piece<Handle>> {
        let at = self.windows.iter().position(|&(piece, at)| at == ipa && piece.pages == pages)?;
        Some(self.windows.swap_remove(at).0)
    }

    /// Takes the port with this cookie, if its other end is there: otherwise it is an earlier instance's.
    pub fn port(&mut self, cookie: u64) -> Option<Handle> {
        let is_it =
            |&(port, of): &(Handle, u64)| of == cookie && hvc::handle_info(port).is_ok_and(|info| info.state == 0);
        let at = self.ports.iter().position(is_it)?;
        Some(self.ports.swap_remove(at).0)
    }

    fn domain(&mut self, id: usize) -> Option<Handle> {
        let at = self.domains.iter().position(|&(_, of)| of == cookie::domain(id))?;
        Some(self.domains.swap_remove(at).0)
    }

    /// The vCPUs of a guest, by index.
    fn vcpus(&self, id: usize) -> Vec<Handle> {
        let of = |index| self.vcpus.iter().find(|&&(_, of)| of == cookie::vcpu(id, index)).map(|&(vcpu, _)| vcpu);
        (0..=u16::MAX).map_while(of).collect()
    }
}

/// How often the manager was begun anew.
pub fn restarts() -> u64 {
    hvc::self_info(info::RESTARTS, 0).unwrap_or(0)
}

/// Why the last life ended, in words.
fn why() -> String {
    let Ok(status) = hvc::domain_status(SELF_DOMAIN) else { return String::new() };
    let code = status.code;
    match EndReason::from_raw(status.reason) {
        Some(EndReason::Panic) if code == alarm::HUNG => String::from("; it hung"),
        Some(EndReason::Panic) => String::from("; it had panicked"),
        Some(EndReason::Exit) => format!("; it exited with code {code}"),
        Some(EndReason::Fault) => String::from("; it faulted"),
        _ => String::new(),
    }
}

impl Manager {
    /// Takes over what the last life left. The guests of the bundle are known; none has been started.
    pub fn take_over(&mut self, mut left: Left, records: Vec<Record>, wanted: impl Fn(u16) -> bool, now: u64) {
        forget_masks();
        for record in records.iter().skip(self.guests.len()) {
            if let Some(description) = &record.description {
                self.add_guest(description.clone(), None);
            }
        }
        self.channels.adopt(&mut left);
        self.devices.adopt(&mut self.machine, &mut left);
        let mut records: Vec<Option<Record>> = records.into_iter().map(Some).collect();
        for id in 0..self.guests.len() {
            let record = records.get_mut(id).and_then(Option::take);
            let record = record.filter(|record| self.guests.get(id).is_some_and(|guest| guest.name() == record.name));
            self.adopt(id, &mut left, record, &wanted, now);
        }
        self.forget(left);
        if self.console_service().is_some_and(|service| matches!(service.state, State::Absent)) {
            self.desk.give_up();
        }
        let is_over = |guest: &&Guest| matches!(guest.state, State::Running | State::Paused | State::Preserved);
        let over = self.guests.iter().filter(is_over);
        let (services, guests): (Vec<_>, Vec<_>) = over.partition(|guest| guest.service.is_some());
        let text = format!(
            "manager was restarted (restart {}), took over {} guests and {} services{}",
            restarts(),
            guests.len(),
            services.len(),
            why()
        );
        self.event(&text);
        self.remind();
    }

    /// Tells the console service what the last life may have died before: nothing else would let the prompt come back.
    fn remind(&mut self) {
        self.desk.say(Kind::Done, 0, &[]);
        for id in 0..self.guests.len() {
            let is_gone = self.guests.get(id).is_some_and(|guest| matches!(guest.state, State::Absent));
            if is_gone && self.guests.get(id).is_some_and(|guest| guest.console.is_some()) {
                self.end_console(id);
                self.desk.say(Kind::Gone, id, &[]);
            }
        }
    }

    /// Takes one guest over, or what is left of it.
    fn adopt(&mut self, id: usize, left: &mut Left, record: Option<Record>, wanted: &impl Fn(u16) -> bool, now: u64) {
        self.adopt_console(id, left);
        let Some(guest) = self.guests.get_mut(id) else { return };
        guest.kept = Kept::adopt(left, id);
        let blocks = guest.kept.map_or(0, |kept| kept.count());
        guest.control = Control::adopt(left, id, guest.service.is_some() || blocks > 0);
        let domain = left.domain(id);
        let status = domain.and_then(|domain| hvc::domain_status(domain).ok());
        let state = status.and_then(|status| DomainState::from_raw(status.state));
        let was_started = matches!(state, Some(DomainState::Runnable | DomainState::Paused | DomainState::Ended));
        let (mut intent, mut started_ns) = match guest.service.is_some() || guest.index.is_some_and(wanted) {
            _ if was_started => (Intent::Run, now),
            true => (Intent::Start(now), now),
            false => (Intent::Absent, now),
        };
        let record_born_ns = record.as_ref().map_or(now, |record| record.born_ns);
        if let Some(record) = record {
            if let Some(description) = record.description {
                guest.description = description;
                guest.is_changed = true;
            }
            guest.restarts = record.restarts;
            intent = record.intent;
            if record.started_ns > 0 {
                started_ns = record.started_ns;
            }
        }
        let Some(domain) = domain else {
            guest.state = match intent {
                Intent::Absent | Intent::Keep => State::Absent,
                Intent::Start(at) => State::Due(at),
                Intent::Run | Intent::Pause => State::Due(now),
            };
            // The last life may have ended before it did this.
            if let Some(index) = guest.index {
                self.channels.disconnect(index);
            }
            return;
        };
        let heartbeat = guest.heartbeat();
        let least_pages = guest.description.memory_min_pages;
        let balloon = match (guest.kept, &guest.control) {
            (Some(kept), Some(control)) => Balloon::adopt(&mut self.machine, kept, control, least_pages),
            _ => None,
        };
        guest.instance = Some(Instance {
            domain,
            vcpus: left.vcpus(id),
            ram: Vec::new(),
            memory_pages: balloon.as_ref().map_or(guest.description.memory_pages, |balloon| balloon.pages().most),
            balloon,
            console_port: Handle::NONE,
            nodes: Vec::new(),
            born_ns: record_born_ns,
            started_ns,
            watchdog: Watchdog::new(heartbeat, now),
        });
        let is_whole = guest.service.is_none() || guest.control.as_ref().is_some_and(Control::is_connected);
        match state.filter(|_| is_whole).and_then(|state| goes_on(domain, state, intent)) {
            Some(state) => guest.state = state,
            None => self.destroy(
                id,
                match intent {
                    Intent::Absent | Intent::Keep => Next::Stay,
                    Intent::Start(at) => Next::StartAt(at),
                    Intent::Run | Intent::Pause => Next::StartAt(now),
                },
            ),
        }
    }

    /// Takes a guest's console over, if the service knew it; otherwise nobody has it.
    fn adopt_console(&mut self, id: usize, left: &mut Left) {
        let Some(guest) = self.guests.get_mut(id).filter(|_| self.desk.is_open()) else { return };
        let console = Console::adopt(&mut self.machine, left, id);
        guest.console = if self.desk.has_entered(id) {
            console
        } else {
            console.into_iter().for_each(|console| console.close(&mut self.machine));
            None
        };
    }

    /// Gives back what nobody took over.
    fn forget(&mut self, left: Left) {
        for (port, _) in left.ports {
            let _ = hvc::handle_close(port);
        }
        for (domain, _) in left.domains {
            let _ = hvc::complete(|| hvc::domain_destroy(domain));
        }
        for (piece, _) in left.windows {
            self.machine.give_back(piece);
        }
        self.machine.reclaim(true);
    }
}

/// In which state a domain that was started goes on. `None` if it is to be taken down.
fn goes_on(domain: Handle, state: DomainState, intent: Intent) -> Option<State> {
    use DomainState::{Ended, Paused, Runnable};
    let set = |op, state| hvc::domain_run(domain, op).is_ok().then_some(state);
    match (state, intent) {
        // Of one that has ended the first turn of the loop decides what comes next.
        (Runnable | Ended, Intent::Run) | (Ended, Intent::Pause) => Some(State::Running),
        // The last life was about to do that.
        (Paused, Intent::Run) => set(run::RESUME, State::Running),
        (Runnable | Paused, Intent::Pause) => set(run::PAUSE, State::Paused),
        (Paused | Ended, Intent::Keep) => Some(State::Preserved),
        _ => None,
    }
}

/// What is kept of a guest.
pub fn record(guest: &Guest) -> Record {
    let intent = match guest.state {
        State::Absent | State::Destroying(Next::Stay) => Intent::Absent,
        State::Due(at) | State::Destroying(Next::StartAt(at)) => Intent::Start(at),
        State::Loading(_) | State::Running => Intent::Run,
        State::Paused => Intent::Pause,
        State::Preserved => Intent::Keep,
    };
    let is_changed = guest.is_changed || guest.index.is_none();
    Record {
        name: String::from(guest.name()),
        description: is_changed.then(|| guest.description.clone()),
        intent,
        restarts: guest.restarts.clone(),
        started_ns: guest.instance.as_ref().map_or(0, |instance| instance.started_ns),
        born_ns: guest.instance.as_ref().map_or(0, |instance| instance.born_ns),
    }
}

/// The vCPU page is as the last life left it. Whatever is pending is looked at in the first turn of the loop; what happened meanwhile, too.
fn forget_masks() {
    let Some(page) = vcpu::current().page() else { return };
    for bit in 0..PORT_BITS as u16 {
        page.mask(bit).store(0, Ordering::Relaxed);
    }
    page.pending(BIT_EVENT).store(1, Ordering::Relaxed);
}
