//! `cargo xtask image`: makes an SD card for a Raspberry Pi 4, and reads one.
//!
//! ```text
//! sector 0        partition table (MBR)
//! 1 MiB           boot partition, FAT32: kernel8.img, device tree, config.txt, bundle, firmware
//! after it        data partition, empty: what guests keep
//! ```
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
use portico_ctl::MachineKind;

use crate::machine::Line;
use crate::system::{Prepared, Request};
use crate::{dtb, project, setup};

/// Bytes of a sector.
const SECTOR: u32 = 512;
/// Where the boot partition begins, in bytes.
const BOOT_START: u64 = 1 << 20;
/// Bytes of the boot partition.
const BOOT_BYTES: u64 = 128 << 20;
/// Bytes of the card. QEMU takes only powers of two.
const CARD_BYTES: u64 = 256 << 20;
/// Partition type: FAT32 by block address.
const TYPE_FAT32: u8 = 0x0c;
/// Partition type: data of a Unix system.
const TYPE_DATA: u8 = 0x83;
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
    let Prepared { line, bundle, notes, .. } = match request.prepare()? {
        Ok(prepared) => prepared,
        Err(report) => bail!("the description is refused:\n{report}"),
    };
    for note in notes {
        eprintln!("note: {note}");
    }
    let output = options.output.clone().unwrap_or_else(|| project::images_dir().join("rpi4.img"));
    let mut files = firmware;
    files.insert("kernel8.img".into(), fs::read(&line.kernel)?);
    files.insert("bcm2711-rpi-4-b.dtb".into(), fs::read(dtb::rpi4()?)?);
    files.insert("portico.cpio".into(), bundle);
    let psci = if files.contains_key(PSCI_FIRMWARE) { format!("armstub={PSCI_FIRMWARE}\n") } else { String::new() };
    files.insert("config.txt".into(), format!("{CONFIG}{psci}").into_bytes());
    write(&output, &files)?;
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

/// Writes a card with `files` on its boot partition.
///
/// # Errors
/// If the files do not fit or the card cannot be written.
pub fn write(path: &Path, files: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    let mut card = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    card.set_len(CARD_BYTES)?;
    write_table(&mut card)?;
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

/// Writes the partition table.
fn write_table(card: &mut File) -> Result<()> {
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
    table[2] = entry(data_start, CARD_BYTES - data_start, TYPE_DATA)?;
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
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        write(&card, &files()).unwrap();
        assert_eq!(fs::metadata(&card).unwrap().len(), CARD_BYTES);
        assert!(read(&card).unwrap() == files());
        let line = boot_line(&card, folder.path(), 4).unwrap();
        assert_eq!(fs::read(line.kernel).unwrap(), files()["kernel8.img"]);
        assert_eq!(fs::read(line.initrd.unwrap()).unwrap(), files()["portico.cpio"]);
    }

    #[test]
    fn a_card_has_a_data_partition() {
        let folder = tempfile::tempdir().unwrap();
        let card = folder.path().join("card.img");
        write(&card, &files()).unwrap();
        let table = MBR::read_from(&mut File::open(&card).unwrap(), SECTOR).unwrap();
        assert_eq!(table[2].sys, TYPE_DATA);
        assert_eq!(table[2].starting_lba, table[1].starting_lba + table[1].sectors);
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
