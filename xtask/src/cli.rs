//! The command line.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{bench, build, ci, gdb, image, linux, run, setup, sizes, test, trace};

/// Sets up, builds, runs and tests Portico.
#[derive(Parser, Debug)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The subcommands.
#[derive(Subcommand, Debug)]
enum Command {
    /// Install what is missing to build and run
    Setup(setup::Options),
    /// Build the hypervisor, the manager and the guests
    Build(build::Options),
    /// Boot a machine in QEMU and give its console
    Run(run::Options),
    /// Run all checks and tests
    Test(test::Options),
    /// Install without asking, then run all checks and tests
    Ci,
    /// Measure what the hypervisor costs, beside others
    Bench(bench::Options),
    /// Make a Linux kernel that is a guest of Portico, a RAM disk for it, and a Debian root
    Linux(linux::Options),
    /// Make an SD card for a board
    Image(image::Options),
    /// Print what the hypervisor of a running machine did last
    Trace(trace::Options),
    /// Attach GDB to a running machine
    Gdb(gdb::Options),
    /// Say how big the hypervisor is
    Sizes(sizes::Options),
}

impl Cli {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// Whatever the subcommand reports.
    pub fn execute(self) -> Result<ExitCode> {
        match self.command {
            Command::Setup(options) => setup::execute(&options)?,
            Command::Build(options) => {
                setup::ensure(setup::BUILD, &setup::Options::default())?;
                build::execute(&options)?;
            }
            Command::Run(options) => return run::execute(&options),
            Command::Test(options) => return test::execute(&options),
            Command::Ci => return ci::execute(),
            Command::Bench(options) => return bench::execute(&options),
            Command::Linux(options) => linux::execute(&options)?,
            Command::Image(options) => image::execute(&options)?,
            Command::Trace(options) => trace::execute(&options)?,
            Command::Gdb(options) => gdb::execute(&options)?,
            Command::Sizes(options) => return sizes::execute(&options),
        }
        Ok(ExitCode::SUCCESS)
    }
}
