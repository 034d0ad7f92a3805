//! Makes the files that QEMU's machines have as disks.
//!
//! ```text
//! 0           protective partition table, GPT
//! 1 MiB       partitions, each at a multiple of 1 MiB
//! the end     copy of the GPT
//! ```
//! A disk whose description names no partitions is all zeros.

use std::fs::{self, File, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use fatfs::{Dir, FileSystem, FormatVolumeOptions, FsOptions, ReadWriteSeek};
use fscommon::{BufStream, StreamSlice};
use gpt::GptConfig;
use gpt::mbr::ProtectiveMBR;
use gpt::partition_types::{BASIC, LINUX_FS};
use portico_ctl::{Content, Drive};

/// Bytes of a sector.
const SECTOR: u64 = 512;
/// Bytes of an image that are copied at a time.
const COPY_BYTES: usize = 64 << 10;
/// What is on a file system that no folder was named for.
const README: &str = "This file system was made by `cargo xtask run`, as the system description says.\n";

/// Makes the disk that `drive` describes, of so many bytes, in one step for those who look at the same time.
///
/// # Errors
/// If it cannot be written, or a folder's files do not fit.
pub fn create(path: &Path, drive: &Drive, bytes: u64) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    // Whom else it is readable for the user's mask decides, as with any file.
    let mut file = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .with_context(|| format!("writing to {}", folder.display()))?;
    file.as_file().set_len(bytes)?;
    if let Some(image) = &drive.image {
        copy_image(image, file.as_file_mut(), 0, bytes).with_context(|| format!("disk {}", drive.name))?;
    }
    if !drive.partitions.is_empty() {
        ensure!(bytes >= drive.least_bytes(), "disk {}: {bytes} bytes are too few for its partitions", drive.name);
        let sectors = u32::try_from(bytes / SECTOR - 1).unwrap_or(u32::MAX);
        ProtectiveMBR::with_lb_size(sectors).overwrite_lba0(file.as_file_mut())?;
        partition(file.as_file_mut(), drive, 0, None)?;
    }
    file.persist(path).with_context(|| format!("writing {}", path.display()))?;
    Ok(())
}

/// A partition that is on a disk beside those of its description.
#[derive(Clone, Copy, Debug)]
pub struct Beside {
    /// Its name.
    pub label: &'static str,
    /// Its first byte.
    pub first: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Writes GPT and file systems to a disk that is all zeros where its partitions lie: `shift` bytes after the place that their description
/// gives them. They have the numbers from 1; another one has the number after them.
///
/// # Errors
/// If the disk cannot be written, or a folder's files do not fit.
pub fn partition(disk: &mut File, drive: &Drive, shift: u64, beside: Option<Beside>) -> Result<()> {
    let places = || drive.partitions.iter().zip(drive.layout()).map(|(p, (first, bytes))| (p, first + shift, bytes));
    let mut table = GptConfig::new().writable(true).create_from_device(&mut *disk, None)?;
    let mut number = 0;
    for (partition, first, bytes) in places() {
        number += 1;
        let kind = match partition.content {
            Content::Blank | Content::Image(_) => LINUX_FS,
            Content::Readme | Content::Folder(_) => BASIC,
        };
        table.add_partition_at(&partition.label, number, first / SECTOR, bytes / SECTOR, kind, 0)?;
    }
    if let Some(Beside { label, first, bytes }) = beside {
        table.add_partition_at(label, number + 1, first / SECTOR, bytes / SECTOR, BASIC, 0)?;
    }
    table.write()?;
    for (partition, first, bytes) in places() {
        let context = || format!("disk {}, partition {}", drive.name, partition.label);
        let folder = match &partition.content {
            Content::Blank => continue,
            Content::Image(image) => {
                copy_image(image, disk, first, bytes).with_context(context)?;
                continue;
            }
            Content::Readme => None,
            Content::Folder(folder) => Some(folder.as_path()),
        };
        let slice = || StreamSlice::new(&*disk, first, first + bytes);
        let format = FormatVolumeOptions::new().volume_label(volume_label(&partition.label));
        fatfs::format_volume(&mut slice()?, format).with_context(context)?;
        let volume = FileSystem::new(BufStream::new(slice()?), FsOptions::new()).with_context(context)?;
        fill(&volume.root_dir(), folder).with_context(context)?;
        volume.unmount().with_context(context)?;
    }
    Ok(())
}

/// Copies an image to a place of a disk that is all zeros there; what of it is zeros takes no room on this computer's disk.
fn copy_image(image: &Path, disk: &mut File, first: u64, bytes: u64) -> Result<()> {
    let mut source = File::open(image).with_context(|| format!("reading {}", image.display()))?;
    let length = source.metadata()?.len();
    ensure!(length <= bytes, "{} has {length} bytes, and there is room for {bytes}", image.display());
    let mut block = vec![0; COPY_BYTES];
    let mut at = first;
    loop {
        let read = source.read(&mut block)?;
        let Some(data) = block.get(..read).filter(|data| !data.is_empty()) else { return Ok(()) };
        if data.iter().any(|byte| *byte != 0) {
            disk.seek(SeekFrom::Start(at))?;
            disk.write_all(data)?;
        }
        at += read as u64;
    }
}

/// Puts the files of a folder and of those in it into a file system; without any, one that says what it is.
fn fill<T: ReadWriteSeek>(into: &Dir<'_, T>, folder: Option<&Path>) -> Result<()> {
    let mut paths = match folder {
        Some(folder) => fs::read_dir(folder)
            .with_context(|| format!("reading {}", folder.display()))?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<_>>>()?,
        None => Vec::new(),
    };
    paths.sort();
    if paths.is_empty() {
        into.create_file("README.TXT")?.write_all(README.as_bytes())?;
    }
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            copy_folder(&into.create_dir(&name)?, &path)?;
        } else {
            copy_file(into, &name, &path)?;
        }
    }
    Ok(())
}

