//! `cargo xtask linux`: a Linux kernel that is a guest of Portico, and a RAM disk for it.
//!
//! The kernel's source comes as a Debian package, the patches and the configuration are in `guest-linux-patches/`, the user land is
//! Debian's static busybox for arm64. Nothing of it is installed: packages are fetched and unpacked in the target folder.
//!
//! | file | what |
//! | --- | --- |
//! | [`package`] | fetches packages, without touching the machine's own |
//! | [`kernel`] | unpacks, patches, configures, builds |
//! | [`initramfs`] | the RAM disk |
//!
//! A kernel is built anew only if the version of the source, the patches or the configuration are others than last time.

mod initramfs;
mod kernel;
mod package;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use crate::{project, setup};

/// Options of `linux`.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Build this tree as it is, patches and all, instead of Debian's source: for work on the patches
    #[arg(long, value_name = "FOLDER")]
    pub tree: Option<PathBuf>,
    /// Look for a newer version of Debian's source than the one that was fetched
    #[arg(long, conflicts_with = "tree")]
    pub update: bool,
    /// Only check that the patches apply to the source
    #[arg(long, conflicts_with = "tree")]
    pub check: bool,
    /// Build anew even if nothing has changed
    #[arg(long)]
    pub force: bool,
    /// Install what is missing without asking
    #[arg(long, short)]
    pub yes: bool,
}

/// What a description can name.
#[derive(Clone, Debug)]
pub struct Built {
    /// The kernel, an arm64 `Image`.
    pub kernel: PathBuf,
    /// The RAM disk, a compressed cpio archive.
    pub initramfs: PathBuf,
    /// The RAM disk of `cargo xtask bench`: one program.
    pub bench: PathBuf,
}

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
    let built = build(options)?;
    println!("{}", built.kernel.display());
    println!("{}", built.initramfs.display());
    Ok(())
}

/// Builds what is not there yet.
///
/// # Errors
/// If something cannot be fetched or does not build.
pub fn build(options: &Options) -> Result<Built> {
    std::fs::create_dir_all(folder())?;
    let built = paths();
    match &options.tree {
        Some(tree) => kernel::build_tree(tree, &built.kernel)?,
        None => kernel::build(&built.kernel, options.update, options.force)?,
    }
    initramfs::build(&built.initramfs)?;
    build_bench(&built.bench)?;
    Ok(built)
}

/// Builds the RAM disk of `cargo xtask bench`.
fn build_bench(path: &Path) -> Result<()> {
    let program = folder().join("bench-program");
    kernel::compile_program(&project::root().join("tests/linux/bench.c"), &program)?;
    write(path, &initramfs::of_one(&std::fs::read(&program)?))
}

/// How descriptions name what is built here, and where it is.
pub fn references() -> [(String, PathBuf); 3] {
    let built = paths();
    [
        ("linux:kernel".to_string(), built.kernel),
        ("linux:initramfs".to_string(), built.initramfs),
        ("linux:bench".to_string(), built.bench),
    ]
}

/// Whether a reference names something that is built here.
pub fn is_reference(reference: &str) -> bool {
    reference.starts_with("linux:")
}

/// Whether there is a compiler for kernels.
pub fn has_compiler() -> bool {
    kernel::has_compiler()
}

/// Whether that compiler has a C library for programs of Linux guests.
pub fn has_library() -> bool {
    kernel::has_library()
}

/// Where the results of an earlier build are.
pub fn paths() -> Built {
    Built { kernel: folder().join("Image"), initramfs: folder().join("initramfs"), bench: folder().join("bench") }
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
