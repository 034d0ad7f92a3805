//! The command `portico`: checks system descriptions and makes boot bundles of them.

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use portico_ctl::{LoadOptions, System, load, parse_size};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Checks system descriptions and makes boot bundles of them.
#[derive(Parser)]
#[command(name = "portico", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Checks a description: prints every mistake with its line and what to write instead.
    Check {
        #[command(flatten)]
        input: Input,
        /// Print the mistakes as a JSON list.
        #[arg(long)]
        json: bool,
        /// Do not look at kernels and RAM disks.
        #[arg(long)]
        no_images: bool,
    },
    /// Prints what a description says, defaults filled in.
    Show {
        #[command(flatten)]
        input: Input,
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
        /// Do not look at kernels and RAM disks.
        #[arg(long)]
        no_images: bool,
    },
    /// Makes the bundle that a machine boots.
    Bundle {
        #[command(flatten)]
        input: Input,
        /// The manager, a flat arm64 `Image`.
        #[arg(long, value_name = "IMAGE")]
        manager: PathBuf,
        /// Where to write the bundle.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// Arguments for the manager after those of the description.
        #[arg(long, value_name = "ARGS", default_value = "")]
        manager_cmdline: String,
    },
}

#[derive(Args)]
struct Input {
    /// The system description.
    file: PathBuf,
    /// Folder of the images that the project builds: `example:ping` is FOLDER/example/ping.
    #[arg(long, value_name = "FOLDER")]
    images: Option<PathBuf>,
    /// Check for this machine instead of the description's.
    #[arg(long)]
    machine: Option<String>,
    /// Check for so many processors instead of the description's.
    #[arg(long)]
    cpus: Option<u32>,
    /// Check for so much memory instead of the description's.
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    memory: Option<u64>,
}

impl Input {
    fn load(&self, read_images: bool, manager_cmdline: &str) -> Result<System, portico_ctl::Report> {
        let images = self.images.clone();
        let resolver = move |scheme: &str, name: &str| resolve(images.as_deref(), scheme, name);
        let options = LoadOptions {
            machine: self.machine.clone(),
            cpus: self.cpus,
            memory_bytes: self.memory,
            resolver: if self.images.is_some() { Some(&resolver) } else { None },
            read_images,
            manager_cmdline: manager_cmdline.to_owned(),
            ..LoadOptions::default()
        };
        load(&self.file, &options)
    }
}

fn resolve(images: Option<&Path>, scheme: &str, name: &str) -> Result<PathBuf, String> {
    let folder = images.unwrap_or(Path::new("."));
    let path = folder.join(scheme).join(name);
    if path.is_file() { Ok(path) } else { Err(format!("build it, or name the folder in which {scheme}/{name} is")) }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("portico: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Check { input, json, no_images } => match input.load(!no_images, "") {
            Ok(_) if json => println!("[]"),
            Ok(system) => {
                let guests = system.description.guests.len();
                println!("{}: good, {guests} guest{}", input.file.display(), if guests == 1 { "" } else { "s" });
            }
            Err(report) if json => {
                println!("{}", report.to_json());
                return Ok(ExitCode::FAILURE);
            }
            Err(report) => return Err(report_failure(&report)),
        },
        Command::Show { input, json, no_images } => {
            let system = input.load(!no_images, "").map_err(|report| report_failure(&report))?;
            if json {
                println!("{}", system.to_json());
            } else {
                print!("{}", system.summary());
            }
        }
        Command::Bundle { input, manager, output, manager_cmdline } => {
            let system = input.load(true, &manager_cmdline).map_err(|report| report_failure(&report))?;
            let manager_image = std::fs::read(&manager).with_context(|| format!("reading {}", manager.display()))?;
            let bundle = system.bundle(&manager_image)?;
            std::fs::write(&output, &bundle).with_context(|| format!("writing {}", output.display()))?;
            println!("{}: {} bytes", output.display(), bundle.len());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a report and gives the error that closes it.
fn report_failure(report: &portico_ctl::Report) -> anyhow::Error {
    eprintln!("{report}");
    let count = report.diagnostics.len();
    anyhow::anyhow!("{count} mistake{}", if count == 1 { "" } else { "s" })
}
