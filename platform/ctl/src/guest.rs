//! One `[[guest]]` of a description.

use crate::LoadOptions;
use crate::device::disk::{self, DiskDraft};
use crate::device::vif::{self, VifDraft};
use crate::diagnostic::{Sink, Span, closest, one_of};
use crate::image::Images;
use crate::kernel::{self, Refused};
use crate::section::{At, Foreign, Keys, Section};
use crate::value::{self, CAP_HELP, CPUS_HELP, SIZE_HELP, TIME_HELP};
use portico_abi::{BLOCK_SIZE, PAGE_SIZE};
use portico_bundle::description::{
    Guest, MAX_ELASTIC_PAGES, MAX_MEMORY_PAGES, MAX_NAME, MAX_VCPUS, OnCrash, Reservation, RestartLimit, name_is_valid,
};
use portico_bundle::names::{IMAGE_PREFIX, RAMDISK_PREFIX};
use std::path::Path;

pub(crate) const KEYS: Keys = Keys {
    known: &[
        "name",
        "kernel",
        "ramdisk",
        "cmdline",
        "memory",
        "memory_min",
        "vcpus",
        "cpus",
        "weight",
        "cap",
        "reservation",
        "on_crash",
        "restart",
        "depends",
        "watchdog",
        "autostart",
        "disk",
        "vif",
    ],
    aliases: &[
        ("extra", "cmdline"),
        ("bootargs", "cmdline"),
        ("append", "cmdline"),
        ("args", "cmdline"),
        ("initrd", "ramdisk"),
        ("image", "kernel"),
        ("ram", "memory"),
        ("mem", "memory"),
        ("maxmem", "memory"),
        ("memory_max", "memory"),
        ("minmem", "memory_min"),
        ("min_memory", "memory_min"),
        ("maxvcpus", "vcpus"),
        ("smp", "vcpus"),
        ("affinity", "cpus"),
        ("cpu_weight", "weight"),
        ("depends_on", "depends"),
        ("after", "depends"),
        ("disks", "disk"),
        ("vifs", "vif"),
        ("nics", "vif"),
        ("networks", "vif"),
    ],
    foreign: &[
        Foreign { key: "devices", message: "`devices` is not in this version", help: "leave it out" },
        Foreign { key: "pci", message: "`pci` is not in this version", help: "leave it out" },
        Foreign {
            key: "trusted-dma",
            message: "no guest is given a device; services are",
            help: "write it in `[block]` or `[net]`",
        },
        Foreign {
            key: "channel",
            message: "a channel belongs to two guests",
            help: "write a `[[channel]]` table with `between`, outside of the guests",
        },
        Foreign { key: "type", message: "there is one type of guest", help: "leave `type` out" },
        Foreign {
            key: "on_reboot",
            message: "a guest that asks to be rebooted always is",
            help: "leave `on_reboot` out",
        },
        Foreign {
            key: "on_poweroff",
            message: "a guest that powers itself off is always destroyed",
            help: "leave `on_poweroff` out",
        },
    ],
    tables: &[],
};

const RESERVATION_KEYS: Keys =
    Keys { known: &["budget", "period"], aliases: &[("runtime", "budget")], foreign: &[], tables: &[] };
const RESTART_KEYS: Keys =
    Keys { known: &["limit", "window"], aliases: &[("count", "limit"), ("max", "limit")], foreign: &[], tables: &[] };

/// Share of processor time of a guest for which none was written.
const DEFAULT_WEIGHT: u16 = 256;
/// Longest command line, in bytes: what Linux takes on arm64, less its NUL.
const MAX_CMDLINE: usize = 2047;

/// A guest as far as it can be compiled alone, and where its parts stand for later checks.
pub(crate) struct Draft<'a> {
    pub(crate) guest: Guest,
    pub(crate) subject: String,
    pub(crate) span: Span,
    pub(crate) name: Option<At<&'a str>>,
    pub(crate) memory: Option<At<u64>>,
    pub(crate) cpus: Option<At<u64>>,
    pub(crate) reservation: Option<At<Reservation>>,
    pub(crate) depends: Vec<At<&'a str>>,
    pub(crate) disks: Vec<DiskDraft>,
    pub(crate) vifs: Vec<VifDraft<'a>>,
}

