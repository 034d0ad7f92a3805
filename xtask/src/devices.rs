//! The disks and the network device of a machine in QEMU.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use portico_ctl::description::name_is_valid;
use portico_ctl::{Drive, Forward, MachineKind};

use crate::disk;
use crate::machine::{Disk, Line, Net};

/// What is behind the uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Uplink {
    /// QEMU's user network: guests reach what this computer reaches (itself is 10.0.2.2), and are reached by forwarded ports only
    User,
    /// The same, but guests reach nothing outside
    Restricted,
    /// The machine has no network device
    None,
}

/// A disk that the command line names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenDisk {
    /// Its name.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
}

/// What the machine gets beside what its description says.
#[derive(Clone, Debug, Default)]
pub struct Devices {
    /// Disks. They replace those of the same name.
    pub disks: Vec<GivenDisk>,
    /// What is behind the uplink; if not said, the user network where a bridge has the uplink.
    pub uplink: Option<Uplink>,
    /// A folder for everything that the machine writes: the description's disks are made anew in it, the files it names
    /// are not touched, and forwarded ports are free ones whatever it says. For machines that run beside others.
    pub scratch: Option<PathBuf>,
}

/// What the description says of the machine's devices.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Disks.
    pub drives: Vec<Drive>,
    /// Forwarded ports.
    pub forwards: Vec<Forward>,
    /// Whether something uses the uplink.
    pub uplink: bool,
}

impl Devices {
    /// Says whether the system shall be compiled with the uplink that its description has.
    pub fn has_uplink(&self) -> bool {
        self.uplink != Some(Uplink::None)
    }

    /// Gives a machine its disks and network device, and makes the disks that are not there.
    ///
    /// # Errors
    /// If a disk is missing or cannot be made, or a port is taken.
    pub fn attach(&self, wanted: &Wanted, line: &mut Line) -> Result<()> {
        for drive in &wanted.drives {
            line.disks.push(Disk { name: drive.name.clone(), file: self.file(drive, line.machine)? });
        }
        let uplink = self.uplink.unwrap_or(if wanted.uplink { Uplink::User } else { Uplink::None });
        if uplink == Uplink::None {
            return Ok(());
        }
        ensure!(line.machine.has_net(), "machine {} has no network device: leave --net out", line.machine.name());
        let forwards = wanted.forwards.iter().map(|forward| self.forward(forward)).collect::<Result<_>>()?;
        line.net = Some(Net { forwards, restricted: uplink == Uplink::Restricted, capture: None });
        Ok(())
    }

    /// The file of a disk, made if need be.
    fn file(&self, drive: &Drive, machine: MachineKind) -> Result<PathBuf> {
        let given = self.disks.iter().find(|given| given.name == drive.name);
        if let Some(given) = given {
            check_size(&given.file, machine)?;
            return Ok(given.file.clone());
        }
        let name = &drive.name;
        let file = match &self.scratch {
            Some(folder) => folder.join(format!("{name}.disk")),
            None => drive.file.clone().with_context(|| {
                format!("disk {name} has no file: write `file` in its `[[disk]]`, or give --disk {name}=FILE")
            })?,
        };
        if !file.exists() {
            let bytes = drive.bytes.with_context(|| {
                format!("{} does not exist: make it, or write `size` in the `[[disk]]` {name}", file.display())
            })?;
            // What is named as the board's card shall do for the board, whatever machine runs first.
            let is_card = MachineKind::Raspi4b.fixed_disk() == Some(name.as_str());
            let bytes = if is_card { bytes.next_power_of_two() } else { bytes };
            disk::create(&file, drive, bytes)?;
        }
        check_size(&file, machine)?;
        Ok(file)
    }

    /// Chooses the port of a forward.
    fn forward(&self, forward: &Forward) -> Result<(u16, SocketAddrV4)> {
        let port = match forward.port.filter(|_| self.scratch.is_none()) {
            None => free_port(0)?,
            Some(port) => free_port(port).with_context(|| {
                format!("port {port} of 127.0.0.1 is taken: write another `port` in `[[forward]]`, or leave it out")
            })?,
        };
        Ok((port, forward.to))
    }
}

/// Looks whether a port is free, or for one that is. It may be taken until QEMU listens on it: then QEMU says so.
fn free_port(port: u16) -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, port))?.local_addr()?.port())
}

/// Refuses what QEMU would refuse with less to say.
fn check_size(file: &Path, machine: MachineKind) -> Result<()> {
    let bytes = std::fs::metadata(file).with_context(|| format!("disk {}", file.display()))?.len();
    ensure!(bytes.is_multiple_of(512), "{}: a disk has whole sectors of 512 bytes", file.display());
    if machine == MachineKind::Raspi4b && !bytes.is_power_of_two() {
        let right = bytes.next_power_of_two();
        bail!("{}: QEMU's card has a power of two of bytes: `truncate -s {right}` makes it so", file.display());
    }
    Ok(())
}

/// Reads `[NAME=]FILE`.
///
/// # Errors
/// If the file does not exist, or the name is none.
pub fn parse_disk(text: &str) -> Result<GivenDisk, String> {
    let (name, file) = match text.split_once('=') {
        Some((name, file)) if name_is_valid(name) => (name.to_owned(), PathBuf::from(file)),
        _ => {
            let file = PathBuf::from(text);
            (file.file_stem().unwrap_or_default().to_string_lossy().into_owned(), file)
        }
    };
    if !name_is_valid(&name) {
        return Err(format!(
            "{name:?} cannot name a disk (1 to 16 of a-z A-Z 0-9 - _ .): write NAME={}",
            file.display()
        ));
    }
    if !file.is_file() && !is_device(&file) {
        return Err(format!("{} does not exist", file.display()));
    }
    Ok(GivenDisk { name, file })
}

