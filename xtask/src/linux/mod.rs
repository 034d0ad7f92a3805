//! `cargo xtask linux`: a Linux kernel that is a guest of Portico, a RAM disk for it, and a Debian root.
//!
//! The kernel's source comes as a Debian package, the patches and the configuration are in `guest-linux-patches/`. The RAM disk has
//! Debian's static busybox for arm64, the root has Debian's packages. Nothing of it is installed: packages are fetched and unpacked in the
//! target folder.
//!
//! | file | what |
//! | --- | --- |
//! | [`package`] | fetches packages, without touching the machine's own |
//! | [`kernel`] | unpacks, patches, configures, builds |
//! | [`initramfs`] | the RAM disk |
//! | [`selftests`] | a RAM disk with the kernel's own tests |
//! | [`debian`] | the Debian root |
//!
//! Each is made anew only if what it is made of is another than last time.

mod debian;
mod initramfs;
mod kernel;
mod package;
mod selftests;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::{project, setup};

/// Something that is made here, and that descriptions can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// The kernel, an arm64 `Image`: `linux:kernel`
    Kernel,
    /// A RAM disk with busybox: `linux:initramfs`
    Initramfs,
    /// A RAM disk with the one program that measures: `linux:bench`
    Bench,
    /// A RAM disk with the kernel's own tests: `linux:selftests`
    Selftests,
    /// A Debian root, an ext4 file system: `linux:debian`
    Debian,
}

/// Options of `linux`.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Make only these
    pub parts: Vec<Part>,
    /// Build this kernel tree as it is, patches and all, instead of Debian's source: for work on the patches
    #[arg(long, value_name = "FOLDER")]
    pub tree: Option<PathBuf>,
    /// Look for newer versions of Debian's packages than those that were fetched
    #[arg(long)]
    pub update: bool,
    /// Only check that the patches apply to the source
    #[arg(long, conflicts_with_all = ["tree", "parts"])]
    pub check: bool,
    /// Compile the series' own files again with the kernel's further warnings (W=1), each of which fails
    #[arg(long, conflicts_with = "check")]
    pub warnings: bool,
    /// Make anew even if nothing has changed
    #[arg(long)]
    pub force: bool,
    /// Install what is missing without asking
    #[arg(long, short)]
    pub yes: bool,
}

impl Part {
    /// How descriptions name it.
    pub fn reference(self) -> String {
        let name = self.to_possible_value().map(|value| value.get_name().to_string());
        format!("{SCHEME}{}", name.unwrap_or_default())
    }

    /// Where it is.
    pub fn path(self) -> PathBuf {
        folder().join(match self {
            Part::Kernel => "Image",
            Part::Initramfs => "initramfs",
            Part::Bench => "bench",
            Part::Selftests => "selftests",
            Part::Debian => "debian.ext4",
        })
    }

    /// Makes it if it is not there yet.
    fn build(self, options: &Options) -> Result<()> {
        match (self, &options.tree) {
            (Part::Kernel, Some(tree)) => kernel::build_tree(tree, &self.path()),
            (Part::Kernel, None) => kernel::build(&self.path(), options.update, options.force),
            (Part::Initramfs, _) => initramfs::build(&self.path(), options.update),
            (Part::Bench, _) => build_bench(&self.path()),
            (Part::Selftests, _) => selftests::build(&self.path(), options.update, options.force),
            (Part::Debian, _) => debian::build(&self.path(), options.update, options.force),
        }
    }
}

/// What references begin with.
const SCHEME: &str = "linux:";

/// Runs the subcommand.
///
/// # Errors
/// If something cannot be fetched or does not build.
pub fn execute(options: &Options) -> Result<()> {
    setup::ensure(setup::LINUX, &setup::Options { yes: options.yes, dry_run: false })?;
    if options.check {
        let source = kernel::Source::fetch(options.update)?;
        source.check()?;
        println!("the patches apply to {}", source.version());
        return Ok(());
    }
    let parts = build(options)?;
    if options.warnings {
        kernel::check_warnings(options.tree.as_deref())?;
    }
    for part in parts {
        println!("{}", part.path().display());
    }
    Ok(())
}

/// Makes what is not there yet, and returns what was asked for.
///
/// # Errors
/// If something cannot be fetched or does not build.
pub fn build(options: &Options) -> Result<Vec<Part>> {
    std::fs::create_dir_all(folder())?;
    let all = Part::value_variants().iter().copied();
    let parts: Vec<Part> = all.filter(|part| options.parts.is_empty() || options.parts.contains(part)).collect();
    parts.iter().try_for_each(|part| part.build(options))?;
    Ok(parts)
}

/// Makes the RAM disk of `cargo xtask bench`.
fn build_bench(path: &Path) -> Result<()> {
    let program = folder().join("bench-program");
    kernel::compile_program(&project::root().join("tests/linux/bench.c"), &program)?;
    write(path, &initramfs::of_one(&std::fs::read(&program)?))
}

/// How descriptions name what is made here, and where it is.
pub fn references() -> Vec<(String, PathBuf)> {
    Part::value_variants().iter().map(|part| (part.reference(), part.path())).collect()
}

/// What a reference names, if it is made here.
pub fn part(reference: &str) -> Option<Part> {
    Part::value_variants().iter().copied().find(|part| part.reference() == reference)
}

/// Whether there is a compiler for kernels.
pub fn has_compiler() -> bool {
    kernel::has_compiler()
}

/// Whether that compiler has a C library for programs of Linux guests.
pub fn has_library() -> bool {
    kernel::has_library()
}

/// Whether there are the programs that make file systems.
pub fn has_file_systems() -> bool {
    debian::is_possible()
}

/// Where everything of this is.
fn folder() -> PathBuf {
    project::target_dir().join("linux")
}

/// The patches and the configuration.
fn patches_folder() -> PathBuf {
    project::root().join("guest-linux-patches")
}

/// Writes a file by renaming, so that one that is there is whole.
fn write(path: &Path, data: &[u8]) -> Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    std::io::Write::write_all(&mut file, data)?;
    file.persist(path)?;
    Ok(())
}
