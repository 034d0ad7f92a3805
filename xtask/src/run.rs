//! `cargo xtask run`: boots a system description in QEMU.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use portico_ctl::MachineKind;
use regex::Regex;
use serde::Serialize;

use crate::devices::{self, Devices, GivenDisk, Uplink};
use crate::machine::Line;
use crate::qemu::{Event, Qemu, Search};
use crate::record::Record;
use crate::system::{Prepared, Request};
use crate::terminal::{Keyboard, Typed};
use crate::{image, project, setup};

/// Options of `run`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A system description: a path, or the name of one that comes with the project
    #[arg(default_value = "example")]
    pub system: String,
    /// Boot what this SD card holds, as made by `cargo xtask image`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["system", "machine", "memory", "disks", "net"])]
    pub image: Option<PathBuf>,
    /// The machine; what the description says, else virt
    #[arg(long, value_parser = machine_parser())]
    pub machine: Option<MachineKind>,
    /// Processors
    #[arg(long, value_name = "N")]
    pub cpus: Option<u32>,
    /// Memory in MiB, or with a unit as in 512M or 2G
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    pub memory: Option<u64>,
    /// A disk for the machine, in place of the description's of this name or beside them; without NAME it is named as the
    /// file is (may be given again)
    #[arg(long = "disk", value_name = "[NAME=]FILE", value_parser = devices::parse_disk)]
    pub disks: Vec<GivenDisk>,
    /// What is behind the uplink; user if a bridge has it and the machine has a network device
    #[arg(long, value_enum, value_name = "WHAT")]
    pub net: Option<Uplink>,
    /// Only show the output; take no keys
    #[arg(long)]
    pub headless: bool,
    /// End with success when a line of the serial output matches
    #[arg(long, value_name = "REGEX")]
    pub until: Option<Regex>,
    /// End with failure (status 2) after this time
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<f64>,
    /// Write the serial output to a file too
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Count instructions: one a nanosecond, the same in every run
    #[arg(long)]
    pub icount: bool,
    /// Wait for a debugger on this local port
    #[arg(long, value_name = "PORT", num_args = 0..=1, default_missing_value = "1234", require_equals = true)]
    pub gdb: Option<u16>,
    /// Print the QEMU line and end
    #[arg(long)]
    pub dry_run: bool,
    /// Say at the end, as JSON on the last line, how it went; errors in the description too
    #[arg(long)]
    pub json: bool,
    /// Argument for EL2 (may be given again)
    #[arg(long = "bootarg", value_name = "ARGUMENT")]
    pub bootargs: Vec<String>,
    /// Argument for the manager (may be given again)
    #[arg(long = "manager-arg", value_name = "ARGUMENT")]
    pub manager_arguments: Vec<String>,
    /// Install nothing and do not build: boot what was built last
    #[arg(long)]
    pub no_build: bool,
    /// Install what is missing without asking
    #[arg(long, short)]
    pub yes: bool,
    /// More arguments for QEMU
    #[arg(last = true)]
    pub qemu: Vec<String>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The pattern was found.
    Matched,
    /// The machine powered itself off.
    Off,
    /// The machine ended before the pattern was found, or QEMU failed.
    Ended,
    /// Time was up.
    Timeout,
    /// The user ended it.
    Quit,
}

/// The report of `--json`.
#[derive(Serialize)]
struct Report {
    outcome: Outcome,
    machine: MachineKind,
    seconds: f64,
    forwards: Vec<ForwardReport>,
}

/// A forwarded port in the report of `--json`.
#[derive(Serialize)]
struct ForwardReport {
    port: u16,
    to: String,
}

/// Runs the subcommand.
///
/// # Errors
/// If something does not build, or QEMU cannot be started.
pub fn execute(options: &Options) -> Result<ExitCode> {
    let folder = tempfile::Builder::new().prefix("portico-").tempdir()?;
    let mut line = match &options.image {
        Some(card) => image::boot_line(card, folder.path(), options.cpus.unwrap_or(4))?,
        None => match prepare(options, folder.path())? {
            Some(line) => line,
            None => return Ok(ExitCode::FAILURE),
        },
    };
    announce(&line, options.dry_run);
    line.icount = options.icount;
    line.gdb = options.gdb;
    line.bootargs.extend(options.bootargs.iter().cloned());
    line.extra.clone_from(&options.qemu);
    if options.dry_run {
        println!("{}", line.shell());
        return Ok(ExitCode::SUCCESS);
    }
    line.qmp = Some(folder.path().join("qmp"));
    let started = Instant::now();
    let outcome = drive(&line, options)?;
    // The machine's last line may be a prompt.
    println!();
    if options.json {
        let forwards = line.net.iter().flat_map(|net| &net.forwards);
        let forwards = forwards.map(|(port, to)| ForwardReport { port: *port, to: to.to_string() }).collect();
        let report = Report { outcome, machine: line.machine, seconds: started.elapsed().as_secs_f64(), forwards };
        println!("{}", serde_json::to_string(&report)?);
    }
    Ok(match outcome {
        Outcome::Matched | Outcome::Off | Outcome::Quit => ExitCode::SUCCESS,
        Outcome::Ended => ExitCode::FAILURE,
        Outcome::Timeout => ExitCode::from(2),
    })
}

