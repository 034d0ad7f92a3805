//! The manager's commands: their grammar, their help, and errors that say what to write instead.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;

use crate::calendar;
use crate::disks::{self, Change};

/// A command with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// All commands, or one in detail.
    Help(Option<String>),
    /// The table of guests.
    List,
    /// Processor use over some seconds.
    Top {
        /// How long to measure.
        seconds: u64,
    },
    /// Start a guest of the description, or a new one.
    Create(Create),
    /// End a guest for good.
    Destroy(String),
    /// Stop its vCPUs.
    Pause(String),
    /// Let them go on.
    Resume(String),
    /// Ask it to end by itself.
    Stop {
        /// The guest.
        guest: String,
        /// How long it has.
        seconds: u64,
    },
    /// Ask it to end by itself and to be started afresh.
    Restart {
        /// The guest.
        guest: String,
        /// How long it has.
        seconds: u64,
    },
    /// Ask it to sleep.
    Suspend {
        /// The guest.
        guest: String,
        /// How long it has.
        seconds: u64,
    },
    /// Let it go on.
    Wake {
        /// The guest.
        guest: String,
        /// How long it has.
        seconds: u64,
    },
    /// Add or take away a disk of a guest.
    Disk {
        /// The guest.
        guest: String,
        /// Name of the disk there.
        name: String,
        /// What is to become of it.
        change: Change,
    },
    /// Show or set how much memory it should have.
    Memory {
        /// The guest.
        guest: String,
        /// So much.
        bytes: Option<u64>,
    },
    /// Destroy and start afresh.
    Reboot(String),
    /// Give it the keyboard.
    Console(String),
    /// Tell about a guest, or about the machine.
    Info(Option<String>),
    /// Show kept lines.
    Log {
        /// Of this guest, or of all.
        guest: Option<String>,
        /// How many.
        lines: usize,
    },
    /// Show or set scheduling.
    Sched(Sched),
    /// Crash the manager.
    Panic(Crash),
    /// Show or set the time of day, in nanoseconds since 1970.
    Clock(Option<u64>),
    /// End the machine.
    Shutdown {
        /// Start it again.
        reboot: bool,
        /// Ask no guest first.
        at_once: bool,
    },
}

/// How the manager is to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// It panics.
    Panic,
    /// It touches what is not there.
    Fault,
    /// It does nothing any more.
    Hang,
    /// It exits with a code that is no success.
    Exit,
    /// It turns its one vCPU off.
    Off,
    /// It panics later, wherever it is then.
    After {
        /// After so many microseconds.
        us: u64,
        /// So do this many of its next lives.
        lives: u64,
    },
}

/// Arguments of `create`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Create {
    /// Name of the guest; none to list the images.
    pub name: Option<String>,
    /// Image in the bundle, for a guest that is not in the description.
    pub image: Option<String>,
    /// RAM in bytes.
    pub memory_bytes: Option<u64>,
    /// Number of vCPUs.
    pub vcpus: Option<u16>,
    /// Boot arguments.
    pub cmdline: Option<String>,
}

/// Arguments of `sched`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sched {
    /// The guest.
    pub guest: String,
    /// Share relative to others.
    pub weight: Option<u16>,
    /// Most processor time for each vCPU, in thousandths of a processor; 0 for no limit.
    pub cap_permille: Option<u32>,
    /// Mask of processors; 0 for all.
    pub affinity: Option<u64>,
    /// Reservation: budget and period in microseconds.
    pub reservation: Option<(u32, u32)>,
}

impl Sched {
    /// True if nothing is to be changed.
    pub fn is_question(&self) -> bool {
        self.weight.is_none() && self.cap_permille.is_none() && self.affinity.is_none() && self.reservation.is_none()
    }
}

