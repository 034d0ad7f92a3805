//! The RAM disk: Debian's static busybox for arm64, and what of `guest-linux-patches/initramfs` the kernel runs first.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{folder, package, patches_folder, write};

/// Debian's package of the user land.
const PACKAGE: &str = "busybox-static";

const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;
const FOLDER: u32 = 0o040_755;
const LINK: u32 = 0o120_777;

/// Folders that programs expect.
const FOLDERS: [&str; 10] = ["bin", "dev", "etc", "mnt", "proc", "root", "run", "sys", "tmp", "usr"];
/// Folders that are others.
const LINKS: [(&str, &str); 3] = [("sbin", "bin"), ("usr/bin", "../bin"), ("usr/sbin", "../bin")];

/// Makes the archive, if it is another than the one that is there. `update` looks for a newer busybox.
///
/// # Errors
/// If busybox cannot be fetched.
pub fn build(path: &Path, update: bool) -> Result<()> {
    build_with(path, update, &[])
}

/// The same with further files, each with its path in the archive.
///
/// # Errors
/// As [`build`].
pub fn build_with(path: &Path, update: bool, files: &[(PathBuf, Vec<u8>)]) -> Result<()> {
    let busybox = package::fetch(PACKAGE, "arm64", update)?;
    let unpacked = folder().join("busybox");
    if unpacked.exists() {
        std::fs::remove_dir_all(&unpacked)?;
    }
    package::unpack(&busybox, &unpacked)?;
    let program = unpacked.join("bin/busybox");
    let program = std::fs::read(&program).with_context(|| format!("reading {}", program.display()))?;
    let archive = archive(&program, &patches_folder().join("initramfs"), files)?;
    if std::fs::read(path).is_ok_and(|old| old == archive) {
        return Ok(());
    }
    write(path, &archive)
}

/// A cpio archive in the "newc" format, as the kernel unpacks it. The bundle's writer serves no purpose here: it pads names to whole pages, and
/// the kernel takes none that are longer than one.
#[derive(Debug, Default)]
struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    /// Appends a file, a folder, or a link and where it leads.
    fn add(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.inode += 1;
        let fields = [self.inode, mode, 0, 0, 1, 0, data.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, b"");
        self.bytes
    }
}

/// The archive: the same input gives the same bytes.
fn archive(busybox: &[u8], own: &Path, files: &[(PathBuf, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut writer = Archive::default();
    for name in FOLDERS {
        writer.add(name, FOLDER, b"");
    }
    for (name, target) in LINKS {
        writer.add(name, LINK, target.as_bytes());
    }
    writer.add("bin/busybox", PROGRAM, busybox);
    writer.add("bin/sh", LINK, b"busybox");
    add_folder(&mut writer, own, "")?;
    add_files(&mut writer, files);
    Ok(writer.finish())
}

/// An archive of one program, which is the first.
pub fn of_one(program: &[u8]) -> Vec<u8> {
    let mut writer = Archive::default();
    for name in ["dev", "proc"] {
        writer.add(name, FOLDER, b"");
    }
    writer.add("init", PROGRAM, program);
    writer.finish()
}

/// Adds files, and each of their folders once. Those that begin with `#!` or are ELF files are programs.
fn add_files(writer: &mut Archive, files: &[(PathBuf, Vec<u8>)]) {
    let mut folders = BTreeSet::new();
    for (path, data) in files {
        // The last of them is the empty path, of the root itself.
        let mut above: Vec<_> = path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()).collect();
        above.reverse();
        for folder in above {
            if folders.insert(folder.to_path_buf()) {
                writer.add(&folder.display().to_string(), FOLDER, b"");
            }
        }
        let is_program = data.starts_with(b"#!") || data.starts_with(b"\x7fELF");
        writer.add(&path.display().to_string(), if is_program { PROGRAM } else { FILE }, data);
    }
}

/// Adds the files of a folder. Those that begin with `#!` are programs.
fn add_folder(writer: &mut Archive, folder: &Path, prefix: &str) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let name = format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy());
        if path.is_dir() {
            if !FOLDERS.contains(&name.as_str()) {
                writer.add(&name, FOLDER, b"");
            }
            add_folder(writer, &path, &format!("{name}/"))?;
        } else {
            let data = std::fs::read(&path)?;
            writer.add(&name, if data.starts_with(b"#!") { PROGRAM } else { FILE }, &data);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_programs() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), "root").unwrap();
        std::fs::write(dir.path().join("init"), "#!/bin/sh\n").unwrap();
        let test = (PathBuf::from("tests/one"), b"\x7fELF".to_vec());
        let archive = archive(b"\x7fELF", dir.path(), &[test]).unwrap();
        let mode = |name: &str| {
            let at =
                archive.windows(name.len() + 1).position(|window| window == format!("{name}\0").as_bytes()).unwrap();
            // The mode is the second field of the header, which ends where the name begins.
            let text = archive.get(at - 110 + 14..at - 110 + 22).unwrap();
            u32::from_str_radix(std::str::from_utf8(text).unwrap(), 16).unwrap()
        };
        assert_eq!((mode("init"), mode("etc/passwd"), mode("etc"), mode("bin/sh")), (PROGRAM, FILE, FOLDER, LINK));
        assert_eq!((mode("tests"), mode("tests/one")), (FOLDER, PROGRAM));
    }
}
