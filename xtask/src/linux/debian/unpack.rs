//! The packages' files in a folder, and dpkg's records of them.
//!
//! Debian 12 has `/bin`, `/sbin` and `/lib` in `/usr`; its packages still name both. The links are made first, and files go through them.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Folders that are in `/usr`.
const MERGED: [&str; 3] = ["bin", "lib", "sbin"];
/// What is not kept of packages: nobody needs it in a guest, and it is a third of them. Of `usr/share/doc` only the licences are.
const LEFT_OUT: [&str; 10] = [
    "usr/lib/aarch64-linux-gnu/gconv",
    "usr/share/X11/locale",
    "usr/share/bug",
    "usr/share/doc-base",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/menu",
    "usr/share/pixmaps",
];
/// Packages between two lines of progress.
const PROGRESS: usize = 50;

/// Who a file belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A root that is being made. Its files belong to whoever makes it; who they shall belong to is kept beside.
#[derive(Debug)]
pub struct Tree {
    /// The folder.
    pub root: PathBuf,
    /// Files that belong to others than root, by their path without the first slash.
    pub owners: BTreeMap<PathBuf, Owner>,
}

impl Tree {
    /// Begins a root in a folder that does not exist yet.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(root: &Path) -> Result<Tree> {
        fs::create_dir_all(root)?;
        for name in MERGED {
            fs::create_dir_all(root.join("usr").join(name))?;
            std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name))?;
        }
        Ok(Tree { root: root.to_path_buf(), owners: BTreeMap::new() })
    }

    /// Unpacks packages and records them as installed.
    ///
    /// # Errors
    /// If one is damaged.
    pub fn add(&mut self, debs: &[PathBuf]) -> Result<()> {
        let info = self.root.join("var/lib/dpkg/info");
        fs::create_dir_all(&info)?;
        let mut status = String::new();
        for (number, deb) in debs.iter().enumerate() {
            if number % PROGRESS == 0 {
                eprintln!("debian: unpacking {} of {}", number + 1, debs.len());
            }
            let context = || format!("unpacking {}", deb.display());
            let files = self.unpack(deb).with_context(context)?;
            status += &self.record(deb, &files, &info).with_context(context)?;
        }
        fs::write(self.root.join("var/lib/dpkg/status"), status)?;
        self.prune()
    }

    /// Unpacks the files of a package, and returns their paths as dpkg lists them.
    fn unpack(&mut self, deb: &Path) -> Result<Vec<String>> {
        let archive = output(Command::new("dpkg-deb").arg("--fsys-tarfile").arg(deb), &[])?;
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--keep-directory-symlink", "--no-same-owner", "--preserve-permissions", "--directory"]);
        output(tar.arg(&self.root), &archive)?;
        let list = output(
            Command::new("tar").args(["--list", "--verbose", "--numeric-owner", "--quoting-style=literal"]),
            &archive,
        )?;
        let mut files = Vec::new();
        for line in String::from_utf8(list)?.lines() {
            let (path, owner) = parse_line(line).with_context(|| format!("tar says something new: {line}"))?;
            files.push(if path.is_empty() { "/.".to_string() } else { format!("/{path}") });
            let path = merged(&path);
            if owner == Owner::default() {
                self.owners.remove(&path);
            } else {
                self.owners.insert(path, owner);
            }
        }
        Ok(files)
    }

    /// Writes dpkg's records of a package, and returns what its list of packages says of it.
    fn record(&self, deb: &Path, files: &[String], info: &Path) -> Result<String> {
        let control = tempfile::tempdir()?;
        output(Command::new("dpkg-deb").arg("--control").arg(deb).arg(control.path()), &[])?;
        let text = fs::read_to_string(control.path().join("control"))?;
        let (first, rest) = text.split_once('\n').context("an empty control file")?;
        let name = first.strip_prefix("Package: ").context("a control file that begins with another field")?;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        // A package that can be there for several architectures has records for each.
        let base = match (field("Multi-Arch"), field("Architecture")) {
            (Some("same"), Some(architecture)) => format!("{name}:{architecture}"),
            _ => name.to_string(),
        };
        for entry in fs::read_dir(control.path())? {
            let entry = entry?;
            let kind = entry.file_name().to_string_lossy().into_owned();
            if kind != "control" {
                fs::copy(entry.path(), info.join(format!("{base}.{kind}")))?;
            }
        }
        fs::write(info.join(format!("{base}.list")), files.join("\n") + "\n")?;
        let conffiles = self.conffiles(&info.join(format!("{base}.conffiles")))?;
        Ok(format!("{first}\nStatus: install ok installed\n{conffiles}{}\n\n", rest.trim_end()))
    }

    /// The field that tells dpkg which configuration files are as they came.
    fn conffiles(&self, list: &Path) -> Result<String> {
        let Ok(text) = fs::read_to_string(list) else { return Ok(String::new()) };
        let paths: Vec<&str> = text.lines().filter(|line| line.starts_with('/')).collect();
        if paths.is_empty() {
            return Ok(String::new());
        }
        let inside = |path: &&str| self.root.join(path.trim_start_matches('/'));
        let sums = output(Command::new("md5sum").args(paths.iter().map(inside)), &[])?;
        let sums = String::from_utf8(sums)?;
        ensure!(sums.lines().count() == paths.len(), "md5sum has not read all of {}", list.display());
        let line = |(path, sum): (&&str, &str)| format!(" {path} {}\n", sum.get(..32).unwrap_or_default());
        Ok(format!("Conffiles:\n{}", paths.iter().zip(sums.lines()).map(line).collect::<String>()))
    }

    /// Takes away what is not kept.
    fn prune(&mut self) -> Result<()> {
        for name in LEFT_OUT {
            let path = self.root.join(name);
            if path.exists() {
                fs::remove_dir_all(&path)?;
                fs::create_dir(&path)?;
            }
        }
        let docs = self.root.join("usr/share/doc");
        let mut paths = super::walk(&docs)?;
        // What is in a folder before the folder itself.
        paths.reverse();
        for path in paths {
            let inside = docs.join(&path);
            if inside.is_dir() && !inside.is_symlink() {
                // One that still has something in it stays.
                let _ = fs::remove_dir(&inside);
            } else if path.file_name().is_some_and(|name| name != "copyright") && !is_folder_link(&path) {
                fs::remove_file(&inside)?;
            }
        }
        let root = self.root.clone();
        self.owners.retain(|path, _| root.join(path).symlink_metadata().is_ok());
        Ok(())
    }
}