/// Name, arguments, one line of help, details.
const COMMANDS: &[(&str, &str, &str, &str)] = &[
    ("help", "[COMMAND]", "this list, or one command in detail", ""),
    ("list", "", "guests with state, memory, processor time, restarts", ""),
    (
        "top",
        "[SECONDS]",
        "processor use of guests and processors",
        "Measures for SECONDS (1 to 60, 1 if not given) and prints one table.",
    ),
    (
        "create",
        "[NAME [image=IMAGE] [memory=SIZE] [vcpus=N] [cmdline=\"TEXT\"]]",
        "start a guest of the description, or a new one from an image",
        "Without arguments it lists the images of the bundle. A new name needs image=; memory is 16M and\n\
         vcpus is 1 if not given. SIZE is a number with K, M or G.",
    ),
    (
        "stop",
        "NAME [SECONDS]",
        "ask a guest to end by itself",
        "It has SECONDS (1 to 3600, 60 if not given); if it has not ended by then you are told, and nothing else is done. Not\n\
         every guest can be asked, `info NAME` tells.",
    ),
    ("restart", "NAME [SECONDS]", "ask a guest to start afresh", "As `stop`. `reboot NAME` does it at once."),
    (
        "suspend",
        "NAME [SECONDS]",
        "ask a guest to sleep",
        "It brings its devices to rest and keeps its memory; you are told when it sleeps, or that it does not after SECONDS. Typing\n\
         to it may wake it, too, and so does `wake NAME`.",
    ),
    ("wake", "NAME [SECONDS]", "let a guest go on that sleeps", "As `suspend`."),
    (
        "disk",
        "add GUEST NAME=SOURCE [ro] | remove GUEST NAME [SECONDS|now]",
        "add a disk to a guest that runs, or take it away",
        "NAME is a disk of the guest's description that is empty (`info GUEST`), SOURCE a disk of the machine or a partition of it: data,\n\
         data:2, data:LABEL. The guest is asked to give a disk up, and has SECONDS (10 if not given); with `now` it is not asked, and what\n\
         it still wants of the disk fails. The block service begins anew: others wait for it for some milliseconds.",
    ),
    ("destroy", "NAME", "end a guest at once, and free its memory", "Its console history is kept: see `log NAME`."),
    ("pause", "NAME", "stop a guest's vCPUs", "`resume NAME` lets them go on."),
    ("resume", "NAME", "let a paused guest go on", ""),
    ("reboot", "NAME", "destroy a guest at once, and start it afresh", "See `restart`, which asks the guest."),
    (
        "console",
        "NAME",
        "give a guest the keyboard",
        "Ctrl-] returns to the manager, and from there to the guest again; Ctrl-^ goes to the next guest.",
    ),
    ("info", "[NAME]", "details of a guest, or of the machine", ""),
    ("log", "[NAME] [LINES]", "kept output of a guest, or of all", "Shows the last LINES lines (50 if not given)."),
    (
        "sched",
        "NAME [weight=N] [cap=PERCENT] [cpus=LIST] [reserve=BUDGET_US/PERIOD_US]",
        "show or set a guest's share of the processors",
        "weight is 1 to 65535 (256 is usual). cap is for each vCPU, 0 for none. LIST is like 0,2-3 or all.\n\
         reserve=0 ends a reservation.",
    ),
    (
        "memory",
        "NAME [SIZE]",
        "show or set how much memory a guest should have",
        "The guest gives back or takes as much, as far as it can; you are told when it has done so. SIZE is a number with K, M or G, and\n\
         is rounded up to 2M. Only for guests with `memory_min` in their description. `balloon` is the same.",
    ),
    (
        "panic",
        "[fault|hang|exit|off|MICROSECONDS [LIVES]]",
        "for testers: crash the manager",
        "It is begun anew; guests run on and notice nothing. With a number it dies after that time, whatever it\n\
         does then; with LIVES so do its next lives from their first moment on, the first after LIVES times that time, the\n\
         last after once. `hang` takes some seconds. `off` turns its processor off.",
    ),
    (
        "clock",
        "[YYYY-MM-DDTHH:MM:SS]",
        "show or set the time of day, in UTC",
        "It is the machine's own where that has a clock. Guests are told.",
    ),
    (
        "shutdown",
        "[reboot] [now]",
        "power the machine off, or start it again",
        "Guests that can be asked to stop are asked first, and have 30 seconds. With `now` they are not.",
    ),
];

