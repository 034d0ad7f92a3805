//! Running what a person typed.

use alloc::format;
use alloc::string::String;
use core::time::Duration;
use portico_abi::PAGE_SIZE;
use portico_abi::call::run;
use portico_abi::device::control::ask;
use portico_bundle::description::{Guest as Description, OnCrash, Reservation, ServiceKind, name_is_valid};
use portico_bundle::names::IMAGE_PREFIX;
use portico_console::message::Kind;
use portico_manager::saved::Doom;
use portico_manager::shell::{self, Command, Crash, Create, Sched, closest};
use portico_manager::watchdog::Watchdog;
use portico_sdk::{exit, hvc};

use crate::control::Control;
use crate::guest::{Next, State};
use crate::lifecycle::{MAX_GUESTS, sched_of};
use crate::supervisor::Manager;
use crate::{alarm, place};

/// RAM of a guest for which `create` was told none, in pages.
const DEFAULT_PAGES: u64 = (16 << 20) / PAGE_SIZE;

impl Manager {
    /// Runs a command line and prints its answer.
    pub fn command(&mut self, line: &str, now: u64) {
        let answer = match shell::parse(line) {
            Ok(None) => return,
            Ok(Some(command)) => self.execute(command, now),
            Err(message) => Err(message),
        };
        match answer {
            Ok(text) => self.desk.reply(&text),
            Err(message) => self.desk.reply(&format!("error: {message}")),
        }
    }

    fn execute(&mut self, command: Command, now: u64) -> Result<String, String> {
        match command {
            Command::Help(about) => shell::help(about.as_deref()),
            Command::List => Ok(self.list_table()),
            Command::Top { seconds } => {
                self.top = Some(self.begin_top(seconds));
                Ok(String::new())
            }
            Command::Create(create) => self.create(create, now),
            Command::Destroy(name) => self.end(&name, Next::Stay),
            Command::Reboot(name) => self.end(&name, Next::StartAt(now)),
            Command::Pause(name) => self.pause(&name),
            Command::Resume(name) => self.resume(&name, now),
            Command::Console(name) => {
                let id = self.named(&name)?;
                let guest = self.guests.get(id);
                if guest.is_some_and(|guest| matches!(guest.state, State::Absent)) {
                    return Err(format!("guest `{name}` does not exist now; `log {name}` shows what it wrote"));
                }
                if guest.is_some_and(|guest| guest.console.is_none()) {
                    return Err(format!("`{name}` has no console"));
                }
                self.desk.say(Kind::Focus, id, &[]);
                Ok(String::new())
            }
            Command::Info(None) => Ok(self.machine_info()),
            Command::Info(Some(name)) => {
                let id = self.named(&name)?;
                Ok(self.guests.get(id).map(|guest| self.guest_info(guest)).unwrap_or_default())
            }
            Command::Log { guest, lines } => {
                let id = guest.map(|name| self.named(&name)).transpose()?;
                self.desk.log(id, lines);
                Ok(String::new())
            }
            Command::Sched(change) => self.sched(&change),
            Command::Panic(how) => {
                self.crash(how);
                Ok(String::new())
            }
            Command::Stop { guest, seconds } => self.ask(&guest, ask::POWER_OFF, seconds, now),
            Command::Restart { guest, seconds } => self.ask(&guest, ask::REBOOT, seconds, now),
            Command::Suspend { guest, seconds } => self.ask(&guest, ask::SUSPEND, seconds, now),
            Command::Disk { guest, name, change } => self.change_disk(&guest, &name, change, now),
            Command::Wake { guest, seconds } => self.wake(&guest, seconds, now),
            Command::Memory { guest, bytes } => self.resize(&guest, bytes),
            Command::Clock(set) => Ok(self.clock(set)),
            Command::Shutdown { reboot, at_once } => {
                self.leave(reboot, at_once, now);
                Ok(String::new())
            }
        }
    }

    /// Ends the manager, now or later.
    fn crash(&mut self, how: Crash) {
        match how {
            Crash::Panic => exit::panic(0),
            Crash::Exit => exit::exit(1),
            Crash::Off => drop(portico_sdk::smp::off()),
            // SAFETY: nothing is mapped there in stage 2, and the fault ends this life.
            Crash::Fault => unsafe { core::arch::asm!("ldr xzr, [{}]", in(reg) place::FLOOR - 8) },
            Crash::Hang => loop {
                core::hint::spin_loop();
            },
            Crash::After { us, lives } => {
                if let Some(keeper) = self.keeper.as_mut() {
                    keeper.doom = (lives > 0).then_some(Doom { lives, step_us: us });
                }
                self.save();
                alarm::end_after(Duration::from_micros(us));
            }
        }
    }

