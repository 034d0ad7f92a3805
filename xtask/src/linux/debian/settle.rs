//! What maintainer scripts would do that a guest notices, and our own files on top.
//!
//! Left undone: the loader's cache, since all libraries are where it looks by itself; what is for daemons that nobody starts here.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::super::package;
use super::unpack::{Owner, Tree};

/// Folders that the packages base-files and sysvinit-utils would make, and their modes.
const FOLDERS: [(&str, u32); 14] = [
    ("dev/pts", 0o755),
    ("dev/shm", 0o755),
    ("etc/opt", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("run/lock", 0o1777),
    ("srv", 0o755),
    ("usr/local/bin", 0o755),
    ("usr/local/lib", 0o755),
    ("usr/local/sbin", 0o755),
    ("var/mail", 0o2775),
    ("var/opt", 0o755),
    ("var/www", 0o755),
];
/// Defaults that packages put in place when they are installed first.
const DEFAULTS: [(&str, &str); 4] = [
    ("usr/share/base-files/dot.profile", "root/.profile"),
    ("usr/share/base-files/dot.bashrc", "root/.bashrc"),
    ("usr/share/base-files/profile", "etc/profile"),
    ("usr/share/libc-bin/nsswitch.conf", "etc/nsswitch.conf"),
];
/// Links, and where they lead. The last ones make busybox the first program, and what talks to it.
const LINKS: [(&str, &str); 9] = [
    ("etc/dpkg/origins/default", "debian"),
    ("etc/mtab", "../proc/self/mounts"),
    ("var/lock", "/run/lock"),
    ("var/run", "/run"),
    ("var/spool/mail", "../mail"),
    ("usr/sbin/init", "../bin/busybox"),
    ("usr/sbin/halt", "../bin/busybox"),
    ("usr/sbin/poweroff", "../bin/busybox"),
    ("usr/sbin/reboot", "../bin/busybox"),
];
/// Alternatives: link, name, program, priority.
const ALTERNATIVES: [(&str, &str, &str, u32); 5] = [
    ("/usr/bin/awk", "awk", "/usr/bin/mawk", 5),
    ("/usr/bin/nawk", "nawk", "/usr/bin/mawk", 5),
    ("/usr/bin/pager", "pager", "/bin/more", 50),
    ("/usr/bin/pager", "pager", "/bin/less", 77),
    ("/usr/bin/which", "which", "/usr/bin/which.debianutils", 0),
];
/// Programs that get their rights when they are installed.
const SET_USER: [&str; 1] = ["usr/bin/ping"];
/// Groups of the files that are made here.
const SHADOW: Owner = Owner { uid: 0, gid: 42 };
const MAIL: Owner = Owner { uid: 0, gid: 8 };

/// Settles the root and copies our own files into it.
///
/// # Errors
/// If something is not where a package should have put it.
pub fn settle(tree: &mut Tree, overlay: &Path) -> Result<()> {
    eprintln!("debian: settling");
    let root = tree.root.clone();
    for (name, mode) in FOLDERS {
        fs::create_dir_all(root.join(name))?;
        fs::set_permissions(root.join(name), Permissions::from_mode(mode))?;
    }
    tree.owners.insert("var/mail".into(), MAIL);
    for (from, to) in DEFAULTS {
        fs::copy(root.join(from), root.join(to)).with_context(|| format!("no {from}"))?;
    }
    for (link, target) in LINKS {
        let path = root.join(link);
        // Some are folders in the package.
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir(&path).with_context(|| format!("{link} is not empty"))?;
        }
        symlink(target, &path).with_context(|| format!("linking {link}"))?;
    }
    users(tree)?;
    shells(&root)?;
    for program in SET_USER {
        fs::set_permissions(root.join(program), Permissions::from_mode(0o4755))
            .with_context(|| format!("no {program}"))?;
    }
    alternatives(&root)?;
    for name in ["available", "diversions", "statoverride"] {
        fs::write(root.join("var/lib/dpkg").join(name), "")?;
    }
    copy(overlay, &root)
}

/// Users and groups, with passwords in files of their own: root has none, all others cannot log in.
fn users(tree: &mut Tree) -> Result<()> {
    let master = tree.root.join("usr/share/base-passwd");
    for (kind, shadow, rest) in [("passwd", "shadow", ":0:99999:7:::"), ("group", "gshadow", "::")] {
        let text = fs::read_to_string(master.join(format!("{kind}.master")))?;
        let etc = tree.root.join("etc");
        let (open, hidden) = split(&text, rest);
        fs::write(etc.join(kind), open)?;
        fs::write(etc.join(shadow), hidden)?;
        fs::set_permissions(etc.join(shadow), Permissions::from_mode(0o640))?;
        tree.owners.insert(Path::new("etc").join(shadow), SHADOW);
    }
    Ok(())
}

