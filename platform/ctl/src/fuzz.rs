//! Body of the fuzz target of descriptions: takes any text and must return.

use crate::{LoadOptions, diagnostic::Report, load_text};
use std::path::Path;

/// Loads `text` without reading images. A refusal has a reason with a help text and a line that exists; what is
/// accepted encodes and decodes to itself.
pub fn description(text: &str) {
    let options = LoadOptions { read_images: false, ..LoadOptions::default() };
    match load_text(text, Path::new("fuzz.toml"), &options) {
        Ok(system) => {
            let decoded = system.description.encode().and_then(|bytes| crate::description::System::decode(&bytes));
            assert_eq!(decoded.as_ref(), Ok(&system.description));
            assert!(!system.summary().is_empty() && !system.to_json().is_empty());
        }
        Err(report) => check(&report, text),
    }
}

fn check(report: &Report, text: &str) {
    assert!(!report.diagnostics.is_empty());
    let lines = text.matches('\n').count() + 1;
    for diagnostic in &report.diagnostics {
        assert!(
            diagnostic.line <= lines && !diagnostic.message.is_empty() && !diagnostic.help.is_empty(),
            "{diagnostic}"
        );
    }
    assert!(!report.to_string().is_empty() && !report.to_json().is_empty());
}
