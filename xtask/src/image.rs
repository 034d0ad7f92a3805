//! `cargo xtask image`: makes an SD card for a Raspberry Pi 4, and reads one.
//!
//! ```text
//! sector 0        partition table (MBR), and after it a GPT if the description names partitions of the disk `sd`
//! 1 MiB           boot partition, FAT32: kernel8.img, device tree, config.txt, bundle, firmware
//! after it        those partitions, else an empty one: what guests keep
//! ```
//! The firmware looks for its partition in the MBR, the block service for the guests' in the GPT, where they have the numbers that the
//! description gives them and the boot partition comes last.
//!
//! The firmware of the VideoCore is not free and not ours: it is taken from a folder the user names or from the
//! distribution's package, and what is missing is named.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use fscommon::StreamSlice;
use mbrman::{CHS, MBR, MBRPartitionEntry};
use portico_ctl::description::{Part, System};
use portico_ctl::{Drive, MachineKind};

use crate::disk::{self, Beside};
use crate::machine::{Disk, Line};
use crate::system::{Prepared, Request};
use crate::{dtb, project, setup};

/// Bytes of a sector.
const SECTOR: u32 = 512;
/// Where the boot partition begins, in bytes.
const BOOT_START: u64 = 1 << 20;
/// Bytes of the boot partition.
const BOOT_BYTES: u64 = 128 << 20;
/// Least bytes of the card. QEMU takes only powers of two.
const CARD_BYTES: u64 = 256 << 20;
/// How much later than on a disk of their own the partitions of a description begin.
const SHIFT: u64 = BOOT_BYTES;
/// Partition type: FAT32 by block address.
const TYPE_FAT32: u8 = 0x0c;
/// Partition type: data of a Unix system.
const TYPE_DATA: u8 = 0x83;
/// Partition type: a GPT is there.
const TYPE_GPT: u8 = 0xee;
/// Settings of the board's firmware.
const CONFIG: &str = include_str!("../data/config.txt");
/// Firmware files that the board cannot do without.
const FIRMWARE: &[&str] = &["start4.elf", "fixup4.dat"];
/// PSCI for the board; without it the firmware's own stub starts processors by a spin table.
const PSCI_FIRMWARE: &str = "bl31.bin";
/// Where packages put the firmware.
const FIRMWARE_FOLDERS: &[&str] = &["/usr/lib/raspi-firmware", "/boot/firmware"];
/// Where the package of the Arm firmware puts the board's.
const PSCI_FOLDERS: &[&str] = &["/usr/lib/arm-trusted-firmware/rpi4"];

/// A board that images are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Board {
    /// Raspberry Pi 4 B
    Rpi4,
}

/// Options of `image`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The board
    pub board: Board,
    /// A system description: a path, or the name of one that comes with the project
    #[arg(default_value = "example")]
    pub system: String,
    /// The image
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Folder with start4.elf and fixup4.dat, and bl31.bin if the board shall have PSCI
    #[arg(long, value_name = "FOLDER")]
    pub firmware: Option<PathBuf>,
    /// Leave the firmware out: such an image starts in QEMU only
    #[arg(long, conflicts_with = "firmware")]
    pub without_firmware: bool,
    /// Install what is missing without asking
    #[arg(long, short)]
    pub yes: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// If the description is refused, firmware is missing, or the image cannot be written.
