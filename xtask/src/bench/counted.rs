//! What devices cost, and the longest stay in EL2: instructions, counted by QEMU.
//!
//! While all processors wait for a device virtual time jumps, so time does not tell. A QEMU plugin (`xtask/data/count.c`) counts
//! what is executed, and the guest marks where an operation begins and ends.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use portico_ctl::MachineKind;
use regex::Regex;

use super::{Figures, Machine, NO_LOOP, prepare, start};
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
/// Runs, of which the least figure counts: when the disk answers depends on the host, and being late costs the guest an extra turn.
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
    let counts = folder.path().join("counts");
    line.extra.extend(NULL_DISK.iter().map(ToString::to_string));
    line.extra.extend(["-plugin".into(), format!("{},out={}", plugin(folder.path())?.display(), counts.display())]);
    let Machine { mut session, _folder } = start(line, &bundle, folder)?;
    session.expect(end)?;
    let text = std::fs::read_to_string(&counts).with_context(|| format!("reading {}", counts.display()))?;
    Ok((session.text().to_string(), text))
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
fn figures(said: &str, counts: &str) -> Result<Figures> {
    let mut spans = Vec::new();
    let mut begun = None;
    for line in counts.lines().filter(|line| !line.starts_with("longest")) {
        let mut words = line.split(' ').map(str::parse::<u64>);
        let (Some(Ok(mark)), Some(Ok(instructions))) = (words.next(), words.next()) else {
            bail!("odd count `{line}`")
        };
        match (mark, begun.take()) {
            (0, None) => begun = Some(instructions),
            (1, Some(from)) => spans.push(instructions - from),
            _ => bail!("marks out of order: `{line}`"),
        }
    }
    let mut figures = Figures::new();
    let count = Regex::new(r"COUNT (\w+) (\d+)")?;
    let counted: Vec<_> = count.captures_iter(said).collect();
    ensure!(counted.len() == spans.len(), "the guest named {} figures and marked {}", counted.len(), spans.len());
    for (found, span) in counted.iter().zip(spans) {
        figures.insert(found[1].to_string(), span / found[2].parse::<u64>()?.max(1));
    }
    for found in Regex::new(r"PER (\w+) (\d+)")?.captures_iter(said) {
        figures.insert(found[1].to_string(), found[2].parse()?);
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::figures;

    #[test]
    fn marks_and_names_come_in_the_same_order() {
        let said = "portico> [bench] COUNT a 10\n[bench] PER told 62\n[bench] COUNT b 1\n";
        let figures = figures(said, "0 100 1\n1 1100 5\n0 2000 6\n1 2007 7\n").unwrap();
        let all: Vec<_> = figures.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_eq!(all, [("a", 100), ("b", 7), ("told", 62)]);
        assert!(super::figures(said, "0 100 1\n1 1100 5\n").is_err());
        assert!(super::figures(said, "1 100 1\n").is_err());
    }
}
