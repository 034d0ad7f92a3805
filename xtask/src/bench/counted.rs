//! What devices cost, and the longest stay in EL2: instructions, counted by QEMU.
//!
//! While all processors wait for a device virtual time jumps, or passes as the host's does, so time does not tell. A QEMU plugin (`xtask/data/count.c`) counts
//! what is executed, and the guest marks where an operation begins and ends.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use portico_ctl::MachineKind;
use regex::Regex;

use super::{Figures, Machine, NO_LOOP, prepare, start};
use crate::machine::Line;
use crate::project;

/// A disk that does nothing: what is measured is the way to it.
const NULL_DISK: [&str; 6] = [
    "-global",
    "virtio-mmio.force-legacy=false",
    "-blockdev",
    "driver=null-co,node-name=null,size=67108864,read-zeroes=off",
    "-device",
    "virtio-blk-device,drive=null,serial=null,bus=virtio-mmio-bus.0",
];
/// Runs, of which the least figure counts: when the disk answers depends on the host, and who sleeps before has more to do.
const RUNS: usize = 3;

/// Measures everything that guests mark.
pub fn measure(kind: MachineKind) -> Result<Figures> {
    let mut least = run(kind, "bench-idle")?;
    for system in ["bench-net", "bench-stream", "bench-console"] {
        least.extend(run(kind, system)?);
    }
    for _ in 0..RUNS {
        for (name, value) in run(kind, "bench-block")? {
            least.entry(name).and_modify(|least| *least = value.min(*least)).or_insert(value);
        }
    }
    Ok(least)
}

/// The longest stay in EL2 while guests are built and destroyed.
pub fn longest_stay(kind: MachineKind) -> Result<u64> {
    let (_, counts) = counted(kind, "bench-life", "not again.*")?;
    longest_of(&counts)
}

/// The longest stay in EL2 that the plugin has counted, in instructions.
///
/// # Errors
/// If it has counted none.
pub fn longest_of(counts: &str) -> Result<u64> {
    let last = counts.lines().filter_map(|line| line.strip_prefix("longest ")).next_back();
    last.context("no stay was counted")?.parse().context("an odd count of a stay")
}

fn run(kind: MachineKind, system: &str) -> Result<Figures> {
    let (said, counts) = counted(kind, system, "BENCH (end|failed.*)")?;
    figures(&said, &counts)
}

/// Boots a system on one processor until it says what matches `end`. Returns what it said, and the counts.
fn counted(kind: MachineKind, system: &str, end: &str) -> Result<(String, String)> {
    let (mut line, bundle, folder) = prepare(kind, system, 1, &[NO_LOOP], false)?;
    line.waits = system == "bench-block";
    let counts = counting(&mut line, folder.path(), None)?;
    let Machine { mut session, _folder } = start(line, &bundle, folder)?;
    session.expect(end)?;
    let text = std::fs::read_to_string(&counts).with_context(|| format!("reading {}", counts.display()))?;
    Ok((session.text().to_string(), text))
}

/// Gives a machine the disk that does nothing, and lets what it executes be counted into a file in `folder`, which is returned. `more` is for the plugin.
///
/// # Errors
/// Those of [`plugin`].
pub fn counting(line: &mut Line, folder: &Path, more: Option<&str>) -> Result<PathBuf> {
    let counts = folder.join("counts");
    line.extra.extend(NULL_DISK.iter().map(ToString::to_string));
    let plugin = format!("{},out={}{}", plugin(folder)?.display(), counts.display(), more.unwrap_or_default());
    line.extra.extend(["-plugin".into(), plugin]);
    Ok(counts)
}

/// Builds the plugin, into `folder`. It takes the argument `out=FILE`.
///
/// # Errors
/// If there is no C compiler, or it refuses.
pub fn plugin(folder: &Path) -> Result<PathBuf> {
    let source = project::root().join("xtask/data/count.c");
    let plugin = folder.join("count.so");
    let status = Command::new("cc")
        .args(["-O2", "-shared", "-fPIC", "-o"])
        .arg(&plugin)
        .arg(&source)
        .status()
        .context("starting cc: install gcc")?;
    ensure!(status.success(), "{} did not compile", source.display());
    Ok(plugin)
}

