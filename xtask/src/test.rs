//! `cargo xtask test`: all checks and tests. Its last line is `N passed, N failed`.
//!
//! A step that runs a test binary counts each of its tests, any other step counts as one. Steps run one after the
//! other, and one that fails does not keep the rest from running.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::guests::{self, Kind};
use crate::toolchain::{self, Toolchain};
use crate::{bench, bootcode, build, linux, project, setup, sizes};

use outcome::{Outcome, check, tests};

mod outcome;

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Step {
    /// Formatting
    Format,
    /// Generated files are what their source makes of them
    Generated,
    /// Lints of what runs on the host
    LintHost,
    /// Lints of what runs on the machine
    LintBare,
    /// Tests of pure logic, on the host
    Unit,
    /// Every interleaving of rings and ports
    Loom,
    /// Damaged input for everything that parses
    Fuzz,
    /// Limits of the hypervisor's size
    Sizes,
    /// Guests on the three machines
    Target,
    /// Linux guests, with a kernel that is built first. All of it on the three machines if named or with --all, else a quick part
    Linux,
    /// Costs, compared with the committed ones
    Bench,
}

/// Options of `test`.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Only these steps
    pub steps: Vec<Step>,
    /// Not these steps
    #[arg(long, value_name = "STEP")]
    pub skip: Vec<Step>,
    /// All of every step, also what takes long
    #[arg(long, conflicts_with = "steps")]
    pub all: bool,
    /// Run a test on the machines that failed once more, alone. What passes then is counted as passed and named as unsteady; not if more than 3 failed
    #[arg(long)]
    pub retry: bool,
    /// Install what is missing without asking
    #[arg(long, short)]
    pub yes: bool,
    /// Arguments for the test binaries of `unit` and `target`, such as part of a test's name
    #[arg(last = true)]
    pub arguments: Vec<String>,
}

/// Runs the subcommand.
///
/// # Errors
/// If what the steps need is missing and cannot be installed.
pub fn execute(options: &Options) -> Result<ExitCode> {
    let result = setup::ensure_tests(&setup::Options { yes: options.yes, dry_run: false });
    if let Err(error) = result {
        eprintln!("error: {error:#}");
        println!("0 passed, 1 failed");
        return Ok(ExitCode::FAILURE);
    }
    let mut total = Outcome::default();
    let mut report = Vec::new();
    for step in Step::value_variants() {
        let wanted = options.steps.is_empty() || options.steps.contains(step);
        if !wanted || options.skip.contains(step) {
            continue;
        }
        println!("== {}", step.name());
        let started = Instant::now();
        let outcome = step.run(options).unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            Outcome::one(false)
        });
        let seconds = started.elapsed().as_secs_f64();
        report.push(format!(
            "{:<10} {:>5} passed {:>3} failed {seconds:>7.1} s",
            step.name(),
            outcome.passed,
            outcome.failed
        ));
        total.add(outcome);
    }
    println!("==");
    for line in report {
        println!("{line}");
    }
    for name in &total.unsteady {
        println!("unsteady: {name} failed, and passed when it ran alone");
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Step {
    /// Returns its name on the command line.
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default()
    }

    /// Runs the step.
    fn run(self, options: &Options) -> Result<Outcome> {
        match self {
            Step::Format => check(host_cargo("fmt").args(["--all", "--check"])),
            Step::Generated => check(host_cargo("run").args(["-q", "-p", "portico-abi-gen", "--", "--check"])),
            Step::LintHost => {
                let mut command = host_cargo("clippy");
                check(command.args(["-q", "--keep-going", "--all-targets"]).args(OPTIONAL).args(["--", "-Dwarnings"]))
            }
            Step::LintBare => lint_bare(),
            Step::Unit => {
                let mut command = host_cargo("test");
                tests(command.args(["-q", "--no-fail-fast"]).args(OPTIONAL).arg("--").args(&options.arguments))
            }
            Step::Loom => loom(),
            Step::Fuzz => {
                tests(host_cargo("test").args(["-q", "-p", "portico-fuzz"]).env("PORTICO_FUZZ_ROUNDS", FUZZ_ROUNDS))
            }
            Step::Sizes => {
                build::build(&build::Options { guests: Some(Vec::new()), verbose: false })?;
                let sizes = sizes::measure()?;
                bootcode::check()?;
                sizes::print(&sizes);
                Ok(Outcome::one(sizes.within_limits()))
            }
            Step::Target => target(options),
            Step::Linux => linux(options),
            Step::Bench => Ok(Outcome::one(bench::execute(&bench::Options::default())? == ExitCode::SUCCESS)),
        }
    }
}

