//! What is known of the machine that was started last, for `gdb` and `trace` in another terminal.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::machine::Line;
use crate::project;
use crate::qemu::Qemu;

/// A running machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Running {
    /// QEMU's process.
    pub process: u32,
    /// Name of the machine.
    pub machine: String,
    /// Processors that EL2 uses.
    pub cpus: u32,
    /// Socket of QEMU's machine protocol.
    pub qmp: Option<PathBuf>,
    /// Port on which it waits for a debugger.
    pub gdb: Option<u16>,
}

/// The record of a running machine: removed when dropped.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
}

impl Record {
    /// Writes it.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn new(qemu: &Qemu, line: &Line) -> Result<Record> {
        let running = Running {
            process: qemu.id(),
            machine: line.machine.name().into(),
            cpus: line.cpus,
            qmp: line.qmp.clone(),
            gdb: line.gdb,
        };
        let folder = project::run_dir();
        std::fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{}.json", running.process));
        std::fs::write(&path, serde_json::to_string(&running)?)?;
        Ok(Record { path })
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Finds the machine that was started last and still runs.
///
/// # Errors
/// If there is none.
pub fn last() -> Result<Running> {
    let mut found: Option<(std::time::SystemTime, Running)> = None;
    for entry in std::fs::read_dir(project::run_dir()).into_iter().flatten().flatten() {
        let Ok(text) = std::fs::read_to_string(entry.path()) else { continue };
        let Ok(running) = serde_json::from_str::<Running>(&text) else { continue };
        let alive = PathBuf::from(format!("/proc/{}", running.process)).exists();
        let time = entry.metadata().and_then(|data| data.modified());
        if let (true, Ok(time)) = (alive, time)
            && found.as_ref().is_none_or(|(newest, _)| time > *newest)
        {
            found = Some((time, running));
        }
    }
    let (_, running) = found.context("no machine runs: start one with `cargo xtask run`")?;
    Ok(running)
}