/// Says whether it is a block device of this computer.
fn is_device(file: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::metadata(file).is_ok_and(|metadata| metadata.file_type().is_block_device())
}

/// Says where a forwarded port leads, as a browser takes it where it can.
pub fn describe(port: u16, to: SocketAddrV4) -> String {
    let scheme = match to.port() {
        80 | 8000 | 8080 => "http://",
        443 | 8443 => "https://",
        _ => "",
    };
    format!("{scheme}127.0.0.1:{port} -> {to}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drive(file: Option<PathBuf>, bytes: Option<u64>) -> Drive {
        Drive { name: "sd".into(), file, bytes, ..Drive::default() }
    }

    fn line(machine: MachineKind) -> Line {
        Line::new(machine, 1, 512, "k".into())
    }

    fn attach(devices: &Devices, drive: &Drive, machine: MachineKind) -> Result<Line> {
        let mut line = line(machine);
        let wanted = Wanted { drives: vec![drive.clone()], ..Wanted::default() };
        devices.attach(&wanted, &mut line).map(|()| line)
    }

    #[test]
    fn disks_are_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("card.img");
        let drive = drive(Some(file.clone()), Some(3 << 20));
        let length = || std::fs::metadata(&file).unwrap().len();
        let made = attach(&Devices::default(), &drive, MachineKind::Virt).unwrap();
        assert_eq!((made.disks[0].file.as_path(), length()), (file.as_path(), 4 << 20));
        std::fs::write(&file, vec![0; 3 << 20]).unwrap();
        let error = attach(&Devices::default(), &drive, MachineKind::Raspi4b).unwrap_err().to_string();
        assert!(error.contains("truncate -s 4194304"), "{error}");
        std::fs::remove_file(&file).unwrap();
        attach(&Devices::default(), &drive, MachineKind::Raspi4b).unwrap();
        assert_eq!(length(), 4 << 20);
        std::fs::write(&file, [1; 512]).unwrap();
        attach(&Devices::default(), &drive, MachineKind::Virt).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), [1; 512]);
        // In a folder of its own the machine does not touch it.
        let scratch = Devices { scratch: Some(folder.path().join("scratch")), ..Devices::default() };
        let made = attach(&scratch, &drive, MachineKind::Virt).unwrap();
        assert!(made.disks[0].file.starts_with(folder.path().join("scratch")) && length() == 512);
    }

    #[test]
    fn what_is_missing_is_said() {
        let said = |drive: &Drive| attach(&Devices::default(), drive, MachineKind::Virt).unwrap_err().to_string();
        assert!(said(&drive(None, None)).contains("give --disk sd=FILE"));
        assert!(said(&drive(Some("/nowhere/x.img".into()), None)).contains("write `size`"));
        assert_eq!(parse_disk("/nowhere/x.img").unwrap_err(), "/nowhere/x.img does not exist");
    }

    #[test]
    fn disks_of_the_command_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, [0; 1024]).unwrap();
            path.display().to_string()
        };
        let plain = path("plain.img");
        assert_eq!(parse_disk(&plain).unwrap(), GivenDisk { name: "plain".into(), file: plain.clone().into() });
        assert_eq!(parse_disk(&format!("sd={plain}")).unwrap(), GivenDisk { name: "sd".into(), file: plain.into() });
        assert!(parse_disk(&path("not a name.img")).is_err());
        let odd = path("a=b.img");
        assert_eq!(parse_disk(&format!("odd={odd}")).unwrap().file, PathBuf::from(&odd));
    }

    #[test]
    fn the_uplink_follows_the_description() {
        let to = "10.0.2.15:80".parse().unwrap();
        let forwards = vec![Forward { to, port: None }];
        let wanted = |uplink| Wanted { uplink, forwards: forwards.clone(), ..Wanted::default() };
        let net = |devices: &Devices, uplink, machine| {
            let mut line = line(machine);
            devices.attach(&wanted(uplink), &mut line).map(|()| line.net)
        };
        let plain = Devices::default();
        let of = |uplink| Devices { uplink: Some(uplink), ..Devices::default() };
        let user = net(&plain, true, MachineKind::Virt).unwrap().unwrap();
        assert!(user.forwards[0].0 > 0 && !user.restricted);
        assert!(net(&of(Uplink::Restricted), true, MachineKind::Virt).unwrap().unwrap().restricted);
        assert!(net(&plain, false, MachineKind::Virt).unwrap().is_none());
        assert!(net(&of(Uplink::None), true, MachineKind::Virt).unwrap().is_none());
        assert!(net(&of(Uplink::User), false, MachineKind::Raspi4b).is_err());
        assert!(net(&plain, false, MachineKind::Raspi4b).unwrap().is_none());
        assert_eq!(describe(8080, to), "http://127.0.0.1:8080 -> 10.0.2.15:80");
    }

    #[test]
    fn a_port_that_is_taken_is_named() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let forward = Forward { to: "10.0.2.15:80".parse().unwrap(), port: Some(port) };
        let error = Devices::default().forward(&forward).unwrap_err().to_string();
        assert!(error.contains(&format!("port {port} of 127.0.0.1 is taken")), "{error}");
        let scratch = Devices { scratch: Some("x".into()), ..Devices::default() };
        assert_ne!(scratch.forward(&forward).unwrap().0, port);
    }
}
