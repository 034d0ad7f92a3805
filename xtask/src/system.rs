//! From a system description to a machine that is ready to start.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use portico_ctl::description::{self, ServiceKind};
use portico_ctl::{LoadOptions, MachineKind, Report, System};

use crate::build::{self, Images};
use crate::devices::{Devices, Wanted};
use crate::guests::Guest;
use crate::machine::Line;
use crate::{dtb, guests, linux, project, setup};

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
    /// Disks and network beside those of the description.
    pub devices: Devices,
}

/// A system that is ready to start.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The machine, still without bundle, disks and network.
    pub line: Line,
    /// The compiled description.
    pub description: description::System,
    /// The bundle.
    pub bundle: Vec<u8>,
    /// What the description says of the machine's devices: [`Devices::attach`] makes them.
    pub wanted: Wanted,
    /// What differs from what the description says, for people.
    pub notes: Vec<String>,
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
    pub fn prepare(&self) -> Result<Result<Prepared, Report>> {
        let path = find(&self.system)?;
        let needed = match self.load(&path, &build::built(), false) {
            Ok(system) => references(&system)?,
            Err(report) => return Ok(Err(report)),
        };
        let parts: Vec<_> = needed.iter().filter_map(|reference| linux::part(reference)).collect();
        let needed = needed.into_iter().filter(|reference| linux::part(reference).is_none()).collect();
        if self.build && !parts.is_empty() {
            setup::ensure(setup::LINUX, &setup::Options::default())?;
            linux::build(&linux::Options { parts, ..linux::Options::default() })?;
        }
        let options = build::Options { guests: Some(needed), verbose: false };
        let images = if self.build { build::build(&options)? } else { build::built() };
        let system = match self.load(&path, &images, true) {
            Ok(system) => system,
            Err(report) => return Ok(Err(report)),
        };
        let manager = std::fs::read(&images.manager).with_context(|| images.manager.display().to_string())?;
        let machine = system.machine;
        let mut line = Line::new(machine.kind, machine.cpus, machine.memory_bytes >> 20, images.hyp);
        if machine.kind == MachineKind::Raspi4b {
            line.dtb = Some(dtb::rpi4_with_seed()?);
        }
        let uplink = system.description.service(ServiceKind::Net).is_some()
            && system.description.bridges.iter().any(|bridge| bridge.uplink);
        let bundle = system.bundle(&manager)?;
        let wanted = Wanted { drives: system.drives, forwards: system.forwards, uplink };
        Ok(Ok(Prepared { line, description: system.description, bundle, wanted, notes: system.notes }))
    }

    /// Loads the description.
    fn load(&self, path: &Path, images: &Images, read_images: bool) -> Result<System, Report> {
        let mut guests = images.guests.clone();
        guests.extend(linux::references());
        let resolver = move |scheme: &str, name: &str| {
            let reference = format!("{scheme}:{name}");
            guests.get(&reference).cloned().ok_or_else(|| {
                let known: Vec<_> = guests.keys().map(String::as_str).filter(|key| key.starts_with(scheme)).collect();
                let all = || guests.keys().map(String::as_str).collect();
                let known = if known.is_empty() { all() } else { known };
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
            disks: self.devices.disks.iter().map(|disk| disk.name.clone()).collect(),
            uplink: self.devices.has_uplink(),
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

/// Returns the guests and services of ours that a system needs.
fn references(system: &System) -> Result<Vec<String>> {
    let needed = |guest: &Guest| system.images.iter().any(|image| image.path == guest.image());
    let mut found: Vec<String> = guests::discover()?.into_iter().filter(needed).map(|guest| guest.reference).collect();
    let is_named = |path: &Path| {
        system.images.iter().any(|image| image.path == path) || system.drives.iter().any(|drive| drive.has_image(path))
    };
    found.extend(linux::references().into_iter().filter(|(_, path)| is_named(path)).map(|(reference, _)| reference));
    Ok(found)
}
