//! Descriptions with mistakes: each file in `fixtures` holds one, is named by it, and has beside it, in a file
//! `.expected`, exactly what the user is told. With `BLESS=1` in the environment the expected texts are written anew.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kernels;

use portico_ctl::{LoadOptions, load};
use std::path::{Path, PathBuf};

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new("tests/fixtures");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files
}

#[test]
fn each_mistake_is_explained() {
    let kernels = kernels::Kernels::new();
    let resolver = kernels.resolver();
    let options = LoadOptions { resolver: Some(&resolver), ..LoadOptions::default() };
    let files = fixtures();
    let mut wrong = Vec::new();
    for file in &files {
        let found = match load(file, &options) {
            Ok(_) => String::from("accepted\n"),
            Err(report) => format!("{report}\n").replace("tests/fixtures/", ""),
        };
        let expected_file = file.with_extension("expected");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&expected_file, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&expected_file).unwrap_or_default();
        if found != expected {
            wrong.push(format!("{}:\n  expected: {expected}  found:    {found}", file.display()));
        }
    }
    assert!(files.len() > 60, "only {} fixtures found", files.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_mistake_is_accepted_and_most_fixtures_have_one_mistake() {
    for file in fixtures() {
        let expected = std::fs::read_to_string(file.with_extension("expected")).unwrap();
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        assert_ne!(expected, "accepted\n", "{name}");
        if !name.starts_with("several-") {
            assert_eq!(expected.lines().count(), 1, "{name}: {expected}");
        }
    }
}