pub fn execute(options: &Options) -> Result<()> {
    setup::ensure(setup::BUILD, &setup::Options { yes: options.yes, dry_run: false })?;
    let firmware = if options.without_firmware { BTreeMap::new() } else { firmware(options.firmware.as_deref())? };
    let request = Request {
        system: options.system.clone(),
        machine: Some(MachineKind::Raspi4b),
        build: true,
        ..Request::default()
    };
    let Prepared { line, description, bundle, notes, wanted } = match request.prepare()? {
        Ok(prepared) => prepared,
        Err(report) => bail!("the description is refused:\n{report}"),
    };
    for note in notes {
        eprintln!("note: {note}");
    }
    let card = wanted.drives.iter().find(|drive| Some(drive.name.as_str()) == MachineKind::Raspi4b.fixed_disk());
    spare_boot(&description)?;
    let output = options.output.clone().unwrap_or_else(|| project::images_dir().join("rpi4.img"));
    let mut files = firmware;
    files.insert("kernel8.img".into(), fs::read(&line.kernel)?);
    files.insert("bcm2711-rpi-4-b.dtb".into(), fs::read(dtb::rpi4()?)?);
    files.insert("portico.cpio".into(), bundle);
    let psci = if files.contains_key(PSCI_FIRMWARE) { format!("armstub={PSCI_FIRMWARE}\n") } else { String::new() };
    files.insert("config.txt".into(), format!("{CONFIG}{psci}").into_bytes());
    write(&output, &files, card)?;
    println!("{}", output.display());
    if options.without_firmware {
        eprintln!("without firmware: this image starts in QEMU, not on a board");
    } else {
        eprintln!("write it to a card by `dd if={} of=/dev/YOUR_CARD bs=4M conv=fsync`", output.display());
    }
    Ok(())
}

/// Finds the firmware.
fn firmware(folder: Option<&Path>) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut folders: Vec<PathBuf> = folder.map(Path::to_path_buf).into_iter().collect();
    if folder.is_none() {
        folders.extend(FIRMWARE_FOLDERS.iter().map(PathBuf::from));
    }
    let find = |name: &str, folders: &[PathBuf]| folders.iter().map(|f| f.join(name)).find(|path| path.is_file());
    let mut files = BTreeMap::new();
    let mut missing = Vec::new();
    for name in FIRMWARE {
        match find(name, &folders) {
            Some(path) => drop(files.insert(name.to_string(), fs::read(path)?)),
            None => missing.push(*name),
        }
    }
    if !missing.is_empty() {
        let places: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
        bail!(
            "the board's firmware is missing: no {} in {}. It is not free software and does not come with Portico: \
             install Debian's package raspi-firmware (section non-free-firmware), or copy these files from a card \
             that starts your board and name their folder by --firmware. For QEMU, --without-firmware will do",
            missing.join(", "),
            places.join(" or ")
        );
    }
    folders.extend(PSCI_FOLDERS.iter().map(PathBuf::from));
    if let Some(path) = find(PSCI_FIRMWARE, &folders) {
        files.insert(PSCI_FIRMWARE.into(), fs::read(path)?);
    }
    Ok(files)
}

/// Refuses a description by which a guest can overwrite what the board starts from.
fn spare_boot(description: &System) -> Result<()> {
    for guest in &description.guests {
        for disk in guest.disks.iter().filter(|disk| !disk.read_only) {
            let reaches = match &disk.part {
                Part::Whole => true,
                Part::Range { first, .. } => *first < BOOT_START + BOOT_BYTES,
                Part::Number(_) | Part::Label(_) => false,
            };
            if reaches {
                bail!(
                    "guest {}: disk {} reaches the boot partition of the card, and the guest can write to it: give it a \
                     partition, or write `mode = \"ro\"`",
                    guest.name,
                    disk.name
                );
            }
        }
    }
    Ok(())
}

/// Writes a card with `files` on its boot partition, and the partitions of `drive` after it.
///
/// # Errors
/// If the files do not fit or the card cannot be written.
pub fn write(path: &Path, files: &BTreeMap<String, Vec<u8>>, drive: Option<&Drive>) -> Result<()> {
    let drive = drive.filter(|drive| !drive.partitions.is_empty());
    let least = drive.map_or(CARD_BYTES, |drive| drive.least_bytes() + SHIFT);
    let card_bytes = least.max(CARD_BYTES).next_power_of_two();

    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    let mut card = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    card.set_len(card_bytes)?;
    write_table(&mut card, card_bytes, drive.is_some())?;
    if let Some(drive) = drive {
        let named = drive.partitions.iter().any(|partition| partition.label == "boot");
        let label = if named { "portico-boot" } else { "boot" };
        let boot = Beside { label, first: BOOT_START, bytes: BOOT_BYTES };
        disk::partition(&mut card, drive, SHIFT, Some(boot))?;
    }
    let boot_end = BOOT_START + BOOT_BYTES;
    let format = FormatVolumeOptions::new()
        .fat_type(fatfs::FatType::Fat32)
        .bytes_per_cluster(SECTOR)
        .volume_label(*b"PORTICO    ");
    fatfs::format_volume(&mut StreamSlice::new(&mut card, BOOT_START, boot_end)?, format)?;
    let slice = StreamSlice::new(&mut card, BOOT_START, boot_end)?;
    let volume = FileSystem::new(fscommon::BufStream::new(slice), FsOptions::new())?;
    for (name, data) in files {
        let mut file = volume.root_dir().create_file(name).with_context(|| format!("writing {name}"))?;
        file.write_all(data).with_context(|| format!("writing {name}: is the boot partition full?"))?;
        file.flush()?;
    }
    volume.unmount()?;
    Ok(())
}

