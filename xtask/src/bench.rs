//! `cargo xtask bench`: what the hypervisor costs, in instructions, beside others and beside the last time.
//!
//! QEMU counts instructions, so that each run gives the same figures, and a regression is a number. The guests measure and
//! print (`tests/guests/bench`); what they cannot know is asked of the manager. Goals and other hypervisors' figures are in
//! `xtask/data/peers.toml`, our last ones in `xtask/data/baseline.toml`.

pub mod counted;
mod linux;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use portico_ctl::MachineKind;
use regex::Regex;
use rustix::thread;
use serde::Deserialize;
use tempfile::TempDir;

use crate::devices::{Devices, Wanted};
use crate::machine::Line;
use crate::qemu::Session;
use crate::system::{Prepared, Request};
use crate::{linux as kernel, project, run, setup, toolchain};
use counted::Span;

/// Most that a figure may be above the baseline, in percent.
const TOLERANCE_PERCENT: u64 = 3;
/// Time for one run of a machine; they take a few seconds.
const LIMIT: Duration = Duration::from_secs(120);
/// Argument of EL2 without which every entry has the branch-history loop.
const NO_LOOP: &str = "portico.bhb=off";
/// How the names of figures of Linux guests begin.
const LINUX: &str = "linux_";
/// The prompt of the manager.
const PROMPT: &str = "portico> ";

/// Options of `bench`.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Only this machine; without, virt with a GICv3 and with a GICv2
    #[arg(long, value_parser = run::machine_parser())]
    pub machine: Option<MachineKind>,
    /// Make the figures the baseline
    #[arg(long)]
    pub update_baseline: bool,
    /// Only guests on the SDK, or only Linux guests, for which a kernel is built the first time
    #[arg(long)]
    pub only: Option<Guests>,
    /// Measure what was built last
    #[arg(long)]
    pub no_build: bool,
    /// Install what is missing without asking
    #[arg(long, short)]
    pub yes: bool,
}

/// Kinds of guests that measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Guests {
    /// Guests on the SDK
    Sdk,
    /// Linux guests
    Linux,
}

impl Options {
    fn wants(&self, guests: Guests) -> bool {
        self.only.is_none_or(|only| only == guests)
    }

    fn wants_row(&self, name: &str) -> bool {
        self.wants(if name.starts_with(LINUX) { Guests::Linux } else { Guests::Sdk })
    }
}

/// The figures of a machine by name.
pub type Figures = BTreeMap<String, u64>;

/// What was measured on a machine.
#[derive(Clone, Debug)]
struct Measured {
    kind: MachineKind,
    figures: Figures,
    /// The same kernel with no hypervisor.
    bare: Figures,
    /// Whose instructions a figure is made of.
    parts: BTreeMap<String, Span>,
}

/// What the figures are compared with.
#[derive(Clone, Debug, Default, Deserialize)]
struct Baseline {
    /// Version of the compiler that made what was measured: another one's figures may differ for that alone.
    #[serde(default)]
    compiler: String,
    /// Figures by machine.
    #[serde(flatten)]
    machines: BTreeMap<String, Figures>,
}

/// A row of `peers.toml`.
#[derive(Clone, Debug, Deserialize)]
pub struct Row {
    /// Name in JSON.
    pub name: String,
    /// What is measured, in words.
    pub work: String,
    /// Unit.
    pub unit: String,
    /// Most that it should be.
    pub goal: Option<u64>,
    /// Most that it may be above the baseline, in percent, if that is not [`TOLERANCE_PERCENT`]: when a disk answers depends on the host.
    pub tolerance: Option<u64>,
    /// Other hypervisors' figures.
    pub peers: Figures,
}

#[derive(Deserialize)]
struct Peers {
    figure: Vec<Row>,
}

