//! Debian's package sources: adds the backports suite by copying one of the machine's own, so that no host is
//! named here and a machine behind a mirror stays behind it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Where apt looks for sources.
const SOURCES: &str = "/etc/apt";

/// A file to write so that apt knows another suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSource {
    /// The file.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
}

/// What to do so that apt knows `<codename>-backports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backports {
    /// It knows already.
    Known,
    /// Write this file.
    Add(NewSource),
}

/// Returns the machine's Debian release, as (`12`, `bookworm`); `None` on anything else.
pub fn debian_release() -> Option<(u32, String)> {
    parse_release(&std::fs::read_to_string("/etc/os-release").ok()?)
}

/// Reads a release from the text of `os-release`.
fn parse_release(text: &str) -> Option<(u32, String)> {
    let field = |name: &str| {
        text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix('=')?.trim_matches('"').to_string()))
    };
    (field("ID")? == "debian").then_some(())?;
    Some((field("VERSION_ID")?.parse().ok()?, field("VERSION_CODENAME")?))
}

/// Plans how to make the backports suite known.
///
/// # Errors
/// If the machine has no source of `codename` to copy.
pub fn backports(codename: &str) -> Result<Backports> {
    plan(&read_sources(Path::new(SOURCES)), codename)
}

/// Reads all source files below `folder`, with the deb822 ones first.
fn read_sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let parts = std::fs::read_dir(folder.join("sources.list.d")).into_iter().flatten().flatten();
    let mut paths: Vec<_> = parts.map(|entry| entry.path()).collect();
    paths.push(folder.join("sources.list"));
    let has = |path: &Path, extension: &str| path.extension().is_some_and(|found| found == extension);
    paths.retain(|path| has(path, "sources") || has(path, "list"));
    paths.sort_by_key(|path| (has(path, "list"), path.clone()));
    paths.into_iter().filter_map(|path| Some((path.clone(), std::fs::read_to_string(path).ok()?))).collect()
}

/// Plans from the texts of the source files.
fn plan(files: &[(PathBuf, String)], codename: &str) -> Result<Backports> {
    let suite = format!("{codename}-backports");
    let mut copy = None;
    for (path, text) in files {
        let deb822 = path.extension().is_some_and(|extension| extension == "sources");
        let entries = if deb822 { stanzas(text) } else { one_liners(text) };
        for entry in entries {
            if entry.suites.contains(&suite) {
                return Ok(Backports::Known);
            }
            if copy.is_none() && entry.suites.iter().any(|name| name == codename) {
                let extension = if deb822 { "sources" } else { "list" };
                let path = Path::new(SOURCES).join(format!("sources.list.d/portico-backports.{extension}"));
                copy = Some(NewSource { path, text: (entry.with_suite)(&entry.text, &suite) });
            }
        }
    }
    copy.map(Backports::Add).with_context(|| format!("apt has no source of {codename} from which to derive {suite}"))
}

/// A source, in either syntax.
struct Entry {
    /// Its suites.
    suites: Vec<String>,
    /// Itself.
    text: String,
    /// Writes it again with another suite and the component `main`.
    with_suite: fn(&str, &str) -> String,
}

/// Splits a deb822 file into its enabled binary sources.
fn stanzas(text: &str) -> Vec<Entry> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut blocks = vec![String::new()];
    for line in lines {
        if line.trim().is_empty() {
            blocks.push(String::new());
        } else if let Some(block) = blocks.last_mut() {
            block.push_str(line);
            block.push('\n');
        }
    }
    let field = |block: &str, name: &str| {
        block.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_string())
        })
    };
    blocks
        .into_iter()
        .filter(|block| field(block, "Types").is_some_and(|types| types.split_whitespace().any(|kind| kind == "deb")))
        .filter(|block| field(block, "Enabled").is_none_or(|enabled| enabled != "no"))
        .map(|block| Entry {
            suites: words(&field(&block, "Suites").unwrap_or_default()),
            text: block,
            with_suite: stanza_with_suite,
        })
        .collect()
}

/// Writes a deb822 source with another suite.
fn stanza_with_suite(text: &str, suite: &str) -> String {
    let mut result = String::new();
    for line in text.lines() {
        match line.split_once(':').map(|(key, _)| key.to_ascii_lowercase()).as_deref() {
            Some("suites") => result += &format!("Suites: {suite}\n"),
            Some("components") => result += "Components: main\n",
            Some("types") => result += "Types: deb\n",
            _ => result += &format!("{line}\n"),
        }
    }
    result
}

