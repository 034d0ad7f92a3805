//! The kernel: Debian's source, our patches, our configuration.
//!
//! The source is unpacked once for each version and series. What a build was made of is kept beside its result, whole: the version, the
//! configuration, the patches. If it is the same as now nothing is built.

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use super::{folder, package, patches_folder, write};
use crate::toolchain::find_in_path;

/// Debian's package of the source.
const PACKAGE: &str = "linux-source-6.12";
/// Lines that a build prints, about: for the progress.
const STEPS: usize = 1500;
/// Lines of a failed build's log that are shown.
const TAIL: usize = 30;

/// The source and what is done to it.
#[derive(Clone, Debug)]
pub struct Source {
    package: PathBuf,
    version: String,
    /// The patches in their order, by name.
    patches: Vec<(String, Vec<u8>)>,
    config: String,
}

impl Source {
    /// Fetches the source, if that was not done before or a newer one is asked for, and reads the patches.
    ///
    /// # Errors
    /// If it cannot be fetched.
    pub fn fetch(update: bool) -> Result<Source> {
        let package = package::fetch(PACKAGE, "all", update)?;
        let version = package::version(&package);
        let mut patches = Vec::new();
        for entry in std::fs::read_dir(patches_folder())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // The first is the letter that goes with them.
            if name.ends_with(".patch") && !name.starts_with("0000-") {
                patches.push((name, std::fs::read(&path)?));
            }
        }
        patches.sort();
        ensure!(!patches.is_empty(), "no patches in {}", patches_folder().display());
        Ok(Source { package, version, patches, config: config()? })
    }

    /// Version of the source's package.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// All that a build depends on.
    fn key(&self) -> Vec<u8> {
        let mut key = format!("{}\n{}\n", self.version, compiler().unwrap_or_default()).into_bytes();
        key.extend_from_slice(self.config.as_bytes());
        for (name, text) in &self.patches {
            key.extend_from_slice(name.as_bytes());
            key.extend_from_slice(text);
        }
        key
    }

    /// Checks that the patches apply, each to the result of those before.
    ///
    /// # Errors
    /// If one does not.
    pub fn check(&self) -> Result<()> {
        self.unpack(&folder().join("check"))?;
        std::fs::remove_dir_all(folder().join("check"))?;
        Ok(())
    }

    /// The source with the patches, unpacked if it is not there.
    ///
    /// # Errors
    /// If a patch does not apply.
    pub fn tree(&self) -> Result<PathBuf> {
        let (tree, stamp) = (folder().join("source"), folder().join("source.made-of"));
        let key = self.key();
        if !std::fs::read(&stamp).is_ok_and(|old| old == key) {
            let _ = std::fs::remove_file(&stamp);
            self.unpack(&tree)?;
            write(&stamp, &key)?;
        }
        Ok(tree)
    }

    /// Unpacks the source and applies the patches.
    fn unpack(&self, to: &Path) -> Result<()> {
        let outer = folder().join("package");
        for old in [to, &outer] {
            if old.exists() {
                std::fs::remove_dir_all(old).with_context(|| format!("removing {}", old.display()))?;
            }
        }
        std::fs::create_dir_all(to)?;
        eprintln!("unpacking {}", self.version);
        package::unpack(&self.package, &outer)?;
        let archive = outer.join(format!("usr/src/{PACKAGE}.tar.xz"));
        package::run(Command::new("tar").args(["--strip-components=1", "-xf"]).arg(&archive).arg("-C").arg(to))?;
        std::fs::remove_dir_all(&outer)?;
        for (name, text) in &self.patches {
            // No fuzz: a patch that fits only nearly is looked at by a person.
            let mut child = Command::new("patch")
                .args(["-p1", "--fuzz=0", "--forward", "--no-backup-if-mismatch", "--directory"])
                .arg(to)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .context("starting patch")?;
            child.stdin.take().context("patch takes no input")?.write_all(text)?;
            let output = child.wait_with_output()?;
            if !output.status.success() {
                bail!(
                    "{name} does not apply to {}:\n{}guest-linux-patches/README.md tells how to rebase the series",
                    self.version,
                    String::from_utf8_lossy(&output.stdout)
                );
            }
        }
        Ok(())
    }
}

