//! Where the project's files and the build's results are.

use std::path::{Path, PathBuf};

/// Target triple of everything that runs on the machine.
pub const TARGET: &str = "aarch64-unknown-none-softfloat";

/// Returns the root folder of the project.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Returns the host's target folder: `CARGO_TARGET_DIR`, else `target` in the project.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Returns the target folder of the bare-metal builds: another compiler may fill it, so it is never shared
/// with the host's.
pub fn bare_dir() -> PathBuf {
    target_dir().join("bare")
}

/// Returns the folder of finished images.
pub fn images_dir() -> PathBuf {
    target_dir().join("images")
}

/// Returns the folder in which downloads are kept.
pub fn cache_dir() -> PathBuf {
    target_dir().join("cache")
}

/// Returns the folder that tells of the machines started last.
pub fn run_dir() -> PathBuf {
    target_dir().join("run")
}

/// Returns the folder of the system descriptions that come with the project.
pub fn systems_dir() -> PathBuf {
    root().join("platform/systems")
}

/// Says whether a CI service runs us: nobody is there to answer questions.
pub fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}
