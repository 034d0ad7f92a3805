//! Disks and networks: what the machine has of them, what guests get, and the services between.

pub(crate) mod bridge;
pub(crate) mod disk;
pub(crate) mod drive;
pub(crate) mod service;
pub(crate) mod vif;

use crate::diagnostic::Sink;
use crate::guest::Draft;
use crate::section::{At, Scalar, Section};
use crate::value::{self, SIZE_HELP, Wrong};
use portico_abi::PAGE_SIZE;
use portico_bundle::description::{Channel, WINDOW_PAGES};
use toml::de::DeValue;

/// An element of a guest's list of devices.
enum Entry<'a> {
    /// The short form.
    Text(At<&'a str>),
    /// The form with keys.
    Table(Section<'a>),
}

/// The elements of the list `key`, each with its index. `help` says what to write instead of what is neither text
/// nor a table.
fn entries<'a>(section: &Section<'a>, sink: &mut Sink<'_>, key: &str, help: &str) -> Vec<(usize, Entry<'a>)> {
    let Some(found) = section.raw(key) else {
        return Vec::new();
    };
    let Some(array) = found.get_ref().as_array() else {
        section.wrong_type(sink, key, found, help);
        return Vec::new();
    };
    let mut entries = Vec::new();
    for (index, element) in array.iter().enumerate() {
        match element.get_ref() {
            DeValue::String(text) => entries.push((index, Entry::Text(At { value: text, span: element.span() }))),
            DeValue::Table(table) => {
                let subject = section.subject.clone();
                entries.push((index, Entry::Table(Section::new(table, element.span(), subject))));
            }
            _ => section.wrong_type(sink, key, element, help),
        }
    }
    entries
}

/// Name of a guest's device: what is written, or `prefix` and its index. Also sets the section's subject.
fn read_name(section: &mut Section<'_>, kind: &str, prefix: &str, index: usize, sink: &mut Sink<'_>) -> String {
    let default = format!("{prefix}{index}");
    let written = section.raw("name").and_then(|name| name.get_ref().as_str()).unwrap_or(&default);
    section.subject = subject(kind, written, &section.subject);
    if !section.has("name") {
        return default;
    }
    crate::guest::read_name(section, sink).map_or(default, |name| name.value.to_owned())
}

/// What diagnostics of a guest's device are about.
fn subject(kind: &str, name: &str, guest: &str) -> String {
    format!("{kind} {name:?} of {guest}")
}

/// Size of a window, in pages.
fn read_window(section: &Section<'_>, default_bytes: u64, sink: &mut Sink<'_>) -> u32 {
    let parse = |scalar: Scalar<'_>| -> Result<u32, Wrong> {
        let pages = u32::try_from(value::size(scalar)? / PAGE_SIZE).ok();
        pages
            .filter(|pages| WINDOW_PAGES.contains(pages))
            .ok_or_else(|| (String::from("is out of range"), String::from("write a size from \"32K\" to \"16M\"")))
    };
    let pages = section.parsed(sink, "window", SIZE_HELP, parse);
    pages.map_or((default_bytes / PAGE_SIZE) as u32, |pages| pages.value)
}

/// Puts the guests' disks and network interfaces together with the machine's disks and the bridges, and checks what
/// concerns more than one of them.
pub(crate) fn resolve(
    drafts: &mut [Draft<'_>],
    channels: &[Channel],
    drives: &[drive::Draft],
    bridges: &bridge::Bridges,
    system: &str,
    sink: &mut Sink<'_>,
) {
    check_names(drafts, channels, sink);
    for draft in drafts.iter_mut() {
        vif::resolve(draft, bridges, system, sink);
    }
    vif::check_addresses(drafts, sink);
    disk::resolve(drafts, drives, sink);
    for draft in drafts {
        draft.guest.disks = draft.disks.iter().map(|draft| draft.disk.clone()).collect();
        draft.guest.vifs = draft.vifs.iter().map(|draft| draft.vif.clone()).collect();
    }
}

/// A guest finds its channels, disks and network interfaces by their names.
fn check_names(drafts: &[Draft<'_>], channels: &[Channel], sink: &mut Sink<'_>) {
    for (index, draft) in (0u16..).zip(drafts) {
        let own = channels.iter().filter(|channel| [channel.a, channel.b].contains(&index));
        let mut taken: Vec<(&str, &str)> = own.map(|channel| (channel.name.as_str(), "channel")).collect();
        let disks = draft.disks.iter().map(|d| (d.disk.name.as_str(), "disk", &d.span, &d.subject));
        let vifs = draft.vifs.iter().map(|v| (v.vif.name.as_str(), "network interface", &v.span, &v.subject));
        for (name, kind, span, subject) in disks.chain(vifs) {
            match taken.iter().find(|(other, _)| *other == name) {
                Some((_, other)) => {
                    let message = format!("the guest has another {other} of this name");
                    let message = if *other == kind { message } else { message.replace("another", "a") };
                    sink.add(span, subject, message, "write a `name` of its own");
                }
                None => taken.push((name, kind)),
            }
        }
    }
}