/// Splits a one-line-style file into its binary sources.
fn one_liners(text: &str) -> Vec<Entry> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines
        .filter(|line| line.starts_with("deb ") || line.starts_with("deb\t"))
        .filter_map(|line| {
            let (_, suite, _) = split_line(line)?;
            Some(Entry { suites: vec![suite], text: line.to_string(), with_suite: line_with_suite })
        })
        .collect()
}

/// Splits a source line into (all before the suite, suite, components).
fn split_line(line: &str) -> Option<(String, String, Vec<String>)> {
    let rest = line.strip_prefix("deb")?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(inner) => {
            let (options, rest) = inner.split_once(']')?;
            (format!("[{options}] "), rest)
        }
        None => (String::new(), rest),
    };
    let mut parts = words(rest).into_iter();
    let (uri, suite) = (parts.next()?, parts.next()?);
    Some((format!("deb {options}{uri}"), suite, parts.collect()))
}

/// Writes a source line with another suite.
fn line_with_suite(text: &str, suite: &str) -> String {
    split_line(text).map_or_else(String::new, |(head, _, _)| format!("{head} {suite} main\n"))
}

/// Splits at white space.
fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(name: &str, text: &str) -> Vec<(PathBuf, String)> {
        vec![(PathBuf::from(name), text.to_string())]
    }

    #[test]
    fn derives_a_deb822_source() {
        let text = "# by hand\nTypes: deb deb-src\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\n\
                    Components: main contrib\nSigned-By: /usr/share/keyrings/k.gpg\n\n\
                    Types: deb\nURIs: http://mirror.test/security\nSuites: bookworm-security\nComponents: main\n";
        let Backports::Add(source) = plan(&files("debian.sources", text), "bookworm").unwrap() else {
            panic!("known already?")
        };
        assert_eq!(source.path, Path::new("/etc/apt/sources.list.d/portico-backports.sources"));
        assert_eq!(
            source.text,
            "Types: deb\nURIs: http://mirror.test/debian\nSuites: bookworm-backports\nComponents: main\n\
             Signed-By: /usr/share/keyrings/k.gpg\n"
        );
    }

    #[test]
    fn derives_a_source_line_with_its_options() {
        let text = "deb-src http://mirror.test/debian bookworm main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://mirror.test/debian bookworm main contrib # ours\n";
        let Backports::Add(source) = plan(&files("sources.list", text), "bookworm").unwrap() else {
            panic!("known already?")
        };
        assert_eq!(source.path, Path::new("/etc/apt/sources.list.d/portico-backports.list"));
        assert_eq!(
            source.text,
            "deb [arch=amd64 signed-by=/k.gpg] http://mirror.test/debian bookworm-backports main\n"
        );
    }

    #[test]
    fn sees_backports_that_are_there_but_not_disabled_ones() {
        let known =
            "deb http://mirror.test/debian bookworm main\ndeb http://mirror.test/debian bookworm-backports main\n";
        assert_eq!(plan(&files("sources.list", known), "bookworm").unwrap(), Backports::Known);
        let disabled =
            "deb http://mirror.test/debian bookworm main\n# deb http://mirror.test/debian bookworm-backports main\n";
        assert!(matches!(plan(&files("sources.list", disabled), "bookworm").unwrap(), Backports::Add(_)));
        let disabled =
            "Enabled: no\nTypes: deb\nURIs: u\nSuites: bookworm-backports\n\nTypes: deb\nURIs: u\nSuites: bookworm\n";
        assert!(matches!(plan(&files("a.sources", disabled), "bookworm").unwrap(), Backports::Add(_)));
    }

    #[test]
    fn refuses_without_a_source_to_copy() {
        assert!(plan(&files("sources.list", "deb http://mirror.test/x stable main\n"), "bookworm").is_err());
    }

    #[test]
    fn reads_the_release() {
        let text = "ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n";
        assert_eq!(parse_release(text), Some((12, "bookworm".into())));
        assert_eq!(parse_release("ID=other\nVERSION_ID=12\nVERSION_CODENAME=x\n"), None);
    }
}