/// Says by which ports the machine's guests are reached.
fn announce(line: &Line, aside: bool) {
    for (port, to) in line.net.iter().flat_map(|net| &net.forwards) {
        let text = devices::describe(*port, *to);
        // A line that is only printed may be taken by a shell.
        if aside {
            eprintln!("{text}");
        } else {
            println!("{text}");
        }
    }
}

/// Checks the description, installs and builds what it needs, and puts its bundle into a folder. `None` if it is
/// refused, which has been said.
fn prepare(options: &Options, folder: &Path) -> Result<Option<Line>> {
    let request = Request {
        system: options.system.clone(),
        machine: options.machine,
        cpus: options.cpus,
        memory_mib: options.memory,
        manager_arguments: options.manager_arguments.clone(),
        build: !options.no_build,
        devices: Devices { disks: options.disks.clone(), uplink: options.net, scratch: None },
    };
    if let Err(report) = request.check()? {
        return Ok(refuse(&report, options));
    }
    if !options.no_build && !options.dry_run {
        setup::ensure(setup::RUN, &setup::Options { yes: options.yes, dry_run: false })?;
    }
    let Prepared { mut line, bundle, wanted, notes, .. } = match request.prepare()? {
        Ok(prepared) => prepared,
        Err(report) => return Ok(refuse(&report, options)),
    };
    for note in notes {
        eprintln!("note: {note}");
    }
    request.devices.attach(&wanted, &mut line)?;
    // The line that is only printed shall work later.
    let path = if options.dry_run {
        std::fs::create_dir_all(project::run_dir())?;
        project::run_dir().join(format!("{}.bundle", line.machine.name()))
    } else {
        folder.join("bundle")
    };
    std::fs::write(&path, bundle)?;
    line.initrd = Some(path);
    Ok(Some(line))
}

/// Says what is wrong with a description.
fn refuse(report: &portico_ctl::Report, options: &Options) -> Option<Line> {
    if options.json {
        println!("{}", report.to_json());
    } else {
        eprintln!("{report}");
    }
    None
}

/// Parses the name of a machine.
pub fn machine_parser() -> impl TypedValueParser<Value = MachineKind> {
    PossibleValuesParser::new(MachineKind::ALL.map(MachineKind::name))
        .try_map(|name| MachineKind::from_name(&name).ok_or("unknown machine"))
}

/// Starts the machine and serves its serial port until it ends, a pattern is found, or time is up.
fn drive(line: &Line, options: &Options) -> Result<Outcome> {
    let mut log = match &options.log {
        Some(path) => Some(File::create(path).with_context(|| format!("writing {}", path.display()))?),
        None => None,
    };
    let interactive = !options.headless && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if interactive {
        eprintln!("{}: Ctrl-A x ends the machine, Ctrl-A Ctrl-A types a Ctrl-A", line.machine.name());
    }
    if let Some(port) = line.gdb {
        eprintln!("waiting for a debugger on port {port}: `cargo xtask gdb --port {port}` in another terminal");
    }
    let mut qemu = Qemu::start(line)?;
    let _record = Record::new(&qemu, line)?;
    let mut keyboard = if options.headless { None } else { Some(Keyboard::open(interactive)?) };
    let mut search = options.until.clone().map(Search::new);
    let deadline = options.timeout.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds.max(0.0)));
    let mut stdout = std::io::stdout().lock();
    loop {
        if let Some(keyboard) = &mut keyboard {
            match keyboard.typed() {
                // A machine that has ended takes no keys; its end is noticed below.
                Typed::Keys(keys) => drop(qemu.send(&keys)),
                Typed::Quit => return Ok(Outcome::Quit),
                Typed::Nothing => {}
            }
        }
        let now = Instant::now();
        if deadline.is_some_and(|deadline| now >= deadline) {
            eprintln!("time is up");
            return Ok(Outcome::Timeout);
        }
        let wake = if keyboard.is_some() { now + POLL } else { now + Duration::from_secs(3600) };
        match qemu.next(deadline.map_or(wake, |deadline| deadline.min(wake))) {
            Event::Output(bytes) => {
                stdout.write_all(&bytes)?;
                stdout.flush()?;
                if let Some(log) = &mut log {
                    log.write_all(&bytes)?;
                }
                if search.as_mut().is_some_and(|search| search.feed(&bytes)) {
                    return Ok(Outcome::Matched);
                }
            }
            Event::End => {
                let status = qemu.wait()?;
                let off = status.success() && options.until.is_none();
                return Ok(if off { Outcome::Off } else { Outcome::Ended });
            }
            Event::Timeout => {}
        }
    }
}

/// How often keys are looked for while the machine is silent.
const POLL: Duration = Duration::from_millis(10);

/// Reads a size: a number of MiB, or one with a unit.
fn parse_memory(text: &str) -> Result<u64, String> {
    let bytes = match text.parse::<u64>() {
        Ok(mib) => mib.checked_mul(1 << 20).ok_or("more than any machine has")?,
        Err(_) => portico_ctl::parse_size(text)?,
    };
    Ok((bytes >> 20).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_memory("512"), Ok(512));
        assert_eq!(parse_memory("512M"), Ok(512));
        assert_eq!(parse_memory("2G"), Ok(2048));
        assert!(parse_memory("lots").is_err());
    }
}