/// Builds Debian's source with the patches, if that was not done before.
///
/// # Errors
/// If the patches do not apply, or the kernel does not build.
pub fn build(image: &Path, update: bool, force: bool) -> Result<()> {
    let source = Source::fetch(update)?;
    let key = source.key();
    let stamp = folder().join("Image.made-of");
    let is_same = |path: &Path| std::fs::read(path).is_ok_and(|old| old == key);
    if !force && image.is_file() && is_same(&stamp) {
        return Ok(());
    }
    let _ = std::fs::remove_file(&stamp);
    if force {
        let _ = std::fs::remove_file(folder().join("source.made-of"));
    }
    let (objects, of_this) = (folder().join("objects"), folder().join("objects.made-of"));
    if force || !is_same(&of_this) {
        if objects.exists() {
            std::fs::remove_dir_all(&objects)?;
        }
        write(&of_this, &key)?;
    }
    make(&source.tree()?, &objects, image)?;
    write(&stamp, &key)
}

/// Builds a tree as it is.
///
/// # Errors
/// If it does not build.
pub fn build_tree(tree: &Path, image: &Path) -> Result<()> {
    ensure!(tree.join("Kconfig").is_file(), "{} is no kernel tree", tree.display());
    // What Debian's source would give is another now.
    let _ = std::fs::remove_file(folder().join("Image.made-of"));
    make(&std::path::absolute(tree)?, &folder().join("tree-objects"), image)
}

/// Compiles the C files that the patches add with `W=1`, each of whose warnings is an error: of `tree`, or else of Debian's source, as it was built last.
///
/// # Errors
/// If one has a warning, or was not built before.
pub fn check_warnings(tree: Option<&Path>) -> Result<()> {
    let (tree, objects) = match tree {
        Some(tree) => (std::path::absolute(tree)?, folder().join("tree-objects")),
        None => (folder().join("source"), folder().join("objects")),
    };
    let source = Source::fetch(false)?;
    let files: Vec<_> = source.patches.iter().flat_map(|(_, text)| added(&String::from_utf8_lossy(text))).collect();
    for file in &files {
        ensure!(objects.join(file).is_file(), "{file} was not built: `cargo xtask linux` builds it");
    }
    package::run(command(&tree, &objects)?.args(["W=1", "KCFLAGS=-Werror"]).args(&files))?;
    println!("{} files without a warning", files.len());
    Ok(())
}

/// Objects of the C files that a patch adds.
fn added(patch: &str) -> Vec<String> {
    let files = patch.lines().collect::<Vec<_>>();
    let is_new = |pair: &&[&str]| pair.first() == Some(&"--- /dev/null");
    let names =
        files.windows(2).filter(is_new).filter_map(|pair| pair.get(1)?.strip_prefix("+++ b/")?.strip_suffix(".c"));
    names.map(|name| format!("{name}.o")).collect()
}

/// The configuration of the guest: what is not off.
fn config() -> Result<String> {
    let path = patches_folder().join("config");
    std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// Configures and builds.
fn make(tree: &Path, objects: &Path, image: &Path) -> Result<()> {
    std::fs::create_dir_all(objects)?;
    let fragment = patches_folder().join("config");
    package::run(command(tree, objects)?.env("KCONFIG_ALLCONFIG", fragment).arg("allnoconfig"))?;
    let made = std::fs::read_to_string(objects.join(".config"))?;
    let lost: Vec<_> =
        wanted(&config()?).filter(|line| !made.lines().any(|made| made == *line)).map(String::from).collect();
    ensure!(lost.is_empty(), "the kernel's configuration does not take {}: a dependency is missing", lost.join(", "));
    compile(command(tree, objects)?.arg("Image"))?;
    let result = std::fs::read(objects.join("arch/arm64/boot/Image"))?;
    write(image, &result)
}

/// The lines of a configuration that set something.
fn wanted(config: &str) -> impl Iterator<Item = &str> {
    config.lines().map(str::trim).filter(|line| line.starts_with("CONFIG_"))
}

/// The prefix of the compiler's programs: empty on a machine that is arm64 itself.
fn compiler() -> Option<String> {
    let prefix = ["aarch64-linux-gnu-", "aarch64-unknown-linux-gnu-"];
    let cross = prefix.iter().find(|prefix| find_in_path(&format!("{prefix}gcc")).is_some());
    match cross {
        Some(prefix) => Some(prefix.to_string()),
        None => (std::env::consts::ARCH == "aarch64").then(String::new),
    }
}

/// Whether there is a compiler for kernels.
pub fn has_compiler() -> bool {
    compiler().is_some()
}

/// Whether the compiler for kernels has a static C library beside it.
pub fn has_library() -> bool {
    let Some(prefix) = compiler() else { return false };
    let output = Command::new(format!("{prefix}gcc")).arg("-print-file-name=libc.a").output();
    // Of a file that it does not find it prints the name alone.
    output.is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_absolute())
}

