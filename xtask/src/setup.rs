//! `cargo xtask setup`: installs what is missing to build and run.
//!
//! It looks first and installs only what is not there, says what and asks. An ordinary user, who cannot install
//! packages, gets the exact commands. Missing parts come from the Debian packages of the machine's own sources
//! and from rustup; on other systems it says what is needed and leaves the how to the user.

pub(crate) mod apt;
mod step;

use std::io::{BufRead, IsTerminal, Write};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::project::{self, TARGET};
use crate::toolchain::{self, find_in_path};
use crate::{cc, linux, qemu};
use apt::Backports;
use step::Step;

/// Oldest QEMU that has a Raspberry Pi 4.
const QEMU_FLOOR: u32 = 9;

/// Options of `setup`.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Install without asking
    #[arg(long, short)]
    pub yes: bool,
    /// Only print the commands
    #[arg(long)]
    pub dry_run: bool,
}

/// Something that is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A Rust toolchain for the bare machine.
    Rust,
    /// An AArch64 C compiler, for guests in C.
    C,
    /// QEMU.
    Qemu,
    /// What builds a Linux kernel, and a root for it.
    Linux,
    /// GDB for AArch64.
    Gdb,
    /// What reads captured frames.
    Frames,
    /// The formatter of the toolchain that runs us.
    Format,
    /// The linter of the toolchain that runs us.
    LintHost,
    /// The linter of the toolchain that builds for the bare machine.
    LintBare,
}

/// What building needs.
pub const BUILD: &[Part] = &[Part::Rust, Part::C];
/// What building and running needs.
pub const RUN: &[Part] = &[Part::Rust, Part::C, Part::Qemu];
/// What building a Linux guest needs.
pub const LINUX: &[Part] = &[Part::Linux];

/// Programs that build a Linux kernel, and the packages that have them.
const LINUX_PROGRAMS: [(&str, &str); 8] = [
    ("make", "make"),
    ("gcc", "gcc"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("patch", "patch"),
    ("xz", "xz-utils"),
    ("perl", "perl"),
];

/// The package that makes ext4 file systems: ordinary users do not find its programs by name.
const FILE_SYSTEMS: &str = "e2fsprogs";

/// What testing needs beside.
const TESTS: &[Part] = &[Part::Gdb, Part::Frames, Part::Format, Part::LintHost, Part::LintBare, Part::Linux];

/// Runs the subcommand.
///
/// # Errors
/// If something is missing and cannot be installed.
pub fn execute(options: &Options) -> Result<()> {
    ensure(RUN, options)?;
    if !options.dry_run {
        println!("Rust: {}", toolchain::detect()?.describe());
        println!("C: {:?}", cc::detect().context("no C compiler")?);
        println!("QEMU: {}", qemu_version().context("no QEMU")?);
    }
    Ok(())
}

/// Makes sure that parts are there.
///
/// # Errors
/// If one is missing and cannot be installed, or the user does not want it; the message says what to do.
pub fn ensure(parts: &[Part], options: &Options) -> Result<()> {
    let missing: Vec<Part> = parts.iter().copied().filter(|part| lacks(*part).is_some()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("Portico needs what this machine does not have yet:");
    for part in &missing {
        eprintln!("  {}", lacks(*part).unwrap_or_default());
    }
    let steps = plan(&missing)?;
    let root = rustix::process::geteuid().is_root();
    if options.dry_run || (!root && steps.iter().any(Step::needs_root)) {
        eprintln!("These commands install it:");
        for step in &steps {
            println!("{step}");
        }
        if options.dry_run {
            return Ok(());
        }
        bail!("only root can install packages: run the commands above, then this one again");
    }
    eprintln!("It will be installed by:");
    for step in &steps {
        eprintln!("  {}", step.to_string().replace("sudo ", "").replace('\n', "\n  "));
    }
    if !options.yes && !project::in_ci() && !confirm()? {
        bail!("nothing was installed; run the commands above, or this one with --yes");
    }
    for step in &steps {
        step.take()?;
    }
    match parts.iter().find_map(|part| lacks(*part)) {
        Some(still) => bail!("after the installation this is still missing: {still}"),
        None => Ok(()),
    }
}

/// Makes sure that everything for testing is there.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_tests(options: &Options) -> Result<()> {
    ensure(RUN, options)?;
    // Which linter is right is known only now.
    ensure(TESTS, options)
}

/// Asks the user. Nobody there is a no.
fn confirm() -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    eprint!("Install? [Y/n] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    if std::io::stdin().lock().read_line(&mut answer)? == 0 {
        return Ok(false);
    }
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "" | "y" | "yes"))
}

/// Says what is missing of a part, if anything.
fn lacks(part: Part) -> Option<String> {
    match part {
        Part::Rust => toolchain::detect().err().map(|_| format!("Rust for the bare machine ({TARGET})")),
        Part::C => cc::detect().is_none().then(|| "a C compiler for AArch64, for guests in C".to_string()),
        Part::Qemu => match qemu_version() {
            Some(version) if version >= QEMU_FLOOR => None,
            Some(version) => Some(format!("QEMU {QEMU_FLOOR} or later (here is {version})")),
            None => Some(format!("QEMU {QEMU_FLOOR} or later ({})", qemu::PROGRAM)),
        },
        Part::Format => (!cargo_has("fmt")).then(|| "Rust's formatter".to_string()),
        Part::LintHost => (!cargo_has("clippy")).then(|| "Rust's linter".to_string()),
        Part::LintBare => match toolchain::detect() {
            Ok(toolchain) if !toolchain.cargo.is_absolute() => None,
            Ok(toolchain) if toolchain.cargo.with_file_name("cargo-clippy").is_file() => None,
            _ => Some("the linter of the Rust toolchain for the bare machine".to_string()),
        },
        Part::Linux => {
            let mut missing: Vec<&str> = missing_linux_packages().collect();
            if !linux::has_compiler() {
                missing.push("a GCC for arm64 Linux");
            } else if !linux::has_library() {
                missing.push("a C library for it");
            }
            if !linux::has_file_systems() {
                missing.push(FILE_SYSTEMS);
            }
            (!missing.is_empty()).then(|| format!("what builds a Linux kernel: {}", missing.join(", ")))
        }
        Part::Gdb => find_in_path("gdb-multiarch").is_none().then(|| "gdb-multiarch".to_string()),
        Part::Frames => find_in_path("tshark").is_none().then(|| "tshark, which reads captured frames".to_string()),
    }
}

