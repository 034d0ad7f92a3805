//! `cargo xtask sizes`: how big the hypervisor is, and that it stays within its limits.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use elf::ElfBytes;
use elf::abi::{SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE, SHT_NOBITS};
use elf::endian::LittleEndian;
use serde::Serialize;

use crate::{bootcode, build, project, source, toolchain};

/// Text that the hypervisor should have while guests run, in bytes.
const TEXT_GOAL: u64 = 64 << 10;
/// Lines of code that it should come down to.
const LINES_GOAL: usize = 10_000;
/// The compiler that makes text of the sizes below. What another makes is held to the goal only.
const LIMITS_COMPILER: &str = "1.95.0";
/// Most text that passes, in bytes: what it has now and a little, so that it only ever shrinks. Lower it with the text.
const TEXT_LIMIT: u64 = 59_680;
/// Most text that only boot executes, in bytes. Lower it likewise.
const BOOT_TEXT_LIMIT: u64 = 13_296;
/// What only boot executes may be with another compiler, in bytes.
const BOOT_TEXT_GOAL: u64 = 16 << 10;
/// Most lines of code that pass. Lower it likewise.
const LINES_LIMIT: usize = 9_702;

/// What is compiled into EL2: not the parts of the ABI and of the boards that only guests and tools use.
const SOURCES: &[&str] = &[
    "hyp/arch",
    "hyp/build.rs",
    "hyp/core/src",
    "hyp/hyp.ld",
    "hyp/src",
    "platform/boards/src/lib.rs",
    "platform/boards/src/list.rs",
    "platform/boards/src/machine.rs",
    "platform/boards/src/ram.rs",
    "platform/boards/src/tree.rs",
    "platform/boards/src/uart.rs",
    "pv-guest-sdk/abi/src/call.rs",
    "pv-guest-sdk/abi/src/enumeration.rs",
    "pv-guest-sdk/abi/src/handle.rs",
    "pv-guest-sdk/abi/src/lib.rs",
    "pv-guest-sdk/abi/src/page.rs",
    "pv-guest-sdk/abi/src/pending.rs",
    "pv-guest-sdk/abi/src/port.rs",
    "pv-guest-sdk/abi/src/psci.rs",
    "pv-guest-sdk/abi/src/record.rs",
    "pv-guest-sdk/abi/src/status.rs",
];

/// Options of `sizes`.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Do not build first
    #[arg(long)]
    pub no_build: bool,
}

/// The sizes.
#[derive(Clone, Debug, Serialize)]
pub struct Sizes {
    /// Code that stays, in bytes.
    pub text: u64,
    /// Code that only boot executes and that is unmapped when it is over, in bytes.
    pub boot_text: u64,
    /// Constants, in bytes.
    pub rodata: u64,
    /// Variables with a first value, in bytes.
    pub data: u64,
    /// Variables that start as zero, in bytes.
    pub bss: u64,
    /// Lines of code by folder: no blanks, comments or tests.
    pub lines: BTreeMap<String, usize>,
    /// All lines.
    pub lines_total: usize,
    /// Text that it should come down to.
    pub text_goal: u64,
    /// Lines that it should come down to.
    pub lines_goal: usize,
    /// Most text that is allowed.
    pub text_limit: u64,
    /// Most text that only boot executes that is allowed.
    pub boot_text_limit: u64,
    /// Most lines that are allowed.
    pub lines_limit: usize,
}

impl Sizes {
    /// Says whether all is within the limits.
    pub fn within_limits(&self) -> bool {
        self.text <= self.text_limit && self.boot_text <= self.boot_text_limit && self.lines_total <= self.lines_limit
    }
}

/// Runs the subcommand; too big is a failure.
///
/// # Errors
/// If the hypervisor does not build.
pub fn execute(options: &Options) -> Result<ExitCode> {
    if !options.no_build {
        build::build(&build::Options { guests: Some(Vec::new()), verbose: false })?;
    }
    let sizes = measure()?;
    bootcode::check()?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&sizes)?);
    } else {
        print(&sizes);
    }
    if sizes.within_limits() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("the hypervisor is larger than its limits");
    Ok(ExitCode::FAILURE)
}

/// Measures what was built last.
///
/// # Errors
/// If it was not built.
pub fn measure() -> Result<Sizes> {
    let path = build::built().hyp_elf;
    let file = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let (mut text, mut boot_text, mut rodata, mut data, mut bss) = (0, 0, 0, 0, 0);
    let parsed = ElfBytes::<LittleEndian>::minimal_parse(&file)?;
    let boot = parsed.section_header_by_name(bootcode::SECTION)?.context("no boot text")?;
    for section in parsed.section_headers().context("no sections")?.iter() {
        let flag = |flag: u32| section.sh_flags & u64::from(flag) != 0;
        let sum = match section.sh_type {
            _ if !flag(SHF_ALLOC) => continue,
            SHT_NOBITS => &mut bss,
            _ if section == boot => &mut boot_text,
            _ if flag(SHF_EXECINSTR) => &mut text,
            _ if flag(SHF_WRITE) => &mut data,
            _ => &mut rodata,
        };
        *sum += section.sh_size;
    }
    let mut lines = BTreeMap::new();
    for folder in SOURCES {
        let path = project::root().join(folder);
        if path.exists() {
            lines.insert(folder.to_string(), source::count(&path)?);
        }
    }
    let lines_total = lines.values().sum();
    let is_limits_compiler = toolchain::detect()?.version == LIMITS_COMPILER;
    let (text_limit, boot_text_limit) =
        if is_limits_compiler { (TEXT_LIMIT, BOOT_TEXT_LIMIT) } else { (TEXT_GOAL, BOOT_TEXT_GOAL) };
    Ok(Sizes {
        text,
        boot_text,
        rodata,
        data,
        bss,
        lines,
        lines_total,
        text_goal: TEXT_GOAL,
        lines_goal: LINES_GOAL,
        text_limit,
        boot_text_limit,
        lines_limit: LINES_LIMIT,
    })
}

/// Prints a table.
pub fn print(sizes: &Sizes) {
    println!("{:<34}{:>9} bytes (goal {}, limit {})", "EL2 text", sizes.text, sizes.text_goal, sizes.text_limit);
    println!("{:<34}{:>9} bytes (limit {})", "EL2 text of boot, then unmapped", sizes.boot_text, sizes.boot_text_limit);
    println!("{:<34}{:>9}", "EL2 read-only data", sizes.rodata);
    println!("{:<34}{:>9}", "EL2 data", sizes.data);
    println!("{:<34}{:>9}", "EL2 bss", sizes.bss);
    for (folder, lines) in &sizes.lines {
        println!("{folder:<34}{lines:>9} lines");
    }
    println!(
        "{:<34}{:>9} lines (goal {}, limit {})",
        "all that EL2 is compiled from", sizes.lines_total, sizes.lines_goal, sizes.lines_limit
    );
}