/// Writes the partition table: the boot partition, and either the GPT as one or the rest of the card.
fn write_table(card: &mut File, card_bytes: u64, has_gpt: bool) -> Result<()> {
    let mut table = MBR::new_from(card, SECTOR, *b"PRTC")?;
    let entry = |start: u64, bytes: u64, kind: u8| -> Result<MBRPartitionEntry> {
        Ok(MBRPartitionEntry {
            boot: mbrman::BOOT_INACTIVE,
            first_chs: CHS::empty(),
            sys: kind,
            last_chs: CHS::empty(),
            starting_lba: u32::try_from(start / u64::from(SECTOR))?,
            sectors: u32::try_from(bytes / u64::from(SECTOR))?,
        })
    };
    let data_start = BOOT_START + BOOT_BYTES;
    table[1] = entry(BOOT_START, BOOT_BYTES, TYPE_FAT32)?;
    table[2] = if has_gpt {
        entry(u64::from(SECTOR), BOOT_START - u64::from(SECTOR), TYPE_GPT)?
    } else {
        entry(data_start, card_bytes - data_start, TYPE_DATA)?
    };
    table.write_into(card)?;
    Ok(())
}

/// Reads all files from the boot partition of a card.
///
/// # Errors
/// If it is no card, or its boot partition is damaged.
pub fn read(path: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut card = File::open(path).with_context(|| format!("reading {}", path.display()))?;
    let table = MBR::read_from(&mut card, SECTOR).context("no partition table")?;
    let boot =
        table.iter().map(|(_, entry)| entry).find(|entry| entry.sys == TYPE_FAT32).context("no FAT32 partition")?;
    let start = u64::from(boot.starting_lba) * u64::from(SECTOR);
    let end = start + u64::from(boot.sectors) * u64::from(SECTOR);
    card.seek(SeekFrom::Start(0))?;
    let volume = FileSystem::new(fscommon::BufStream::new(StreamSlice::new(card, start, end)?), FsOptions::new())?;
    let mut files = BTreeMap::new();
    for entry in volume.root_dir().iter() {
        let entry = entry?;
        if entry.is_file() {
            let mut data = Vec::new();
            entry.to_file().read_to_end(&mut data)?;
            files.insert(entry.file_name(), data);
        }
    }
    Ok(files)
}