/// Whether it may be a package's folder that is a link to another's, with the licence in it.
fn is_folder_link(path: &Path) -> bool {
    path.components().count() == 1
}

/// Path and owner from a line such as `drwxr-sr-x 0/50 0 2023-01-01 00:00 ./var/local/`; the path has no slash at its ends.
fn parse_line(line: &str) -> Option<(String, Owner)> {
    let mut words = line.split_whitespace();
    let mode = words.next()?;
    let (uid, gid) = words.next()?.split_once('/')?;
    let owner = Owner { uid: uid.parse().ok()?, gid: gid.parse().ok()? };
    let mut path = line.split_once(" ./")?.1;
    if mode.starts_with('l') {
        path = path.split_once(" -> ")?.0;
    } else if mode.starts_with('h') {
        path = path.split_once(" link to ")?.0;
    }
    Some((path.trim_end_matches('/').to_string(), owner))
}

/// Where a path is, given that some folders are in `/usr`.
fn merged(path: &str) -> PathBuf {
    let first = path.split('/').next().unwrap_or_default();
    if MERGED.contains(&first) && path != first { Path::new("usr").join(path) } else { PathBuf::from(path) }
}

/// Runs a program on some input, and returns its output.
fn output(command: &mut Command, input: &[u8]) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.env("LC_ALL", "C").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
    let mut stdin = child.stdin.take().context("a program without input")?;
    let output = std::thread::scope(|scope| {
        // It may write before it has read all. If it reads no more, its status says why.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output()
    })?;
    if !output.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_read_from_a_table_of_contents() {
        let of = |line: &str| parse_line(line).map(|(path, owner)| (path, owner.uid, owner.gid));
        assert_eq!(of("drwxrwsr-x 0/50         0 2023-01-01 00:00 ./var/local/"), Some(("var/local".into(), 0, 50)));
        assert_eq!(of("lrwxrwxrwx 0/0 0 2023-01-01 00:00 ./bin/sh -> dash"), Some(("bin/sh".into(), 0, 0)));
        assert_eq!(of("hrw-r--r-- 1/2 0 2023-01-01 00:00 ./a b link to ./c"), Some(("a b".into(), 1, 2)));
        assert_eq!(of("drwxr-xr-x 0/0 0 2023-01-01 00:00 ./"), Some((String::new(), 0, 0)));
        assert_eq!(of("nonsense"), None);
    }

    #[test]
    fn paths_go_through_the_links() {
        assert_eq!(merged("bin/sh"), Path::new("usr/bin/sh"));
        assert_eq!(merged("bin"), Path::new("bin"));
        assert_eq!(merged("binary/x"), Path::new("binary/x"));
    }

    #[test]
    fn a_program_may_write_more_than_a_pipe_holds() {
        let input = vec![7; 1 << 20];
        assert!(output(&mut Command::new("cat"), &input).unwrap() == input);
        assert!(output(Command::new("sh").args(["-c", "echo why >&2; exit 1"]), &input).is_err());
    }
}
