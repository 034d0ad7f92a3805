//! Adding disks to guests that run, and taking them away.
//!
//! The window of such a disk and its node in the guest's device tree are there from the guest's start; what comes and goes is what is behind it. The
//! block service learns of that from its device tree alone: it is begun anew, which all guests are made for. *Rejected:* a protocol by which the
//! service is told while it runs: it would have to undo in its right order all that it does once at its start, for what is rare.
//!
//! Links and the service's end are kept in one write ([`Manager::save`]), so that the manager's next life never finds one without the other.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use portico_abi::device::control::ask;
use portico_bundle::description::{Disk, Part, ServiceKind};
use portico_manager::calendar::SECOND_NS;
use portico_manager::disks::Change;
use portico_manager::links::is_service;

use crate::channels::cookie;
use crate::guest::{Guest, Next, State};
use crate::supervisor::Manager;

impl Manager {
    /// Does what an operator wants of a disk.
    ///
    /// # Errors
    /// A message that says why not.
    pub fn change_disk(&mut self, guest: &str, name: &str, change: Change, now: u64) -> Result<String, String> {
        let id = self.named(guest)?;
        let number = self.guests.get(id).and_then(|guest| guest.index).filter(|number| !is_service(*number));
        let queues = number.map(|number| self.channels.queues(number, name)).unwrap_or_default();
        let first = queues.first().and_then(|&index| self.channels.get(index)).map(|channel| channel.link.clone());
        let Some(first) = first else {
            return Err(format!("guest `{guest}` has no disk `{name}` in its description, empty or not"));
        };
        match change {
            Change::Add { .. } if !first.is_empty() => {
                Err(format!("guest `{guest}` has {}; `disk remove {guest} {name}` first", first.describe()))
            }
            Change::Add { disk, part, read_only } => {
                let is_used = self.guests.get(id).is_some_and(|guest| guest.instance.is_some());
                if is_used && !queues.iter().all(|&index| self.channels.is_left(index)) {
                    // What it has in flight would be made again for this one.
                    return Err(format!("guest `{guest}` has not seen yet that its last disk is gone; try again"));
                }
                let wanted = Disk { disk, part, read_only, ..first.disk().cloned().unwrap_or_default() };
                self.check_alone(number.unwrap_or_default(), &wanted)?;
                self.channels.change(&queues, |disk| disk.clone_from(&wanted));
                self.renew_block_service(now);
                let what = self.describe(&queues);
                self.event(&format!("guest \"{guest}\": {what} was added"));
                Ok(String::new())
            }
            Change::Remove { .. } if first.is_empty() => Err(format!("guest `{guest}` has {}", first.describe())),
            Change::Remove { seconds } => self.remove_disk(id, name, &queues, seconds, now),
        }
    }

    fn remove_disk(
        &mut self,
        id: usize,
        name: &str,
        queues: &[usize],
        seconds: Option<u64>,
        now: u64,
    ) -> Result<String, String> {
        let Some(guest) = self.guests.get_mut(id) else { return Ok(String::new()) };
        let uses_it = guest.instance.is_some() && !queues.iter().all(|&index| self.channels.is_left(index));
        let Some(seconds) = seconds.filter(|_| uses_it) else {
            self.take_disk(id, queues, now);
            return Ok(String::new());
        };
        if !guest.is_able(ask::RELEASE) {
            return Err(format!(
                "guest `{0}` cannot be asked to give a disk up; `disk remove {0} {name} now` takes it away",
                guest.name()
            ));
        }
        if let (Some(control), Some(&first)) = (&guest.control, queues.first()) {
            control.set_device(cookie(first));
        }
        guest.ask(ask::RELEASE, seconds, now);
        if let Some(asked) = &mut guest.asked {
            asked.disk = String::from(name);
            asked.again_ns = now.saturating_add(SECOND_NS);
        }
        Ok(String::new())
    }

    /// Takes the disk that a guest was asked for, if it has given it up. It is asked once more each second: one that gave it up while the service began
    /// anew has met it again.
    pub fn take_given_up(&mut self, id: usize, now: u64) {
        let Some(guest) = self.guests.get_mut(id) else { return };
        let Some(number) = guest.index else { return };
        let channels = &self.channels;
        let is_done = |disk: &str| channels.queues(number, disk).iter().all(|&index| channels.is_left(index));
        let done = guest.asked.take_if(|asked| asked.what == ask::RELEASE && is_done(&asked.disk));
        if let Some(asked) = done {
            let queues = self.channels.queues(number, &asked.disk);
            self.take_disk(id, &queues, now);
        } else if let Some(asked) = guest.asked.as_mut().filter(|asked| now >= asked.again_ns) {
            asked.again_ns = now.saturating_add(SECOND_NS);
            guest.control.as_ref().inspect(|control| control.ask(ask::RELEASE));
        }
    }

    /// Takes a disk away, whatever the guest does with it.
    fn take_disk(&mut self, id: usize, queues: &[usize], now: u64) {
        let what = self.describe(queues);
        self.channels.change(queues, |disk| {
            (disk.disk, disk.part, disk.read_only) = (String::new(), Part::Whole, false);
        });
        self.renew_block_service(now);
        let name = self.guests.get(id).map(|guest| String::from(guest.name())).unwrap_or_default();
        self.event(&format!("guest \"{name}\": {what} was removed"));
    }

    fn describe(&self, queues: &[usize]) -> String {
        let channel = queues.first().and_then(|&index| self.channels.get(index));
        channel.map(|channel| channel.link.describe()).unwrap_or_default()
    }

    /// Refuses what another guest has a part of, as far as that can be seen without the machine's disk. The block service looks again.
    fn check_alone(&self, number: u16, wanted: &Disk) -> Result<(), String> {
        let others = self.guests.iter().filter_map(|guest| Some((guest, guest.index?)));
        for (guest, other) in others.filter(|(_, other)| *other != number && !is_service(*other)) {
            let links: Vec<_> = self.channels.of(other).map(|(.., channel)| &channel.link).collect();
            if let Some(link) = links.iter().find(|link| link.disk().is_some_and(|disk| disk.conflicts(wanted))) {
                return Err(format!(
                    "guest `{}` has {}, which overlaps, and one of them can write",
                    guest.name(),
                    link.describe()
                ));
            }
        }
        Ok(())
    }

    /// Begins the block service anew with what is behind its queues now, and keeps both.
    fn renew_block_service(&mut self, now: u64) {
        let is_it = |guest: &Guest| guest.service == Some(ServiceKind::Block);
        let service = self.guests.iter().position(is_it);
        let exists = |guest: &Guest| guest.instance.is_some() && !matches!(guest.state, State::Destroying(_));
        match service.filter(|&id| self.guests.get(id).is_some_and(exists)) {
            Some(id) => self.destroy(id, Next::StartAt(now)),
            // It finds everything when it is built.
            None => drop(self.save()),
        }
    }
}
