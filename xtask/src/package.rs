//! Finds the files of packages that are fetched and never compiled: those of `packages/Cargo.toml`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::project::{self, TARGET};

/// Returns the folder of the package `name`, and fetches it if it is not here yet.
///
/// # Errors
/// If it is none of `packages/Cargo.toml`, or it is not here and cannot be fetched.
pub fn folder(name: &str) -> Result<PathBuf> {
    let manifest = project::root().join("xtask/packages/Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // For one platform: without, what the packages need on every other one would be fetched too.
    let output = Command::new(cargo)
        .args(["metadata", "--quiet", "--locked", "--format-version", "1", "--filter-platform", TARGET])
        .arg("--manifest-path")
        .arg(&manifest)
        .output()
        .context("starting cargo")?;
    if !output.status.success() {
        bail!("{name} is not here and cannot be fetched: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("what cargo says of packages")?;
    let packages = metadata.get("packages").and_then(|packages| packages.as_array()).context("no packages")?;
    let found = packages.iter().find(|package| package.get("name").is_some_and(|found| found == name));
    let manifest = found
        .and_then(|package| package.get("manifest_path")?.as_str())
        .with_context(|| format!("{name} is no package of {}", manifest.display()))?;
    Ok(PathBuf::from(manifest).with_file_name(""))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_package_that_is_not_named_is_an_error() {
        assert!(super::folder("no-such-package").is_err());
    }
}
