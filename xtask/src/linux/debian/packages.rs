//! Which packages are in the root, and fetching them with all that they depend on.
//!
//! apt chooses, by the machine's own package sources, as for an arm64 computer on which nothing is installed yet. It is given a state of
//! its own: neither what is installed here nor the machine's lists are touched.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::super::{package, write};
use crate::project;
use crate::toolchain::find_in_path;

/// The architecture of the packages.
const ARCHITECTURE: &str = "arm64";

/// The list of packages: one a line, `without NAME` for one that is left out though others want it, `#` for comments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    wanted: Vec<String>,
    without: Vec<String>,
}

impl List {
    /// Reads the list.
    ///
    /// # Errors
    /// If a line is none of it.
    pub fn parse(text: &str) -> Result<List> {
        let mut list = List::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            match *line.split_whitespace().collect::<Vec<_>>() {
                [] => {}
                [name] => list.wanted.push(name.to_string()),
                ["without", name] => list.without.push(name.to_string()),
                _ => bail!("packages:{}: write NAME or `without NAME`", number + 1),
            }
        }
        ensure!(!list.wanted.is_empty(), "the list names no packages");
        Ok(list)
    }

    /// What apt takes for installed: the packages that are left out.
    fn status(&self) -> String {
        let stanza = |name: &String| {
            format!(
                "Package: {name}\nStatus: install ok installed\nVersion: 99:0\nArchitecture: {ARCHITECTURE}\n\
                 Multi-Arch: allowed\nMaintainer: none\nDescription: left out\n\n"
            )
        };
        self.without.iter().map(stanza).collect()
    }
}

/// Returns the files of the packages and of all that they depend on, in the order of their names. Those that were fetched for the same list
/// before are taken, unless newer ones are asked for.
///
/// # Errors
/// If the machine has no apt, or its sources do not have a package.
pub fn fetch(list: &List, update: bool) -> Result<Vec<PathBuf>> {
    let folder = project::cache_dir().join("debian");
    let record = folder.join("fetched");
    let archives = folder.join("apt/archives");
    if !update && let Some(files) = recorded(&record, list, &archives) {
        return Ok(files);
    }
    ensure!(
        find_in_path("apt-get").is_some(),
        "Debian's packages are fetched by apt, which this machine lacks: copy {} from one that has it",
        folder.display()
    );
    for sub in ["state/lists/partial", "apt/archives/partial"] {
        std::fs::create_dir_all(folder.join(sub))?;
    }
    std::fs::write(folder.join("status"), list.status())?;
    eprintln!("debian: looking for packages");
    package::run(apt_get(&folder).args(["-qq", "update"]))?;
    let output = apt_get(&folder).args(["-q", "--simulate", "install"]).args(&list.wanted).output()?;
    if !output.status.success() {
        bail!("apt finds no way to install the packages:\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    let names = chosen(&String::from_utf8_lossy(&output.stdout))?;
    let missing = names.iter().filter(|name| !archives.join(name).is_file()).count();
    if missing > 0 {
        eprintln!("debian: fetching {missing} of {} packages", names.len());
        // What it says is the progress: standard output is for results.
        let status = apt_get(&folder)
            .args(["-q", "--yes", "--download-only", "install"])
            .args(&list.wanted)
            .stdout(std::io::stderr())
            .status()?;
        ensure!(status.success(), "apt could not fetch the packages");
    }
    for entry in std::fs::read_dir(&archives)? {
        let entry = entry?;
        let old = !names.iter().any(|name| entry.file_name() == name.as_str());
        if old && entry.path().extension().is_some_and(|extension| extension == "deb") {
            std::fs::remove_file(entry.path())?;
        }
    }
    write(&record, format!("{list:?}\n{}\n", names.join("\n")).as_bytes())?;
    recorded(&record, list, &archives).with_context(|| format!("apt fetched not all into {}", archives.display()))
}

/// What was fetched for this list, if all of it is still there.
fn recorded(record: &Path, list: &List, archives: &Path) -> Option<Vec<PathBuf>> {
    let text = std::fs::read_to_string(record).ok()?;
    let names = text.strip_prefix(&format!("{list:?}\n"))?;
    let files: Vec<PathBuf> = names.lines().map(|name| archives.join(name)).collect();
    files.iter().all(|file| file.is_file()).then_some(files)
}

/// Names of the files of the packages that apt chooses, from what it says that it would do.
fn chosen(text: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for line in text.lines() {
        // Inst libc6 (2.36-9 Debian:12/stable [arm64]) []
        let Some(rest) = line.strip_prefix("Inst ") else { continue };
        let parts = rest.split_once(" (").and_then(|(name, rest)| {
            let (version, rest) = rest.split_once(' ')?;
            let architecture = rest.split_once('[')?.1.split_once(']')?.0;
            let name = name.split_once(':').map_or(name, |(name, _)| name);
            Some(format!("{name}_{}_{architecture}.deb", version.replace(':', "%3a")))
        });
        names.push(parts.with_context(|| format!("apt says something new: {line}"))?);
    }
    names.sort();
    Ok(names)
}

/// apt for an arm64 computer of which all is in this folder.
fn apt_get(folder: &Path) -> Command {
    let mut command = Command::new("apt-get");
    let at = |sub: &str| folder.join(sub).display().to_string();
    for (key, value) in [
        ("APT::Architecture", ARCHITECTURE.to_string()),
        ("APT::Architectures", ARCHITECTURE.to_string()),
        ("APT::Install-Recommends", "false".to_string()),
        ("Dir::State", at("state")),
        ("Dir::State::status", at("status")),
        ("Dir::Cache", at("apt")),
        ("APT::Keep-Downloaded-Packages", "true".to_string()),
        // The folders are ours, which the user that apt fetches as may not write.
        ("APT::Sandbox::User", String::new()),
        ("Acquire::Languages", "none".to_string()),
    ] {
        command.arg("-o").arg(format!("{key}={value}"));
    }
    command.env("LC_ALL", "C");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_comments_and_exceptions() {
        let list = List::parse("# tools\nbash\nfio   # disks\n\nwithout python3\n").unwrap();
        assert_eq!((list.wanted.len(), list.without.as_slice()), (2, ["python3".to_string()].as_slice()));
        assert!(list.status().starts_with("Package: python3\nStatus: install ok installed\n"));
        assert!(List::parse("a b\n").unwrap_err().to_string().contains("packages:1"));
        assert!(List::parse("# nothing\n").is_err());
    }

    #[test]
    fn names_of_files_are_read_from_what_apt_says() {
        let text =
            "Reading...\nInst libc6 (2.36-9 Debian:12/stable [arm64]) []\nInst a:arm64 (1:2 X [all])\nConf a (1)\n";
        assert_eq!(chosen(text).unwrap(), ["a_1%3a2_all.deb", "libc6_2.36-9_arm64.deb"]);
        assert!(chosen("Inst something\n").is_err());
    }

    #[test]
    fn what_was_fetched_is_for_one_list_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let list = List::parse("a\n").unwrap();
        let record = dir.path().join("fetched");
        std::fs::write(&record, format!("{list:?}\na_1_all.deb\n")).unwrap();
        assert_eq!(recorded(&record, &list, dir.path()), None);
        std::fs::write(dir.path().join("a_1_all.deb"), "").unwrap();
        assert_eq!(recorded(&record, &list, dir.path()).unwrap().len(), 1);
        assert_eq!(recorded(&record, &List::parse("b\n").unwrap(), dir.path()), None);
    }
}