/// Runs the subcommand; a regression is a failure.
///
/// # Errors
/// If something does not build or a machine does not do what it should.
pub fn execute(options: &Options) -> Result<ExitCode> {
    if !options.no_build {
        let ask = setup::Options { yes: options.yes, dry_run: false };
        setup::ensure(setup::RUN, &ask)?;
        if options.wants(Guests::Linux) {
            setup::ensure(setup::LINUX, &ask)?;
            let parts = vec![kernel::Part::Kernel, kernel::Part::Bench];
            kernel::build(&kernel::Options { parts, ..kernel::Options::default() })?;
        }
    }
    let kinds = match options.machine {
        Some(MachineKind::Raspi4b) => bail!("QEMU's raspi4b cannot count at 1 GHz: measure virt or virt-gicv2"),
        Some(kind) => vec![kind],
        None => vec![MachineKind::Virt, MachineKind::VirtGicv2],
    };
    let mut measured = Vec::new();
    for kind in kinds {
        // Built once: the rest of the runs use what is there then.
        let build = !options.no_build && measured.is_empty();
        let mut on_machine = Measured { kind, figures: Figures::new(), bare: Figures::new(), parts: BTreeMap::new() };
        if options.wants(Guests::Sdk) {
            on_machine.figures = measure(kind, build)?;
        }
        if options.wants(Guests::Linux) {
            linux::measure(&mut on_machine, build)?;
        }
        measured.push(on_machine);
    }
    let mut rows = rows()?;
    rows.retain(|row| options.wants_row(&row.name));
    measured.iter().try_for_each(|on_machine| check_complete(on_machine, &rows))?;
    if options.json {
        println!("{}", table::to_json(&rows, &measured)?);
    } else {
        table::print(&rows, &measured);
        table::print_parts(&measured);
    }
    let mut baseline = read_baseline()?;
    let compiler = toolchain::detect()?.version;
    if options.update_baseline {
        baseline.compiler = compiler;
        for Measured { kind, figures, .. } in &measured {
            baseline.machines.entry(kind.name().to_string()).or_default().extend(figures.clone());
        }
        return write_baseline(&baseline).map(|()| ExitCode::SUCCESS);
    }
    let mut worse = Vec::new();
    let tolerances = rows.iter().filter_map(|row| Some((row.name.clone(), row.tolerance?))).collect();
    for Measured { kind, figures, .. } in &measured {
        let before = baseline.machines.get(kind.name()).cloned().unwrap_or_default();
        worse.extend(
            regressions(&before, figures, &tolerances).into_iter().map(|text| format!("{}: {text}", kind.name())),
        );
    }
    if baseline.compiler != compiler {
        eprintln!(
            "the baseline was made with Rust {}, this is {compiler}: differences are only told",
            baseline.compiler
        );
        worse.iter().for_each(|line| eprintln!("difference: {line}"));
        return Ok(ExitCode::SUCCESS);
    }
    for line in &worse {
        eprintln!("regression: {line}");
    }
    Ok(if worse.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Systems that measure something. Each has images of its own beside those that all have.
const SYSTEMS: [&str; 11] = [
    "bench",
    "bench-shared",
    "bench-pingpong",
    "bench-one",
    "bench-boot",
    "bench-life",
    "bench-idle",
    "bench-net",
    "bench-stream",
    "bench-block",
    "bench-console",
];

/// One machine: boots every system that measures something on it, one after the other.
fn measure(kind: MachineKind, build: bool) -> Result<Figures> {
    if build {
        for system in SYSTEMS {
            prepare(kind, system, 2, &[], true)?;
        }
    }
    let mut figures = measure_alone(kind)?;
    figures.insert("null_call_bhb".into(), one(&printed(kind, "bench", &[])?, "null_call")?);
    figures.extend(printed(kind, "bench-shared", &[NO_LOOP])?);
    figures.insert("pingpong_2p".into(), one(&printed(kind, "bench-pingpong", &[NO_LOOP])?, "pingpong")?);
    let trapped = printed(kind, "bench-pingpong", &[NO_LOOP, "portico.wfi=trap"])?;
    figures.insert("pingpong_2p_trapped".into(), one(&trapped, "pingpong")?);
    figures.extend(printed(kind, "bench-one", &[NO_LOOP])?);
    figures.insert("boot_manager".into(), measure_boot(kind)?);
    figures.insert("el2_longest".into(), counted::longest_stay(kind)?);
    figures.extend(counted::measure(kind)?);
    Ok(figures)
}

/// What a guest with the machine to itself measures, and what it takes of the memory.
fn measure_alone(kind: MachineKind) -> Result<Figures> {
    let mut machine = boot(kind, "bench", 2, &[NO_LOOP])?;
    let mut figures = collect(&mut machine.session)?;
    memory(&mut machine.session, &mut figures)?;
    Ok(figures)
}

/// When the manager's first instruction was executed.
fn measure_boot(kind: MachineKind) -> Result<u64> {
    let mut machine = boot(kind, "bench-boot", 1, &[NO_LOOP])?;
    collect(&mut machine.session)?;
    let info = ask(&mut machine.session, "info", "^guests .*")?;
    number(&info, r"booted +(\d+) ticks")
}

/// What the guests of a system print.
fn printed(kind: MachineKind, system: &str, arguments: &[&str]) -> Result<Figures> {
    collect(&mut boot(kind, system, 2, arguments)?.session)
}

fn one(figures: &Figures, name: &str) -> Result<u64> {
    figures.get(name).copied().with_context(|| format!("the guest printed no {name}"))
}

/// Starts a machine with one of our systems.
fn boot(kind: MachineKind, system: &str, cpus: u32, arguments: &[&str]) -> Result<Machine> {
    let (line, bundle, folder) = prepare(kind, system, cpus, arguments, false)?;
    start(line, &bundle, folder)
}

/// A machine for one of our systems, its bundle, and a folder for its files.
fn prepare(
    kind: MachineKind,
    system: &str,
    cpus: u32,
    arguments: &[&str],
    build: bool,
) -> Result<(Line, Vec<u8>, TempDir)> {
    let path = project::root().join("tests/systems").join(format!("{system}.toml"));
    let folder = tempfile::Builder::new().prefix("portico-").tempdir()?;
    let request = Request {
        system: path.to_string_lossy().into_owned(),
        machine: Some(kind),
        cpus: Some(cpus),
        build,
        devices: Devices { scratch: Some(folder.path().to_path_buf()), ..Devices::default() },
        ..Request::default()
    };
    let Prepared { mut line, bundle, wanted, .. } = match request.prepare()? {
        Ok(prepared) => prepared,
        Err(report) => bail!("{report}"),
    };
    // Disks without a file are attached by whoever measures them.
    let wanted = Wanted { drives: wanted.drives.into_iter().filter(|drive| drive.file.is_some()).collect(), ..wanted };
    request.devices.attach(&wanted, &mut line)?;
    line.icount = true;
    line.bootargs = arguments.iter().map(ToString::to_string).collect();
    Ok((line, bundle, folder))
}

/// A running machine and the folder of its files.
struct Machine {
    session: Session,
    _folder: TempDir,
}

/// Starts a machine.
fn start(mut line: Line, bundle: &[u8], folder: TempDir) -> Result<Machine> {
    let path = folder.path().join("bundle");
    std::fs::write(&path, bundle)?;
    line.initrd = Some(path);
    line.qmp = Some(folder.path().join("qmp"));
    let mut session = session(&line)?;
    session.expect("manager is up")?;
    Ok(Machine { session, _folder: folder })
}

/// Starts QEMU with all its threads on one of the host's processors. On two, the thread that answers for a disk and the one that executes guests race.
fn session(line: &Line) -> Result<Session> {
    let all = thread::sched_getaffinity(None)?;
    let mut one = thread::CpuSet::new();
    if let Some(first) = (0..thread::CpuSet::MAX_CPU).find(|&cpu| all.is_set(cpu)) {
        one.set(first);
        thread::sched_setaffinity(None, &one)?;
    }
    // A child has the processors of the thread that starts it.
    let session = Session::start(line, LIMIT);
    thread::sched_setaffinity(None, &all)?;
    session
}

/// Waits until the guest has measured all, and takes what it printed.
fn collect(session: &mut Session) -> Result<Figures> {
    session.expect("BENCH (end|failed.*)")?;
    let text = session.text();
    if let Some(at) = text.find("BENCH failed") {
        bail!("{}", text[at..].lines().next().unwrap_or_default());
    }
    parse(text)
}

/// Finds the lines `BENCH name median least most`.
fn parse(text: &str) -> Result<Figures> {
    let line = Regex::new(r"BENCH (\w+) (\d+) \d+ \d+")?;
    let pair = |found: regex::Captures<'_>| Ok((found[1].to_string(), found[2].parse()?));
    line.captures_iter(text).map(pair).collect()
}

/// Asks the manager what the guest and everything else take of the memory.
fn memory(session: &mut Session, figures: &mut Figures) -> Result<()> {
    let guest = ask(session, "info bench", "(?s)hypervisor .*calls")?;
    let pages = number(&guest, r"hypervisor +(\d+) of \d+ pages used")?;
    figures.insert("overhead_domain_kib".into(), pages * 4);
    let info = ask(session, "info", "(?s)hypervisor .*^guests .*")?;
    let parts = [r"hypervisor +(\S+) of its own", r"promised, (\S+) used", r"manager +([^ ,]+),"];
    let mut total = 0;
    for part in parts {
        total += kib(&capture(&info, part)?)?;
    }
    figures.insert("overhead_total_kib".into(), total);
    Ok(())
}

/// Types a command and returns what came from then on to the end of the first match of `until`.
fn ask(session: &mut Session, command: &str, until: &str) -> Result<String> {
    session.expect(PROMPT)?;
    let from = session.text().len();
    session.send(&format!("{command}\n"))?;
    session.expect(until)?;
    Ok(session.text()[from..].to_string())
}

fn capture(text: &str, pattern: &str) -> Result<String> {
    let found = Regex::new(pattern)?.captures(text).with_context(|| format!("no `{pattern}` in:\n{text}"))?;
    Ok(found[1].to_string())
}

fn number(text: &str, pattern: &str) -> Result<u64> {
    Ok(capture(text, pattern)?.parse()?)
}

/// Reads a size as the manager writes it, such as `848K` or `20.5M`, in KiB.
fn kib(text: &str) -> Result<u64> {
    let (digits, factor) = match text.strip_suffix('K') {
        Some(digits) => (digits, 1.0),
        None => (text.strip_suffix('M').with_context(|| format!("`{text}` is no size"))?, 1024.0),
    };
    Ok((digits.parse::<f64>()? * factor).round() as u64)
}

fn data(name: &str) -> PathBuf {
    project::root().join("xtask/data").join(name)
}

fn rows() -> Result<Vec<Row>> {
    let path = data("peers.toml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(toml::from_str::<Peers>(&text).with_context(|| format!("in {}", path.display()))?.figure)
}

/// Every row of the table must have been measured.
fn check_complete(measured: &Measured, rows: &[Row]) -> Result<()> {
    match rows.iter().find(|row| !measured.figures.contains_key(&row.name)) {
        Some(row) => bail!("{}: nothing measured {}", measured.kind.name(), row.name),
        None => Ok(()),
    }
}

fn read_baseline() -> Result<Baseline> {
    read_baseline_at(&data("baseline.toml"))
}

fn read_baseline_at(path: &Path) -> Result<Baseline> {
    if !path.is_file() {
        return Ok(Baseline::default());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("in {}", path.display()))
}

fn write_baseline(baseline: &Baseline) -> Result<()> {
    let mut text = String::from(
        "# Written by `cargo xtask bench --update-baseline`; a later run may be 3 % above at most,\n# or what peers.toml says.\n",
    );
    text += &format!("compiler = \"{}\"\n", baseline.compiler);
    for (machine, figures) in &baseline.machines {
        text += &format!("\n[{machine}]\n");
        for (name, value) in figures {
            text += &format!("{name} = {value}\n");
        }
    }
    let path = data("baseline.toml");
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

/// Says which figures are worse than before by more than is allowed.
fn regressions(before: &Figures, now: &Figures, tolerances: &Figures) -> Vec<String> {
    let is_worse = |name: &str, old: u64, new: u64| {
        new * 100 > old * (100 + tolerances.get(name).copied().unwrap_or(TOLERANCE_PERCENT))
    };
    now.iter()
        .filter_map(|(name, new)| before.get(name).map(|old| (name, *old, *new)))
        .filter(|(name, old, new)| is_worse(name, *old, *new))
        .map(|(name, old, new)| format!("{name} was {old} and is {new}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(pairs: &[(&str, u64)]) -> Figures {
        pairs.iter().map(|(name, value)| (name.to_string(), *value)).collect()
    }

    #[test]
    fn finds_figures_among_other_output() {
        let text = "portico> \x1b[K[bench] BENCH null_call 53 53 60\n[bench] BENCH end\n";
        assert_eq!(parse(text).unwrap(), figures(&[("null_call", 53)]));
    }

    #[test]
    fn three_percent_more_is_allowed() {
        let before = figures(&[("a", 100), ("b", 100), ("c", 0), ("d", 100), ("e", 100), ("gone", 1)]);
        let now = figures(&[("a", 103), ("b", 104), ("c", 1), ("d", 120), ("e", 121), ("new", 7)]);
        let tolerances = figures(&[("d", 20), ("e", 20)]);
        let told = regressions(&before, &now, &tolerances);
        assert_eq!(told, ["b was 100 and is 104", "c was 0 and is 1", "e was 100 and is 121"]);
    }

    #[test]
    fn sizes_are_read_as_the_manager_writes_them() {
        assert_eq!((kib("848K").unwrap(), kib("16M").unwrap(), kib("1.5M").unwrap()), (848, 16384, 1536));
        assert!(kib("much").is_err());
    }

    #[test]
    fn the_data_files_can_be_read() {
        let rows = rows().unwrap();
        assert_eq!(rows.len(), 38);
        for (machine, figures) in read_baseline().unwrap().machines {
            assert!(MachineKind::from_name(&machine).is_some());
            // A new row has no baseline before the first `--update-baseline`; most have one.
            let known = rows.iter().filter(|row| figures.contains_key(&row.name)).count();
            assert!(known * 2 > rows.len(), "{machine}: {known} rows");
        }
    }
}
