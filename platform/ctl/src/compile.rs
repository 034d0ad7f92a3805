//! From the text of a description to a checked system: what concerns more than one guest.

use crate::device::{self, bridge, drive, service};
use crate::diagnostic::{Report, Sink, Span, closest, one_of};
use crate::guest::{self, Draft};
use crate::image::Images;
use crate::machine::{self, SYSTEM_KEYS};
use crate::section::{Foreign, Keys, Section};
use crate::{LoadOptions, System, capacity, channel};
use portico_bundle::description::{self, MAX_GUESTS};
use std::path::Path;
use toml::de::DeTable;

const TOP_KEYS: Keys = Keys {
    known: &["system", "manager", "block", "net", "console", "disk", "bridge", "forward", "guest", "channel"],
    aliases: &[
        ("disks", "disk"),
        ("drive", "disk"),
        ("bridges", "bridge"),
        ("network", "bridge"),
        ("switch", "bridge"),
        ("forwards", "forward"),
        ("hostfwd", "forward"),
        ("guests", "guest"),
        ("channels", "channel"),
        ("domain", "guest"),
        ("vm", "guest"),
        ("machine", "system"),
    ],
    foreign: &[
        Foreign {
            key: "vif",
            message: "a network interface belongs to a guest",
            help: "write `vif = [\"BRIDGE\"]` in a `[[guest]]`",
        },
        Foreign {
            key: "service",
            message: "each service has a table of its own name",
            help: "write `[block]`, `[net]` or `[console]`",
        },
    ],
    tables: &[
        "[system]",
        "[manager]",
        "[block]",
        "[net]",
        "[console]",
        "[[disk]]",
        "[[bridge]]",
        "[[forward]]",
        "[[guest]]",
        "[[channel]]",
    ],
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
    let channels = channel::read_all(&root, &drafts, &mut sink);
    let drives = drive::read_all(&root, base, &machine, options, &mut sink);
    let bridges = bridge::read_all(&root, &machine, options, &mut sink);
    let forwards = bridge::read_forwards(&root, &bridges, &mut sink);
    device::resolve(&mut drafts, &channels, &drives, &bridges, &name, &mut sink);
    let context = service::Context { drafts: &drafts, bridges: &bridges, machine: &machine, base, options };
    let services = service::read_all(&root, &context, &mut images, &mut sink);
    capacity::check(&drafts, &services, &channels, &images, &machine, &mut sink);

    let guests = drafts.into_iter().map(|draft| draft.guest).collect();
    let services = services.into_iter().map(|draft| draft.service).collect();
    let description =
        description::System { name, manager_cmdline, guests, channels, services, bridges: bridges.list() };
    // The rules of the encoding are a subset of those above; if one was forgotten there, it is caught here.
    if let (true, Err(error)) = (sink.is_empty(), description.check()) {
        sink.add_whole(error.to_string(), "correct the description");
    }
    if !sink.is_empty() {
        return Err(sink.into_report());
    }
    let drives = drives.into_iter().map(|draft| draft.drive).collect();
    Ok(System { machine, description, images: images.list, drives, forwards, notes: bridges.notes })
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

#[cfg(test)]
mod tests {
    use super::{MANAGER_KEYS, TOP_KEYS};
    use crate::device::{bridge, disk, drive, service, vif};
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
            ("`disk`", &disk::KEYS),
            ("`vif`", &vif::KEYS),
            ("`[[disk]]`", &drive::KEYS),
            ("`partitions`", &drive::PARTITION_KEYS),
            ("`[[bridge]]`", &bridge::KEYS),
            ("`[[forward]]`", &bridge::FORWARD_KEYS),
            ("`[block]`, `[net]`, `[console]`", &service::KEYS),
        ] {
            let part = parts.iter().find(|part| part.starts_with(heading)).copied().unwrap_or_default();
            let rows = part.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
            let (mut rows, mut known): (Vec<&str>, Vec<&str>) = (rows.collect(), keys.known.to_vec());
            rows.sort_unstable();
            known.sort_unstable();
            assert_eq!(rows, known, "{heading}");
        }
        for table in TOP_KEYS.tables {
            let documented = parts.iter().filter_map(|part| part.lines().next()).any(|line| line.contains(table));
            assert!(documented, "{table}");
        }
    }
}