/// Names of all commands.
pub fn names() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().map(|&(name, ..)| name)
}

/// The text of `help`.
///
/// # Errors
/// A message if there is no such command.
pub fn help(about: Option<&str>) -> Result<String, String> {
    let mut text = String::new();
    let Some(name) = about else {
        for (name, arguments, summary, _) in COMMANDS {
            let usage = if arguments.len() > 14 { "..." } else { arguments };
            let _ = writeln!(text, "  {:<24} {summary}", format!("{name} {usage}"));
        }
        text.push_str("`help COMMAND` tells more. Tab completes. Ctrl-] switches the keyboard, see `help console`.\n");
        return Ok(text);
    };
    let &(name, arguments, summary, details) = find(name)?;
    let _ = writeln!(text, "usage: {name} {arguments}\n{summary}");
    if !details.is_empty() {
        let _ = writeln!(text, "{details}");
    }
    Ok(text)
}

/// Reads a command line. An empty one is `None`.
///
/// # Errors
/// A message that says what to write instead.
pub fn parse(line: &str) -> Result<Option<Command>, String> {
    let words = split(line)?;
    let Some((name, rest)) = words.split_first() else { return Ok(None) };
    let name = if name == "balloon" { "memory" } else { name.as_str() };
    let &(name, usage, ..) = find(name)?;
    if rest.iter().any(|word| word == "--help" || word == "-h") {
        return Ok(Some(Command::Help(Some(name.to_string()))));
    }
    let none = || match rest {
        [] => Ok(()),
        _ => Err(format!("`{name}` takes no arguments")),
    };
    let optional = || match rest {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        _ => Err(format!("too many arguments; usage: {name} {usage}")),
    };
    let guest = || optional()?.ok_or_else(|| format!("which guest? usage: {name} {usage} (`list` shows the names)"));
    Ok(Some(match name {
        "help" => Command::Help(optional()?),
        "list" => none().map(|()| Command::List)?,
        "top" => Command::Top { seconds: optional()?.map_or(Ok(1), |word| number(&word, "SECONDS", 1, 60))? },
        "create" => Command::Create(parse_create(rest)?),
        "destroy" => Command::Destroy(guest()?),
        "pause" => Command::Pause(guest()?),
        "resume" => Command::Resume(guest()?),
        "reboot" => Command::Reboot(guest()?),
        "console" => Command::Console(guest()?),
        "info" => Command::Info(optional()?),
        "log" => parse_log(rest, usage)?,
        "panic" => Command::Panic(parse_panic(rest, usage)?),
        "sched" => Command::Sched(parse_sched(rest, usage)?),
        "stop" => parse_ask(rest, name, usage).map(|(guest, seconds)| Command::Stop { guest, seconds })?,
        "restart" => parse_ask(rest, name, usage).map(|(guest, seconds)| Command::Restart { guest, seconds })?,
        "suspend" => parse_ask(rest, name, usage).map(|(guest, seconds)| Command::Suspend { guest, seconds })?,
        "wake" => parse_ask(rest, name, usage).map(|(guest, seconds)| Command::Wake { guest, seconds })?,
        "disk" => {
            let words: Vec<&str> = rest.iter().map(String::as_str).collect();
            let (guest, name, change) = disks::parse(&words)?;
            Command::Disk { guest: guest.to_string(), name: name.to_string(), change }
        }
        "memory" => parse_memory(rest, usage)?,
        "clock" => Command::Clock(optional()?.map(|word| parse_time(&word)).transpose()?),
        _ => parse_shutdown(rest)?,
    }))
}

/// The word of `words` that is most like `wrong`, if one is like it.
pub fn closest<'a>(wrong: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    words
        .map(|word| (distance(wrong, word), word))
        .filter(|&(far, word)| far <= 2 && far < word.len())
        .min_by_key(|&(far, _)| far)
        .map(|(_, word)| word)
}

