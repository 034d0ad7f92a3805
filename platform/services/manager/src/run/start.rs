//! The manager's boot order.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use portico_bundle::cpio::Archive;
use portico_bundle::description::{ServiceKind, System};
use portico_bundle::names;
use portico_manager::links::{self, number_of};
use portico_manager::saved::{Plugged, Record, Saved};
use portico_sdk::{dtb, irq, println, time};

use crate::again::{Left, restarts};
use crate::channels::Channels;
use crate::clock::Clock;
use crate::devices::Devices;
use crate::guest::description_of;
use crate::heap::Heap;
use crate::hv::Machine;
use crate::keeper::Keeper;
use crate::place;
use crate::supervisor::{Manager, Options};

/// Bytes of heap for a byte of the system description: a guest's are 60 or more, which come to 1 or 2 KiB, and for a moment to twice that.
const BYTES_FOR_A_BYTE: usize = 64;
/// Exit code of a manager that cannot begin.
const CANNOT_BEGIN: u64 = 1;

/// Begins, and does not end.
pub fn manager() -> u64 {
    match begin() {
        Ok(manager) => manager.run(),
        Err(why) => {
            println!("portico: the manager cannot begin: {why}");
            CANNOT_BEGIN
        }
    }
}

fn begin() -> Result<Manager, String> {
    // Until the loop begins.
    irq::mask();
    let is_again = restarts() > 0;
    let heap = if is_again { Heap::take_over() } else { Heap::default() };
    let found = Machine::find(heap).map_err(|status| format!("it has no System handle: {}", status.describe()))?;
    let (mut machine, mut left) = found;
    let (keeper, saved) = recall(&mut machine, &mut left, is_again);
    let clock = Clock::begin(&machine, saved.wall_ns);
    let bundle = bundle()?;
    let (system, trouble) = match description(&mut machine, &bundle) {
        Ok(system) => (system, None),
        Err(why) => (System::default(), Some(why)),
    };
    let options = options(&system.manager_cmdline);
    let mut manager = Manager::new(machine, bundle, options);
    manager.clock = clock;
    (manager.ending, manager.leaving) = (saved.ending, saved.leaving);
    if system.service(ServiceKind::Console).is_some()
        && let Err(status) = manager.desk.open(&mut manager.machine, &mut left)
    {
        manager.event(&format!("no console: {}", status.describe()));
    }
    if !options.quiet && !is_again {
        manager.event("manager is up; `help` lists the commands, Ctrl-] switches the keyboard");
    }
    if let Some(why) = trouble {
        manager.event(&format!("no system: {why}"));
    }
    populate(&mut manager, system, saved.disks, is_again.then_some((left, saved.guests)));
    manager.keeper = keeper;
    manager.save();
    Ok(manager)
}

/// Takes what the last life kept, and free memory. Returns where to keep things, and what was kept.
fn recall(machine: &mut Machine, left: &mut Left, is_again: bool) -> (Option<Keeper>, Saved) {
    let (mut keeper, saved) = Keeper::take_over(machine, left).unzip();
    let mut saved = saved.flatten();
    // Of the first life all is clean, but what EL2 says is not.
    machine.begin(!is_again || saved.as_ref().is_some_and(|saved| !saved.is_filling));
    let unfinished = left.unlent.extract_if(.., |&mut (_, ipa)| !place::is_dma(ipa));
    for (piece, _) in unfinished {
        machine.give_back(piece);
    }
    machine.balance_begins();
    if let (Some(keeper), Some(saved)) = (&mut keeper, &mut saved) {
        keeper.note_restart(saved);
    }
    let keeper = keeper.or_else(|| Keeper::new(machine).ok());
    (keeper, saved.unwrap_or_default())
}

/// Adds the guests in the order in which they start, and lets those start that are to.
fn populate(manager: &mut Manager, system: System, disks: Vec<Plugged>, last_life: Option<(Left, Vec<Record>)>) {
    let order = system.order().unwrap_or_default();
    let wanted = wanted(&system);
    manager.channels = Channels::new(links::all(&system));
    manager.channels.recall(disks);
    let mut guests: Vec<_> = system.guests.into_iter().map(Some).collect();
    let kinds: Vec<_> = system.services.iter().map(|service| service.kind).collect();
    let (devices, troubles) = Devices::find(&mut manager.machine, &kinds);
    manager.devices = devices;
    for trouble in troubles {
        manager.event(&trouble);
    }
    let now = time::now_ns();
    let mut services: Vec<_> = system.services.iter().collect();
    // What the others say is to be seen soon.
    services.sort_by_key(|service| service.kind != ServiceKind::Console);
    for service in services {
        let mut description = description_of(service);
        if service.kind == ServiceKind::Console && manager.options.quiet {
            description.cmdline = String::from("portico.quiet");
        }
        let id = manager.add_guest(description, Some(number_of(service.kind)));
        if let Some(guest) = manager.guests.get_mut(id) {
            guest.service = Some(service.kind);
        }
        if last_life.is_none() {
            manager.start(id, now);
        }
    }
    for index in order {
        let Some(description) = guests.get_mut(usize::from(index)).and_then(Option::take) else { continue };
        let id = manager.add_guest(description, Some(index));
        if last_life.is_none() && wanted.contains(&index) {
            manager.start(id, now);
        }
    }
    if let Some((left, records)) = last_life {
        manager.take_over(left, records, |index| wanted.contains(&index), now);
    }
    manager.prepare_all(now);
}

/// Guests that start with the machine, and all that they depend on.
fn wanted(system: &System) -> BTreeSet<u16> {
    let mut wanted = BTreeSet::new();
    let autostarted = (0u16..).zip(&system.guests).filter(|(_, guest)| guest.autostart).map(|(index, _)| index);
    let mut left: Vec<u16> = autostarted.collect();
    while let Some(index) = left.pop() {
        if wanted.insert(index)
            && let Some(guest) = system.guests.get(usize::from(index))
        {
            left.extend(&guest.depends);
        }
    }
    wanted
}

fn bundle() -> Result<Archive<'static>, String> {
    let range = dtb::bundle().ok_or("its device tree names no bundle")?;
    // SAFETY: EL2 mapped the bundle there, read-only and for good.
    let bytes = unsafe {
        core::slice::from_raw_parts(core::ptr::with_exposed_provenance::<u8>(range.base as usize), range.len as usize)
    };
    Ok(Archive::new(bytes))
}

fn description(machine: &mut Machine, bundle: &Archive<'static>) -> Result<System, String> {
    let entry = bundle.find(names::SYSTEM).map_err(|error| error.to_string())?;
    let entry = entry.ok_or("the bundle has no system description")?;
    machine.make_room(entry.data.len().saturating_mul(BYTES_FOR_A_BYTE));
    System::decode(entry.data).map_err(|error| error.to_string())
}

/// Options come from the description and from the machine's boot arguments.
fn options(cmdline: &str) -> Options {
    let has = |key: &str| cmdline.split_ascii_whitespace().any(|word| word == key) || dtb::bootarg(key).is_some();
    let backoff = cmdline.split_ascii_whitespace().find_map(|word| word.strip_prefix("portico.backoff_ms="));
    Options {
        exit_when_idle: has("portico.exit_when_idle"),
        quiet: has("portico.quiet"),
        backoff_ms: backoff.and_then(|text| text.parse().ok()),
    }
}
