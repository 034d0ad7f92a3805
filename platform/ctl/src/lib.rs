//! What an operator's tools do with a system description.
//!
//! A description is a TOML file (`platform/README.md` has every key). [`load`] reads and checks it
//! and reports all mistakes at once, each with its line and what to write instead; [`System::bundle`] makes of it
//! the archive that a machine boots. The command `portico` and `cargo xtask run` are both thin shells over this.
//!
//! It starts nothing and talks to no machine. What it accepts the manager accepts: the loader that checks
//! an image here is the manager's own, and the limit of reservations is that of EL2.
#![forbid(unsafe_code)]

mod capacity;
mod channel;
mod compile;
mod device;
pub mod diagnostic;
pub mod fuzz;
mod guest;
pub mod image;
mod kernel;
pub mod machine;
mod section;
mod show;
mod value;

pub use device::bridge::Forward;
pub use device::drive::{Content, Drive, Partition};
pub use diagnostic::{Diagnostic, Report};
pub use image::Image;
pub use machine::{Machine, MachineKind};
pub use portico_bundle::description;

use portico_bundle::names;
use portico_bundle::writer::{WriteError, Writer};
use std::path::{Path, PathBuf};

/// Finds an image that the project builds: scheme and name of `example:ping` to its file. The error says what to do.
pub type Resolver = dyn Fn(&str, &str) -> Result<PathBuf, String>;

/// What stands above the description, and where images are.
#[derive(Clone)]
pub struct LoadOptions<'a> {
    /// Name of the machine, instead of the description's.
    pub machine: Option<String>,
    /// Number of pCPUs, instead of the description's.
    pub cpus: Option<u32>,
    /// Memory of the machine in bytes, instead of the description's.
    pub memory_bytes: Option<u64>,
    /// Finds `example:NAME` and the like.
    pub resolver: Option<&'a Resolver>,
    /// Whether kernels and RAM disks are read and checked. Without, the system cannot be bundled.
    pub read_images: bool,
    /// Arguments for the manager after the description's.
    pub manager_cmdline: String,
    /// Names of disks that the machine has whatever the description says of them.
    pub disks: Vec<String>,
    /// Whether the machine's network device, if it has one, is used.
    pub uplink: bool,
}

impl Default for LoadOptions<'_> {
    fn default() -> Self {
        LoadOptions {
            machine: None,
            cpus: None,
            memory_bytes: None,
            resolver: None,
            read_images: true,
            manager_cmdline: String::new(),
            disks: Vec::new(),
            uplink: true,
        }
    }
}

/// A checked system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// The machine it is for.
    pub machine: Machine,
    /// What the manager gets.
    pub description: description::System,
    /// The files that go with it.
    pub images: Vec<Image>,
    /// The machine's disks.
    pub drives: Vec<Drive>,
    /// Ports of the machine that runs QEMU by which guests can be reached.
    pub forwards: Vec<Forward>,
    /// What differs from what the description says, and why, for people.
    pub notes: Vec<String>,
}

/// Loads and checks the description in `path`. Paths in it are relative to its folder.
///
/// # Errors
/// A report of every mistake.
pub fn load(path: &Path, options: &LoadOptions<'_>) -> Result<System, Report> {
    match std::fs::read_to_string(path) {
        Ok(text) => load_text(&text, path, options),
        Err(error) => {
            let mut sink = diagnostic::Sink::new(path, "");
            match error.kind() {
                std::io::ErrorKind::NotFound => sink.add_whole("there is no such file", "name a system description"),
                std::io::ErrorKind::InvalidData => sink.add_whole("not a text file", "name a system description"),
                _ => sink.add_whole("cannot be read", error.to_string()),
            }
            Err(sink.into_report())
        }
    }
}

/// Checks the description `text` as if it stood in the file `path`.
///
/// # Errors
/// A report of every mistake.
pub fn load_text(text: &str, path: &Path, options: &LoadOptions<'_>) -> Result<System, Report> {
    compile::compile(text, path, options)
}

/// Parses a size as a description writes it ("64M"), for command lines. The result is in bytes.
///
/// # Errors
/// What is wrong and what to write instead.
pub fn parse_size(text: &str) -> Result<u64, String> {
    value::size(section::Scalar::Text(text)).map_err(|(message, help)| format!("{message}: {help}"))
}

/// Why a system could not be bundled.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The manager is not what EL2 can start.
    #[error("the manager is not an arm64 `Image`: flatten the ELF file that was built")]
    Manager,
    /// The system was loaded with `read_images` off.
    #[error("the images were not read")]
    ImagesNotRead,
    /// An entry cannot be written.
    #[error("{entry}: {error}")]
    Entry {
        /// The entry.
        entry: String,
        /// Why.
        error: WriteError,
    },
    /// The description cannot be encoded.
    #[error(transparent)]
    Description(#[from] description::DescriptionError),
}

impl System {
    /// Makes the boot bundle of this system with the flat `manager` image. The same input gives the same bytes.
    ///
    /// # Errors
    /// See [`BundleError`].
    pub fn bundle(&self, manager: &[u8]) -> Result<Vec<u8>, BundleError> {
        if self.images.iter().any(|image| image.bytes.is_empty()) {
            return Err(BundleError::ImagesNotRead);
        }
        let mut writer = Writer::with_manager(manager).map_err(|error| match error {
            WriteError::NoImage => BundleError::Manager,
            error => BundleError::Entry { entry: names::MANAGER.to_owned(), error },
        })?;
        let mut add = |entry: &str, data: &[u8]| {
            writer.add(entry, data).map_err(|error| BundleError::Entry { entry: entry.to_owned(), error })
        };
        add(names::SYSTEM, &self.description.encode()?)?;
        for image in &self.images {
            add(&image.entry, &image.bytes)?;
        }
        Ok(writer.finish())
    }

    /// The system in words, for people.
    pub fn summary(&self) -> String {
        show::text(self)
    }

    /// The system as JSON.
    pub fn to_json(&self) -> String {
        show::json(self)
    }
}