fn find(name: &str) -> Result<&'static (&'static str, &'static str, &'static str, &'static str), String> {
    COMMANDS.iter().find(|(known, ..)| *known == name).ok_or_else(|| match closest(name, names()) {
        Some(meant) => format!("no command `{name}`; did you mean `{meant}`?"),
        None => format!("no command `{name}`; `help` lists them"),
    })
}

fn parse_ask(rest: &[String], name: &str, usage: &str) -> Result<(String, u64), String> {
    const USUAL_SECONDS: u64 = 60;
    match rest {
        [] => Err(format!("which guest? usage: {name} {usage} (`list` shows the names)")),
        [guest] => Ok((guest.clone(), USUAL_SECONDS)),
        [guest, seconds] => Ok((guest.clone(), number(seconds, "SECONDS", 1, 3600)?)),
        _ => Err(format!("too many arguments; usage: {name} {usage}")),
    }
}

fn parse_memory(rest: &[String], usage: &str) -> Result<Command, String> {
    let (guest, bytes) = match rest {
        [] => return Err(format!("which guest? usage: memory {usage} (`list` shows the names)")),
        [guest] => (guest, None),
        [guest, bytes] => (guest, Some(size(bytes)?)),
        _ => return Err(format!("too many arguments; usage: memory {usage}")),
    };
    Ok(Command::Memory { guest: guest.clone(), bytes })
}

fn parse_time(word: &str) -> Result<u64, String> {
    calendar::parse(word).ok_or_else(|| format!("`{word}`: write the time of day as 2026-11-22T08:00:00, in UTC"))
}

fn parse_shutdown(rest: &[String]) -> Result<Command, String> {
    let words: Vec<&str> = rest.iter().map(String::as_str).collect();
    let (reboot, at_once) = match words.as_slice() {
        [] => (false, false),
        ["now"] => (false, true),
        ["reboot"] => (true, false),
        ["reboot", "now"] => (true, true),
        _ => return Err(format!("`shutdown {}`: write `shutdown [reboot] [now]`", words.join(" "))),
    };
    Ok(Command::Shutdown { reboot, at_once })
}

fn parse_panic(rest: &[String], usage: &str) -> Result<Crash, String> {
    let words: Vec<&str> = rest.iter().map(String::as_str).collect();
    let us = |word: &str| number(word, "MICROSECONDS", 1, 60_000_000);
    Ok(match words.as_slice() {
        [] => Crash::Panic,
        ["fault"] => Crash::Fault,
        ["hang"] => Crash::Hang,
        ["exit"] => Crash::Exit,
        ["off"] => Crash::Off,
        [time] => Crash::After { us: us(time)?, lives: 0 },
        [time, lives] => Crash::After { us: us(time)?, lives: number(lives, "LIVES", 1, 1000)? },
        _ => return Err(format!("too many arguments; usage: panic {usage}")),
    })
}

fn parse_log(rest: &[String], usage: &str) -> Result<Command, String> {
    const DEFAULT_LINES: usize = 50;
    let count = |word: &str| number(word, "LINES", 1, 100_000).map(|lines| lines as usize);
    let is_number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
    match rest {
        [] => Ok(Command::Log { guest: None, lines: DEFAULT_LINES }),
        [one] if is_number(one) => Ok(Command::Log { guest: None, lines: count(one)? }),
        [guest] => Ok(Command::Log { guest: Some(guest.clone()), lines: DEFAULT_LINES }),
        [guest, lines] => Ok(Command::Log { guest: Some(guest.clone()), lines: count(lines)? }),
        _ => Err(format!("too many arguments; usage: log {usage}")),
    }
}

