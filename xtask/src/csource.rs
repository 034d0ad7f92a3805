//! What a guest in C is compiled of: the C and assembly files of its folder, or what the folder's `guest.toml` says.
//!
//! ```toml
//! folders = [".", "port"]             # their *.c and *.S are compiled; `["."]` if not given
//! include = ["port", "libc"]          # searched for headers, before the SDK's
//! floating-point = ["sums.c"]         # files that may use FP and SIMD registers: the guest keeps them apart
//!
//! [packages.some-package]             # sources of others, of a package of xtask/packages: compiled as they are
//! sources = ["kernel/tasks.c"]
//! include = ["kernel/include"]
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::guests::list;
use crate::package;

/// The description of a guest in C.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Description {
    folders: Vec<PathBuf>,
    include: Vec<PathBuf>,
    floating_point: Vec<PathBuf>,
    packages: BTreeMap<String, Files>,
}

/// Files of a package.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Files {
    sources: Vec<PathBuf>,
    include: Vec<PathBuf>,
}

impl Default for Description {
    fn default() -> Self {
        let folders = vec![PathBuf::from(".")];
        Description { folders, include: Vec::new(), floating_point: Vec::new(), packages: BTreeMap::new() }
    }
}

/// One file to compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file.
    pub file: PathBuf,
    /// Whose it is.
    pub origin: Origin,
    /// Which registers it may use.
    pub registers: Registers,
}

/// Whose a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The project's: a warning is an error.
    Own,
    /// A package's: compiled as it is.
    Package,
}

/// Which registers code may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registers {
    /// General ones: it can run before FP and SIMD are enabled, and in interrupts, without saving them.
    General,
    /// FP and SIMD ones too.
    FloatingPoint,
}

/// All that a guest is compiled of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The files.
    pub files: Vec<Source>,
    /// Folders with the guest's own headers.
    pub include: Vec<PathBuf>,
    /// Folders with headers of packages.
    pub package_include: Vec<PathBuf>,
}

impl Description {
    /// Reads the description of the guest in `folder`; `None` if nothing there is C.
    ///
    /// # Errors
    /// If `guest.toml` cannot be read or makes no sense.
    pub fn of(folder: &Path) -> Result<Option<Description>> {
        let file = folder.join("guest.toml");
        if !file.is_file() {
            return Ok((!sources_in(folder)?.is_empty()).then(Description::default));
        }
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let description = toml::from_str(&text).with_context(|| format!("in {}", file.display()))?;
        Ok(Some(description))
    }

    /// Finds the files, those of packages too.
    ///
    /// # Errors
    /// If one that is named is not there, two would have the same object file, or a package cannot be had.
    pub fn resolve(&self, folder: &Path) -> Result<Sources> {
        let mut found = Sources::default();
        for from in &self.folders {
            // Without the `.` that means the folder itself.
            let from: PathBuf = folder.join(from).components().collect();
            for file in sources_in(&from)? {
                let uses = self.floating_point.iter().any(|name| file == folder.join(name));
                let registers = if uses { Registers::FloatingPoint } else { Registers::General };
                found.files.push(Source { file, origin: Origin::Own, registers });
            }
        }
        for name in &self.floating_point {
            ensure!(found.files.iter().any(|source| source.file == folder.join(name)), "no source {}", name.display());
        }
        found.include.extend(self.include.iter().map(|path| folder.join(path)));
        for (name, files) in &self.packages {
            let package = package::folder(name)?;
            for path in &files.sources {
                let file = package.join(path);
                ensure!(file.is_file(), "package {name} has no {}", path.display());
                found.files.push(Source { file, origin: Origin::Package, registers: Registers::General });
            }
            found.package_include.extend(files.include.iter().map(|path| package.join(path)));
        }
        let mut names: Vec<_> = found.files.iter().map(|source| source.file.file_stem()).collect();
        names.sort();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            bail!("two sources are named {:?}", pair[0].unwrap_or_default());
        }
        Ok(found)
    }
}

/// The C and assembly files in a folder, in order.
fn sources_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = list(folder)?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "c" || extension == "S"));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn a_folder_without_description_is_all_its_sources() {
        let dir = folder(&[("b.c", ""), ("a.S", ""), ("a.h", ""), ("more/c.c", "")]);
        let found = Description::of(dir.path()).unwrap().unwrap().resolve(dir.path()).unwrap();
        let names: Vec<_> = found.files.iter().map(|source| source.file.file_name().unwrap()).collect();
        assert_eq!(names, ["a.S", "b.c"]);
        assert_eq!(Description::of(&dir.path().join("more/none")).unwrap(), None);
    }

    #[test]
    fn a_description_names_folders_and_what_uses_floating_point() {
        let text = "folders = [\"x\", \"y\"]\ninclude = [\"x\"]\nfloating-point = [\"y/sums.c\"]\n";
        let dir = folder(&[("guest.toml", text), ("x/a.c", ""), ("y/sums.c", ""), ("no.c", "")]);
        let found = Description::of(dir.path()).unwrap().unwrap().resolve(dir.path()).unwrap();
        let registers: Vec<_> = found.files.iter().map(|source| source.registers).collect();
        assert_eq!(registers, [Registers::General, Registers::FloatingPoint]);
        assert_eq!(found.include, [dir.path().join("x")]);
    }

    #[test]
    fn mistakes_are_told() {
        for (text, names) in [
            ("folder = []", &["a.c"][..]),
            ("floating-point = [\"b.c\"]", &["a.c"]),
            ("folders = [\".\", \"x\"]", &["a.c", "x/a.S"]),
        ] {
            let files: Vec<_> = names.iter().map(|name| (*name, "")).chain([("guest.toml", text)]).collect();
            let dir = folder(&files);
            let result = Description::of(dir.path()).and_then(|found| found.unwrap_or_default().resolve(dir.path()));
            assert!(result.is_err(), "{text}");
        }
    }
}
