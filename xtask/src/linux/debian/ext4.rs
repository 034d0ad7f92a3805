//! The file system of a root: as small as its files allow, and the same bytes for the same files.
//!
//! mke2fs puts a folder into a file system, with the owners and times that its files have here. debugfs then gives them those that they shall
//! have: so neither who makes it nor when can be seen.

use std::fs;
use std::fs::FileTimes;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};

use super::unpack::{Owner, Tree};

/// Label, identity and hash seed of the file system.
const LABEL: &str = "portico";
const IDENTITY: &str = "6f727469-636f-4001-8000-000000000001";
const HASH_SEED: &str = "6f727469-636f-4002-8000-000000000002";
/// The time of all files, in seconds since 1970: 2026-01-01.
const TIME: u64 = 1_767_225_600;
/// What makes it ext4; the machine's own settings do not count.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,\
                        large_file,huge_file,dir_nlink,extra_isize,metadata_csum";
/// Settings in place of the machine's own: they must know the kinds by size.
const SETTINGS: &str = "[fs_types]\nfloppy = {\ninode_size = 256\n}\nsmall = {\ninode_size = 256\n}\n";
/// Bytes of a block.
const BLOCK: u64 = 4096;
/// MiB of the journal: the least that the kernel does not call small.
const JOURNAL_MIB: u64 = 8;
/// What is left free beside the journal, and what sizes are multiples of, in bytes.
const FREE: u64 = 8 << 20;
const STEP: u64 = 4 << 20;
/// Bytes for each inode: enough inodes when a guest fills a larger partition.
const BYTES_PER_INODE: u64 = 16 << 10;
/// Characters in a path that debugfs would not take as they are.
const QUOTING: [char; 3] = ['"', '\\', '\n'];

/// Makes the file system.
///
/// # Errors
/// If a program is missing, or the result is not sound.
pub fn make(tree: &Tree, image: &Path) -> Result<()> {
    let paths = super::walk(&tree.root)?;
    settle_times(tree, &paths)?;
    let folder = image.parent().context("an image needs a folder")?;
    let file = tempfile::NamedTempFile::new_in(folder)?;
    let bytes = needed(tree, &paths)?;
    file.as_file().set_len(bytes)?;
    eprintln!("debian: making a file system of {} MiB", bytes >> 20);
    let mut settings = tempfile::NamedTempFile::new()?;
    settings.write_all(SETTINGS.as_bytes())?;
    let mut command = program("mke2fs");
    command.env("MKE2FS_CONFIG", settings.path());
    command.args(["-q", "-F", "-O", FEATURES, "-b", &BLOCK.to_string(), "-L", LABEL, "-U", IDENTITY, "-m", "1"]);
    command.args(["-i", &BYTES_PER_INODE.to_string(), "-I", "256", "-J", &format!("size={JOURNAL_MIB}")]);
    command.args(["-E", &format!("hash_seed={HASH_SEED},lazy_itable_init=0,lazy_journal_init=0,nodiscard")]);
    command.arg("-d").arg(&tree.root).arg(file.path());
    run(&mut command, "")?;
    run(program("debugfs").args(["-w", "-f", "-"]).arg(file.path()), &script(tree, &paths)?)?;
    run(program("e2fsck").args(["-f", "-n"]).arg(file.path()), "")?;
    file.persist(image)?;
    Ok(())
}

/// A program of e2fsprogs, for which it is always the same time. It may be where ordinary users do not look.
fn program(name: &str) -> Command {
    let place =
        ["/sbin", "/usr/sbin"].map(|folder| Path::new(folder).join(name)).into_iter().find(|path| path.is_file());
    let mut command = Command::new(place.unwrap_or_else(|| name.into()));
    command.env("E2FSPROGS_FAKE_TIME", TIME.to_string()).env("LC_ALL", "C");
    command
}

/// Whether the programs are there.
pub fn is_installed() -> bool {
    ["mke2fs", "debugfs", "e2fsck"].iter().all(|name| {
        crate::toolchain::find_in_path(name).is_some()
            || ["/sbin", "/usr/sbin"].iter().any(|folder| Path::new(folder).join(name).is_file())
    })
}

/// Gives all files one time. Links have theirs in the image only.
fn settle_times(tree: &Tree, paths: &[PathBuf]) -> Result<()> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(TIME);
    let times = FileTimes::new().set_accessed(time).set_modified(time);
    for path in paths.iter().rev().map(|path| tree.root.join(path)).filter(|path| !path.is_symlink()) {
        let file = fs::File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        file.set_times(times)?;
    }
    Ok(())
}

