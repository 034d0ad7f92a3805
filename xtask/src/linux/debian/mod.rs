//! The Debian root: packages of Debian for arm64, unpacked, settled and put into an ext4 file system.
//!
//! The computer that makes it cannot run arm64 programs, so no maintainer script runs: [`settle`] does what of them matters. Nothing is
//! installed and no root is needed: owners come from the packages' own tables and are written into the finished image.
//!
//! | file | what |
//! | --- | --- |
//! | [`packages`] | which packages, and fetching them and what they depend on |
//! | [`unpack`] | the packages' files, and dpkg's records of them |
//! | [`settle`] | users, links, defaults, and our own files on top |
//! | [`ext4`] | the file system |
//!
//! The same packages, own files and code make the same bytes. A root is made anew only if one of these is another than last time.

mod ext4;
mod packages;
mod settle;
mod unpack;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};

use super::{folder, patches_folder, write};

/// The code that makes the root: when it changes, so may the root.
const CODE: [&str; 5] = [
    include_str!("mod.rs"),
    include_str!("ext4.rs"),
    include_str!("packages.rs"),
    include_str!("settle.rs"),
    include_str!("unpack.rs"),
];

/// Makes the root, if that was not done before. `update` looks for newer packages than those that were fetched.
///
/// # Errors
/// If packages cannot be fetched, or a program is missing that makes file systems.
pub fn build(image: &Path, update: bool, force: bool) -> Result<()> {
    let own = patches_folder().join("debian");
    let text = std::fs::read_to_string(own.join("packages")).context("reading the list of packages")?;
    let list = packages::List::parse(&text)?;
    let debs = packages::fetch(&list, update)?;
    let overlay = own.join("overlay");
    let key = key(&debs, &overlay)?;
    let stamp = folder().join("debian.made-of");
    if !force && image.is_file() && std::fs::read(&stamp).is_ok_and(|old| old == key) {
        return Ok(());
    }
    let _ = std::fs::remove_file(&stamp);
    let started = Instant::now();
    let root = folder().join("debian");
    if root.exists() {
        std::fs::remove_dir_all(&root)?;
    }
    let mut tree = unpack::Tree::new(&root)?;
    tree.add(&debs)?;
    settle::settle(&mut tree, &overlay)?;
    ext4::make(&tree, image)?;
    std::fs::remove_dir_all(&root)?;
    let mib = std::fs::metadata(image)?.len() >> 20;
    eprintln!("debian: {} packages, {mib} MiB, made in {} s", debs.len(), started.elapsed().as_secs());
    write(&stamp, &key)
}

/// Whether the programs are there that make a root.
pub fn is_possible() -> bool {
    ext4::is_installed()
}

/// All that a root depends on. The name of a package's file has its version.
fn key(debs: &[PathBuf], overlay: &Path) -> Result<Vec<u8>> {
    let mut key = Vec::new();
    for deb in debs {
        key.extend_from_slice(deb.file_name().unwrap_or_default().as_encoded_bytes());
        key.push(b'\n');
    }
    for path in walk(overlay)? {
        key.extend_from_slice(path.as_os_str().as_encoded_bytes());
        key.push(b'\n');
        let path = overlay.join(path);
        if path.is_file() {
            key.extend(std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?);
        }
    }
    key.extend(CODE.concat().into_bytes());
    Ok(key)
}

/// Everything below a folder in order, folders before what is in them, relative to it. Links are not followed.
fn walk(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut open, mut found) = (vec![folder.to_path_buf()], Vec::new());
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).with_context(|| format!("reading {}", next.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
            found.push(entry.path().strip_prefix(folder)?.to_path_buf());
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_comes_before_what_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("b/c")).unwrap();
        std::fs::write(dir.path().join("b/c/d"), "").unwrap();
        std::fs::write(dir.path().join("a"), "").unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("z")).unwrap();
        let found = walk(dir.path()).unwrap();
        assert_eq!(found, ["a", "b", "b/c", "b/c/d", "z"].map(PathBuf::from));
    }

    #[test]
    fn the_key_tells_packages_and_files_apart() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("motd"), "one").unwrap();
        let deb = |name: &str| vec![PathBuf::from(name)];
        let first = key(&deb("/x/a_1_arm64.deb"), dir.path()).unwrap();
        assert_eq!(first, key(&deb("/y/a_1_arm64.deb"), dir.path()).unwrap());
        assert_ne!(first, key(&deb("/x/a_2_arm64.deb"), dir.path()).unwrap());
        std::fs::write(dir.path().join("motd"), "two").unwrap();
        assert_ne!(first, key(&deb("/x/a_1_arm64.deb"), dir.path()).unwrap());
    }
}
