//! Finds a Rust toolchain that can build for the bare machine.
//!
//! Two kinds serve: one that has `core` for the target installed (rustup's target), and one that has the
//! library's source (rustup's `rust-src`, or a distribution's source package), from which cargo builds `core`.
//! `rustc --print target-libdir` succeeds for targets that are not installed, so only the files count.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::project::{self, TARGET};

/// Environment variable that names the `rustc` to use, past all detection.
pub const OVERRIDE: &str = "PORTICO_RUSTC";

/// Flags of the compilation that makes EL2's code, all for its size: its image is below 1 MiB, so an address is one instruction; and
/// functions share the code that stores and loads callee-saved registers.
const EL2_FLAGS: &[&str] = &["-Ccode-model=tiny", "-Cllvm-args=-homogeneous-prolog-epilog"];

/// Functions of EL2 whose time counts: they are not made as small as all others.
const EL2_HOT: &[&str] = &[
    "portico_hypercall",
    "portico_guest_irq",
    "portico_guest_sync",
    "portico_switch",
    "portico_raise_elsewhere",
    "portico_block_until",
    "portico_reconsider",
    "portico_wait_in_place",
    "portico_idle",
    "portico_take_in",
    "portico_finish",
    "portico_other",
];

/// Returns the compiler flags of EL2 beside [`rustflags`].
pub fn el2_flags() -> Vec<String> {
    let hot = EL2_HOT.iter().map(|name| format!("-Cllvm-args=-force-remove-attribute={name}:minsize"));
    EL2_FLAGS.iter().map(ToString::to_string).chain(hot).collect()
}

/// Where the target's `core` comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoreLibrary {
    /// Installed, compiled.
    Installed,
    /// Built by cargo from the library's source.
    FromSource,
}

/// A toolchain that builds for the bare machine.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// Its compiler.
    pub rustc: PathBuf,
    /// The cargo that belongs to it.
    pub cargo: PathBuf,
    /// Its linker: its own `rust-lld`, else `ld.lld`.
    pub linker: PathBuf,
    /// Where `core` comes from.
    pub core: CoreLibrary,
    /// Its version, as `1.96.0`.
    pub version: String,
}

/// What a compiler says of itself.
struct Compiler {
    rustc: PathBuf,
    sysroot: PathBuf,
    host: String,
    version: String,
}

/// Finds the toolchain: the override, the toolchain that runs us, then the distribution's.
///
/// # Errors
/// If none serves; the message says why each was passed over and what to do.
pub fn detect() -> Result<Toolchain> {
    if let Some(rustc) = std::env::var_os(OVERRIDE) {
        return inspect(Path::new(&rustc)).with_context(|| format!("the compiler that {OVERRIDE} names"));
    }
    let mut reasons = Vec::new();
    for rustc in candidates() {
        match inspect(&rustc) {
            Ok(toolchain) => return Ok(toolchain),
            Err(error) => reasons.push(format!("  {}: {error:#}", rustc.display())),
        }
    }
    bail!(
        "no Rust toolchain here builds for {TARGET}; `cargo xtask setup` installs one, or run \
         `rustup target add {TARGET}`\n{}",
        reasons.join("\n")
    )
}

/// Returns the compilers to look at, in order.
fn candidates() -> Vec<PathBuf> {
    let own = std::env::var_os("CARGO")
        .map(|cargo| PathBuf::from(cargo).with_file_name("rustc"))
        .filter(|rustc| rustc.is_file())
        .unwrap_or_else(|| PathBuf::from("rustc"));
    vec![own, PathBuf::from("/usr/bin/rustc")]
}

/// Checks that a compiler serves.
fn inspect(rustc: &Path) -> Result<Toolchain> {
    let compiler = ask(rustc)?;
    let floor = floor()?;
    if parse_version(&compiler.version) < parse_version(&floor) {
        bail!("is version {}, and {floor} is needed", compiler.version);
    }
    let core =
        core_library(&compiler.sysroot).with_context(|| format!("has neither `core` for {TARGET} nor its source"))?;
    let cargo = cargo_of(&compiler)?;
    let linker = linker_of(&compiler).context("has no `rust-lld`, and `ld.lld` (package lld) is not installed")?;
    Ok(Toolchain { rustc: compiler.rustc, cargo, linker, core, version: compiler.version })
}

