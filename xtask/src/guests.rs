//! Finds the guests that the project itself builds: by folder, so that a new one needs no table.
//!
//! | folder | reference |
//! | --- | --- |
//! | `pv-guest-sdk/examples/<name>/` | `example:<name>` |
//! | `pv-guest-sdk/examples/c/<name>/` | `example:<name>-c` |
//! | `tests/guests/<name>/` | `test:<name>` |
//! | `tests/guests/c/<name>/` | `test:<name>-c` |
//! | `pv-guest-sdk/conformance/` | `test:conformance` |
//! | `platform/services/<name>/`, but for the manager | `service:<name>` |
//!
//! A folder with a `Cargo.toml` is a Rust guest, one with C files or a `guest.toml` a C guest: see [`crate::csource`].

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::csource::Description;
use crate::project;

/// How a guest is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A package of the workspace, and the name of its binary.
    Rust {
        /// Package.
        package: String,
        /// Binary.
        binary: String,
    },
    /// C sources linked with the SDK's static library.
    C(Description),
}

/// A guest that the project builds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// How descriptions name it: `example:hello`.
    pub reference: String,
    /// Its folder.
    pub folder: PathBuf,
    /// How it is built.
    pub kind: Kind,
}

impl Guest {
    /// Returns where its finished ELF file is put.
    pub fn image(&self) -> PathBuf {
        project::images_dir().join(self.reference.replacen(':', "/", 1))
    }
}

/// Finds all guests, sorted by reference.
///
/// # Errors
/// If a folder or a manifest cannot be read.
pub fn discover() -> Result<Vec<Guest>> {
    let root = project::root();
    let mut guests = Vec::new();
    for (folder, prefix) in
        [("pv-guest-sdk/examples", "example"), ("tests/guests", "test"), ("platform/services", "service")]
    {
        scan(&root.join(folder), prefix, "", &mut guests)?;
        scan(&root.join(folder).join("c"), prefix, "-c", &mut guests)?;
    }
    add(&root.join("pv-guest-sdk/conformance"), "test:conformance".into(), &mut guests)?;
    guests.retain(|guest| guest.reference != "service:manager");
    guests.sort_by(|a, b| a.reference.cmp(&b.reference));
    Ok(guests)
}

/// Adds every guest among the folders of `parent`.
fn scan(parent: &Path, prefix: &str, suffix: &str, guests: &mut Vec<Guest>) -> Result<()> {
    for folder in list(parent)? {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if folder.is_dir() && name != "c" {
            add(&folder, format!("{prefix}:{name}{suffix}"), guests)?;
        }
    }
    Ok(())
}

/// Adds the guest in `folder`, if there is one.
fn add(folder: &Path, reference: String, guests: &mut Vec<Guest>) -> Result<()> {
    let manifest = folder.join("Cargo.toml");
    let kind = if manifest.is_file() {
        // A folder of services may hold libraries too.
        if !["src/main.rs", "src/run/main.rs"].iter().any(|main| folder.join(main).is_file()) {
            return Ok(());
        }
        rust_kind(&manifest)?
    } else {
        let Some(description) = Description::of(folder)? else { return Ok(()) };
        Kind::C(description)
    };
    guests.push(Guest { reference, folder: folder.to_path_buf(), kind });
    Ok(())
}

/// Reads the names of a package and of its binary.
fn rust_kind(manifest: &Path) -> Result<Kind> {
    let context = || format!("in {}", manifest.display());
    let text = std::fs::read_to_string(manifest).with_context(context)?;
    let table: toml::Table = text.parse().with_context(context)?;
    let package = table
        .get("package")
        .and_then(|package| package.get("name"))
        .and_then(|name| name.as_str())
        .context("no package name")
        .with_context(context)?
        .to_string();
    let binary = table
        .get("bin")
        .and_then(|bins| bins.as_array())
        .and_then(|bins| bins.first())
        .and_then(|bin| bin.get("name"))
        .and_then(|name| name.as_str())
        .unwrap_or(&package)
        .to_string();
    Ok(Kind::Rust { package, binary })
}

/// Lists a folder in order; one that is not there is empty.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_rust_from_c_and_leaves_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let make = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        make("hello/Cargo.toml", "[package]\nname = \"example-hello\"\n");
        make("hello/src/main.rs", "");
        make("named/src/run/main.rs", "");
        make("library/Cargo.toml", "[package]\nname = \"library\"\n");
        make("named/Cargo.toml", "[package]\nname = \"p\"\n[[bin]]\nname = \"b\"\n");
        make("c/hello/hello.c", "");
        make("notes/README.md", "");
        let mut guests = Vec::new();
        scan(dir.path(), "example", "", &mut guests).unwrap();
        scan(&dir.path().join("c"), "example", "-c", &mut guests).unwrap();
        let names: Vec<_> = guests.iter().map(|guest| guest.reference.as_str()).collect();
        assert_eq!(names, ["example:hello", "example:named", "example:hello-c"]);
        assert_eq!(guests[1].kind, Kind::Rust { package: "p".into(), binary: "b".into() });
    }
}
