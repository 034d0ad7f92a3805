//! Writes what is generated from the ABI: `include/portico.h`, the reference tables of `ABI.md`, and the header of the Linux port, which is in
//! the patch that adds it.
//!
//! Numbers come from the `portico-abi` crate itself; the words beside them from its doc comments, so a constant without
//! a listing here, or without a doc comment, is an error ([`groups`]). `--check` says whether the files are up to date, and CI asks.

mod groups;
mod header;
mod kernel;
mod records;
mod source;
mod tables;

use std::path::{Path, PathBuf};
use std::{fs, io};

/// A generated file: where it is, and what it must hold.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Path.
    pub path: PathBuf,
    /// Contents.
    pub text: String,
}

/// Makes the contents of all generated files.
///
/// # Errors
/// If a listing is not complete, or `ABI.md` lacks a marker.
pub fn generate() -> Result<Vec<Generated>, String> {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let groups = groups::all()?;
    let document = sdk.join("ABI.md");
    let words = fs::read_to_string(&document).map_err(|error| format!("{}: {error}", document.display()))?;
    let patch = sdk.join("../guest-linux-patches").join(kernel::PATCH);
    let old = fs::read_to_string(&patch).map_err(|error| format!("{}: {error}", patch.display()))?;
    Ok(vec![
        Generated { path: patch, text: kernel::insert(&old, &kernel::write(&groups))? },
        Generated { path: sdk.join("include/portico.h"), text: header::write(&groups) },
        Generated { path: document, text: tables::insert(&words, &groups)? },
    ])
}

/// The header of the Linux port.
///
/// # Errors
/// If a listing is not complete.
pub fn kernel_header() -> Result<String, String> {
    Ok(kernel::write(&groups::all()?))
}

/// Whether the file on disk is as it must be.
pub fn is_current(file: &Generated) -> bool {
    fs::read_to_string(&file.path).is_ok_and(|text| text == file.text)
}

/// Writes a file, if it is not current.
///
/// # Errors
/// Those of the file system.
pub fn write(file: &Generated) -> io::Result<()> {
    if is_current(file) { Ok(()) } else { fs::write(&file.path, &file.text) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn generated_files_are_current() {
        for file in super::generate().unwrap() {
            assert!(super::is_current(&file), "{}: run `cargo run -p portico-abi-gen`", file.path.display());
        }
    }
}
