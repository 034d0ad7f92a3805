//! A guest's `disk`: virtual disks.

use super::{Entry, drive, entries, read_name, read_window, subject};
use crate::diagnostic::{Sink, Span, closest, one_of};
use crate::guest::Draft;
use crate::section::{At, Keys, Section};
use crate::value::{self, RATE_HELP, Wrong, format_size};
use portico_bundle::description::{
    Disk, MAX_DISKS, MAX_PARTITION, Part, QUEUES, SECTOR_BYTES, label_is_valid, name_is_valid,
};

pub(crate) const KEYS: Keys = Keys {
    known: &["name", "source", "mode", "iops", "bandwidth", "burst", "queues", "window"],
    aliases: &[
        ("vdev", "name"),
        ("target", "source"),
        ("disk", "source"),
        ("access", "mode"),
        ("rate", "bandwidth"),
        ("bps", "bandwidth"),
        ("size", "window"),
    ],
    foreign: &[],
    tables: &[],
};

const HELP: &str = "write a list such as [\"data:1\"] or [{ source = \"data:1\", mode = \"ro\" }]";
const SOURCE_HELP: &str =
    "write a disk of the machine and its part: \"data\", \"data:1\", \"data:LABEL\" or \"data@1M+16M\"";

/// Size of a queue's window for which none was written, in bytes.
const DEFAULT_WINDOW: u64 = 256 << 10;
/// `burst` of a disk with limits for which none was written.
const DEFAULT_BURST: u32 = 32;

/// A disk as far as it can be compiled alone.
pub(crate) struct DiskDraft {
    pub(crate) disk: Disk,
    pub(crate) subject: String,
    pub(crate) span: Span,
}

/// Reads the disks of a guest. Those with a bad source are left out.
pub(crate) fn read_all(section: &Section<'_>, sink: &mut Sink<'_>) -> Vec<DiskDraft> {
    let entries = entries(section, sink, "disk", HELP);
    if let (true, Some(list)) = (entries.len() > MAX_DISKS, section.raw("disk")) {
        sink.add(&list.span(), &section.subject, "too many disks", format!("write at most {MAX_DISKS}"));
    }
    entries.into_iter().filter_map(|(index, entry)| read(index, entry, &section.subject, sink)).collect()
}

fn read(index: usize, entry: Entry<'_>, guest: &str, sink: &mut Sink<'_>) -> Option<DiskDraft> {
    let (mut draft, source) = match entry {
        Entry::Text(source) => {
            let name = format!("disk{index}");
            let disk =
                Disk { name, queues: 1, pages: (DEFAULT_WINDOW / portico_abi::PAGE_SIZE) as u32, ..Disk::default() };
            let subject = subject("disk", &disk.name, guest);
            (DiskDraft { disk, subject, span: source.span.clone() }, source)
        }
        Entry::Table(mut section) => {
            let name = read_name(&mut section, "disk", "disk", index, sink);
            section.check_keys(sink, &KEYS);
            section.require(sink, "source", SOURCE_HELP);
            let disk = read_keys(&section, name, sink);
            let source = section.string(sink, "source", SOURCE_HELP)?;
            (DiskDraft { disk, subject: section.subject, span: source.span.clone() }, source)
        }
    };
    if source.value.is_empty() {
        // To be added by the operator.
        return Some(draft);
    }
    match parse_source(source.value) {
        Ok((disk, part)) => (draft.disk.disk, draft.disk.part) = (disk, part),
        Err((message, help)) => {
            sink.add(&source.span, &draft.subject, message, help);
            return None;
        }
    }
    Some(draft)
}

/// All but the source.
fn read_keys(section: &Section<'_>, name: String, sink: &mut Sink<'_>) -> Disk {
    let iops = section.integer(sink, "iops", 1..=10_000_000).map_or(0, |iops| iops.value as u32);
    let bandwidth = section.parsed(sink, "bandwidth", RATE_HELP, value::rate).map_or(0, |rate| rate.value);
    let limited = section.has("iops") || section.has("bandwidth");
    let burst = section.integer(sink, "burst", 1..=65_536);
    if let (Some(burst), false) = (&burst, limited) {
        let message = "`burst` has a meaning only with `iops` or `bandwidth`";
        sink.add(&burst.span, &section.subject, message, "write one of these too, or leave `burst` out");
    }
    let burst = burst.map_or(if limited { DEFAULT_BURST } else { 0 }, |burst| burst.value as u32);
    let queues = u64::from(*QUEUES.start())..=u64::from(*QUEUES.end());
    Disk {
        name,
        disk: String::new(),
        part: Part::Whole,
        read_only: read_mode(section, sink),
        iops,
        bytes_per_s: bandwidth,
        burst,
        queues: section.integer(sink, "queues", queues).map_or(1, |queues| queues.value as u16),
        pages: read_window(section, DEFAULT_WINDOW, sink),
    }
}