/// Joins what the guest said (`COUNT name operations`, `PER name thousandths`) with the counts at its marks, which come in the same order.
///
/// # Errors
/// If they do not fit.
pub fn figures(said: &str, counts: &str) -> Result<Figures> {
    Ok(spans(said, counts)?.into_iter().map(|(name, span)| (name, span.all)).chain(told(said)?).collect())
}

/// Instructions for an operation, and whose they were: EL2's, a kernel's, a program's. The rest are those of services and SDK guests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Everybody's.
    pub all: u64,
    /// EL2's.
    pub hypervisor: u64,
    /// A kernel's, in the upper half of the addresses.
    pub kernel: u64,
    /// A program's of a kernel, below 1 GiB.
    pub program: u64,
}

impl Span {
    /// What nobody else has executed.
    pub fn services(&self) -> u64 {
        self.all.saturating_sub(self.hypervisor + self.kernel + self.program)
    }

    fn each(self, begin: Span, operations: u64) -> Span {
        let each = |end: u64, begin: u64| (end - begin) / operations.max(1);
        Span {
            all: each(self.all, begin.all),
            hypervisor: each(self.hypervisor, begin.hypervisor),
            kernel: each(self.kernel, begin.kernel),
            program: each(self.program, begin.program),
        }
    }
}

/// What the guest named by `PER`.
fn told(said: &str) -> Result<Figures> {
    let line = Regex::new(r"PER (\w+) (\d+)")?;
    line.captures_iter(said).map(|found| Ok((found[1].to_string(), found[2].parse()?))).collect()
}

/// What the guest named by `COUNT`, with the counts at its marks.
///
/// # Errors
/// If they do not fit.
pub fn spans(said: &str, counts: &str) -> Result<Vec<(String, Span)>> {
    if let Some(failure) = said.lines().find(|line| line.contains("BENCH failed")) {
        bail!("{failure}");
    }
    let mut ends = Vec::new();
    let mut begun = None;
    for line in counts.lines().filter(|line| !line.starts_with("longest")) {
        let words: Vec<u64> = line.split(' ').map_while(|word| word.parse().ok()).collect();
        let [mark, all, _calls, hypervisor, kernel, program] = words[..] else { bail!("odd count `{line}`") };
        let now = Span { all, hypervisor, kernel, program };
        match (mark, begun.take()) {
            (0, None) => begun = Some(now),
            (1, Some(from)) => ends.push((from, now)),
            _ => bail!("marks out of order: `{line}`"),
        }
    }
    let count = Regex::new(r"COUNT (\w+) (\d+)")?;
    let counted: Vec<_> = count.captures_iter(said).collect();
    ensure!(counted.len() == ends.len(), "the guest named {} figures and marked {}", counted.len(), ends.len());
    let each = |(found, (begin, end)): (&regex::Captures<'_>, (Span, Span))| {
        Ok((found[1].to_string(), end.each(begin, found[2].parse()?)))
    };
    counted.iter().zip(ends).map(each).collect()
}

#[cfg(test)]
mod tests {
    use super::figures;

    #[test]
    fn marks_and_names_come_in_the_same_order() {
        let said = "portico> [bench] COUNT a 10\n[bench] PER told 62\n[bench] COUNT b 1\n";
        let figures = figures(said, "0 100 1 9 0 0\n1 1100 5 9 0 0\n0 2000 6 9 0 0\n1 2007 7 9 0 0\n").unwrap();
        let all: Vec<_> = figures.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_eq!(all, [("a", 100), ("b", 7), ("told", 62)]);
        assert!(super::figures(said, "0 100 1 9 0 0\n1 1100 5 9 0 0\n").is_err());
        assert!(super::figures(said, "1 100 1 9 0 0\n").is_err());
    }
}
