//! From the text of a description to a checked system: what concerns more than one guest.

use crate::channel;
use crate::diagnostic::{Report, Sink, Span, closest, one_of};
use crate::guest::{self, Draft};
use crate::image::Images;
use crate::machine::{self, Machine, RESERVED_BYTES, SYSTEM_KEYS};
use crate::section::{Keys, Section};
use crate::value::{format_cpus, format_size};
use crate::{LoadOptions, System};
use portico_bundle::description::{self, MAX_GUESTS, Reservation};
use portico_core::runq::Admission;
use std::path::Path;
use toml::de::DeTable;

const TOP_KEYS: Keys = Keys {
    known: &["system", "manager", "guest", "channel"],
    aliases: &[
        ("guests", "guest"),
        ("channels", "channel"),
        ("domain", "guest"),
        ("vm", "guest"),
        ("machine", "system"),
    ],
    foreign: &[],
    tables: &["[system]", "[manager]", "[[guest]]", "[[channel]]"],
};
const MANAGER_KEYS: Keys =
    Keys { known: &["cmdline"], aliases: &[("extra", "cmdline"), ("bootargs", "cmdline")], foreign: &[], tables: &[] };

/// Compiles `text`, which stands in the file `path`.
pub(crate) fn compile(text: &str, path: &Path, options: &LoadOptions<'_>) -> Result<System, Report> {
    let mut sink = Sink::new(path, text);
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        sink.add(&span, "", format!("not TOML: {}", error.message()), "correct the syntax here");
    }
    // What a parser makes of damaged text is not worth more diagnostics.
    if !sink.is_empty() {
        return Err(sink.into_report());
    }
    let mut root = Section::new(root.get_ref(), 0..0, "");
    root.check_keys(&mut sink, &TOP_KEYS);
    let mut system = root.table(&mut sink, "system", "write a table `[system]`");
    if let Some(system) = &mut system {
        system.subject = String::from("system");
        system.check_keys(&mut sink, &SYSTEM_KEYS);
    }
    let machine = machine::read(system.as_ref(), options, &mut sink);
    let name = match &system {
        Some(system) if system.has("name") => guest::read_name(system, &mut sink).map(|name| name.value.to_owned()),
        _ => None,
    };
    let name = name.unwrap_or_else(|| path.file_stem().unwrap_or_default().to_string_lossy().into_owned());
    let manager_cmdline = read_manager(&root, options, &mut sink);

    let base = path.parent().unwrap_or(Path::new(""));
    let mut images = Images::default();
    let mut drafts = Vec::new();
    for (index, (table, span)) in root.tables(&mut sink, "guest").into_iter().enumerate() {
        let section = Section::new(table, span, "");
        drafts.push(guest::read(section, index + 1, base, options, &mut images, &mut sink));
    }
    if drafts.is_empty() && !root.has("guest") {
        sink.add_whole("the system has no guest", "write at least one `[[guest]]`");
    }
    if let Some(extra) = drafts.get(MAX_GUESTS) {
        sink.add(&extra.span, &extra.subject, "too many guests", format!("describe at most {MAX_GUESTS}"));
    }
    check_names(&drafts, &mut sink);
    resolve_depends(&mut drafts, &mut sink);
    check_circles(&drafts, &mut sink);
    check_cpus(&drafts, &machine, &mut sink);
    check_admission(&drafts, &machine, &mut sink);
    let channels = channel::read_all(&root, &drafts, &mut sink);
    let channel_bytes = channels.iter().map(|channel| u64::from(channel.pages) * portico_abi::PAGE_SIZE).sum();
    check_memory(&drafts, &machine, &images, channel_bytes, &mut sink);

    let guests = drafts.into_iter().map(|draft| draft.guest).collect();
    let description = description::System { name, manager_cmdline, guests, channels, ..Default::default() };
    // The rules of the encoding are a subset of those above; if one was forgotten there, it is caught here.
    if let (true, Err(error)) = (sink.is_empty(), description.check()) {
        sink.add_whole(error.to_string(), "correct the description");
    }
    if !sink.is_empty() {
        return Err(sink.into_report());
    }
    Ok(System { machine, description, images: images.list })
}

fn read_manager(root: &Section<'_>, options: &LoadOptions<'_>, sink: &mut Sink<'_>) -> String {
    let mut cmdline = String::new();
    if let Some(mut manager) = root.table(sink, "manager", "write a table `[manager]`") {
        manager.subject = String::from("manager");
        manager.check_keys(sink, &MANAGER_KEYS);
        cmdline = guest::read_cmdline(&manager, sink);
    }
    if !cmdline.is_empty() && !options.manager_cmdline.is_empty() {
        cmdline.push(' ');
    }
    cmdline + &options.manager_cmdline
}

