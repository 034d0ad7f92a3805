//! `cargo xtask ci`: what `.ci/run` does, for those who want to know before they push.

use std::process::ExitCode;

use anyhow::Result;

use crate::{setup, test};

/// Installs without asking and runs all tests.
///
/// # Errors
/// As `setup` and `test`.
pub fn execute() -> Result<ExitCode> {
    setup::ensure_tests(&setup::Options { yes: true, dry_run: false })?;
    test::execute(&test::Options { yes: true, ..test::Options::default() })
}