/// Packages of programs that build a kernel and are not there.
fn missing_linux_packages() -> impl Iterator<Item = &'static str> {
    let missing = LINUX_PROGRAMS.iter().filter(|(program, _)| find_in_path(program).is_none());
    missing.map(|(_, package)| *package)
}

/// Says whether the cargo that runs us has a subcommand.
fn cargo_has(verb: &str) -> bool {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    Command::new(cargo).args([verb, "--version"]).output().is_ok_and(|output| output.status.success())
}

/// Returns the major version of the installed QEMU.
fn qemu_version() -> Option<u32> {
    let output = Command::new(qemu::PROGRAM).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split("version ").nth(1)?.split('.').next()?.parse().ok()
}

/// Plans how to install parts.
fn plan(missing: &[Part]) -> Result<Vec<Step>> {
    let rustup = find_in_path("rustup").is_some();
    let mut packages: Vec<&str> = Vec::new();
    let mut steps = Vec::new();
    for part in missing {
        match part {
            Part::C => packages.push("gcc-aarch64-linux-gnu"),
            Part::Qemu => packages.push("qemu-system-arm"),
            Part::Gdb => packages.push("gdb-multiarch"),
            Part::Frames => packages.push("tshark"),
            Part::Linux => {
                packages.extend(missing_linux_packages());
                // Its headers are for the programs that the kernel's build makes for itself.
                packages.push("libc6-dev");
                if !linux::has_compiler() {
                    packages.push("gcc-aarch64-linux-gnu");
                }
                if !linux::has_library() && std::env::consts::ARCH != "aarch64" {
                    packages.push("libc6-dev-arm64-cross");
                }
                if !linux::has_file_systems() {
                    packages.push(FILE_SYSTEMS);
                }
            }
            Part::Rust => steps.push(rust_step()?),
            Part::Format if rustup => steps.push(Step::as_user(&["rustup", "component", "add", "rustfmt"])),
            Part::LintHost if rustup => steps.push(Step::as_user(&["rustup", "component", "add", "clippy"])),
            Part::LintBare if rustup && !builds_with_packages() => {
                steps.push(Step::as_user(&["rustup", "component", "add", "clippy"]));
            }
            Part::Format => packages.push("rustfmt-web"),
            Part::LintHost | Part::LintBare => packages.push("rust-web-clippy"),
        }
    }
    packages.dedup();
    steps.dedup();
    let mut all = apt_steps(&packages)?;
    all.extend(steps);
    Ok(all)
}

/// Says whether the toolchain for the bare machine is the distribution's.
fn builds_with_packages() -> bool {
    toolchain::detect().is_ok_and(|toolchain| toolchain.rustc.starts_with("/usr/bin"))
}

/// Plans how to get Rust for the bare machine: rustup adds the target to the toolchain that is here; where its
/// server cannot be reached, Debian 12 has a new compiler with the library's source as packages.
fn rust_step() -> Result<Step> {
    let rustup = find_in_path("rustup").map(|_| Step::as_user(&["timeout", "90", "rustup", "target", "add", TARGET]));
    let packages = match apt::debian_release() {
        Some((12, _)) => apt_steps(&["rustc-web", "cargo-web", "rust-web-src", "lld"])?,
        _ => Vec::new(),
    };
    match (rustup, packages) {
        (Some(rustup), packages) if packages.is_empty() => Ok(rustup),
        (Some(rustup), packages) => Ok(Step::Either { first: Box::new(rustup), otherwise: packages }),
        (None, packages) if packages.is_empty() => bail!("install Rust by rustup, then `rustup target add {TARGET}`"),
        (None, packages) => Ok(Step::All(packages)),
    }
}

/// Plans the installation of packages.
fn apt_steps(packages: &[&str]) -> Result<Vec<Step>> {
    if packages.is_empty() {
        return Ok(Vec::new());
    }
    let Some((version, codename)) = apt::debian_release().filter(|_| find_in_path("apt-get").is_some()) else {
        bail!("this is not Debian: install what Debian has as {} by your own package manager", packages.join(", "));
    };
    let install = |release: Option<&str>, packages: &[&str]| {
        let mut words = vec!["apt-get", "install", "--yes", "--no-install-recommends"];
        words.extend(release.map(|release| ["--target-release", release]).into_iter().flatten());
        words.extend(packages);
        Step::as_root(&words)
    };
    let mut steps = Vec::new();
    // What Debian 12 itself has is too old.
    let (late, ordinary): (Vec<&str>, Vec<&str>) =
        packages.iter().copied().partition(|package| *package == "qemu-system-arm" && version < 13);
    if !late.is_empty()
        && let Backports::Add(source) = apt::backports(&codename)?
    {
        steps.push(Step::AddSource(source));
    }
    steps.push(Step::as_root(&["apt-get", "update"]));
    if !ordinary.is_empty() {
        steps.push(install(None, &ordinary));
    }
    if !late.is_empty() {
        steps.push(install(Some(&format!("{codename}-backports")), &late));
    }
    Ok(steps)
}