fn parse_create(rest: &[String]) -> Result<Create, String> {
    let mut create = Create::default();
    for word in rest {
        match word.split_once('=') {
            None if create.name.is_none() => create.name = Some(word.clone()),
            None => return Err(format!("`{word}`: arguments after the name are written KEY=VALUE, see `help create`")),
            Some(("image", value)) => create.image = Some(value.to_string()),
            Some(("memory", value)) => create.memory_bytes = Some(size(value)?),
            Some(("vcpus", value)) => create.vcpus = Some(number(value, "vcpus", 1, 48)? as u16),
            Some(("cmdline", value)) => create.cmdline = Some(value.to_string()),
            Some((key, _)) => return Err(unknown_key("create", key, &["image", "memory", "vcpus", "cmdline"])),
        }
    }
    if create.name.is_none() && !rest.is_empty() {
        return Err("the guest's name comes first: create NAME image=IMAGE".to_string());
    }
    Ok(create)
}

fn parse_sched(rest: &[String], usage: &str) -> Result<Sched, String> {
    let Some((guest, settings)) = rest.split_first() else {
        return Err(format!("which guest? usage: sched {usage}"));
    };
    let mut sched = Sched { guest: guest.clone(), ..Sched::default() };
    for word in settings {
        let (key, value) =
            word.split_once('=').ok_or_else(|| format!("`{word}`: write KEY=VALUE, as in weight=512"))?;
        match key {
            "weight" => sched.weight = Some(number(value, key, 1, 65535)? as u16),
            "cap" => sched.cap_permille = Some(number(value.trim_end_matches('%'), key, 0, 100)? as u32 * 10),
            "cpus" => sched.affinity = Some(cpu_list(value)?),
            "reserve" if value == "0" => sched.reservation = Some((0, 0)),
            "reserve" => {
                let (budget, period) = value
                    .split_once('/')
                    .ok_or_else(|| format!("reserve={value}: write BUDGET_US/PERIOD_US, as in 250/1000"))?;
                let period = number(period, "the period", 1, 10_000_000)?;
                let budget = number(budget, "the budget", 1, period)?;
                sched.reservation = Some((budget as u32, period as u32));
            }
            _ => return Err(unknown_key("sched", key, &["weight", "cap", "cpus", "reserve"])),
        }
    }
    Ok(sched)
}

fn unknown_key(command: &str, key: &str, known: &[&str]) -> String {
    match closest(key, known.iter().copied()) {
        Some(meant) => format!("{command} has no `{key}=`; did you mean `{meant}=`?"),
        None => format!("{command} has no `{key}=`; it knows {}", known.join(", ")),
    }
}

fn number(word: &str, what: &str, least: u64, most: u64) -> Result<u64, String> {
    let value = word.parse::<u64>().ok().filter(|value| (least..=most).contains(value));
    value.ok_or_else(|| format!("`{word}`: {what} is a number from {least} to {most}"))
}

fn size(word: &str) -> Result<u64, String> {
    let wrong = || format!("memory={word}: write a number with K, M or G, as in 64M");
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match word.get(digits.len()..).unwrap_or_default() {
        "K" | "k" | "KiB" => 10,
        "M" | "m" | "MiB" => 20,
        "G" | "g" | "GiB" => 30,
        _ => return Err(wrong()),
    };
    let value = digits.parse::<u64>().map_err(|_| wrong())?;
    value.checked_mul(1 << shift).filter(|&bytes| bytes > 0 && bytes <= 1 << 36).ok_or_else(wrong)
}

fn cpu_list(word: &str) -> Result<u64, String> {
    if word == "all" {
        return Ok(0);
    }
    let mut mask = 0u64;
    for part in word.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first, "a processor", 0, 63)?, number(last, "a processor", 0, 63)?);
        if first > last {
            return Err(format!("cpus={word}: {first}-{last} is empty, write {last}-{first}"));
        }
        for cpu in first..=last {
            mask |= 1 << cpu;
        }
    }
    Ok(mask)
}

/// Splits at blanks; double quotes keep blanks together.
fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for character in line.chars() {
        match character {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' | '\t' if !quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    if quoted {
        return Err("a quote is not closed".to_string());
    }
    words.extend(word);
    Ok(words)
}

/// Edits (insert, delete, replace) from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (y, above) in b.bytes().zip(row.iter_mut().skip(1)) {
            let cost = diagonal + usize::from(x != y);
            diagonal = *above;
            left = cost.min(left + 1).min(*above + 1);
            *above = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests;