/// Reads guest number `number` (from 1).
pub(crate) fn read<'a>(
    mut section: Section<'a>,
    number: usize,
    base: &Path,
    options: &LoadOptions<'_>,
    images: &mut Images,
    sink: &mut Sink<'_>,
) -> Draft<'a> {
    let written = section.raw("name").and_then(|name| name.get_ref().as_str());
    section.subject = match written {
        Some(name) => format!("guest {name:?}"),
        None => format!("guest number {number}"),
    };
    section.check_keys(sink, &KEYS);
    let name = read_name(&section, sink);
    section.require(sink, "memory", "write `memory = \"64M\"` or as much as it needs");
    let memory = read_memory(&section, sink);
    let memory_min = read_memory_min(&section, memory.as_ref(), sink);
    let vcpus = section.integer(sink, "vcpus", 1..=u64::from(MAX_VCPUS)).map_or(1, |at| at.value);
    let cpus = section.parsed(sink, "cpus", CPUS_HELP, value::cpus);
    let (weight, cap_permille, reservation) = read_share(&section, DEFAULT_WEIGHT, sink);
    let (on_crash, restart) = read_on_crash(&section, sink);
    let (image, ramdisk) = read_images(&section, memory.as_ref(), base, options, images, sink);
    let watchdog = section.parsed(sink, "watchdog", TIME_HELP, |scalar| {
        let time_us = value::time_us(scalar)?;
        if !(1_000..=3_600_000_000).contains(&time_us) {
            return Err((String::from("is out of range"), String::from("write a time from \"1ms\" to \"3600s\"")));
        }
        Ok(time_us.div_ceil(1000) as u32)
    });
    let depends = section.strings(sink, "depends", "write a list of names such as [\"db\"]");
    let guest = Guest {
        name: name.as_ref().map(|name| name.value.to_owned()).unwrap_or_default(),
        image,
        ramdisk,
        cmdline: read_cmdline(&section, sink),
        memory_pages: memory.as_ref().map_or(0, |memory| memory.value / PAGE_SIZE),
        memory_min_pages: memory_min.map_or(0, |bytes| bytes / PAGE_SIZE),
        vcpus: vcpus as u16,
        affinity: cpus.as_ref().map_or(0, |cpus| cpus.value),
        weight,
        cap_permille,
        reservation: reservation.as_ref().map(|reservation| reservation.value),
        on_crash,
        restart,
        depends: Vec::new(),
        watchdog_ms: watchdog.map_or(0, |watchdog| watchdog.value),
        autostart: section.boolean(sink, "autostart").unwrap_or(true),
        disks: Vec::new(),
        vifs: Vec::new(),
    };
    let disks = disk::read_all(&section, sink);
    let vifs = vif::read_all(&section, sink);
    Draft {
        guest,
        disks,
        vifs,
        subject: section.subject.clone(),
        span: section.span,
        name,
        memory,
        cpus,
        reservation,
        depends: depends.map(|depends| depends.value).unwrap_or_default(),
    }
}

pub(crate) fn read_name<'a>(section: &Section<'a>, sink: &mut Sink<'_>) -> Option<At<&'a str>> {
    section.require(sink, "name", "write `name = \"...\"`");
    let name = section.string(sink, "name", "write a name in quotes")?;
    if !name_is_valid(name.value) {
        let help = if name.value.len() > MAX_NAME {
            format!("use at most {MAX_NAME} characters")
        } else {
            format!("use 1 to {MAX_NAME} of the characters a-z A-Z 0-9 - _ .")
        };
        sink.add(&name.span, &section.subject, format!("bad name {:?}", name.value), help);
        return None;
    }
    Some(name)
}

/// How much RAM it has, where that is written.
pub(crate) fn read_memory(section: &Section<'_>, sink: &mut Sink<'_>) -> Option<At<u64>> {
    let memory = section.parsed(sink, "memory", SIZE_HELP, value::size)?;
    if memory.value / PAGE_SIZE > MAX_MEMORY_PAGES {
        sink.add(&memory.span, &section.subject, "`memory` is out of range", "write at most \"64G\"");
        return None;
    }
    Some(memory)
}

