//! The kernel's own tests (`tools/testing/selftests`) in a RAM disk with busybox: those that the lists in `guest-linux-patches/selftests` name, built by the kernel's own
//! Makefiles, static, as the RAM disk has no libraries.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{folder, initramfs, kernel, package, patches_folder, write};

/// Where the tests are in the kernel's source.
const SOURCE: &str = "tools/testing/selftests";
/// Where they are in the RAM disk.
const PLACE: &str = "selftests";
/// The lists of tests, and the script that runs one.
const LISTS: [&str; 3] = ["timed", "long", "untimed"];
const SCRIPT: &str = "run";
/// A folder whose Makefile has those below it built only if it is told which.
const NESTED: &str = "arm64";

/// Makes the RAM disk, if it is not there or what it is made of is another than last time.
///
/// # Errors
/// If the kernel's source or busybox cannot be fetched, or a test does not build.
pub fn build(path: &Path, update: bool, force: bool) -> Result<()> {
    let own = patches_folder().join("selftests");
    let read = |name: &str| std::fs::read(own.join(name)).with_context(|| format!("reading the tests' {name}"));
    let mut files = Vec::new();
    let mut programs = BTreeSet::new();
    for list in LISTS {
        let text = read(list)?;
        programs.append(&mut self::programs(std::str::from_utf8(&text)?));
        files.push((PathBuf::from(PLACE).join(list), text));
    }
    files.push((PathBuf::from(PLACE).join(SCRIPT), read(SCRIPT)?));
    ensure!(!programs.is_empty(), "the lists of tests are empty");
    let source = kernel::Source::fetch(update)?;
    let objects = folder().join("selftests-objects");
    let stamp = folder().join("selftests.made-of");
    let (targets, nested) = targets(&programs);
    let key = format!("{}\n{targets:?} {nested:?}\n", source.version());
    if force || std::fs::read_to_string(&stamp).ok().as_ref() != Some(&key) {
        let _ = std::fs::remove_file(&stamp);
        if objects.exists() {
            std::fs::remove_dir_all(&objects)?;
        }
        compile(&source, &objects, &targets, &nested)?;
        write(&stamp, key.as_bytes())?;
    }
    for program in &programs {
        let file = objects.join("kselftest").join(program);
        let data =
            std::fs::read(&file).with_context(|| format!("reading {}, a test that did not build", file.display()))?;
        files.push((PathBuf::from(PLACE).join(program), data));
    }
    initramfs::build_with(path, update, &files)
}

/// The programs of a list: the first word of each line that has one.
fn programs(list: &str) -> BTreeSet<String> {
    let lines = list.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines.filter_map(|line| line.split_whitespace().next()).map(String::from).collect()
}

/// The first folders of programs, and the second ones of those that are nested.
fn targets(programs: &BTreeSet<String>) -> (BTreeSet<&str>, BTreeSet<&str>) {
    let (mut targets, mut nested) = (BTreeSet::new(), BTreeSet::new());
    for program in programs {
        let mut parts = program.split('/');
        let first = parts.next().unwrap_or_default();
        targets.insert(first);
        if first == NESTED {
            nested.extend(parts.next());
        }
    }
    (targets, nested)
}

/// Compiles these folders. What else they have than is listed may not build, which is nobody's concern.
fn compile(source: &kernel::Source, objects: &Path, targets: &BTreeSet<&str>, nested: &BTreeSet<&str>) -> Result<()> {
    let tree = source.tree()?;
    let words = |set: &BTreeSet<&str>| set.iter().copied().collect::<Vec<_>>().join(" ");
    eprintln!("building the kernel's own tests: {}", words(targets));
    std::fs::create_dir_all(objects)?;
    package::run(kernel::command(&tree, objects)?.args(["-s", "headers"]))?;
    let mut make = kernel::command(&tree.join(SOURCE), objects)?;
    // Some of the Makefiles put what they build beside the source, where it would be taken for new; some do not heed LDFLAGS.
    make.args(["-s", "-k", "-B"]).arg(format!("CC={} -static -s", kernel::c_compiler()?));
    make.arg(format!("KHDR_INCLUDES=-isystem {}", objects.join("usr/include").display()));
    make.arg(format!("TARGETS={}", words(targets))).arg(format!("ARM64_SUBTARGETS={}", words(nested)));
    package::run(&mut make)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_tells_programs_and_folders() {
        let list =
            "# what\ntimers/nanosleep\nfutex/functional/futex_wait -t 3 # why\n\narm64/signal/sve_regs | no SVE\n";
        let programs = programs(list);
        assert_eq!(programs.len(), 3);
        let (targets, nested) = targets(&programs);
        assert_eq!(targets.into_iter().collect::<Vec<_>>(), ["arm64", "futex", "timers"]);
        assert_eq!(nested.into_iter().collect::<Vec<_>>(), ["signal"]);
    }
}
