//! `cargo xtask build`: everything that runs on the machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::guests::{self, Guest, Kind};
use crate::project::{self, TARGET};
use crate::{cc, flat, toolchain};

/// Options of `build`.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Build only these guests (as `example:hello`) beside the hypervisor and the manager
    #[arg(long = "guest", value_name = "REFERENCE")]
    pub guests: Option<Vec<String>>,
    /// Print what cargo does
    #[arg(long, short)]
    pub verbose: bool,
}

/// The results of a build.
#[derive(Clone, Debug)]
pub struct Images {
    /// The hypervisor, a flat arm64 `Image`.
    pub hyp: PathBuf,
    /// The hypervisor with its symbols.
    pub hyp_elf: PathBuf,
    /// The manager, a flat arm64 `Image`.
    pub manager: PathBuf,
    /// The guests by reference, ELF files.
    pub guests: BTreeMap<String, PathBuf>,
}

/// Runs the subcommand.
///
/// # Errors
/// If anything does not build.
pub fn execute(options: &Options) -> Result<()> {
    let images = build(options)?;
    println!("{}", images.hyp.display());
    println!("{}", images.manager.display());
    for path in images.guests.values() {
        println!("{}", path.display());
    }
    Ok(())
}

/// Builds the hypervisor, the manager and the guests.
///
/// # Errors
/// If no toolchain serves, or anything does not build.
pub fn build(options: &Options) -> Result<Images> {
    let toolchain = toolchain::detect()?;
    if options.verbose {
        eprintln!("toolchain: {}", toolchain.describe());
    }
    let selected = select(guests::discover()?, options.guests.as_deref())?;
    let (rust, c): (Vec<_>, Vec<_>) = selected.into_iter().partition(|guest| matches!(guest.kind, Kind::Rust { .. }));

    // By itself: cargo unites the features of all it builds at once, and EL2 wants the fewest. Link-time optimisation makes its code
    // with the last compilation, so flags for that one are enough.
    cargo(toolchain.cargo("rustc"), &["portico-hyp"], &toolchain::el2_flags(), options)?;
    let mut packages = vec!["portico-manager"];
    for guest in &rust {
        if let Kind::Rust { package, .. } = &guest.kind {
            packages.push(package);
        }
    }
    cargo(toolchain.cargo("build"), &packages, &[], options)?;
    if !c.is_empty() {
        let mut command = toolchain.cargo("build");
        if let Some(compiler) = cc::detect() {
            // The front-ends for C are C themselves.
            command.env("PORTICO_CC", compiler.path());
        }
        cargo(command, &["portico-c"], &[], options)?;
    }

    let release = project::bare_dir().join(TARGET).join("release");
    let images = project::images_dir();
    std::fs::create_dir_all(&images)?;
    let hyp_elf = images.join("hyp.elf");
    copy(&release.join("portico-hyp"), &hyp_elf)?;
    let mut finished = BTreeMap::new();
    for guest in rust.iter().chain(&c) {
        let image = guest.image();
        if let Some(parent) = image.parent() {
            std::fs::create_dir_all(parent)?;
        }
        match &guest.kind {
            Kind::Rust { binary, .. } => copy(&release.join(binary), &image)?,
            Kind::C(description) => {
                let sources = description.resolve(&guest.folder).with_context(|| guest.reference.clone())?;
                cc::build(guest, &sources, &toolchain, &image)?;
            }
        }
        finished.insert(guest.reference.clone(), image);
    }
    Ok(Images {
        hyp: flatten(&release.join("portico-hyp"), &images.join("hyp.img"))?,
        hyp_elf,
        manager: flatten(&release.join("portico-manager"), &images.join("manager.img"))?,
        guests: finished,
    })
}

/// Returns where the results of an earlier build are.
pub fn built() -> Images {
    let images = project::images_dir();
    let guests = guests::discover().unwrap_or_default();
    Images {
        hyp: images.join("hyp.img"),
        hyp_elf: images.join("hyp.elf"),
        manager: images.join("manager.img"),
        guests: guests.into_iter().map(|guest| (guest.reference.clone(), guest.image())).collect(),
    }
}

/// Keeps the guests that are asked for, all if none is named.
fn select(all: Vec<Guest>, wanted: Option<&[String]>) -> Result<Vec<Guest>> {
    let Some(wanted) = wanted else { return Ok(all) };
    for reference in wanted {
        if !all.iter().any(|guest| &guest.reference == reference) {
            let known: Vec<_> = all.iter().map(|guest| guest.reference.as_str()).collect();
            bail!("no guest {reference}; there are: {}", known.join(" "));
        }
    }
    Ok(all.into_iter().filter(|guest| wanted.contains(&guest.reference)).collect())
}

/// Builds packages for the bare machine; `flags` are for the compiler, and with them there is one package.
fn cargo(mut command: Command, packages: &[&str], flags: &[String], options: &Options) -> Result<()> {
    command.arg("--release");
    if !options.verbose {
        command.arg("--quiet");
    }
    for package in packages {
        command.args(["-p", package]);
    }
    if !flags.is_empty() {
        command.arg("--").args(flags);
    }
    let status = command.status().context("starting cargo")?;
    if !status.success() {
        bail!("{} did not build", packages.join(", "));
    }
    Ok(())
}

/// Copies a finished file, in one step for those who read it at the same time.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let data = std::fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    write(to, &data)
}

/// Writes a flat `Image` of an ELF file.
fn flatten(elf: &Path, image: &Path) -> Result<PathBuf> {
    let data = std::fs::read(elf).with_context(|| format!("reading {}", elf.display()))?;
    write(image, &flat::image_from_elf(&data).with_context(|| format!("flattening {}", elf.display()))?)?;
    Ok(image.to_path_buf())
}

/// Writes a file by renaming, unless it holds the same already.
fn write(path: &Path, data: &[u8]) -> Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == data) {
        return Ok(());
    }
    let folder = path.parent().context("a file needs a folder")?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    std::io::Write::write_all(&mut file, data)?;
    file.persist(path).with_context(|| format!("writing {}", path.display()))?;
    Ok(())
}