    /// The number of a guest.
    pub fn named(&self, name: &str) -> Result<usize, String> {
        self.find(name).ok_or_else(|| match closest(name, self.guests.iter().map(|guest| guest.name())) {
            Some(meant) => format!("no guest `{name}`; did you mean `{meant}`?"),
            None => format!("no guest `{name}`; `list` shows the names"),
        })
    }

    fn create(&mut self, create: Create, now: u64) -> Result<String, String> {
        let Some(name) = create.name.clone() else { return Ok(self.images()) };
        let id = match self.find(&name) {
            Some(id) => {
                let guest = self.guests.get_mut(id).ok_or_else(String::new)?;
                if !matches!(guest.state, State::Absent | State::Destroying(Next::Stay)) {
                    return Err(format!(
                        "guest `{name}` exists ({}); `reboot {name}` starts it afresh",
                        guest.state.word()
                    ));
                }
                change(&mut guest.description, &create, &self.bundle)?;
                guest.is_changed = true;
                id
            }
            None => {
                let mut description = fresh(&name, &create)?;
                change(&mut description, &create, &self.bundle)?;
                if self.guests.len() >= MAX_GUESTS {
                    return Err(format!("no more than {MAX_GUESTS} guests, ended ones included"));
                }
                let id = self.add_guest(description, None);
                if !self.save() {
                    self.guests.pop();
                    return Err(String::from("the manager has no room to keep so long descriptions of guests"));
                }
                id
            }
        };
        self.check_depends(id)?;
        self.start(id, now);
        Ok(String::new())
    }

    /// Everything that a guest depends on must have been started.
    fn check_depends(&self, id: usize) -> Result<(), String> {
        let Some(guest) = self.guests.get(id) else { return Ok(()) };
        let missing = guest.description.depends.iter().find_map(|&index| {
            self.guests.iter().find(|other| other.index == Some(index) && matches!(other.state, State::Absent))
        });
        match missing {
            Some(other) => Err(format!("`{}` depends on `{1}`: `create {1}` first", guest.name(), other.name())),
            None => Ok(()),
        }
    }

    fn images(&self) -> String {
        let mut text = String::from("images of the bundle, for image=:\n");
        for entry in self.bundle.entries().map_while(Result::ok) {
            if let Some(name) = entry.name.strip_prefix(IMAGE_PREFIX) {
                text.push_str(&format!("  {name}  {} KiB\n", entry.data.len().div_ceil(1024)));
            }
        }
        text
    }

    fn end(&mut self, name: &str, next: Next) -> Result<String, String> {
        let id = self.named(name)?;
        let guest = self.guests.get_mut(id).ok_or_else(String::new)?;
        let stay = next == Next::Stay;
        if stay && guest.service == Some(ServiceKind::Console) {
            return Err(String::from("without a console nobody could type `create`; `reboot` starts it afresh"));
        }
        match guest.state {
            State::Absent if stay => {
                return Err(format!("guest `{name}` does not exist now; `create {name}` starts it"));
            }
            State::Absent | State::Due(_) if guest.instance.is_none() => {
                guest.restarts.reset();
                guest.state = match next {
                    Next::Stay => State::Absent,
                    Next::StartAt(at) => State::Due(at),
                };
                self.save();
            }
            _ => {
                guest.restarts.reset();
                self.destroy(id, next);
            }
        }
        self.event(&format!("guest \"{name}\": {} by the operator", if stay { "destroyed" } else { "rebooted" }));
        Ok(String::new())
    }

    fn pause(&mut self, name: &str) -> Result<String, String> {
        let id = self.named(name)?;
        let guest = self.guests.get_mut(id).ok_or_else(String::new)?;
        let (State::Running, Some(instance)) = (&guest.state, &guest.instance) else {
            return Err(format!("guest `{name}` is not running ({})", guest.state.word()));
        };
        let domain = instance.domain;
        guest.state = State::Paused;
        self.save();
        if let Err(status) = hvc::domain_run(domain, run::PAUSE) {
            self.guests.get_mut(id).into_iter().for_each(|guest| guest.state = State::Running);
            self.save();
            return Err(String::from(status.describe()));
        }
        Ok(format!("guest \"{name}\" is paused; `resume {name}` lets it go on"))
    }