/// Makes a line that boots in QEMU what a card holds, found as the board's firmware finds it: by `config.txt`.
/// The files are unpacked into `folder`.
///
/// # Errors
/// If the card lacks a file that its settings name.
pub fn boot_line(card: &Path, folder: &Path, cpus: u32) -> Result<Line> {
    let files = read(card)?;
    let config = String::from_utf8_lossy(files.get("config.txt").context("the card has no config.txt")?).into_owned();
    let setting = |key: &str| {
        config
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .map(str::trim)
            .with_context(|| format!("config.txt has no {key}"))
    };
    let unpack = |name: &str| -> Result<PathBuf> {
        let data = files.get(name).with_context(|| format!("the card has no {name}"))?;
        let path = folder.join(name);
        fs::write(&path, data)?;
        Ok(path)
    };
    let mut line = Line::new(MachineKind::Raspi4b, cpus, 2048, unpack(setting("kernel=")?)?);
    line.dtb = Some(unpack(setting("device_tree=")?)?);
    let bundle = setting("initramfs ")?.split(' ').next().unwrap_or_default();
    line.initrd = Some(unpack(bundle)?);
    let name = MachineKind::Raspi4b.fixed_disk().unwrap_or_default().to_string();
    line.disks.push(Disk { name, file: card.to_path_buf() });
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use portico_ctl::{Content, Partition, description};

    /// Files as the builder makes them.
    fn files() -> BTreeMap<String, Vec<u8>> {
        BTreeMap::from([
            ("kernel8.img".to_string(), vec![1; 70_000]),
            ("bcm2711-rpi-4-b.dtb".to_string(), b"tree".to_vec()),
            ("portico.cpio".to_string(), (0..=255).cycle().take(3 << 20).collect()),
            ("config.txt".to_string(), CONFIG.as_bytes().to_vec()),
        ])
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let card = folder.path().join("card.img");
        write(&card, &files(), None).unwrap();
        assert_eq!(fs::metadata(&card).unwrap().len(), CARD_BYTES);
        assert!(read(&card).unwrap() == files());
        let line = boot_line(&card, folder.path(), 4).unwrap();
        assert_eq!(fs::read(line.kernel).unwrap(), files()["kernel8.img"]);
        assert_eq!(fs::read(line.initrd.unwrap()).unwrap(), files()["portico.cpio"]);
        assert_eq!(line.disks[0].file, card);
    }

    #[test]
    fn a_card_has_a_data_partition() {
        let folder = tempfile::tempdir().unwrap();
        let card = folder.path().join("card.img");
        write(&card, &files(), None).unwrap();
        let table = MBR::read_from(&mut File::open(&card).unwrap(), SECTOR).unwrap();
        assert_eq!(table[2].sys, TYPE_DATA);
        assert_eq!(table[2].starting_lba, table[1].starting_lba + table[1].sectors);
    }

    #[test]
    fn partitions_of_the_description_are_on_the_card() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("card.img");
        let partition =
            |label: &str, mib: u64, content: Content| Partition { label: label.into(), bytes: mib << 20, content };
        let drive = Drive {
            name: "sd".into(),
            partitions: vec![partition("root", 100, Content::Readme), partition("boot", 50, Content::Blank)],
            ..Drive::default()
        };
        write(&path, &files(), Some(&drive)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 512 << 20);
        assert!(read(&path).unwrap() == files());
        assert!(disk::read_file(&path, "root", "README.TXT").is_ok());
        assert_eq!(disk::read_file(&path, "portico-boot", "bcm2711-rpi-4-b.dtb").unwrap(), b"tree");
        let table = gpt::GptConfig::new().open(&path).unwrap();
        let found: Vec<_> = table.partitions().iter().map(|(n, p)| (*n, p.name.as_str(), p.first_lba / 2048)).collect();
        assert_eq!(found, [(1, "root", 129), (2, "boot", 229), (3, "portico-boot", 1)]);
    }

    #[test]
    fn no_guest_can_overwrite_what_the_board_starts_from() {
        let refused = |part: Part, read_only: bool| {
            let disks = vec![description::Disk { part, read_only, ..Default::default() }];
            let guests = vec![description::Guest { disks, ..Default::default() }];
            spare_boot(&System { guests, ..System::default() }).is_err()
        };
        let range = |first: u64| Part::Range { first, bytes: 512 };
        assert!(refused(Part::Whole, false) && refused(range(128 << 20), false));
        assert!(!refused(Part::Whole, true) && !refused(range(129 << 20), false) && !refused(Part::Number(1), false));
    }

    #[test]
    fn missing_firmware_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("start4.elf"), "x").unwrap();
        let error = firmware(Some(folder.path())).unwrap_err().to_string();
        assert!(error.contains("no fixup4.dat in") && !error.contains("start4.elf"), "{error}");
        fs::write(folder.path().join("fixup4.dat"), "x").unwrap();
        assert_eq!(firmware(Some(folder.path())).unwrap().len(), 2);
    }
}