/// Names of the guests that have a good one.
pub(crate) fn names<'d>(drafts: &'d [Draft<'_>]) -> impl Iterator<Item = &'d str> {
    drafts.iter().filter_map(|draft| draft.name.as_ref().map(|name| name.value))
}

/// Index of the guest of this name, or a diagnostic.
pub(crate) fn find_guest(
    name: &str,
    span: &Span,
    subject: &str,
    drafts: &[Draft<'_>],
    sink: &mut Sink<'_>,
) -> Option<u16> {
    let is_it = |draft: &Draft<'_>| draft.name.as_ref().is_some_and(|found| found.value == name);
    if let Some(index) = drafts.iter().position(is_it) {
        return u16::try_from(index).ok();
    }
    let help = match closest(name, names(drafts)) {
        Some(near) => format!("write `{near}`"),
        None if names(drafts).next().is_some() => format!("write {}", one_of(names(drafts))),
        None => String::from("describe it with `[[guest]]`"),
    };
    sink.add(span, subject, format!("there is no guest `{name}`"), help);
    None
}

fn check_names(drafts: &[Draft<'_>], sink: &mut Sink<'_>) {
    for (index, draft) in drafts.iter().enumerate() {
        let Some(name) = &draft.name else { continue };
        if names(drafts.get(..index).unwrap_or_default()).any(|earlier| earlier == name.value) {
            sink.add(&name.span, &draft.subject, "another guest has this name", "write a name of its own");
        }
    }
}

fn resolve_depends(drafts: &mut [Draft<'_>], sink: &mut Sink<'_>) {
    for index in 0..drafts.len() {
        let Some(draft) = drafts.get(index) else {
            continue;
        };
        let mut depends = Vec::new();
        for needed in &draft.depends {
            let Some(found) = find_guest(needed.value, &needed.span, &draft.subject, drafts, sink) else {
                continue;
            };
            if usize::from(found) == index {
                sink.add(&needed.span, &draft.subject, "depends on itself", "take it out of `depends`");
            } else if depends.contains(&found) {
                let message = format!("depends on `{}` twice", needed.value);
                sink.add(&needed.span, &draft.subject, message, "take one out of `depends`");
            } else {
                depends.push(found);
            }
        }
        if let Some(draft) = drafts.get_mut(index) {
            draft.guest.depends = depends;
        }
    }
}

/// Reports each circle of dependencies once, at the guest of it that is described first.
fn check_circles(drafts: &[Draft<'_>], sink: &mut Sink<'_>) {
    let mut reported = vec![false; drafts.len()];
    for start in 0..drafts.len() {
        let Some(path) = circle_from(start, drafts) else {
            continue;
        };
        if path.iter().any(|index| reported.get(*index) == Some(&true)) {
            continue;
        }
        let name = |index: &usize| drafts.get(*index).map_or("", |draft| draft.guest.name.as_str());
        let text: Vec<&str> = path.iter().chain([&start]).map(name).collect();
        for index in &path {
            if let Some(flag) = reported.get_mut(*index) {
                *flag = true;
            }
        }
        let Some(draft) = drafts.get(start) else {
            continue;
        };
        let span = draft.depends.first().map_or(&draft.span, |first| &first.span);
        let message = format!("guests depend on each other in a circle: {}", text.join(" -> "));
        sink.add(span, &draft.subject, message, "take one of them out of `depends`");
    }
}

/// A shortest way along `depends` from a guest back to itself.
fn circle_from(start: usize, drafts: &[Draft<'_>]) -> Option<Vec<usize>> {
    let mut came_from = vec![None; drafts.len()];
    let mut queue = std::collections::VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        for next in drafts.get(at)?.guest.depends.iter().map(|index| usize::from(*index)) {
            if next == start {
                let mut path = vec![at];
                let mut back = at;
                while back != start {
                    back = (*came_from.get(back)?)?;
                    path.push(back);
                }
                path.reverse();
                return Some(path);
            }
            let origin = came_from.get_mut(next)?;
            if origin.is_none() {
                *origin = Some(at);
                queue.push_back(next);
            }
        }
    }
    None
}

fn check_cpus(drafts: &[Draft<'_>], machine: &Machine, sink: &mut Sink<'_>) {
    for draft in drafts {
        let Some(cpus) = &draft.cpus else { continue };
        let beyond = cpus.value & !machine.cpu_mask();
        if beyond != 0 {
            let message =
                format!("`cpus` names {}, the machine has {}", format_cpus(beyond), format_cpus(machine.cpu_mask()));
            sink.add(
                &cpus.span,
                &draft.subject,
                message,
                "name processors that there are, or write `cpus` in `[system]`",
            );
        }
    }
}

/// Refuses reservations that EL2's admission test will refuse on this machine.
///
/// For each set of pCPUs that some guest is bound to, what is reserved by guests bound to pCPUs of that set must fit into it. A
/// system that passes can still be refused by EL2, which places whole vCPUs.
fn check_admission(drafts: &[Draft<'_>], machine: &Machine, sink: &mut Sink<'_>) {
    let all = machine.cpu_mask();
    let mask = |draft: &Draft<'_>| match draft.guest.affinity & all {
        0 => all,
        mask => mask,
    };
    let permille = |r: Reservation| (u64::from(r.budget_us) * 1000).div_ceil(u64::from(r.period_us.max(1)));
    let limit = u64::from(Admission::LIMIT_PERMILLE);
    let mut full: Vec<u64> = Vec::new();
    for draft in drafts {
        let Some(reservation) = &draft.reservation else {
            continue;
        };
        let share = permille(reservation.value);
        if share > limit {
            let message = format!("reserves {} % of a processor for a vCPU", percent(share));
            let help = format!("reserve at most {} %", percent(limit));
            sink.add(&reservation.span, &draft.subject, message, help);
            continue;
        }
        let set = mask(draft);
        let within = |other: &&Draft<'_>| mask(other) & !set == 0;
        let reserved: u64 = drafts
            .iter()
            .filter(within)
            .filter_map(|other| {
                Some(permille(other.reservation.as_ref()?.value).min(limit) * u64::from(other.guest.vcpus))
            })
            .sum();
        let there = limit * u64::from(set.count_ones());
        if reserved > there && !full.contains(&set) {
            full.push(set);
            let message = format!(
                "{} % of a processor is reserved on processors {}, where {} % can be",
                percent(reserved),
                format_cpus(set),
                percent(there)
            );
            sink.add(&reservation.span, &draft.subject, message, "reserve less, or bind guests to other processors");
        }
    }
}

/// Formats thousandths as percent.
fn percent(permille: u64) -> String {
    match permille % 10 {
        0 => (permille / 10).to_string(),
        tenth => format!("{}.{tenth}", permille / 10),
    }
}

/// Which guests start with the machine: those that say so, and all that they depend on.
fn started(drafts: &[Draft<'_>]) -> Vec<bool> {
    let mut started = vec![false; drafts.len()];
    let autostart = |(index, draft): (usize, &Draft<'_>)| draft.guest.autostart.then_some(index);
    let mut left: Vec<usize> = drafts.iter().enumerate().filter_map(autostart).collect();
    while let Some(index) = left.pop() {
        let (Some(flag), Some(draft)) = (started.get_mut(index), drafts.get(index)) else {
            continue;
        };
        if !std::mem::replace(flag, true) {
            left.extend(draft.guest.depends.iter().map(|needed| usize::from(*needed)));
        }
    }
    started
}

/// Refuses guests that together need more than the machine has. Those that do not start with it are not counted.
fn check_memory(drafts: &[Draft<'_>], machine: &Machine, images: &Images, channel_bytes: u64, sink: &mut Sink<'_>) {
    let bundle: u64 = images.list.iter().map(|image| image.bytes.len() as u64).sum();
    let bundle = bundle.next_multiple_of(1 << 20);
    let kept = RESERVED_BYTES
        .saturating_add(machine.kind.firmware_bytes())
        .saturating_add(bundle)
        .saturating_add(channel_bytes.next_multiple_of(1 << 20));
    let free = machine.memory_bytes.saturating_sub(kept);
    let mut used = 0u64;
    for (draft, _) in drafts.iter().zip(started(drafts)).filter(|(_, started)| *started) {
        let Some(memory) = &draft.memory else {
            continue;
        };
        let before = used;
        used = used.saturating_add(memory.value);
        if used > free {
            let message = format!(
                "too much memory: with this guest's {} the guests need {}, the machine has {} for them ({} less {} for firmware, hypervisor, manager, bundle and channels)",
                format_size(memory.value),
                format_size(used),
                format_size(free),
                format_size(machine.memory_bytes),
                format_size(kept),
            );
            let help = if free > before {
                format!("write at most \"{}M\", or more `memory` in `[system]`", (free - before) >> 20)
            } else {
                String::from("write more `memory` in `[system]`")
            };
            sink.add(&memory.span, &draft.subject, message, help);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MANAGER_KEYS, TOP_KEYS};
    use crate::machine::SYSTEM_KEYS;
    use crate::{channel, guest};

    /// The reference in `platform/README.md` has a row for each key, and no row for another.
    #[test]
    fn every_key_is_documented() {
        let text = include_str!("../../README.md");
        let parts: Vec<&str> = text.split("\n### ").collect();
        for (heading, keys) in [
            ("`[system]`", &SYSTEM_KEYS),
            ("`[manager]`", &MANAGER_KEYS),
            ("`[[guest]]`", &guest::KEYS),
            ("`[[channel]]`", &channel::KEYS),
        ] {
            let part = parts.iter().find(|part| part.starts_with(heading)).copied().unwrap_or_default();
            let rows = part.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
            let (mut rows, mut known): (Vec<&str>, Vec<&str>) = (rows.collect(), keys.known.to_vec());
            rows.sort_unstable();
            known.sort_unstable();
            assert_eq!(rows, known, "{heading}");
            assert!(TOP_KEYS.tables.iter().any(|table| heading.contains(table)));
        }
    }
}