    fn resume(&mut self, name: &str, now: u64) -> Result<String, String> {
        let id = self.named(name)?;
        let guest = self.guests.get_mut(id).ok_or_else(String::new)?;
        let (State::Paused, Some(instance)) = (&guest.state, &mut guest.instance) else {
            return Err(match guest.is_asleep() {
                true => format!("guest `{name}` is asleep; `wake {name}` wakes it"),
                false => format!("guest `{name}` is not paused ({})", guest.state.word()),
            });
        };
        let domain = instance.domain;
        let heartbeat = guest.control.as_ref().map_or(0, Control::beat);
        instance.watchdog = Watchdog::new(heartbeat, now);
        guest.state = State::Running;
        self.save();
        if let Err(status) = hvc::domain_run(domain, run::RESUME) {
            self.guests.get_mut(id).into_iter().for_each(|guest| guest.state = State::Paused);
            self.save();
            return Err(String::from(status.describe()));
        }
        Ok(String::new())
    }

    fn sched(&mut self, change: &Sched) -> Result<String, String> {
        let id = self.named(&change.guest)?;
        let guest = self.guests.get_mut(id).ok_or_else(String::new)?;
        if !change.is_question() {
            let mut description = guest.description.clone();
            description.weight = change.weight.unwrap_or(description.weight);
            description.cap_permille = change.cap_permille.unwrap_or(description.cap_permille);
            description.affinity = change.affinity.unwrap_or(description.affinity);
            match change.reservation {
                Some((0, 0)) => description.reservation = None,
                Some((budget_us, period_us)) => description.reservation = Some(Reservation { period_us, budget_us }),
                None => {}
            }
            let before = sched_of(&guest.description);
            let after = sched_of(&description);
            // The vCPUs of one that is being taken down take nothing any more: it is for its next life.
            let living = guest.instance.as_ref().filter(|_| !matches!(guest.state, State::Destroying(_)));
            let vcpus = living.map(|instance| instance.vcpus.as_slice()).unwrap_or_default();
            for (done, &vcpu) in vcpus.iter().enumerate() {
                if let Err(status) = hvc::vcpu_sched_set(vcpu, after) {
                    // All or none.
                    for &changed in vcpus.iter().take(done) {
                        let _ = hvc::vcpu_sched_set(changed, before);
                    }
                    return Err(format!("nothing was changed: {}", status.describe()));
                }
            }
            guest.description = description;
            guest.is_changed = true;
            self.save();
        }
        let Some(guest) = self.guests.get(id) else { return Ok(String::new()) };
        if guest.instance.is_none() || matches!(guest.state, State::Destroying(_)) {
            return Ok(format!("guest \"{}\" does not exist now; this is for its next start", guest.name()));
        }
        Ok(self.vcpu_table(guest))
    }
}

/// A guest that is not in the description.
fn fresh(name: &str, create: &Create) -> Result<Description, String> {
    if !name_is_valid(name) {
        return Err(format!("`{name}`: a name is 1 to 16 letters, digits, `-`, `_` or `.`"));
    }
    if create.image.is_none() {
        return Err(format!(
            "no guest `{name}` in the description; for a new one write image=IMAGE (`create` lists them)"
        ));
    }
    Ok(Description {
        name: String::from(name),
        memory_pages: DEFAULT_PAGES,
        vcpus: 1,
        weight: 256,
        on_crash: OnCrash::Destroy,
        ..Description::default()
    })
}

/// Applies the arguments of `create`.
fn change(
    description: &mut Description,
    create: &Create,
    bundle: &portico_bundle::cpio::Archive<'_>,
) -> Result<(), String> {
    if let Some(image) = &create.image {
        let entry = format!("{IMAGE_PREFIX}{image}");
        if !matches!(bundle.find(&entry), Ok(Some(_))) {
            let known = bundle.entries().map_while(Result::ok).filter_map(|e| e.name.strip_prefix(IMAGE_PREFIX));
            return Err(match closest(image, known) {
                Some(meant) => format!("no image `{image}`; did you mean `{meant}`?"),
                None => format!("no image `{image}`; `create` lists them"),
            });
        }
        description.image = entry;
    }
    if let Some(bytes) = create.memory_bytes {
        description.memory_pages = bytes.div_ceil(PAGE_SIZE);
    }
    description.vcpus = create.vcpus.unwrap_or(description.vcpus);
    if let Some(cmdline) = &create.cmdline {
        description.cmdline.clone_from(cmdline);
    }
    Ok(())
}
