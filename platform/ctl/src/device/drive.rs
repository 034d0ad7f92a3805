//! The `[[disk]]` tables of a description: the machine's disks.

use crate::diagnostic::{Sink, Span};
use crate::guest::read_name;
use crate::machine::Machine;
use crate::section::{At, Keys, Section};
use crate::value::{self, SIZE_HELP, format_size};
use crate::{LoadOptions, image};
use portico_abi::PAGE_SIZE;
use portico_bundle::description::{MAX_LABEL, MAX_PARTITION, label_is_valid};
use serde::Serialize;
use std::path::{Path, PathBuf};

pub(crate) const KEYS: Keys = Keys {
    known: &["name", "file", "size", "image", "partitions"],
    aliases: &[("serial", "name"), ("path", "file"), ("source", "file"), ("partition", "partitions")],
    foreign: &[],
    tables: &[],
};
pub(crate) const PARTITION_KEYS: Keys = Keys {
    known: &["label", "size", "files", "image"],
    aliases: &[("name", "label"), ("folder", "files"), ("directory", "files"), ("source", "image")],
    foreign: &[],
    tables: &[],
};

const IMAGE_HELP: &str = "write the path of a file, or `linux:debian`, in quotes";
const PARTITION_HELP: &str = "write `partitions = [{ label = \"root\", size = \"16M\" }]`";

/// Partitions begin at its multiples, and the tables at both ends of a disk take one each.
const ALIGN: u64 = 1 << 20;
/// Smallest partition that gets a file system, in bytes.
const MIN_FILES: u64 = 256 << 10;

/// A disk of the machine. All but its name concerns the file that QEMU makes a disk of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Drive {
    /// Its name: the serial of a virtio disk, or `sd`.
    pub name: String,
    /// The file; `None` if the description names none.
    pub file: Option<PathBuf>,
    /// Its size in bytes, if it must be created; `None` if the description does not say.
    pub bytes: Option<u64>,
    /// What it is a copy of, if it must be created; zeros if the description does not say.
    pub image: Option<PathBuf>,
    /// Its partitions, if it must be created; none for a disk without partition table.
    pub partitions: Vec<Partition>,
}

/// A partition of a disk that is created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Partition {
    /// Its name.
    pub label: String,
    /// Its size, in bytes.
    pub bytes: u64,
    /// What is on it.
    pub content: Content,
}

/// What is on a partition that is created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// Zeros.
    Blank,
    /// A FAT file system with one text that says what it is.
    Readme,
    /// A FAT file system with the files of this folder.
    Folder(PathBuf),
    /// A copy of this file, and zeros after it.
    Image(PathBuf),
}

impl Drive {
    /// Says whether this file, or a part of it, is a copy of `path` when it is created.
    pub fn has_image(&self, path: &Path) -> bool {
        let is_it = |partition: &Partition| matches!(&partition.content, Content::Image(image) if image == path);
        self.image.as_deref() == Some(path) || self.partitions.iter().any(is_it)
    }

    /// First byte and length of each partition.
    pub fn layout(&self) -> Vec<(u64, u64)> {
        let mut next = ALIGN;
        let place = |partition: &Partition| {
            let first = next;
            next = first.saturating_add(partition.bytes).checked_next_multiple_of(ALIGN).unwrap_or(u64::MAX);
            (first, partition.bytes)
        };
        self.partitions.iter().map(place).collect()
    }

    /// Least size that holds the partitions and their tables, in bytes.
    pub fn least_bytes(&self) -> u64 {
        let end = self.layout().last().map_or(0, |(first, bytes)| first.saturating_add(*bytes));
        end.saturating_add(ALIGN).checked_next_multiple_of(ALIGN).unwrap_or(u64::MAX)
    }
}

/// A disk of the machine, checked.
pub(crate) struct Draft {
    pub(crate) drive: Drive,
}

