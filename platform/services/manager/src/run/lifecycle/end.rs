//! Finding that a guest has ended, doing what its policy says, and taking its domain down.

use alloc::format;
use alloc::string::String;
use portico_abi::call::run;
use portico_abi::record::{DomainState, EndReason};
use portico_bundle::description::{OnCrash, ServiceKind};
use portico_console::message::Kind;
use portico_manager::event;
use portico_manager::restart::{Decision, Ending};
use portico_manager::watchdog::Watchdog;
use portico_sdk::hvc::{self, Progress};

use super::guest_state;
use crate::balloon::Balloon;
use crate::guest::{Guest, Next, State};
use crate::supervisor::Manager;

impl Manager {
    /// Looks at every running guest for one that has ended.
    pub fn look_for_ended(&mut self, now: u64) {
        for id in 0..self.guests.len() {
            let Some(guest) = self.guests.get(id) else { continue };
            if !matches!(guest.state, State::Running | State::Paused) {
                continue;
            }
            let Some(status) = guest.status() else { continue };
            if status.state != DomainState::Ended as u32 {
                continue;
            }
            let is_fault = status.reason == EndReason::Fault as u32;
            let vcpu = guest.instance.as_ref().and_then(|instance| instance.vcpus.get(status.code as usize).copied());
            let fault = vcpu.filter(|_| is_fault).and_then(|vcpu| hvc::vcpu_fault_get(vcpu).ok());
            let text = event::describe(guest.name(), &status, fault.as_ref());
            self.ended(id, &text, event::ending(&status), now);
        }
    }

    /// Ends a guest whose heartbeat has stopped.
    pub fn check_watchdog(&mut self, id: usize, now: u64) {
        let Some(guest) = self.guests.get_mut(id).filter(|guest| matches!(guest.state, State::Running)) else { return };
        let (limit_ms, heartbeat, is_asleep) = (guest.watchdog_ms(), guest.heartbeat(), guest.is_asleep());
        let Some(instance) = guest.instance.as_mut() else { return };
        if is_asleep {
            // It counts from when it wakes.
            instance.watchdog = Watchdog::new(heartbeat, now);
            return;
        }
        if instance.watchdog.expired(heartbeat, limit_ms, now) {
            let text = format!("guest \"{}\": watchdog expired, no heartbeat for {limit_ms} ms", guest.name());
            if guest.description.on_crash == OnCrash::Preserve
                && let Some(instance) = guest.instance.as_ref()
            {
                let _ = hvc::domain_run(instance.domain, run::PAUSE);
            }
            self.ended(id, &text, Ending::Crash, now);
        }
    }

    /// Tells that a guest ended, and does what its policy says.
    fn ended(&mut self, id: usize, text: &str, ending: Ending, now: u64) {
        self.end_console(id);
        self.event(text);
        let Some(guest) = self.guests.get_mut(id) else { return };
        guest.last_end = Some(String::from(text));
        guest.asked = None;
        let mut policy = guest.policy();
        if let Some(ms) = self.options.backoff_ms {
            policy.backoff_first_ns = ms.saturating_mul(1_000_000);
            policy.backoff_last_ns = policy.backoff_first_ns;
        }
        let decision = guest.restarts.decide(&policy, ending, now);
        let name = String::from(guest.name());
        match decision {
            Decision::RestartAfter { delay_ns } => {
                self.event(&format!(
                    "guest \"{name}\": restarts in {} ms (restart {})",
                    delay_ns / 1_000_000,
                    self.guests.get(id).map_or(0, |guest| guest.restarts.total())
                ));
                self.destroy(id, Next::StartAt(now.saturating_add(delay_ns)));
            }
            Decision::GiveUp { restarts } => {
                self.event(&format!(
                    "guest \"{name}\": restarted {restarts} times in {} s, not again; `create {name}` starts it",
                    policy.window_ns / 1_000_000_000
                ));
                self.destroy(id, Next::Stay);
            }
            Decision::Destroy => self.destroy(id, Next::Stay),
            Decision::Preserve => {
                self.event(&format!("guest \"{name}\": kept for inspection; `info {name}`, `destroy {name}`"));
                guest_state(self, id, State::Preserved);
            }
        }
    }

