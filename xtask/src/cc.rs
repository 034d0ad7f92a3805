//! Builds C guests: the SDK's static library and header, and an AArch64 C compiler.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::csource::{Origin, Registers, Source, Sources};
use crate::guests::Guest;
use crate::project::{self, TARGET};
use crate::toolchain::{Toolchain, find_in_path};

/// A C compiler for AArch64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// A cross GCC.
    Gcc(PathBuf),
    /// Clang, told its target.
    Clang(PathBuf),
}

/// Finds a C compiler for AArch64: a cross GCC, else clang.
pub fn detect() -> Option<Compiler> {
    for name in ["aarch64-linux-gnu-gcc", "aarch64-none-elf-gcc", "aarch64-elf-gcc"] {
        if let Some(path) = find_in_path(name) {
            return Some(Compiler::Gcc(path));
        }
    }
    find_in_path("clang").map(Compiler::Clang)
}

impl Compiler {
    /// Where it is.
    pub fn path(&self) -> &Path {
        match self {
            Compiler::Gcc(path) | Compiler::Clang(path) => path,
        }
    }

    /// Makes a command that compiles for the bare machine.
    fn command(&self) -> Command {
        match self {
            Compiler::Gcc(path) => Command::new(path),
            Compiler::Clang(path) => {
                let mut command = Command::new(path);
                command.arg("--target=aarch64-none-elf");
                command
            }
        }
    }
}

/// Flags of every C guest: no C library, no position independence; what is not called is not linked.
const FLAGS: &[&str] = &[
    "-std=c11",
    "-O2",
    "-g",
    "-ffreestanding",
    "-fno-pic",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-ffunction-sections",
    "-fdata-sections",
    "-mcpu=cortex-a72",
    "-mstrict-align",
];

/// Flags that depend on whose a source is: what a package's author left is not ours to mend.
fn origin_flags(origin: Origin) -> &'static [&'static str] {
    match origin {
        Origin::Own => &["-Wall", "-Wextra", "-Werror"],
        Origin::Package => &["-w"],
    }
}

/// Flags that depend on the registers that a source may use: FP and SIMD stay out of code that may run before the guest has enabled
/// them, or in an interrupt. Code that uses them adds and multiplies as it is written, so that results are the same on every compiler.
fn register_flags(registers: Registers) -> &'static [&'static str] {
    match registers {
        Registers::General => &["-mgeneral-regs-only"],
        Registers::FloatingPoint => &["-ffp-contract=off"],
    }
}

/// Compiles and links a C guest into `output`.
///
/// # Errors
/// If no compiler is found, or it refuses the sources.
pub fn build(guest: &Guest, sources: &Sources, toolchain: &Toolchain, output: &Path) -> Result<()> {
    let compiler = detect().context("no C compiler for AArch64: `cargo xtask setup` installs one")?;
    let sdk = project::root().join("pv-guest-sdk");
    let folder = project::bare_dir().join("c").join(guest.reference.replace(':', "-"));
    std::fs::create_dir_all(&folder)?;
    let mut objects = Vec::new();
    for Source { file, origin, registers } in &sources.files {
        let object = folder.join(file.file_name().unwrap_or_default()).with_extension("o");
        let mut command = compiler.command();
        command.args(FLAGS).args(origin_flags(*origin)).args(register_flags(*registers));
        for include in sources.include.iter().chain([&sdk.join("include")]) {
            command.arg("-I").arg(include);
        }
        for include in &sources.package_include {
            // As headers of the system: the compiler keeps its remarks about them.
            command.arg("-isystem").arg(include);
        }
        command.arg("-c").arg(file).arg("-o").arg(&object);
        check(&mut command, &file.display().to_string())?;
        objects.push(object);
    }
    let mut link = Command::new(&toolchain.linker);
    if toolchain.linker.file_name().is_some_and(|name| name == "rust-lld") {
        link.args(["-flavor", "gnu"]);
    }
    let library = project::bare_dir().join(TARGET).join("release/libportico.a");
    link.arg("-T").arg(sdk.join("guest.ld")).arg("--gc-sections").arg("-static");
    link.args(&objects).arg(&library).arg("-o").arg(output);
    check(&mut link, &guest.reference)
}

/// Runs a command that must succeed.
fn check(command: &mut Command, what: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {}", command.get_program().display()))?;
    if !status.success() {
        bail!("{what}: {} failed", command.get_program().display());
    }
    Ok(())
}