/// Reads all disks of the machine; those of the command line replace those of the description.
pub(crate) fn read_all(
    root: &Section<'_>,
    base: &Path,
    machine: &Machine,
    options: &LoadOptions<'_>,
    sink: &mut Sink<'_>,
) -> Vec<Draft> {
    let kind = machine.kind;
    let mut drafts: Vec<Draft> = Vec::new();
    for (index, (table, span)) in root.tables(sink, "disk").into_iter().enumerate() {
        let mut section = Section::new(table, span, format!("disk number {}", index + 1));
        if let Some(name) = section.raw("name").and_then(|name| name.get_ref().as_str()) {
            section.subject = format!("disk {name:?}");
        }
        section.check_keys(sink, &KEYS);
        if index == kind.max_disks() && kind.fixed_disk().is_none() {
            let message = format!("machine `{}` has at most {} disks", kind.name(), kind.max_disks());
            sink.add(&section.span, &section.subject, message, "leave this one out");
        }
        let drive = read_file(&section, base, options, sink);
        let Some(name) = read_name(&section, sink) else { continue };
        if drafts.iter().any(|other| other.drive.name == name.value) {
            sink.add(&name.span, &section.subject, "another disk has this name", "write a name of its own");
            continue;
        }
        if let Some(only) = kind.fixed_disk().filter(|only| *only != name.value) {
            let message = format!("machine `{}` has one disk, the card `{only}`", kind.name());
            sink.add(&name.span, &section.subject, message, format!("write `{only}`"));
        }
        let name = name.value.to_owned();
        // Nothing is known of a file that the command line names.
        let given = options.disks.contains(&name);
        let drive = if given { Drive { name, ..Drive::default() } } else { Drive { name, ..drive } };
        drafts.push(Draft { drive });
    }
    for name in &options.disks {
        if let Some(only) = kind.fixed_disk().filter(|only| only != name) {
            let message =
                format!("machine `{}` has one disk, the card `{only}`, and `{name}` was asked for", kind.name());
            sink.add_whole(message, format!("ask for `{only}`"));
        } else if !drafts.iter().any(|draft| draft.drive.name == *name) {
            drafts.push(Draft { drive: Drive { name: name.clone(), ..Drive::default() } });
            if drafts.len() > kind.max_disks() {
                let message = format!("machine `{}` has at most {} disks", kind.name(), kind.max_disks());
                sink.add_whole(message, format!("do not ask for `{name}`"));
            }
        }
    }
    drafts
}

/// All but the name.
fn read_file(section: &Section<'_>, base: &Path, options: &LoadOptions<'_>, sink: &mut Sink<'_>) -> Drive {
    let file = section.string(sink, "file", "write a path in quotes").map(|file| base.join(file.value));
    let size = section.parsed(sink, "size", SIZE_HELP, value::size);
    let image = read_image(section, size.as_ref(), base, options, sink);
    let bytes = size.as_ref().map(|size| size.value).or(image.as_ref().and_then(|image| image.bytes));
    let mut drive = Drive { file, bytes, ..Drive::default() };
    if let (Some(image), Some(_)) = (&image, section.raw("partitions")) {
        let message = "a disk is a copy of an image or has partitions, not both";
        sink.add(&image.span, &section.subject, message, "write `image` in a partition, or leave one of them out");
    }
    drive.image = image.map(|image| image.path);
    for (index, entry) in super::entries(section, sink, "partitions", PARTITION_HELP) {
        match entry {
            super::Entry::Table(table) => {
                drive.partitions.extend(read_partition(table, index, &drive.partitions, base, options, sink));
            }
            super::Entry::Text(text) => {
                let message = format!("partition `{}` has no size", text.value);
                let help = format!("write `{{ label = {:?}, size = \"16M\" }}`", text.value);
                sink.add(&text.span, &section.subject, message, help);
            }
        }
    }
    if let (true, Some(list)) = (drive.partitions.len() > MAX_PARTITION as usize, section.raw("partitions")) {
        sink.add(&list.span(), &section.subject, "too many partitions", format!("write at most {MAX_PARTITION}"));
    }
    if drive.partitions.is_empty() {
        return drive;
    }
    let least = drive.least_bytes();
    match size {
        None => drive.bytes = Some(least),
        Some(size) if size.value < least => {
            let message = format!("its partitions and their tables need {}", format_size(least));
            sink.add(&size.span, &section.subject, message, format!("write \"{}\" or more", format_size(least)));
        }
        Some(_) => {}
    }
    drive
}