    /// Begins to take a guest down.
    pub fn destroy(&mut self, id: usize, next: Next) {
        if let Some(guest) = self.guests.get(id)
            && let (State::Loading(load), Some(instance)) = (&guest.state, &guest.instance)
        {
            load.abandon(&instance.ram);
        }
        guest_state(self, id, State::Destroying(next));
        self.guests.get_mut(id).into_iter().for_each(|guest| guest.asked = None);
        if let Some(guest) = self.guests.get(id)
            && let (Some(instance), Some(index)) = (&guest.instance, guest.index)
        {
            // Refused if it has ended, and then needless.
            let _ = hvc::domain_run(instance.domain, run::PAUSE);
            self.channels.disconnect(index);
        }
    }

    /// Gives up on building a guest, and says why.
    pub(super) fn fail(&mut self, id: usize, why: &str) {
        let name = self.guests.get(id).map(|guest| String::from(guest.name())).unwrap_or_default();
        let text = format!("guest \"{name}\": cannot start: {why}");
        self.event(&text);
        if let Some(guest) = self.guests.get_mut(id) {
            guest.last_end = Some(text);
            if guest.service == Some(ServiceKind::Console) {
                self.desk.give_up();
            }
        }
        self.unprepare(id, Next::Stay);
    }

    pub(super) fn unprepare(&mut self, id: usize, next: Next) {
        let exists = self.guests.get(id).is_some_and(|guest| guest.instance.is_some());
        if exists {
            self.destroy(id, next);
        } else {
            self.gone(id, next);
        }
    }

    /// Does a piece of taking a guest down. Returns whether there is more.
    pub(super) fn step_destroy(&mut self, id: usize, next: Next) -> bool {
        let Some(guest) = self.guests.get_mut(id) else { return false };
        let Some(instance) = guest.instance.as_ref() else {
            self.gone(id, next);
            return true;
        };
        match hvc::domain_destroy(instance.domain) {
            Ok(Progress::Again(_)) => return true,
            Ok(Progress::Done(_)) => {}
            Err(status) => {
                let text = format!("guest \"{}\": cannot be destroyed: {}", guest.name(), status.describe());
                self.event(&text);
            }
        }
        // What it wrote up to its end; an operator may have destroyed it while it was writing.
        self.end_console(id);
        if let Some(guest) = self.guests.get_mut(id) {
            if let Some(console) = guest.console.as_mut() {
                console.disconnect();
            }
            if let Some(control) = guest.control.as_mut() {
                control.disconnect();
            }
            // Its devices may still reach what was its own.
            let is_quiet = guest.service.is_none_or(|kind| self.devices.reset(kind));
            let name = String::from(guest.name());
            if let Some(instance) = guest.instance.take() {
                for handle in instance.vcpus.iter().copied().chain([instance.domain]) {
                    let _ = hvc::handle_close(handle);
                }
                for piece in instance.ram.into_iter().chain(instance.balloon.into_iter().flat_map(Balloon::into_pieces))
                {
                    if is_quiet {
                        self.machine.memory.put_dirty(piece);
                    } else {
                        self.machine.lose(piece);
                    }
                }
            }
            // What this life did not give it. While another service is taken down its memory is unmapped already and may yet be reached.
            let is_going = |other: &Guest| other.service.is_some() && matches!(other.state, State::Destroying(_));
            if self.guests.iter().filter(|other| is_going(other) && other.name() != name).count() == 0 {
                self.machine.reclaim(is_quiet);
            }
            if !is_quiet {
                self.event(&format!("service \"{name}\": a device does not stop; its memory is not used again"));
            }
        }
        if let Some(index) = self.guests.get(id).and_then(|guest| guest.index) {
            self.channels.disconnect(index);
        }
        self.gone(id, next);
        true
    }

    fn gone(&mut self, id: usize, next: Next) {
        let Some(guest) = self.guests.get_mut(id) else { return };
        match next {
            Next::StartAt(at) => guest.state = State::Due(at),
            Next::Stay => {
                guest.state = State::Absent;
                self.channels.release(&mut self.machine);
                self.desk.say(Kind::Gone, id, &[]);
            }
        }
        self.offer_memory();
        self.save();
    }
}