/// The compiler's name.
///
/// # Errors
/// If there is none.
pub fn c_compiler() -> Result<String> {
    Ok(format!("{}gcc", compiler().context("no GCC for arm64 Linux")?))
}

/// Compiles a static program for Linux guests.
///
/// # Errors
/// If it does not compile.
pub fn compile_program(source: &Path, program: &Path) -> Result<()> {
    let mut command = Command::new(c_compiler()?);
    package::run(command.args(["-O2", "-static", "-Wall", "-Wextra", "-Werror", "-o"]).arg(program).arg(source))
}

/// `make`, for arm64 in any case: else the machine's own features would be configured.
///
/// # Errors
/// If there is no compiler for it.
pub fn command(tree: &Path, objects: &Path) -> Result<Command> {
    let prefix = compiler().context("no GCC for arm64 Linux")?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut command = Command::new("make");
    command.arg("-C").arg(tree).arg(format!("O={}", objects.display())).arg(format!("-j{jobs}"));
    command.args(["ARCH=arm64", &format!("CROSS_COMPILE={prefix}")]);
    // The same source gives the same image, and nothing of who built it.
    command.envs([("KBUILD_BUILD_USER", "portico"), ("KBUILD_BUILD_HOST", "portico"), ("LC_ALL", "C")]);
    command.env("KBUILD_BUILD_TIMESTAMP", "2026-01-01");
    // A tree under git is of the same version as what Debian's source gives.
    command.env("LOCALVERSION", "");
    command.env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    Ok(command)
}

/// Runs the build, shows how far it is, and keeps its log.
fn compile(command: &mut Command) -> Result<()> {
    let path = folder().join("build.log");
    let mut log = std::fs::File::create(&path)?;
    let errors = log.try_clone()?;
    let mut child = command.stdout(Stdio::piped()).stderr(errors).spawn().context("starting make")?;
    let output = child.stdout.take().context("make without output")?;
    let started = Instant::now();
    let terminal = std::io::stderr().is_terminal();
    let (mut done, mut shown) = (0, Instant::now());
    for line in BufReader::new(output).lines() {
        let line = line?;
        writeln!(log, "{line}")?;
        done += 1;
        if shown.elapsed().as_secs() >= if terminal { 1 } else { 30 } {
            shown = Instant::now();
            let percent = (done * 100 / STEPS).min(99);
            let seconds = started.elapsed().as_secs();
            let end = if terminal { "\x1b[K\r" } else { "\n" };
            eprint!("kernel: {percent} %, {seconds} s: {}{end}", line.trim());
        }
    }
    if child.wait()?.success() {
        if done > STEPS / 4 {
            eprintln!("kernel: built in {} s", started.elapsed().as_secs());
        }
        return Ok(());
    }
    let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
    let lines: Vec<_> = text.lines().collect();
    let tail = lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default().join("\n");
    bail!("the kernel does not build; the end of {}:\n{tail}", path.display())
}

#[cfg(test)]
mod tests {
    use super::{added, wanted};

    #[test]
    fn new_files_are_found() {
        let patch = "--- a/Makefile\n+++ b/Makefile\n--- /dev/null\n+++ b/drivers/x.c\n--- /dev/null\n+++ b/x.h\n--- a/y.c\n+++ b/y.c\n";
        assert_eq!(added(patch), ["drivers/x.o"]);
    }

    #[test]
    fn comments_want_nothing() {
        let lines: Vec<_> = wanted("# CONFIG_X is a comment\nCONFIG_A=y\n\n CONFIG_B=2\n").collect();
        assert_eq!(lines, ["CONFIG_A=y", "CONFIG_B=2"]);
    }
}