/// As little RAM as it may be left with, where that is written.
fn read_memory_min(section: &Section<'_>, memory: Option<&At<u64>>, sink: &mut Sink<'_>) -> Option<u64> {
    let min = section.parsed(sink, "memory_min", SIZE_HELP, value::size)?;
    let memory = memory?;
    let mut refuse = |message: &str, help: &str| sink.add(&min.span, &section.subject, message, help);
    if min.value > memory.value {
        refuse("`memory_min` is more than `memory`", "write at most that");
        return None;
    }
    if !min.value.is_multiple_of(BLOCK_SIZE) || !memory.value.is_multiple_of(BLOCK_SIZE) {
        refuse("memory that can change is in blocks of 2M", "write multiples of \"2M\" for `memory` and `memory_min`");
        return None;
    }
    if memory.value / PAGE_SIZE > MAX_ELASTIC_PAGES {
        refuse("memory that can change is at most \"2G\"", "leave `memory_min` out, or write less `memory`");
        return None;
    }
    Some(min.value)
}

pub(crate) fn read_cmdline(section: &Section<'_>, sink: &mut Sink<'_>) -> String {
    let Some(cmdline) = section.string(sink, "cmdline", "write the arguments in quotes") else {
        return String::new();
    };
    if cmdline.value.len() > MAX_CMDLINE || cmdline.value.contains(|c: char| c.is_control()) {
        let help = format!("use at most {MAX_CMDLINE} bytes and no control characters");
        sink.add(&cmdline.span, &section.subject, "bad `cmdline`", help);
    }
    cmdline.value.to_owned()
}

/// Weight, cap and reservation.
pub(crate) fn read_share(
    section: &Section<'_>,
    default_weight: u16,
    sink: &mut Sink<'_>,
) -> (u16, u32, Option<At<Reservation>>) {
    let weight = section.integer(sink, "weight", 1..=65_535);
    let cap = section.parsed(sink, "cap", CAP_HELP, value::cap_permille);
    let reservation = read_reservation(section, sink);
    if let Some(reservation) = &reservation {
        for key in ["weight", "cap"] {
            if section.raw(key).is_some() {
                let message = format!("`{key}` has no meaning beside `reservation`");
                sink.add(&reservation.span, &section.subject, message, "leave one of them out");
            }
        }
    }
    let weight = weight.map_or(default_weight, |weight| weight.value as u16);
    (weight, cap.map_or(0, |cap| cap.value), reservation)
}

fn read_reservation(section: &Section<'_>, sink: &mut Sink<'_>) -> Option<At<Reservation>> {
    let help = "write `reservation = { budget = \"200us\", period = \"1ms\" }`";
    let mut table = section.table(sink, "reservation", help)?;
    table.check_keys(sink, &RESERVATION_KEYS);
    table.require(sink, "budget", help);
    table.require(sink, "period", help);
    let period = table.parsed(sink, "period", TIME_HELP, value::time_us);
    let budget = table.parsed(sink, "budget", TIME_HELP, value::time_us);
    let (period, budget) = (period?, budget?);
    if !(100..=10_000_000).contains(&period.value) {
        sink.add(&period.span, &table.subject, "`period` is out of range", "write a time from \"100us\" to \"10s\"");
        return None;
    }
    if budget.value > period.value {
        let message = format!("`budget` ({} us) is longer than `period` ({} us)", budget.value, period.value);
        sink.add(&budget.span, &table.subject, message, "write a budget shorter than the period");
        return None;
    }
    if budget.value < 10 {
        sink.add(&budget.span, &table.subject, "`budget` is out of range", "write at least \"10us\"");
        return None;
    }
    let value = Reservation { period_us: period.value as u32, budget_us: budget.value as u32 };
    Some(At { value, span: table.span })
}

