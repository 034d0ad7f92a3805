//! From a system description to a machine that is ready to start.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use portico_ctl::{LoadOptions, MachineKind, Report, System};

use crate::build::{self, Images};
use crate::machine::Line;
use crate::{dtb, guests, project};

/// What shall be booted, and where.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// A path, or the name of a description that comes with the project.
    pub system: String,
    /// The machine; `None` for what the description says.
    pub machine: Option<MachineKind>,
    /// Processors; `None` for what the description says.
    pub cpus: Option<u32>,
    /// Memory, in MiB; `None` for what the description says.
    pub memory_mib: Option<u64>,
    /// Arguments for the manager, after those of the description.
    pub manager_arguments: Vec<String>,
    /// Whether to build what the description needs first.
    pub build: bool,
}

impl Request {
    /// Checks the description as far as that is possible before anything is built.
    ///
    /// # Errors
    /// If there is no such description. One that is wrong is the inner error.
    pub fn check(&self) -> Result<Result<(), Report>> {
        Ok(self.load(&find(&self.system)?, &build::built(), false).map(drop))
    }

    /// Builds what the description needs, checks it and makes its bundle.
    ///
    /// # Errors
    /// If something does not build or cannot be read. A description that is wrong is the inner error.
    pub fn prepare(&self) -> Result<Result<(Line, Vec<u8>), Report>> {
        let path = find(&self.system)?;
        let options = build::Options { guests: Some(references(&path)?), verbose: false };
        let images = if self.build { build::build(&options)? } else { build::built() };
        let system = match self.load(&path, &images, true) {
            Ok(system) => system,
            Err(report) => return Ok(Err(report)),
        };
        let manager = std::fs::read(&images.manager).with_context(|| images.manager.display().to_string())?;
        let machine = system.machine;
        let mut line = Line::new(machine.kind, machine.cpus, machine.memory_bytes >> 20, images.hyp);
        if machine.kind == MachineKind::Raspi4b {
            line.dtb = Some(dtb::rpi4()?);
        }
        Ok(Ok((line, system.bundle(&manager)?)))
    }

    /// Loads the description.
    fn load(&self, path: &Path, images: &Images, read_images: bool) -> Result<System, Report> {
        let guests = images.guests.clone();
        let resolver = move |scheme: &str, name: &str| {
            let reference = format!("{scheme}:{name}");
            guests.get(&reference).cloned().ok_or_else(|| {
                let known: Vec<_> = guests.keys().map(String::as_str).collect();
                format!("write one of {}", known.join(", "))
            })
        };
        let options = LoadOptions {
            machine: self.machine.map(|kind| kind.name().to_string()),
            cpus: self.cpus,
            memory_bytes: self.memory_mib.map(|mib| mib << 20),
            resolver: Some(&resolver),
            read_images,
            manager_cmdline: self.manager_arguments.join(" "),
            ..LoadOptions::default()
        };
        portico_ctl::load(path, &options)
    }
}

/// Finds a description: a path, or the name of one that comes with the project.
fn find(name: &str) -> Result<PathBuf> {
    let path = Path::new(name);
    if path.is_file() {
        return Ok(path.to_path_buf());
    }
    let own = project::systems_dir().join(format!("{name}.toml"));
    if own.is_file() {
        return Ok(own);
    }
    let mut known: Vec<String> = std::fs::read_dir(project::systems_dir())
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".toml")?.to_string()))
        .collect();
    known.sort();
    bail!("no system description {name}: give a path, or one of: {}", known.join(" "))
}

/// Returns the guests of ours that a description mentions. What is wrong with it is told later, by its checker.
fn references(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let known = guests::discover()?;
    let mentioned = |reference: &str| text.split(['"', '\'']).any(|part| part == reference);
    Ok(known.into_iter().map(|guest| guest.reference).filter(|reference| mentioned(reference)).collect())
}
