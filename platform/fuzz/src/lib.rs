//! Fuzz targets for what parses bytes that a guest, an operator or a boot loader chose.
//!
//! Each target takes any bytes and must return; its assertions state what must hold of input that was accepted. They
//! are run in two ways:
//!
//! * `cargo test -p portico-fuzz`, on a stable toolchain: [`smoke`] gives each target its seeds and a fixed number of damaged
//!   seeds, the same ones in each run. `PORTICO_FUZZ_ROUNDS` asks for more.
//! * `cargo fuzz run --fuzz-dir platform/fuzz/fuzz TARGET`, with cargo-fuzz and a nightly toolchain: guided by coverage, for as long
//!   as one likes.
//!
//! A target of both kinds is a row of [`TARGETS`].
#![forbid(unsafe_code)]

mod frames;
mod mutate;
pub mod seeds;
pub mod targets;

/// A fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// What it runs.
    pub run: fn(&[u8]),
    /// Well-formed input to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How much longer one input takes than with most targets: [`smoke`] gives it so many times fewer.
    pub cost: u32,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "cpio", run: portico_bundle::fuzz::cpio, seeds: seeds::bundles, cost: 1 },
    Target { name: "manager", run: portico_bundle::fuzz::manager, seeds: seeds::bundles, cost: 1 },
    Target { name: "compiled", run: portico_bundle::fuzz::description, seeds: seeds::compiled, cost: 1 },
    Target { name: "toml", run: targets::toml, seeds: seeds::toml, cost: 1 },
    Target { name: "kernel", run: targets::kernel, seeds: seeds::kernels, cost: 1 },
    Target { name: "machine_dtb", run: targets::machine_dtb, seeds: seeds::device_trees, cost: 1 },
    Target { name: "shell", run: targets::shell, seeds: seeds::command_lines, cost: 1 },
    Target { name: "console", run: portico_console::fuzz::console, seeds: seeds::command_lines, cost: 1 },
    Target { name: "block_request", run: targets::block_request, seeds: seeds::block_requests, cost: 1 },
    Target { name: "gpt", run: targets::gpt, seeds: seeds::partition_tables, cost: 1 },
    Target { name: "handshake", run: targets::handshake, seeds: seeds::handshakes, cost: 1 },
    Target { name: "frames_of_guest", run: frames::of_guest, seeds: seeds::frames, cost: 8 },
    Target { name: "frames_of_service", run: frames::of_service, seeds: seeds::frames, cost: 8 },
];

/// Gives a target its seeds, and `rounds` inputs made of them by damage, or fewer if they take long.
pub fn smoke(target: &Target, rounds: u32) {
    let seeds = (target.seeds)();
    for seed in &seeds {
        (target.run)(seed);
    }
    let mut mutator = mutate::Mutator::new(target.name);
    for _ in 0..rounds / target.cost {
        (target.run)(&mutator.next(&seeds));
    }
}

/// Runs the target of this name on one input.
///
/// # Panics
/// If there is no such target, and if the target finds a mistake.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    assert!(target.is_some(), "no target {name}");
    if let Some(target) = target {
        (target.run)(bytes);
    }
}
