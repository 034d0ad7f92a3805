//! From a system description to a machine that is ready to start.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::build::{self, Images};
use crate::machine::{Line, Machine};
use crate::{dtb, guests, project};

/// What shall be booted, and where.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// A path, or the name of a description that comes with the project.
    pub system: String,
    /// The machine; `None` for what the description says.
    pub machine: Option<Machine>,
    /// Processors; `None` for what the description says.
    pub cpus: Option<u32>,
    /// Memory, in MiB; `None` for what the description says.
    pub memory_mib: Option<u64>,
    /// Whether to build what the description needs first.
    pub build: bool,
}

/// Why a description is refused.
#[derive(Debug)]
pub struct Refused {
    text: String,
    json: String,
}

impl Refused {
    /// Prints all that is wrong with it.
    pub fn print(&self, json: bool) {
        if json {
            println!("{}", self.json);
        } else {
            eprint!("{}", self.text);
        }
    }
}

/// Processors of a machine when nobody says how many.
const CPUS: u32 = 4;
/// Memory of a machine when nobody says how much, in MiB.
const MEMORY_MIB: u64 = 1024;

/// Builds what the description needs, checks it and makes its bundle.
///
/// # Errors
/// If something does not build or cannot be read. A description that is wrong is the inner error.
pub fn prepare(request: &Request) -> Result<Result<(Line, Vec<u8>), Refused>> {
    let path = find(&request.system)?;
    let options = build::Options { guests: Some(references(&path)?), verbose: false };
    let images = if request.build { build::build(&options)? } else { build::built() };
    let machine = request.machine.unwrap_or_default();
    let line = Line {
        machine,
        cpus: request.cpus.unwrap_or(CPUS),
        memory_mib: machine.fixed_memory_mib().or(request.memory_mib).unwrap_or(MEMORY_MIB),
        kernel: images.hyp.clone(),
        dtb: if machine == Machine::Raspi4b { Some(dtb::rpi4()?) } else { None },
        ..Line::default()
    };
    Ok(Ok((line, bundle(&images)?)))
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

/// Makes the bundle of a description.
fn bundle(images: &Images) -> Result<Vec<u8>> {
    let manager = std::fs::read(&images.manager).with_context(|| images.manager.display().to_string())?;
    let mut writer = portico_bundle::writer::Writer::new();
    writer.add(portico_bundle::names::MANAGER, &manager).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    Ok(writer.finish())
}