/// Splits a table of users or groups into one without passwords and one of passwords, whose lines end as `rest`.
fn split(master: &str, rest: &str) -> (String, String) {
    let (mut open, mut hidden) = (String::new(), String::new());
    for line in master.lines() {
        let Some((name, fields)) = line.split_once(":*:") else { continue };
        let is_users = rest.starts_with(":0:");
        // The day of the last change: one of long ago, the same for ever. 0 would ask for a new password.
        let password = if name == "root" && is_users { "" } else { "*" };
        let day = if is_users { ":1" } else { "" };
        open += &format!("{name}:x:{fields}\n");
        hidden += &format!("{name}:{password}{day}{rest}\n");
    }
    (open, hidden)
}

/// Programs that may be somebody's shell, as packages list them.
fn shells(root: &Path) -> Result<()> {
    let folder = root.join("usr/share/debianutils");
    let mut text = fs::read_to_string(folder.join("shells")).context("no list of shells")?;
    let mut seen: BTreeSet<String> = text.lines().map(str::to_string).collect();
    for path in super::walk(&folder.join("shells.d"))? {
        for line in fs::read_to_string(folder.join("shells.d").join(path))?.lines() {
            if seen.insert(line.to_string()) {
                text += &format!("{line}\n");
            }
        }
    }
    fs::write(root.join("etc/shells"), text)?;
    Ok(())
}

/// Chooses among programs that do the same, by the program that would do it there: it needs nothing of the root.
fn alternatives(root: &Path) -> Result<()> {
    for folder in ["etc/alternatives", "var/lib/dpkg/alternatives"] {
        fs::create_dir_all(root.join(folder))?;
    }
    for (link, name, program, priority) in ALTERNATIVES {
        let mut command = Command::new("update-alternatives");
        command.arg("--quiet").arg("--root").arg(root);
        command.args(["--install", link, name, program, &priority.to_string()]);
        package::run(&mut command)?;
    }
    // It says when.
    fs::remove_file(root.join("var/log/alternatives.log"))?;
    Ok(())
}

/// Copies our own files over those of the packages. Those that begin with `#!` are programs.
fn copy(overlay: &Path, root: &Path) -> Result<()> {
    for path in super::walk(overlay)? {
        let (from, to) = (overlay.join(&path), root.join(&path));
        if from.is_dir() {
            fs::create_dir_all(&to)?;
            continue;
        }
        let data = fs::read(&from).with_context(|| format!("reading {}", from.display()))?;
        let mode = if data.starts_with(b"#!") { 0o755 } else { 0o644 };
        fs::write(&to, data).with_context(|| format!("writing {}", to.display()))?;
        fs::set_permissions(&to, Permissions::from_mode(mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_can_log_in() {
        let (open, hidden) =
            split("root:*:0:0:root:/root:/bin/bash\nbin:*:2:2:bin:/bin:/usr/sbin/nologin\n", ":0:99999:7:::");
        assert_eq!(open, "root:x:0:0:root:/root:/bin/bash\nbin:x:2:2:bin:/bin:/usr/sbin/nologin\n");
        assert_eq!(hidden, "root::1:0:99999:7:::\nbin:*:1:0:99999:7:::\n");
        let (open, hidden) = split("root:*:0:\n", "::");
        assert_eq!((open.as_str(), hidden.as_str()), ("root:x:0:\n", "root:*::\n"));
    }

    #[test]
    fn own_files_go_over_the_packages() {
        let dir = tempfile::tempdir().unwrap();
        let (overlay, root) = (dir.path().join("overlay"), dir.path().join("root"));
        fs::create_dir_all(overlay.join("etc")).unwrap();
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/motd"), "theirs").unwrap();
        fs::write(overlay.join("etc/motd"), "ours").unwrap();
        fs::write(overlay.join("etc/rc"), "#!/bin/sh\n").unwrap();
        copy(&overlay, &root).unwrap();
        assert_eq!(fs::read_to_string(root.join("etc/motd")).unwrap(), "ours");
        let mode = |name: &str| fs::metadata(root.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("etc/motd"), mode("etc/rc")), (0o644, 0o755));
    }
}