/// Asks a compiler for its version and sysroot.
fn ask(rustc: &Path) -> Result<Compiler> {
    let run = |args: &[&str]| -> Result<String> {
        let mut command = Command::new(rustc);
        command.args(args).current_dir(project::root());
        if rustc.is_absolute() {
            clean(&mut command);
        }
        let output = command.output().context("cannot be started")?;
        if !output.status.success() {
            bail!("fails: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    };
    let verbose = run(&["-vV"])?;
    let field = |name: &str| {
        verbose
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(|value| value.trim().to_string())
            .with_context(|| format!("does not tell its {name}"))
    };
    Ok(Compiler {
        rustc: rustc.to_path_buf(),
        sysroot: PathBuf::from(run(&["--print", "sysroot"])?.trim()),
        host: field("host:")?,
        version: field("release:")?,
    })
}

/// Looks for the target's `core` in a sysroot.
fn core_library(sysroot: &Path) -> Option<CoreLibrary> {
    let rustlib = sysroot.join("lib/rustlib");
    let installed = std::fs::read_dir(rustlib.join(TARGET).join("lib")).ok().is_some_and(|entries| {
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("libcore-") && name.ends_with(".rlib")
        })
    });
    if installed {
        return Some(CoreLibrary::Installed);
    }
    let source = rustlib.join("src/rust/library/core/Cargo.toml");
    source.is_file().then_some(CoreLibrary::FromSource)
}

/// Finds the cargo beside a compiler.
fn cargo_of(compiler: &Compiler) -> Result<PathBuf> {
    if compiler.rustc.parent().is_some_and(|dir| dir.as_os_str().is_empty()) {
        return Ok(std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from));
    }
    let cargo = compiler.rustc.with_file_name("cargo");
    if !cargo.is_file() {
        bail!("has no cargo beside it");
    }
    Ok(cargo)
}

/// Finds the linker of a compiler.
fn linker_of(compiler: &Compiler) -> Option<PathBuf> {
    let own = compiler.sysroot.join("lib/rustlib").join(&compiler.host).join("bin/rust-lld");
    let beside = compiler.rustc.with_file_name("rust-lld");
    // A distribution may install the link without what it points to.
    [own, beside].into_iter().find(|path| path.is_absolute() && path.is_file()).or_else(|| find_in_path("ld.lld"))
}

/// Returns the oldest compiler that the workspace allows.
fn floor() -> Result<String> {
    let path = project::root().join("Cargo.toml");
    let manifest: toml::Table = std::fs::read_to_string(&path)?.parse()?;
    let version = manifest
        .get("workspace")
        .and_then(|value| value.get("package"))
        .and_then(|value| value.get("rust-version"))
        .and_then(|value| value.as_str());
    Ok(version.context("Cargo.toml names no rust-version")?.to_string())
}

/// Splits `1.96.0-nightly` into numbers.
fn parse_version(version: &str) -> Vec<u32> {
    version.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
}

/// Finds a program in `PATH`.
pub fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Removes from a command's environment what the cargo that runs us put there for another toolchain.
fn clean(command: &mut Command) {
    for name in [
        "RUSTUP_TOOLCHAIN",
        "CARGO",
        "RUSTC",
        "RUSTDOC",
        "LD_LIBRARY_PATH",
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_BUILD_RUSTFLAGS",
    ] {
        command.env_remove(name);
    }
}

impl Toolchain {
    /// Makes a cargo command that builds for the bare machine: `verb`, then the caller's own arguments.
    pub fn cargo(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.cargo);
        clean(&mut command);
        let prefix = format!("CARGO_TARGET_{}", TARGET.replace('-', "_").to_uppercase());
        command
            .current_dir(project::root())
            .env("RUSTC", &self.rustc)
            .env("CARGO_TARGET_DIR", project::bare_dir())
            .env(format!("{prefix}_LINKER"), &self.linker)
            .env(format!("{prefix}_RUSTFLAGS"), rustflags())
            .args([verb, "--target", TARGET]);
        if self.core == CoreLibrary::FromSource {
            command.env("RUSTC_BOOTSTRAP", "1").args([
                "-Zbuild-std=core,alloc,compiler_builtins",
                "-Zbuild-std-features=compiler-builtins-mem,optimize_for_size",
            ]);
        }
        command
    }

    /// Says in a line what was found.
    pub fn describe(&self) -> String {
        let core = match self.core {
            CoreLibrary::Installed => "its own core",
            CoreLibrary::FromSource => "core built from source",
        };
        format!("{} {} ({core}), linker {}", self.rustc.display(), self.version, self.linker.display())
    }
}

/// Returns the compiler flags of everything bare-metal: no jump tables, since an indirect branch on a guest's
/// value is a speculation gadget; no frame pointers, since EL2's entry paths count instructions.
fn rustflags() -> OsString {
    "-Cjump-tables=no -Cforce-frame-pointers=no".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(parse_version("1.100.0") > parse_version("1.95"));
        assert!(parse_version("1.97.0-nightly") > parse_version("1.96.1"));
        assert!(parse_version("1.63.0") < parse_version("1.95"));
    }

    #[test]
    fn finds_an_installed_core_before_the_source() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(core_library(dir.path()), None);
        let source = dir.path().join("lib/rustlib/src/rust/library/core");
        std::fs::create_dir_all(&source).unwrap();
        std::fs::write(source.join("Cargo.toml"), "").unwrap();
        assert_eq!(core_library(dir.path()), Some(CoreLibrary::FromSource));
        let target = dir.path().join("lib/rustlib").join(TARGET).join("lib");
        std::fs::create_dir_all(&target).unwrap();
        assert_eq!(core_library(dir.path()), Some(CoreLibrary::FromSource));
        std::fs::write(target.join("libcore-0123.rlib"), "").unwrap();
        assert_eq!(core_library(dir.path()), Some(CoreLibrary::Installed));
    }
}
