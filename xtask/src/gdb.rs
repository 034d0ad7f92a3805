//! `cargo xtask gdb`: attaches GDB to a machine, with the hypervisor's symbols.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;

use crate::qmp::Qmp;
use crate::setup::{self, Part};
use crate::{build, record};

/// Options of `gdb`.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Port that the machine listens on; without, it is asked to listen
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Also load the symbols of this file, such as a guest's
    #[arg(long, value_name = "ELF")]
    pub symbols: Vec<std::path::PathBuf>,
    /// Commands to run, then detach: for scripts (may be given again)
    #[arg(long = "command", short = 'x', value_name = "COMMAND")]
    pub commands: Vec<String>,
    /// Install GDB without asking
    #[arg(long, short)]
    pub yes: bool,
}

/// Port that a machine is asked to listen on when it does not yet.
const DEFAULT_PORT: u16 = 1234;

/// Runs the subcommand: becomes GDB.
///
/// # Errors
/// If no machine runs or GDB cannot be had.
pub fn execute(options: &Options) -> Result<()> {
    setup::ensure(&[Part::Gdb], &setup::Options { yes: options.yes, dry_run: false })?;
    let port = match options.port {
        Some(port) => port,
        None => listening_port()?,
    };
    Err(command(options, &format!("127.0.0.1:{port}"))?.exec()).context("starting gdb-multiarch")
}

/// Makes the command that attaches to whatever listens at `target`: `HOST:PORT`, or a socket's path.
///
/// # Errors
/// If nothing is built.
pub fn command(options: &Options, target: &str) -> Result<Command> {
    let symbols = build::built().hyp_elf;
    if !symbols.is_file() {
        bail!("nothing is built yet: `cargo xtask build`");
    }
    let mut command = Command::new("gdb-multiarch");
    command.arg("-q").arg(symbols);
    for setting in ["set confirm off", "set pagination off", "set architecture aarch64"] {
        command.args(["-ex", setting]);
    }
    command.args(["-ex", &format!("target remote {target}")]);
    for file in &options.symbols {
        command.args(["-ex", &format!("add-symbol-file {}", file.display())]);
    }
    if !options.commands.is_empty() {
        command.arg("-batch");
        for words in &options.commands {
            command.args(["-ex", words]);
        }
    }
    Ok(command)
}

/// Returns the port on which the machine that was started last waits for a debugger, opening one if need be.
fn listening_port() -> Result<u16> {
    let running = record::last()?;
    if let Some(port) = running.gdb {
        return Ok(port);
    }
    let socket = running.qmp.context("the machine that runs has no socket to ask it")?;
    let line = format!("gdbserver tcp:127.0.0.1:{DEFAULT_PORT}");
    Qmp::connect(&socket)?.execute("human-monitor-command", json!({ "command-line": line }))?;
    Ok(DEFAULT_PORT)
}