/// Features that nothing on the host needs, and that have tests of their own.
const OPTIONAL: [&str; 2] = ["--features", "portico-sdk/smoltcp"];
/// Inputs of each fuzz target.
const FUZZ_ROUNDS: &str = "40000";

/// Makes a command for the cargo that runs us.
fn host_cargo(verb: &str) -> Command {
    let cargo = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
    let mut command = Command::new(cargo);
    command.current_dir(project::root()).arg(verb);
    command
}

/// Lints the hypervisor, the manager and all guests with the toolchain that builds them.
fn lint_bare() -> Result<Outcome> {
    let toolchain = toolchain::detect()?;
    let mut guests = vec!["portico-manager".to_string(), "portico-c".to_string()];
    for guest in guests::discover()? {
        if let Kind::Rust { package, .. } = guest.kind {
            guests.push(package);
        }
    }
    let mut total = Outcome::default();
    // The hypervisor by itself, as it is built: in one call with guests it would get their features of shared crates.
    for packages in [vec!["portico-hyp".to_string()], guests] {
        let names = packages.iter().flat_map(|package| ["-p", package]);
        let outcome = check(lint_command(&toolchain).args(names).args(["--", "-Dwarnings"]))?;
        total.add(outcome);
    }
    Ok(total)
}

/// Makes a command that lints for the bare machine. Cargo would look for its lint command in the user's own
/// folder first, where that of another toolchain may be.
fn lint_command(toolchain: &Toolchain) -> Command {
    let plain = toolchain.cargo("clippy");
    let mut command = Command::new(toolchain.cargo.with_file_name("cargo-clippy"));
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
        .env("CARGO", &toolchain.cargo)
        .args(plain.get_args())
        .args(["--release", "-q", "--keep-going"])
        .current_dir(project::root());
    command
}

/// Runs the tests named `loom_*` of all packages, in a target folder of their own.
fn loom() -> Result<Outcome> {
    let mut total = Outcome::default();
    for package in ["pv-guest-sdk/abi", "pv-guest-sdk", "hyp/core"] {
        let folder = project::root().join(package);
        let names: Vec<String> = std::fs::read_dir(folder.join("tests"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".rs")?.to_string()))
            .filter(|name| name.starts_with("loom"))
            .collect();
        if names.is_empty() {
            continue;
        }
        let mut command = host_cargo("test");
        command.args(["-q", "--release", "--manifest-path"]).arg(folder.join("Cargo.toml"));
        command.args(names.iter().flat_map(|name| ["--test", name]));
        command.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", project::target_dir().join("loom"));
        let outcome = tests(&mut command)?;
        total.add(outcome);
    }
    Ok(total)
}

/// Builds everything and runs the tests on the machines.
fn target(options: &Options) -> Result<Outcome> {
    build::build(&build::Options::default())?;
    on_machines(&[], options)
}

/// Builds a Linux kernel if that was not done, and runs its tests on the machines.
fn linux(options: &Options) -> Result<Outcome> {
    setup::ensure(setup::LINUX, &setup::Options { yes: options.yes, dry_run: false })?;
    let is_quick = !options.all && options.steps.is_empty();
    let parts = if is_quick { vec![linux::Part::Kernel, linux::Part::Initramfs] } else { Vec::new() };
    linux::build(&linux::Options { parts, ..linux::Options::default() })?;
    build::build(&build::Options::default())?;
    // They are marked as ignored, so that the step `target` leaves them out.
    on_machines(&["--ignored", if is_quick { "linux::quick::" } else { "linux::" }], options)
}

/// Most failed tests that run once more: when more fail, it is not chance.
const RETRIED: usize = 3;

/// Runs tests on the machines.
fn on_machines(which: &[&str], options: &Options) -> Result<Outcome> {
    let run = |arguments: &[&str], own: &[String]| {
        tests(host_cargo("test").args(["-q", "-p", "portico-tests", "--"]).args(arguments).args(own))
    };
    let mut outcome = run(which, &options.arguments)?;
    if options.retry && (1..=RETRIED).contains(&outcome.failed) {
        outcome.retry(|name| {
            println!("== {name}, alone");
            run(&["--include-ignored", "--exact", name], &[])
        })?;
    }
    Ok(outcome)
}