/// Size of a file system for these files, in bytes.
fn needed(tree: &Tree, paths: &[PathBuf]) -> Result<u64> {
    let mut data = 0;
    for path in paths {
        let metadata = fs::symlink_metadata(tree.root.join(path))?;
        data += if metadata.is_symlink() { 0 } else { metadata.len().next_multiple_of(BLOCK).max(BLOCK) };
    }
    // Inodes of 256 bytes take a 64th, bitmaps and descriptors much less.
    let tables = (data + data / 8) / 32;
    Ok((data + tables + (JOURNAL_MIB << 20) + FREE).next_multiple_of(STEP))
}

/// What debugfs shall do: owner and times of each file.
fn script(tree: &Tree, paths: &[PathBuf]) -> Result<String> {
    let mut script = String::new();
    let root = PathBuf::new();
    for path in std::iter::once(&root).chain(paths) {
        let name = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
        ensure!(!name.contains(QUOTING), "{name:?} has characters that debugfs does not take");
        let owner = tree.owners.get(path).copied().unwrap_or_default();
        script += &inode(name, owner);
    }
    for field in ["mkfs_time", "wtime", "lastcheck"] {
        script += &format!("ssv {field} @{TIME}\n");
    }
    Ok(script)
}

/// What debugfs shall do for one file.
fn inode(path: &str, owner: Owner) -> String {
    let mut text = String::new();
    for (field, value) in [("uid", owner.uid), ("gid", owner.gid)] {
        text += &format!("sif \"/{path}\" {field} {value}\n");
    }
    for field in ["atime", "ctime", "mtime", "crtime"] {
        text += &format!("sif \"/{path}\" {field} @{TIME}\n");
    }
    text
}

/// Runs a program that is silent when all is well.
fn run(command: &mut Command, input: &str) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
    let mut stdin = child.stdin.take().context("a program without input")?;
    // Its standard output is dropped, so it reads whatever it writes.
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    // debugfs ends well whatever happened. Each says its version first.
    let wrong: Vec<&str> = said.lines().filter(|line| !is_version(line)).collect();
    if !output.status.success() || !wrong.is_empty() {
        bail!("{name} failed: {}", wrong.join("\n"));
    }
    Ok(())
}

/// `mke2fs 1.47.0 (5-Feb-2023)`
fn is_version(line: &str) -> bool {
    line.is_empty()
        || (line.ends_with(')') && ["mke2fs ", "debugfs ", "e2fsck "].iter().any(|name| line.starts_with(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree(root: &Path) -> Tree {
        let mut tree = Tree::new(root).unwrap();
        fs::create_dir_all(root.join("etc")).unwrap();
        for number in 0..40_u8 {
            let name = u32::from(number) * 7 % 40;
            fs::write(root.join(format!("etc/{name}")), vec![number; 3000]).unwrap();
        }
        symlink("etc/1", root.join("a link")).unwrap();
        tree.owners.insert("etc/3".into(), Owner { uid: 0, gid: 42 });
        tree
    }

    /// What debugfs says.
    fn ask(image: &Path, question: &str) -> String {
        let output = program("debugfs").args(["-R", question]).arg(image).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[test]
    fn the_same_files_make_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let images = ["one", "two"].map(|name| {
            let image = dir.path().join(format!("{name}.ext4"));
            make(&tree(&dir.path().join(name)), &image).unwrap();
            // Files that are made at another time, and so in another order of the folder, have another time of change.
            std::thread::sleep(Duration::from_millis(1100));
            image
        });
        assert!(fs::read(&images[0]).unwrap() == fs::read(&images[1]).unwrap());
        let said = ask(&images[0], "stat etc/3");
        assert!(said.contains("Group:    42") && said.contains("User:     0"), "{said}");
        assert_eq!(said.matches("Thu Jan  1 00:00:00 2026").count(), 4, "{said}");
        assert!(ask(&images[0], "stat \"a link\"").contains("etc/1"));
    }

    #[test]
    fn what_a_program_complains_of_is_an_error() {
        assert!(run(Command::new("sh").args(["-c", "cat; echo debugfs 1.47 '(x)' >&2"]), "x").is_ok());
        assert!(run(Command::new("sh").args(["-c", "cat; echo no such file >&2"]), "x").is_err());
        assert!(run(Command::new("sh").args(["-c", "cat; exit 1"]), "").is_err());
    }
}
