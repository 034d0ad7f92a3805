//! Asking guests to end by themselves, and ending the machine when they have.

use alloc::format;
use alloc::string::String;
use portico_abi::call::power;
use portico_abi::device::control::ask;
use portico_manager::calendar::SECOND_NS;

use crate::control::Control;
use crate::guest::{Asked, Guest, State};
use crate::supervisor::Manager;

/// How long the guests have when the machine is to end, in seconds.
const LEAVE_SECONDS: u64 = 30;

impl Guest {
    /// Whether it runs, and says that it does what it is asked for.
    pub fn is_able(&self, what: u32) -> bool {
        matches!(self.state, State::Running) && self.control.as_ref().is_some_and(|control| control.is_able(what))
    }

    fn ask(&mut self, what: u32, seconds: u64, now: u64) {
        self.control.as_ref().inspect(|control: &&Control| control.ask(what));
        self.asked = Some(Asked { until_ns: now.saturating_add(seconds.saturating_mul(SECOND_NS)), seconds });
    }
}

impl Manager {
    /// Asks a guest to end, and to be started afresh if `reboot`.
    ///
    /// # Errors
    /// A message if it cannot be asked.
    pub fn ask(&mut self, name: &str, reboot: bool, seconds: u64, now: u64) -> Result<String, String> {
        let (what, at_once, words) = match reboot {
            true => (ask::REBOOT, "reboot", "restart"),
            false => (ask::POWER_OFF, "destroy", "stop"),
        };
        let id = self.named(name)?;
        let Some(guest) = self.guests.get_mut(id) else { return Ok(String::new()) };
        if !matches!(guest.state, State::Running) {
            return Err(format!("guest `{name}` is not running ({})", guest.state.word()));
        }
        if !guest.is_able(what) {
            return Err(format!("guest `{name}` cannot be asked to {words}; `{at_once} {name}` does it at once"));
        }
        guest.restarts.reset();
        guest.ask(what, seconds, now);
        self.event(&format!("guest \"{name}\": asked to {words} by the operator"));
        Ok(String::new())
    }

    /// Ends the machine: at once, or as soon as the guests have ended that can be asked to.
    pub fn leave(&mut self, reboot: bool, at_once: bool, now: u64) {
        let op = if reboot { power::RESET } else { power::OFF };
        let mut asked = 0;
        for guest in self.guests.iter_mut().filter(|guest| !at_once && guest.service.is_none()) {
            if guest.is_able(ask::POWER_OFF) {
                guest.ask(ask::POWER_OFF, LEAVE_SECONDS, now);
                asked += 1;
            }
        }
        if asked == 0 {
            self.end_with(op);
            return;
        }
        self.leaving = Some((op, now.saturating_add(LEAVE_SECONDS * SECOND_NS)));
        self.save();
        self.event(&format!(
            "{asked} guests are asked to stop and have {LEAVE_SECONDS} s; `shutdown now` does not wait for them"
        ));
    }

    fn end_with(&mut self, op: u64) {
        self.event(if op == power::RESET { "the machine starts again" } else { "the machine powers off" });
        self.leaving = None;
        self.ending = Some(op);
        self.save();
    }

    /// Looks whether those that were asked have ended, and says which have not in their time.
    pub fn check_asked(&mut self, now: u64) {
        for id in 0..self.guests.len() {
            let Some(guest) = self.guests.get_mut(id) else { continue };
            if let Some(late) = guest.asked.take_if(|asked| now >= asked.until_ns) {
                let text = format!(
                    "guest \"{0}\": has not ended within {1} s; `destroy {0}` ends it at once",
                    guest.name(),
                    late.seconds
                );
                self.event(&text);
            }
        }
        let Some((op, until)) = self.leaving else { return };
        let is_left = self.guests.iter().any(|guest| guest.asked.is_some());
        if !is_left || now >= until {
            self.end_with(op);
        }
    }

    /// When [`Manager::check_asked`] is due, in nanoseconds.
    pub fn asked_deadline(&self) -> Option<u64> {
        let asked = self.guests.iter().filter_map(|guest| guest.asked).map(|asked| asked.until_ns);
        asked.chain(self.leaving.map(|(_, until)| until)).min()
    }
}
