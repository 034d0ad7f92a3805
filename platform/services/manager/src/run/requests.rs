//! Asking guests to end by themselves, to sleep, to wake or to give a disk up, and ending the machine when they have ended.
//!
//! A guest notifies nobody when it falls asleep or wakes: the manager would take no notice, since a guest could keep it busy so. Its word is looked at every
//! [`LOOK_NS`] for as long as an operator waits for it, and no longer.

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
/// How often a guest is looked at that is to fall asleep or to wake, in nanoseconds.
const LOOK_NS: u64 = 10_000_000;

impl Asked {
    /// Whether its end shows by the end of the guest.
    fn is_for_end(&self) -> bool {
        matches!(self.what, ask::POWER_OFF | ask::REBOOT)
    }

    /// What it has not done, and what would do it at once.
    fn late(&self, name: &str) -> String {
        let (what, advice) = match self.what {
            ask::SUSPEND => ("fallen asleep", format!("`wake {name}` takes that back")),
            ask::NOTHING => ("woken", format!("`reboot {name}` starts it afresh")),
            ask::RELEASE => (
                &*format!("given disk {} up", self.disk),
                format!("`disk remove {name} {} now` takes it away", self.disk),
            ),
            _ => ("ended", format!("`destroy {name}` ends it at once")),
        };
        format!("guest \"{name}\": has not {what} within {} s; {advice}", self.seconds)
    }
}

impl Guest {
    /// Whether it runs, and says that it does what it is asked for.
    pub fn is_able(&self, what: u32) -> bool {
        matches!(self.state, State::Running) && self.control.as_ref().is_some_and(|control| control.is_able(what))
    }

    /// Asks it for something, and remembers that.
    pub fn ask(&mut self, what: u32, seconds: u64, now: u64) {
        self.control.as_ref().inspect(|control: &&Control| control.ask(what));
        let until_ns = now.saturating_add(seconds.saturating_mul(SECOND_NS));
        self.asked = Some(Asked { what, until_ns, seconds, disk: String::new(), again_ns: u64::MAX });
    }

    /// Takes the request to sleep or to wake that it has done.
    fn take_done(&mut self) -> Option<Asked> {
        let is_asleep = self.is_asleep();
        self.asked.take_if(|asked| match asked.what {
            ask::SUSPEND => is_asleep,
            ask::NOTHING => !is_asleep,
            _ => false,
        })
    }
}

impl Manager {
    /// Asks a guest to end, to be started afresh, or to sleep: `what` is one of [`ask`](portico_abi::device::control::ask).
    ///
    /// # Errors
    /// A message if it cannot be asked.
    pub fn ask(&mut self, name: &str, what: u32, seconds: u64, now: u64) -> Result<String, String> {
        let (at_once, words) = match what {
            ask::REBOOT => ("reboot", "restart"),
            ask::SUSPEND => ("pause", "suspend"),
            _ => ("destroy", "stop"),
        };
        let id = self.named(name)?;
        let Some(guest) = self.guests.get_mut(id) else { return Ok(String::new()) };
        if !matches!(guest.state, State::Running) {
            return Err(format!("guest `{name}` is not running ({})", guest.state.word()));
        }
        if !guest.is_able(what) {
            return Err(format!("guest `{name}` cannot be asked to {words}; `{at_once} {name}` does it at once"));
        }
        if what == ask::SUSPEND && guest.is_asleep() {
            return Err(format!("guest `{name}` is asleep; `wake {name}` wakes it"));
        }
        if what != ask::SUSPEND {
            guest.restarts.reset();
        }
        guest.ask(what, seconds, now);
        self.event(&format!("guest \"{name}\": asked to {words} by the operator"));
        Ok(String::new())
    }

    /// Lets a guest go on that sleeps or was asked to.
    ///
    /// # Errors
    /// A message if it neither sleeps nor is about to.
    pub fn wake(&mut self, name: &str, seconds: u64, now: u64) -> Result<String, String> {
        let id = self.named(name)?;
        let Some(guest) = self.guests.get_mut(id) else { return Ok(String::new()) };
        let is_due = guest.asked.as_ref().is_some_and(|asked| asked.what == ask::SUSPEND);
        // One that was asked and is late may fall asleep at any time.
        let may_sleep = is_due || guest.control.as_ref().is_some_and(|control| control.last_asked() == ask::SUSPEND);
        let is_running = matches!(guest.state, State::Running);
        if !guest.is_asleep() && (!is_running || !may_sleep) {
            return Err(format!("guest `{name}` is not asleep ({})", guest.word()));
        }
        guest.ask(ask::NOTHING, seconds, now);
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

    /// Looks whether those that were asked have done it, and says which have not in their time.
    pub fn check_asked(&mut self, now: u64) {
        for id in 0..self.guests.len() {
            self.take_given_up(id, now);
            let Some(guest) = self.guests.get_mut(id) else { continue };
            let text = if let Some(done) = guest.take_done() {
                let state = if done.what == ask::SUSPEND { "asleep" } else { "awake" };
                format!("guest \"{}\": {state}", guest.name())
            } else if let Some(late) = guest.asked.take_if(|asked| now >= asked.until_ns) {
                late.late(guest.name())
            } else {
                continue;
            };
            self.event(&text);
        }
        let Some((op, until)) = self.leaving else { return };
        let is_left = self.guests.iter().any(|guest| guest.asked.as_ref().is_some_and(Asked::is_for_end));
        if !is_left || now >= until {
            self.end_with(op);
        }
    }

    /// When [`Manager::check_asked`] is due, in nanoseconds.
    pub fn asked_deadline(&self, now: u64) -> Option<u64> {
        let due = |asked: &Asked| match asked.is_for_end() {
            true => asked.until_ns,
            false => asked.until_ns.min(now.saturating_add(LOOK_NS)),
        };
        let asked = self.guests.iter().filter_map(|guest| guest.asked.as_ref()).map(due);
        asked.chain(self.leaving.map(|(_, until)| until)).min()
    }
}
