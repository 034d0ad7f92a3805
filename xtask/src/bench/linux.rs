//! What I/O costs a Linux guest, and the same kernel with no hypervisor.
//!
//! `tests/linux/bench.c` is the first program of a RAM disk. In a guest it measures our devices; on the bare machine a virtio disk that does nothing,
//! the PL011, and for want of another machine the loopback interface.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use portico_ctl::MachineKind;
use tempfile::TempDir;

use super::counted::{self, counting};
use super::{Figures, LIMIT, Measured, NO_LOOP, ask, number, prepare, start};
use crate::linux::Part;
use crate::machine::Line;
use crate::qemu::Session;

/// What ends a run.
const END: &str = "BENCH (end|failed.*)";
/// Runs with a disk, of which the least figure counts, as with SDK guests.
const RUNS: usize = 2;
/// Memory of the bare machine, in MiB: a guest's.
const BARE_MIB: u64 = 96;

/// Measures everything, into what was measured on the machine before; the hypervisor and services are built first if `build`.
///
/// # Errors
/// If a machine does not do what it should.
pub fn measure(measured: &mut Measured, build: bool) -> Result<()> {
    let kind = measured.kind;
    let kernel = Part::Kernel.path();
    let image = std::fs::read(&kernel).with_context(|| format!("reading {}", kernel.display()))?;
    let first = first_words(&image).context("the kernel is too short")?;
    measured.figures.insert("linux_image_kib".into(), (image.len() as u64).div_ceil(1024));
    guest(measured, "bench-linux-boot", Some(&first), build)?;
    guest(measured, "bench-linux-net", None, build)?;
    bare(kind, "bench=boot", Some(&first), &mut measured.bare)?;
    bare(kind, "bench=loopback", None, &mut measured.bare)?;
    for _ in 0..RUNS {
        guest(measured, "bench-linux", None, build)?;
        bare(kind, "bench=disk disk=/dev/vda", None, &mut measured.bare)?;
    }
    measured.figures.extend(measured.parts.iter().map(|(name, span)| (name.clone(), span.all)));
    Ok(())
}

/// How the plugin knows the kernel's first instruction.
fn first_words(image: &[u8]) -> Option<String> {
    let (first, rest) = image.split_first_chunk::<4>()?;
    let second = rest.first_chunk::<4>()?;
    Some(format!(",first={:x}-{:x}", u32::from_le_bytes(*first), u32::from_le_bytes(*second)))
}

/// Boots a system of guests.
fn guest(measured: &mut Measured, system: &str, first: Option<&str>, build: bool) -> Result<()> {
    let (mut line, bundle, folder) = prepare(measured.kind, system, 1, &[NO_LOOP], build)?;
    line.waits = system == "bench-linux";
    let counts = counting(&mut line, folder.path(), first)?;
    let mut machine = start(line, &bundle, folder)?;
    machine.session.expect(END)?;
    take_least(counted::spans(machine.session.text(), &read(&counts)?)?, &mut measured.parts, |span| span.all);
    if system == "bench-linux" {
        let info = ask(&mut machine.session, "info one", "(?s)hypervisor .*calls")?;
        let pages = number(&info, r"hypervisor +(\d+) of \d+ pages used")?;
        measured.figures.insert("linux_overhead_kib".into(), pages * 4);
    }
    Ok(())
}

/// Boots the kernel alone.
fn bare(kind: MachineKind, arguments: &str, first: Option<&str>, figures: &mut Figures) -> Result<()> {
    let folder: TempDir = tempfile::Builder::new().prefix("portico-").tempdir()?;
    let mut line = Line::new(kind, 1, BARE_MIB, Part::Kernel.path());
    line.initrd = Some(Part::Bench.path());
    line.icount = true;
    line.waits = arguments.starts_with("bench=disk");
    line.bootargs = format!("console=ttyAMA0 quiet {arguments}").split(' ').map(String::from).collect();
    line.qmp = Some(folder.path().join("qmp"));
    let counts = counting(&mut line, folder.path(), first)?;
    let mut session = Session::start(&line, LIMIT)?;
    session.expect(END)?;
    take_least(counted::figures(session.text(), &read(&counts)?)?, figures, |all| *all);
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

fn take_least<T>(run: impl IntoIterator<Item = (String, T)>, least: &mut BTreeMap<String, T>, all: impl Fn(&T) -> u64) {
    for (name, value) in run {
        if least.get(&name).is_none_or(|least| all(&value) < all(least)) {
            least.insert(name, value);
        }
    }
}
