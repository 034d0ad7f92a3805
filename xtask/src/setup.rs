//! `cargo xtask setup`: installs what is missing.

use anyhow::{Result, bail};
use clap::Args;

use crate::{qemu, toolchain};

/// Options of `setup`.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Install without asking
    #[arg(long, short)]
    pub yes: bool,
}

/// What the tools are needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Build only.
    Build,
    /// Build and run.
    Run,
}

/// Runs the subcommand.
///
/// # Errors
/// If something is missing and cannot be installed.
pub fn execute(options: &Options) -> Result<()> {
    ensure(Purpose::Run, options.yes)
}

/// Makes sure that everything for a purpose is there.
///
/// # Errors
/// If something is missing and cannot be installed.
pub fn ensure(purpose: Purpose, _yes: bool) -> Result<()> {
    toolchain::detect()?;
    if purpose == Purpose::Run && toolchain::find_in_path(qemu::PROGRAM).is_none() {
        bail!("{} is not installed", qemu::PROGRAM);
    }
    Ok(())
}
