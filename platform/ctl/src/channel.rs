//! The `[[channel]]` tables of a description.

use crate::compile::find_guest;
use crate::diagnostic::Sink;
use crate::guest::{Draft, read_name};
use crate::section::{At, Keys, Section};
use crate::value::{self, SIZE_HELP};
use portico_abi::PAGE_SIZE;
use portico_bundle::description::{Channel, MAX_CHANNEL_PAGES, MAX_CHANNELS};

pub(crate) const KEYS: Keys = Keys {
    known: &["name", "between", "size"],
    aliases: &[("guests", "between"), ("ends", "between"), ("memory", "size")],
    foreign: &[],
    tables: &[],
};

const BETWEEN_HELP: &str = "write `between = [\"a\", \"b\"]`, the names of two guests";

/// Size of a window for which none was written, in bytes.
pub(crate) const DEFAULT_BYTES: u64 = 64 << 10;

/// Reads all channels. Those with mistakes are left out of the result.
pub(crate) fn read_all(root: &Section<'_>, drafts: &[Draft<'_>], sink: &mut Sink<'_>) -> Vec<Channel> {
    let mut channels: Vec<Channel> = Vec::new();
    for (index, (table, span)) in root.tables(sink, "channel").into_iter().enumerate() {
        let mut section = Section::new(table, span, format!("channel number {}", index + 1));
        if let Some(name) = section.raw("name").and_then(|name| name.get_ref().as_str()) {
            section.subject = format!("channel {name:?}");
        }
        section.check_keys(sink, &KEYS);
        if index == MAX_CHANNELS {
            let help = format!("describe at most {MAX_CHANNELS}");
            sink.add(&section.span, &section.subject, "too many channels", help);
        }
        let name = read_name(&section, sink);
        let ends = read_between(&section, drafts, sink);
        let pages = read_pages(&section, sink);
        let (Some(name), Some((a, b)), Some(pages)) = (name, ends, pages) else {
            continue;
        };
        let shares =
            |other: &&Channel| other.name == name.value && [a, b].iter().any(|g| [other.a, other.b].contains(g));
        if let Some(other) = channels.iter().find(shares) {
            let both = if [other.a, other.b].contains(&a) { a } else { b };
            let guest = drafts.get(usize::from(both)).map_or("", |draft| draft.guest.name.as_str());
            let message = format!("guest `{guest}` has another channel of this name");
            sink.add(&name.span, &section.subject, message, "write a name of its own");
            continue;
        }
        channels.push(Channel { name: name.value.to_owned(), a, b, pages });
    }
    channels
}

fn read_between(section: &Section<'_>, drafts: &[Draft<'_>], sink: &mut Sink<'_>) -> Option<(u16, u16)> {
    section.require(sink, "between", BETWEEN_HELP);
    let ends = section.strings(sink, "between", BETWEEN_HELP)?;
    let [At { value: a, span: span_a }, At { value: b, span: span_b }] = ends.value.as_slice() else {
        sink.add(&ends.span, &section.subject, "`between` does not have two names", BETWEEN_HELP);
        return None;
    };
    let side_a = find_guest(a, span_a, &section.subject, drafts, sink);
    let side_b = find_guest(b, span_b, &section.subject, drafts, sink);
    let (side_a, side_b) = (side_a?, side_b?);
    if side_a == side_b {
        let message = format!("connects guest `{a}` with itself");
        sink.add(&ends.span, &section.subject, message, "write the names of two guests");
        return None;
    }
    Some((side_a, side_b))
}

fn read_pages(section: &Section<'_>, sink: &mut Sink<'_>) -> Option<u32> {
    if section.raw("size").is_none() {
        return u32::try_from(DEFAULT_BYTES / PAGE_SIZE).ok();
    }
    let size = section.parsed(sink, "size", SIZE_HELP, value::size)?;
    let pages = u32::try_from(size.value / PAGE_SIZE).ok().filter(|pages| *pages <= MAX_CHANNEL_PAGES);
    if pages.is_none() {
        sink.add(&size.span, &section.subject, "`size` is out of range", "write at most \"16M\"");
    }
    pages
}