/// Whether `mode` is read-only.
fn read_mode(section: &Section<'_>, sink: &mut Sink<'_>) -> bool {
    const HELP: &str = "write `ro` or `rw`";
    let Some(At { value, span }) = section.string(sink, "mode", HELP) else {
        return false;
    };
    let help = match value {
        "ro" => return true,
        "rw" => return false,
        "r" | "read" | "readonly" | "read-only" => "write `ro`",
        "w" | "write" | "read-write" => "write `rw`",
        _ => HELP,
    };
    sink.add(&span, &section.subject, format!("unknown `mode` value `{value}`"), help);
    false
}

/// Splits a source into the machine's disk and its part.
fn parse_source(text: &str) -> Result<(String, Part), Wrong> {
    let wrong = |message: String, help: &str| Err((message, help.to_owned()));
    let (disk, rest) = text.split_at(text.find([':', '@']).unwrap_or(text.len()));
    if disk.contains(['/', ',', '=']) || rest.starts_with(":/") {
        let help = "describe the file or device by a `[[disk]]` table and write the name of that";
        return wrong(format!("`{text}` names a file or device as xl.cfg does"), help);
    }
    if !name_is_valid(disk) {
        return wrong(format!("`{text}` does not begin with the name of a disk"), SOURCE_HELP);
    }
    let part = match rest.split_at_checked(1) {
        None => Part::Whole,
        Some(("@", range)) => parse_range(range).map_err(|(message, help)| (format!("`{text}` {message}"), help))?,
        Some((_, number)) if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => {
            match number.parse() {
                Ok(number) if (1..=MAX_PARTITION).contains(&number) => Part::Number(number),
                _ => {
                    let help = format!("write a number from 1 to {MAX_PARTITION}");
                    return wrong(format!("`{text}` names partition {number}"), &help);
                }
            }
        }
        Some((_, label)) if label_is_valid(label) => Part::Label(label.to_owned()),
        Some(_) => return wrong(format!("`{text}` does not end with the number or name of a partition"), SOURCE_HELP),
    };
    Ok((disk.to_owned(), part))
}

/// Formats a source: the reverse of [`parse_source`].
pub(crate) fn format_source(disk: &Disk) -> String {
    let name = &disk.disk;
    if disk.is_empty() {
        return String::from("empty");
    }
    match &disk.part {
        Part::Whole => name.clone(),
        Part::Number(number) => format!("{name}:{number}"),
        Part::Label(label) => format!("{name}:{label}"),
        Part::Range { first, bytes } => format!("{name}@{}+{}", format_place(*first), format_place(*bytes)),
    }
}

fn format_place(bytes: u64) -> String {
    if bytes.is_multiple_of(1 << 10) { format_size(bytes) } else { format!("{}s", bytes / SECTOR_BYTES) }
}

/// Parses `OFFSET+LENGTH`.
fn parse_range(text: &str) -> Result<Part, Wrong> {
    const HELP: &str = "write where it begins and how long it is, such as \"data@1M+16M\"";
    let Some((first, length)) = text.split_once('+') else {
        return Err((String::from("has no length"), HELP.to_owned()));
    };
    let place =
        |text: &str, what: &str| value::place(text).map_err(|(message, help)| (format!("{what} {message}"), help));
    let first = place(first, "begins at a place that")?;
    let bytes = place(length, "has a length that")?;
    if bytes == 0 {
        return Err((String::from("is empty"), HELP.to_owned()));
    }
    if first.checked_add(bytes).is_none() {
        return Err((String::from("is out of range"), HELP.to_owned()));
    }
    Ok(Part::Range { first, bytes })
}

