//! The manager's boot order.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use portico_bundle::cpio::Archive;
use portico_bundle::description::{ServiceKind, System};
use portico_bundle::names;
use portico_manager::links::{self, number_of};
use portico_sdk::{dtb, irq, println, time};

use crate::channels::Channels;
use crate::devices::Devices;
use crate::guest::description_of;
use crate::hv::Machine;
use crate::supervisor::{Manager, Options};

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
    // The loop polls; no handler is ever run.
    irq::mask();
    let machine = Machine::find().map_err(|status| format!("it has no System handle: {}", status.describe()))?;
    let bundle = bundle()?;
    let (system, trouble) = match description(&bundle) {
        Ok(system) => (system, None),
        Err(why) => (System::default(), Some(why)),
    };
    let options = options(&system.manager_cmdline);
    let mut manager = Manager::new(machine, bundle, options);
    if system.service(ServiceKind::Console).is_some()
        && let Err(status) = manager.desk.open(&mut manager.machine)
    {
        manager.event(&format!("no console: {}", status.describe()));
    }
    if !options.quiet {
        manager.event("manager is up; `help` lists the commands, Ctrl-] switches the keyboard");
    }
    if let Some(why) = trouble {
        manager.event(&format!("no system: {why}"));
    }
    populate(&mut manager, system);
    Ok(manager)
}

/// Adds the guests in the order in which they start, and lets those start that are to.
fn populate(manager: &mut Manager, system: System) {
    let order = system.order().unwrap_or_default();
    let wanted = wanted(&system);
    manager.channels = Channels::new(links::all(&system));
    let mut guests: Vec<_> = system.guests.into_iter().map(Some).collect();
    let kinds: Vec<_> = system.services.iter().map(|service| service.kind).collect();
    let (devices, troubles) = Devices::find(&manager.machine, &kinds);
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
        manager.start(id, now);
    }
    for index in order {
        let Some(description) = guests.get_mut(usize::from(index)).and_then(Option::take) else { continue };
        let id = manager.add_guest(description, Some(index));
        if wanted.contains(&index) {
            manager.start(id, now);
        }
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

fn description(bundle: &Archive<'static>) -> Result<System, String> {
    let entry = bundle.find(names::SYSTEM).map_err(|error| error.to_string())?;
    let entry = entry.ok_or("the bundle has no system description")?;
    System::decode(entry.data).map_err(|error| error.to_string())
}

/// Options come from the description, and from the machine's boot arguments if EL2 hands those on.
fn options(cmdline: &str) -> Options {
    let has = |key: &str| cmdline.split_ascii_whitespace().any(|word| word == key) || dtb::bootarg(key).is_some();
    let backoff = cmdline.split_ascii_whitespace().find_map(|word| word.strip_prefix("portico.backoff_ms="));
    Options {
        exit_when_idle: has("portico.exit_when_idle"),
        quiet: has("portico.quiet"),
        backoff_ms: backoff.and_then(|text| text.parse().ok()),
    }
}
