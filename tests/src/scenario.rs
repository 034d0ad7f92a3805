//! What a test boots.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use portico_bundle::writer::Writer;
use portico_ctl::{Drive, MachineKind};
use tempfile::TempDir;
use xtask::devices::{Devices, GivenDisk, Uplink, Wanted};
use xtask::machine::Line;
use xtask::system::{Prepared, Request};
use xtask::{build, dtb, flat, project};

use crate::Machine;

/// Where the manager comes from.
#[derive(Clone, Copy, Debug)]
enum What {
    /// A system description in `tests/systems`, or a name that comes with the project.
    System(&'static str),
    /// A guest of `tests/guests` in place of the manager.
    Root(&'static str),
    /// A system description that the test writes; paths in it are relative to the folder with the test's files.
    Written(&'static str),
    /// No bundle at all.
    Nothing,
}

/// A machine and what it shall run.
#[derive(Clone, Debug)]
pub struct Scenario {
    what: What,
    machine: MachineKind,
    cpus: u32,
    memory_mib: Option<u64>,
    limit: Duration,
    icount: bool,
    bootargs: Vec<String>,
    manager: Vec<String>,
    extra: Vec<String>,
    devices: Devices,
    capture: Option<PathBuf>,
    files: Vec<(&'static str, Vec<u8>)>,
    tools: bool,
}

impl Scenario {
    fn new(what: What, machine: MachineKind, cpus: u32) -> Scenario {
        Scenario {
            what,
            machine,
            cpus,
            memory_mib: None,
            limit: Duration::from_secs(60),
            icount: false,
            bootargs: Vec::new(),
            manager: Vec::new(),
            extra: Vec::new(),
            devices: Devices::default(),
            capture: None,
            files: Vec::new(),
            tools: false,
        }
    }

    /// A system of `tests/systems`, or one that comes with the project.
    pub fn system(name: &'static str, machine: MachineKind, cpus: u32) -> Scenario {
        Scenario::new(What::System(name), machine, cpus)
    }

    /// A guest of `tests/guests` that runs in place of the manager, with all its handles.
    pub fn root(name: &'static str, machine: MachineKind, cpus: u32) -> Scenario {
        Scenario::new(What::Root(name), machine, cpus)
    }

    /// A system of this description.
    pub fn written(description: &'static str, machine: MachineKind, cpus: u32) -> Scenario {
        Scenario::new(What::Written(description), machine, cpus)
    }

    /// Adds a file beside the description.
    pub fn file(mut self, name: &'static str, bytes: Vec<u8>) -> Scenario {
        self.files.push((name, bytes));
        self
    }

    /// Only the hypervisor.
    pub fn nothing(machine: MachineKind) -> Scenario {
        Scenario::new(What::Nothing, machine, 1)
    }

    /// Sets how long all of it may take. Every machine is allowed a minute if not told otherwise.
    pub fn seconds(mut self, seconds: u64) -> Scenario {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// Counts instructions: one is a nanosecond, the same in every run.
    pub fn icount(mut self) -> Scenario {
        self.icount = true;
        self
    }

    /// Sets the machine's memory.
    pub fn memory(mut self, mib: u64) -> Scenario {
        self.memory_mib = Some(mib);
        self
    }

    /// Adds an argument for EL2, which hands it on to the first domain.
    pub fn bootarg(mut self, argument: &str) -> Scenario {
        self.bootargs.push(argument.to_string());
        self
    }

    /// Adds an argument for the manager.
    pub fn manager(mut self, argument: &str) -> Scenario {
        self.manager.push(argument.to_string());
        self
    }

    /// Adds arguments for QEMU.
    pub fn qemu(mut self, arguments: &[&str]) -> Scenario {
        self.extra.extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// Gives it a file as a disk, in place of the description's of this name or beside them. What the machine writes to it stays.
    /// The description's other disks are made anew for each machine.
    pub fn disk(mut self, name: &str, file: &Path) -> Scenario {
        self.devices.disks.push(GivenDisk { name: name.to_string(), file: file.to_path_buf() });
        self
    }

    /// Sets what is behind its uplink; the user network if not told otherwise.
    pub fn uplink(mut self, uplink: Uplink) -> Scenario {
        self.devices.uplink = Some(uplink);
        self
    }

    /// Has all frames at its uplink written to a file, as tcpdump reads it.
    pub fn capture(mut self, file: &Path) -> Scenario {
        self.capture = Some(file.to_path_buf());
        self
    }

    /// Opens the doors for tools: QEMU's machine protocol, and its debugger's stub.
    pub fn tools(mut self) -> Scenario {
        self.tools = true;
        self
    }

    /// Boots it.
    ///
    /// # Errors
    /// If something was not built, or QEMU cannot be started.
    pub fn boot(mut self) -> Result<Machine> {
        let folder = tempfile::Builder::new().prefix("portico-test-").tempdir()?;
        self.devices.scratch = Some(folder.path().to_path_buf());
        let (mut line, bundle) = self.prepare(&folder)?;
        if let Some(bundle) = bundle {
            let path = folder.path().join("bundle");
            std::fs::write(&path, bundle)?;
            line.initrd = Some(path);
        }
        line.icount = self.icount;
        if self.icount || self.tools {
            // QEMU may need a nudge to let time go on when all processors idle: `Qemu::next` gives it through this.
            line.qmp = Some(folder.path().join("qmp"));
        }
        if self.capture.is_some() {
            line.net.as_mut().context("a machine without network device has no frames to capture")?.capture =
                self.capture;
        }
        line.bootargs.extend(self.bootargs);
        line.extra.extend(self.extra);
        if self.tools {
            // Not `Line::gdb`, which lets the machine wait for the debugger.
            line.extra.extend(["-gdb".to_string(), format!("unix:{},server=on,wait=off", stub(&folder).display())]);
        }
        Machine::start(&line, self.limit, folder)
    }

    fn prepare(&self, folder: &TempDir) -> Result<(Line, Option<Vec<u8>>)> {
        for (name, bytes) in &self.files {
            std::fs::write(folder.path().join(name), bytes)?;
        }
        let (own, name) = match self.what {
            What::System(name) => (project::root().join("tests/systems").join(format!("{name}.toml")), name),
            What::Written(description) => {
                let path = folder.path().join("system.toml");
                std::fs::write(&path, description)?;
                (path, "the description")
            }
            What::Root(guest) => return Ok((self.bare_line()?, Some(root_bundle(guest)?))),
            What::Nothing => return Ok((self.bare_line()?, None)),
        };
        let request = Request {
            system: if own.is_file() { own.display().to_string() } else { name.to_string() },
            machine: Some(self.machine),
            cpus: Some(self.cpus),
            memory_mib: self.memory_mib,
            manager_arguments: self.manager.clone(),
            build: false,
            devices: self.devices.clone(),
        };
        match request.prepare()? {
            Ok(Prepared { mut line, bundle, wanted, .. }) => {
                self.devices.attach(&wanted, &mut line)?;
                Ok((line, Some(bundle)))
            }
            Err(report) => bail!("{name} is refused: {report}"),
        }
    }

    fn bare_line(&self) -> Result<Line> {
        let mut line = Line::new(self.machine, self.cpus, self.memory_mib.unwrap_or(512), build::built().hyp);
        if self.machine == MachineKind::Raspi4b {
            line.dtb = Some(dtb::rpi4_with_seed()?);
        }
        let given = |disk: &GivenDisk| Drive { name: disk.name.clone(), ..Drive::default() };
        let wanted = Wanted { drives: self.devices.disks.iter().map(given).collect(), ..Wanted::default() };
        self.devices.attach(&wanted, &mut line)?;
        Ok(line)
    }
}

/// Where QEMU's debugger's stub listens.
pub(crate) fn stub(folder: &TempDir) -> PathBuf {
    folder.path().join("gdb")
}

/// A guest that was built, as a flat arm64 `Image`.
///
/// # Errors
/// If it was not built.
pub fn guest_image(guest: &str) -> Result<Vec<u8>> {
    let elf: PathBuf = project::images_dir().join(guest);
    let elf = std::fs::read(&elf).with_context(|| format!("{} (`cargo xtask build` makes it)", elf.display()))?;
    flat::image_from_elf(&elf)
}

/// A bundle with a test guest as the manager.
fn root_bundle(guest: &str) -> Result<Vec<u8>> {
    Ok(Writer::with_manager(&guest_image(&format!("test/{guest}"))?)?.finish())
}