/// Checks the sources against the machine's disks and each other.
pub(super) fn resolve(drafts: &[Draft<'_>], drives: &[drive::Draft], sink: &mut Sink<'_>) {
    let mut earlier: Vec<(usize, Disk, &DiskDraft)> = Vec::new();
    for (guest, draft) in drafts.iter().enumerate() {
        for disk in draft.disks.iter().filter(|draft| !draft.disk.is_empty()) {
            let Some(part) = find_part(disk, drives, sink) else { continue };
            // A partition that is known by number and by name shall be one.
            let found = Disk { part, ..disk.disk.clone() };
            let other = earlier.iter().find(|(other, of_other, _)| *other != guest && of_other.conflicts(&found));
            if let Some((_, _, other)) = other {
                let message = format!("overlaps {}, and one of them can write", other.subject);
                sink.add(
                    &disk.span,
                    &disk.subject,
                    message,
                    "write `mode = \"ro\"` for both, or give each a part of its own",
                );
            }
            earlier.push((guest, found, disk));
        }
    }
}

/// Checks that a disk's source is there, as far as it is known, and returns its part, by number where it is known.
fn find_part(draft: &DiskDraft, drives: &[drive::Draft], sink: &mut Sink<'_>) -> Option<Part> {
    let wanted = &draft.disk.disk;
    let Some(found) = drives.iter().find(|found| found.drive.name == *wanted) else {
        let names = || drives.iter().map(|drive| drive.drive.name.as_str());
        let help = match closest(wanted, names()) {
            Some(near) => format!("write `{near}`"),
            None if !drives.is_empty() => format!("write {}, or describe it with `[[disk]]`", one_of(names())),
            None => String::from("describe it with `[[disk]]`"),
        };
        sink.add(&draft.span, &draft.subject, format!("the machine has no disk `{wanted}`"), help);
        return None;
    };
    let partitions = &found.drive.partitions;
    let labels = || partitions.iter().map(|partition| partition.label.as_str());
    let mut refuse = |message: String, help: String| {
        sink.add(&draft.span, &draft.subject, message, help);
        None
    };
    match &draft.disk.part {
        Part::Number(number) if !partitions.is_empty() && *number as usize > partitions.len() => {
            let message = format!("disk `{wanted}` is described with {} partitions", partitions.len());
            refuse(message, format!("write a number from 1 to {}", partitions.len()))
        }
        Part::Label(label) if !partitions.is_empty() => {
            if let Some(index) = labels().position(|other| other == label) {
                return Some(Part::Number(index as u32 + 1));
            }
            let help = match closest(label, labels()) {
                Some(near) => format!("write `{wanted}:{near}`"),
                None => format!("write {} after `{wanted}:`", one_of(labels())),
            };
            refuse(format!("disk `{wanted}` is described without a partition `{label}`"), help)
        }
        Part::Range { first, bytes } => match found.drive.bytes {
            Some(size) if first + bytes > size => {
                let message = format!("ends at byte {}, disk `{wanted}` has {size}", first + bytes);
                let left = size.saturating_sub(*first) / SECTOR_BYTES;
                let help = format!("write a length of at most \"{left}s\", or a larger `size` there");
                refuse(message, if left > 0 { help } else { String::from("let it begin earlier") })
            }
            _ => Some(draft.disk.part.clone()),
        },
        Part::Whole | Part::Number(_) | Part::Label(_) => Some(draft.disk.part.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::{format_source, parse_source};
    use portico_bundle::description::{Disk, Part};

    #[test]
    fn sources() {
        let label = |text: &str| Part::Label(text.to_owned());
        for (text, disk, part) in [
            ("data", "data", Part::Whole),
            ("data:1", "data", Part::Number(1)),
            ("data:root", "data", label("root")),
            ("data:my root@home", "data", label("my root@home")),
            ("sd:1a", "sd", label("1a")),
            ("data@0+16M", "data", Part::Range { first: 0, bytes: 16 << 20 }),
            ("data@2048s+1s", "data", Part::Range { first: 1 << 20, bytes: 512 }),
        ] {
            assert_eq!(parse_source(text), Ok((disk.to_owned(), part.clone())), "{text}");
            let formatted = format_source(&Disk { disk: disk.to_owned(), part: part.clone(), ..Disk::default() });
            assert_eq!(parse_source(&formatted), Ok((disk.to_owned(), part)), "{formatted}");
        }
        for text in [
            "",
            ":1",
            "data:",
            "data@",
            "data@1M",
            "data@1M+0",
            "data@1+1M",
            "data@1M+1",
            "data:0",
            "data:129",
            "a b",
            "data:\n",
        ] {
            assert!(parse_source(text).is_err(), "{text}");
        }
        assert!(parse_source("data@1s+36028797018963967s").is_err());
        for text in ["/dev/vda,raw,xvda,rw", "phy:/dev/vda,xvda,w", "format=raw, vdev=xvda, target=/x.img"] {
            assert!(parse_source(text).is_err_and(|(message, _)| message.contains("xl.cfg")), "{text}");
        }
    }
}
