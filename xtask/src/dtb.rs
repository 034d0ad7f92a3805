//! The device tree of the Raspberry Pi 4.
//!
//! QEMU makes none for `raspi4b`, and the project carries none: it is taken from the distribution's kernel
//! package for arm64. A private apt state is used, so that neither root nor a foreign architecture on the
//! machine is needed.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::project;

mod seed;

/// Name of the file.
const NAME: &str = "bcm2711-rpi-4-b.dtb";
/// Environment variable that names the file, past all searching.
const OVERRIDE: &str = "PORTICO_RPI4_DTB";
/// The package that depends on the newest kernel.
const META_PACKAGE: &str = "linux-image-arm64";

/// Returns the board's device tree, downloading it the first time.
///
/// # Errors
/// If it can be had nowhere; the message says where it was looked for.
pub fn rpi4() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(OVERRIDE) {
        return Ok(PathBuf::from(path));
    }
    let cached = project::cache_dir().join(NAME);
    if cached.is_file() {
        return Ok(cached);
    }
    fs::create_dir_all(project::cache_dir())?;
    let data = match installed() {
        Some(path) => fs::read(path)?,
        None => download().with_context(|| {
            format!("the device tree {NAME} is needed: put it at {}, or name it by {OVERRIDE}", cached.display())
        })?,
    };
    if !data.starts_with(&[0xd0, 0x0d, 0xfe, 0xed]) {
        bail!("what the kernel package has as {NAME} is not a device tree");
    }
    let mut file = tempfile::NamedTempFile::new_in(project::cache_dir())?;
    file.write_all(&data)?;
    file.persist(&cached)?;
    Ok(cached)
}

/// Returns the board's device tree as its firmware would pass it, for QEMU, which adds no seed of random numbers to a tree that it is given. The
/// seed is the host's and another one each time.
///
/// # Errors
/// As [`rpi4`].
pub fn rpi4_with_seed() -> Result<PathBuf> {
    let mut seed = [0; seed::BYTES];
    fs::File::open("/dev/urandom")?.read_exact(&mut seed).context("reading /dev/urandom")?;
    let path = rpi4()?;
    let tree = seed::add(&fs::read(&path)?, &seed).with_context(|| path.display().to_string())?;
    fs::create_dir_all(project::cache_dir())?;
    let with_seed = project::cache_dir().join("rpi4-with-seed.dtb");
    let mut file = tempfile::NamedTempFile::new_in(project::cache_dir())?;
    file.write_all(&tree)?;
    file.persist(&with_seed)?;
    Ok(with_seed)
}

/// Looks where an installed kernel or the board's firmware has it.
fn installed() -> Option<PathBuf> {
    let mut kernels: Vec<_> = fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path()).collect();
    kernels.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("linux-image-")));
    kernels.sort();
    let in_kernels = kernels.into_iter().rev().map(|kernel| kernel.join("broadcom").join(NAME));
    in_kernels.chain([Path::new("/boot/firmware").join(NAME)]).find(|path| path.is_file())
}

/// Takes it out of the newest kernel package.
fn download() -> Result<Vec<u8>> {
    eprintln!("fetching the Raspberry Pi 4's device tree from the kernel package for arm64 (60 MB, once)");
    let folder = tempfile::tempdir()?;
    let apt = Apt::new(folder.path())?;
    apt.run("apt-get", &["--quiet=2", "update"])?;
    let depends = apt.run("apt-cache", &["depends", META_PACKAGE])?;
    let package = depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .with_context(|| format!("no kernel in what {META_PACKAGE} depends on"))?;
    apt.run("apt-get", &["--quiet=2", "download", package])?;
    let archive = fs::read_dir(folder.path())?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("the kernel package did not arrive")?;
    unpack(&archive)
}

/// Reads the file out of a package.
fn unpack(archive: &Path) -> Result<Vec<u8>> {
    let mut package = Command::new("dpkg-deb").arg("--fsys-tarfile").arg(archive).stdout(Stdio::piped()).spawn()?;
    let stream = package.stdout.take().context("dpkg-deb has no output")?;
    let pattern = format!("*/{NAME}");
    let output = Command::new("tar").args(["-xO", "--wildcards", &pattern]).stdin(stream).output()?;
    package.wait()?;
    if !output.status.success() {
        bail!("the kernel package has no {NAME}");
    }
    Ok(output.stdout)
}

/// apt with lists and caches of its own, for arm64, by the machine's own sources.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Makes the folders that apt wants to find.
    fn new(folder: &Path) -> Result<Apt> {
        for part in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        fs::write(folder.join("status"), "")?;
        Ok(Apt { folder: folder.to_path_buf() })
    }

    /// Runs one of apt's programs.
    fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let folder = self.folder.display();
        let mut command = Command::new(program);
        for option in [
            format!("Dir::State={folder}/state"),
            format!("Dir::State::status={folder}/status"),
            format!("Dir::Cache={folder}/cache"),
            "APT::Architecture=arm64".into(),
            "APT::Architectures=arm64".into(),
            // The sandbox's user could not write here.
            "APT::Sandbox::User=".into(),
        ] {
            command.args(["-o", &option]);
        }
        let output = command.args(arguments).current_dir(&self.folder).output();
        let output = output.with_context(|| format!("starting {program}"))?;
        if !output.status.success() {
            bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