fn read_on_crash(section: &Section<'_>, sink: &mut Sink<'_>) -> (OnCrash, RestartLimit) {
    const WORDS: [(&str, OnCrash); 3] =
        [("restart", OnCrash::Restart), ("destroy", OnCrash::Destroy), ("preserve", OnCrash::Preserve)];
    let words = || WORDS.iter().map(|(word, _)| *word);
    let help = format!("write {}", one_of(words()));
    let on_crash = section.string(sink, "on_crash", &help).map(|found| {
        match WORDS.iter().find(|(word, _)| *word == found.value) {
            Some((_, on_crash)) => *on_crash,
            None => {
                let near = closest(found.value, words()).map(|near| format!("write `{near}`"));
                let message = format!("unknown `on_crash` value `{}`", found.value);
                sink.add(&found.span, &section.subject, message, near.unwrap_or(help.clone()));
                OnCrash::Restart
            }
        }
    });
    let on_crash = on_crash.unwrap_or_default();
    let restart = read_restart(section, sink);
    if let (Some(restart), false) = (&restart, on_crash == OnCrash::Restart) {
        sink.add(
            &restart.span,
            &section.subject,
            "`restart` has a meaning only with `on_crash = \"restart\"`",
            "write that too, or leave `restart` out",
        );
    }
    (on_crash, restart.map_or_else(RestartLimit::default, |restart| restart.value))
}

/// How often it may be restarted, where that is written.
pub(crate) fn read_restart(section: &Section<'_>, sink: &mut Sink<'_>) -> Option<At<RestartLimit>> {
    let mut table = section.table(sink, "restart", "write `restart = { limit = 5, window = \"60s\" }`")?;
    table.check_keys(sink, &RESTART_KEYS);
    let default = RestartLimit::default();
    let count = table.integer(sink, "limit", 0..=1_000_000).map_or(default.count, |limit| limit.value as u32);
    let window = table.parsed(sink, "window", TIME_HELP, |scalar| match value::time_us(scalar)? {
        time_us @ 1_000_000..=86_400_000_000 => Ok((time_us / 1_000_000) as u32),
        _ => Err((String::from("is out of range"), String::from("write a time from \"1s\" to \"86400s\""))),
    });
    let window_s = window.map_or(default.window_s, |window| window.value);
    Some(At { value: RestartLimit { count, window_s }, span: table.span })
}

/// Kernel and RAM disk: finds, reads and checks them. Returns their entries.
fn read_images(
    section: &Section<'_>,
    memory: Option<&At<u64>>,
    base: &Path,
    options: &LoadOptions<'_>,
    images: &mut Images,
    sink: &mut Sink<'_>,
) -> (String, Option<String>) {
    section.require(sink, "kernel", "write `kernel = \"...\"`, the path of an ELF file or an arm64 `Image`");
    let mut find = |key: &str, prefix: &str| {
        let found = section.string(sink, key, "write a path in quotes")?;
        match images.add(found.value, prefix, base, options) {
            Ok(index) => Some((index, found.span)),
            Err((message, help)) => {
                sink.add(&found.span, &section.subject, message, help);
                None
            }
        }
    };
    let kernel = find("kernel", IMAGE_PREFIX);
    let ramdisk = find("ramdisk", RAMDISK_PREFIX);
    let image = |index: usize| images.list.get(index);
    let kernel_image = kernel.as_ref().and_then(|(index, _)| image(*index));
    let ramdisk_image = ramdisk.as_ref().and_then(|(index, _)| image(*index));
    if let (Some((_, span)), Some(file), true) = (&kernel, kernel_image, options.read_images) {
        // Without a known size of its memory, the file alone is checked.
        let memory_bytes = memory.map_or(MAX_MEMORY_PAGES * PAGE_SIZE, |memory| memory.value);
        let disk = ramdisk_image.map(|image| image.bytes.as_slice());
        match kernel::check(&file.bytes, disk, memory_bytes) {
            Ok(()) => {}
            Err(Refused::File((message, help))) => sink.add(span, &section.subject, message, help),
            Err(Refused::Memory((message, help))) => {
                sink.add(memory.map_or(span, |memory| &memory.span), &section.subject, message, help);
            }
        }
    }
    let entry = |image: Option<&crate::Image>| image.map(|image| image.entry.clone());
    (entry(kernel_image).unwrap_or_default(), entry(ramdisk_image))
}