/// Copies a folder that may be empty.
fn copy_folder<T: ReadWriteSeek>(into: &Dir<'_, T>, folder: &Path) -> Result<()> {
    let empty = fs::read_dir(folder)?.next().is_none();
    if empty { Ok(()) } else { fill(into, Some(folder)) }
}

/// Copies one file.
fn copy_file<T: ReadWriteSeek>(into: &Dir<'_, T>, name: &str, path: &Path) -> Result<()> {
    let data = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let mut file = into.create_file(name).with_context(|| format!("writing {name}"))?;
    file.write_all(&data).with_context(|| format!("writing {name}: is the partition too small?"))?;
    Ok(file.flush()?)
}

/// The label of a partition as a FAT file system takes it.
fn volume_label(label: &str) -> [u8; 11] {
    let mut volume = [b' '; 11];
    let tame = |byte: u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_uppercase() } else { b'_' };
    for (to, from) in volume.iter_mut().zip(label.bytes()) {
        *to = tame(from);
    }
    volume
}

/// Reads a file from the FAT file system on a partition, found by its label: for tests of what guests wrote.
///
/// # Errors
/// If there is no such partition or file.
pub fn read_file(disk: &Path, label: &str, name: &str) -> Result<Vec<u8>> {
    let mut disk = File::open(disk).with_context(|| format!("reading {}", disk.display()))?;
    let table = GptConfig::new().open_from_device(disk.try_clone()?)?;
    let partition = table.partitions().values().find(|partition| partition.is_used() && partition.name == label);
    let partition = partition.with_context(|| format!("no partition {label}"))?;
    disk.rewind()?;
    let slice = StreamSlice::new(disk, partition.first_lba * SECTOR, (partition.last_lba + 1) * SECTOR)?;
    let volume = FileSystem::new(BufStream::new(slice), FsOptions::new())?;
    let mut data = Vec::new();
    volume.root_dir().open_file(name)?.read_to_end(&mut data)?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use portico_ctl::Partition;

    fn drive(folder: &Path) -> Drive {
        let partition =
            |label: &str, mib: u64, content: Content| Partition { label: label.into(), bytes: mib << 20, content };
        Drive {
            name: "data".into(),
            partitions: vec![
                partition("raw", 3, Content::Blank),
                partition("my files", 4, Content::Folder(folder.into())),
                partition("note", 40, Content::Readme),
            ],
            ..Drive::default()
        }
    }

    #[test]
    fn a_disk_has_its_partitions_and_files() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        fs::create_dir_all(source.join("sub/empty")).unwrap();
        fs::write(source.join("a long name.txt"), "hello").unwrap();
        fs::write(source.join("sub/x"), vec![7; 100_000]).unwrap();
        let path = folder.path().join("new/disk.img");
        create(&path, &drive(&source), 64 << 20).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 64 << 20);
        let table = GptConfig::new().open(&path).unwrap();
        let found: Vec<_> =
            table.partitions().iter().map(|(n, p)| (*n, p.name.as_str(), p.first_lba, p.last_lba)).collect();
        assert_eq!(
            found,
            [(1, "raw", 2048, 8191), (2, "my files", 8192, 16383), (3, "note", 16384, 16384 + 40 * 2048 - 1)]
        );
        assert_eq!(read_file(&path, "my files", "a long name.txt").unwrap(), b"hello");
        assert_eq!(read_file(&path, "my files", "sub/x").unwrap(), vec![7; 100_000]);
        assert_eq!(read_file(&path, "note", "README.TXT").unwrap(), README.as_bytes());
        assert!(read_file(&path, "raw", "README.TXT").is_err() && read_file(&path, "none", "x").is_err());
    }

    #[test]
    fn a_copy_of_an_image_has_all_of_it_and_zeros() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        let mut data = vec![0; 3 << 16];
        data[0] = 1;
        *data.last_mut().unwrap() = 2;
        fs::write(&image, &data).unwrap();
        let partition =
            |mib: u64| Partition { label: "root".into(), bytes: mib << 20, content: Content::Image(image.clone()) };
        let path = folder.path().join("disk.img");
        let drive = Drive { partitions: vec![partition(1), partition(2)], ..Drive::default() };
        create(&path, &drive, 5 << 20).unwrap();
        let disk = fs::read(&path).unwrap();
        for first in [1 << 20, 2 << 20] {
            assert!(disk[first..first + data.len()] == data && disk[first + data.len()..][..4096] == [0; 4096]);
        }
        let whole = Drive { image: Some(image.clone()), ..Drive::default() };
        create(&path, &whole, 1 << 20).unwrap();
        let disk = fs::read(&path).unwrap();
        assert!(disk.len() == 1 << 20 && disk.starts_with(&data));
        assert!(create(&path, &whole, 1 << 16).unwrap_err().to_string().contains("disk"));
    }

    #[test]
    fn what_does_not_fit_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("big"), vec![1; 5 << 20]).unwrap();
        let path = folder.path().join("disk.img");
        let error = format!("{:#}", create(&path, &drive(&source), 64 << 20).unwrap_err());
        assert!(error.contains("partition my files: writing big"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(create(&path, &drive(&source), 1 << 20).is_err());
    }

    #[test]
    fn labels_of_volumes() {
        assert_eq!(&volume_label("root"), b"ROOT       ");
        assert_eq!(&volume_label("a very long one"), b"A_VERY_LONG");
    }
}