fn read_partition(
    mut section: Section<'_>,
    index: usize,
    earlier: &[Partition],
    base: &Path,
    options: &LoadOptions<'_>,
    sink: &mut Sink<'_>,
) -> Option<Partition> {
    section.subject = format!("partition {} of {}", index + 1, section.subject);
    section.check_keys(sink, &PARTITION_KEYS);
    section.require(sink, "label", "write `label = \"...\"`");
    section.require(sink, "size", "write `size = \"16M\"` or as much as it needs");
    let label = section.string(sink, "label", "write a name in quotes");
    let size = section.parsed(sink, "size", SIZE_HELP, value::size);
    let files = section.string(sink, "files", "write the path of a folder in quotes");
    if let Some(files) = &files {
        let folder = base.join(files.value);
        if !files.value.is_empty() && options.read_images && !folder.is_dir() {
            let message = format!("`{}` is not a folder", files.value);
            let help = "write the path of a folder, or \"\" for a file system with a note on it";
            sink.add(&files.span, &section.subject, message, help);
        }
        if let Some(size) = size.as_ref().filter(|size| size.value < MIN_FILES) {
            let help = format!("write \"{}\" or more", format_size(MIN_FILES));
            sink.add(&size.span, &section.subject, "`size` is too small for a file system", help);
        }
    }
    let image = read_image(&section, size.as_ref(), base, options, sink);
    if let (Some(image), Some(_)) = (&image, &files) {
        let message = "a partition is a copy of an image or has files, not both";
        sink.add(&image.span, &section.subject, message, "leave `image` or `files` out");
    }
    let (label, size) = (label?, size?);
    let numeric = label.value.bytes().all(|byte| byte.is_ascii_digit());
    if !label_is_valid(label.value) || numeric {
        let help = format!("use 1 to {MAX_LABEL} characters, not only digits");
        sink.add(&label.span, &section.subject, format!("bad label {:?}", label.value), help);
        return None;
    }
    if earlier.iter().any(|other| other.label == label.value) {
        sink.add(&label.span, &section.subject, "another partition has this label", "write a label of its own");
    }
    let content = match (image, files.map(|files| files.value)) {
        (Some(image), _) => Content::Image(image.path),
        (None, None) => Content::Blank,
        (None, Some("")) => Content::Readme,
        (None, Some(folder)) => Content::Folder(base.join(folder)),
    };
    Some(Partition { label: label.value.to_owned(), bytes: size.value, content })
}

/// An image that something is a copy of.
struct Source {
    path: PathBuf,
    /// Its size; `None` if images are not read.
    bytes: Option<u64>,
    span: Span,
}

/// Reads the key `image` of what has so much room.
fn read_image(
    section: &Section<'_>,
    size: Option<&At<u64>>,
    base: &Path,
    options: &LoadOptions<'_>,
    sink: &mut Sink<'_>,
) -> Option<Source> {
    let written = section.string(sink, "image", IMAGE_HELP)?;
    let (path, bytes) = match image::find(written.value, base, options) {
        Ok(found) => found,
        Err((message, help)) => {
            sink.add(&written.span, &section.subject, message, help);
            return None;
        }
    };
    // A disk has whole pages, so what is a copy of less has zeros at its end.
    let bytes = bytes.map(|bytes| bytes.next_multiple_of(PAGE_SIZE));
    if let (Some(size), Some(bytes)) = (size, bytes)
        && size.value < bytes
    {
        let message = format!("`size` is too small for `{}`", written.value);
        sink.add(&size.span, &section.subject, message, format!("write \"{}\" or more", format_size(bytes)));
    }
    Some(Source { path, bytes, span: written.span })
}
