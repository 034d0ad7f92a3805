//! Fetches Debian packages by the machine's own sources, as an ordinary user and without touching what is installed.
//!
//! apt is given lists of its own, with the architecture arm64 beside the machine's: a fresh machine has no lists of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::project;
use crate::setup::apt;
use crate::toolchain::find_in_path;

/// Returns the package's file. What was fetched before is taken, unless a newer one is asked for.
///
/// # Errors
/// If the machine has no apt, or its sources do not have the package.
pub fn fetch(name: &str, architecture: &str, update: bool) -> Result<PathBuf> {
    let folder = project::cache_dir().join("packages");
    std::fs::create_dir_all(&folder)?;
    let have = newest(&folder, name, architecture)?;
    if let Some(path) = have.filter(|_| !update) {
        return Ok(path);
    }
    if find_in_path("apt-get").is_none() {
        bail!(
            "{name} is fetched by apt, which this machine lacks: put {name}_VERSION_{architecture}.deb of Debian into {}",
            folder.display()
        );
    }
    eprintln!("fetching {name}");
    run(apt_get()?.args(["-qq", "update"]))?;
    for old in files(&folder, name, architecture)? {
        std::fs::remove_file(old)?;
    }
    let wanted = if architecture == "all" { name.to_string() } else { format!("{name}:{architecture}") };
    run(apt_get()?.args(["-q", "download", &wanted]).current_dir(&folder))?;
    newest(&folder, name, architecture)?
        .with_context(|| format!("apt fetched {name}, but not into {}", folder.display()))
}

/// The version in the name of a package's file.
pub fn version(file: &Path) -> String {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    name.split('_').nth(1).unwrap_or_default().replace("%3a", ":")
}

/// Unpacks a package into a folder.
///
/// # Errors
/// If it is damaged.
pub fn unpack(file: &Path, folder: &Path) -> Result<()> {
    run(Command::new("dpkg-deb").arg("--extract").arg(file).arg(folder))
}

/// Files of a package in the folder.
fn files(folder: &Path, name: &str, architecture: &str) -> Result<Vec<PathBuf>> {
    let (begin, end) = (format!("{name}_"), format!("_{architecture}.deb"));
    let is_it = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        file.starts_with(&begin) && file.ends_with(&end)
    };
    Ok(std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).filter(is_it).collect())
}

/// The file that was fetched last.
fn newest(folder: &Path, name: &str, architecture: &str) -> Result<Option<PathBuf>> {
    let mut files = files(folder, name, architecture)?;
    files.sort_by_key(|path| std::fs::metadata(path).and_then(|data| data.modified()).ok());
    Ok(files.pop())
}

/// apt with lists of its own. Where Debian 12 is asked, backports are known as well, which is where new kernels are if not among the
/// security updates.
fn apt_get() -> Result<Command> {
    let folder = project::cache_dir().join("apt");
    for sub in ["lists/partial", "archives/partial", "sources"] {
        std::fs::create_dir_all(folder.join(sub))?;
    }
    let mut command = Command::new("apt-get");
    let mut set = |key: &str, value: &str| {
        command.arg("-o").arg(format!("{key}={value}"));
    };
    set("Dir::State::lists", &folder.join("lists").display().to_string());
    set("Dir::Cache", &folder.display().to_string());
    // The lists are ours, which the user that apt fetches as may not write.
    set("APT::Sandbox::User", "");
    set("APT::Architectures::", "arm64");
    set("Acquire::Languages", "none");
    if let Some((version, codename)) = apt::debian_release()
        && version < 13
        && let apt::Backports::Add(source) = apt::backports(&codename)?
    {
        let parts = folder.join("sources");
        for entry in std::fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten() {
            std::fs::copy(entry.path(), parts.join(entry.file_name()))?;
        }
        std::fs::write(parts.join(source.path.file_name().unwrap_or_default()), source.text)?;
        set("Dir::Etc::SourceParts", &parts.display().to_string());
    }
    Ok(command)
}

/// Runs a command that must succeed.
pub fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("starting {name}"))?;
    if !output.status.success() {
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        bail!("`{name} {}` failed:\n{}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_names() {
        assert_eq!(version(Path::new("/x/busybox-static_1%3a1.35.0-4+b1_arm64.deb")), "1:1.35.0-4+b1");
        assert_eq!(version(Path::new("linux-source-6.12_6.12.90-1~deb12u1_all.deb")), "6.12.90-1~deb12u1");
    }

    #[test]
    fn finds_the_file_of_a_package_among_others() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a_1_all.deb", "a-b_1_all.deb", "a_1_arm64.deb", "a_1_all.deb.partial"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(files(dir.path(), "a", "all").unwrap(), [dir.path().join("a_1_all.deb")]);
        assert_eq!(newest(dir.path(), "c", "all").unwrap(), None);
    }
}
