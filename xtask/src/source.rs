//! Counts lines of code: no blanks, no comments, no tests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Counts the lines of code of all sources in a folder, or of one file.
///
/// # Errors
/// If a file cannot be read.
pub fn count(path: &Path) -> Result<usize> {
    let mut files = Vec::new();
    collect(path, &mut files)?;
    let mut total = 0;
    let mut tests = BTreeSet::new();
    let mut counted = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let code = if is_rust(&file) {
            let stripped = without_tests(&without_comments(&text));
            tests.extend(stripped.modules.into_iter().flat_map(|name| module_paths(&file, &name)));
            stripped.code
        } else {
            without_comments(&text)
        };
        counted.push((file, code.lines().filter(|line| !line.trim().is_empty()).count()));
    }
    for (file, lines) in counted {
        if !tests.iter().any(|test| file.starts_with(test)) {
            total += lines;
        }
    }
    Ok(total)
}

/// Finds the sources below `path`: Rust, assembly, linker scripts.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_dir() {
        let mut entries: Vec<_> = std::fs::read_dir(path)?.flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for entry in entries {
            collect(&entry, files)?;
        }
    } else if path.extension().is_some_and(|extension| ["rs", "S", "ld"].iter().any(|known| extension == *known)) {
        files.push(path.to_path_buf());
    }
    Ok(())
}

/// Says whether a file is Rust.
fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}

/// Returns where the module `name`, declared in `file`, may be: its file and its folder.
fn module_paths(file: &Path, name: &str) -> [PathBuf; 2] {
    let parent = file.parent().unwrap_or(Path::new(""));
    let own = file.file_stem().unwrap_or_default();
    let folder =
        if ["mod", "lib", "main"].iter().any(|root| own == *root) { parent.to_path_buf() } else { parent.join(own) };
    [folder.join(name).with_extension("rs"), folder.join(name)]
}

/// Blanks comments, and makes each line of a string a quotation mark; line ends stay.
fn without_comments(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut result = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let length = if rest.starts_with(b"//") {
            rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            block_comment(rest)
        } else if let Some(length) = string(rest, at.checked_sub(1).map(|before| bytes[before])) {
            // Something must stay of each line, or it would count as blank.
            let text = String::from_utf8_lossy(&rest[..length]);
            let lines: Vec<_> = text.lines().map(|line| if line.trim().is_empty() { "" } else { "\"" }).collect();
            result += &lines.join("\n");
            at += length;
            continue;
        } else {
            result.push(char::from(rest[0]));
            at += 1;
            continue;
        };
        result.extend(rest[..length].iter().filter(|byte| **byte == b'\n').map(|_| '\n'));
        at += length;
    }
    result
}

/// Returns the length of the nested block comment at the start.
fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// Returns the length of the string or character literal at the start, if there is one.
fn string(rest: &[u8], before: Option<u8>) -> Option<usize> {
    match rest[0] {
        b'"' => Some(quoted(rest)),
        b'r' if !before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_') => {
            let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
            if rest.get(1 + hashes) != Some(&b'"') {
                return None;
            }
            let end: Vec<u8> = [&b"\""[..], &vec![b'#'; hashes]].concat();
            let body = 2 + hashes;
            let found = rest[body..].windows(end.len()).position(|window| window == end);
            Some(found.map_or(rest.len(), |found| body + found + end.len()))
        }
        // A character, not a lifetime.
        b'\'' if rest.get(1) == Some(&b'\\') => {
            let end = rest.iter().skip(3).position(|byte| *byte == b'\'')?;
            Some(end + 4)
        }
        b'\'' if rest.get(2) == Some(&b'\'') => Some(3),
        _ => None,
    }
}

/// Returns the length of the quoted string at the start.
fn quoted(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Code without what is compiled for tests only.
struct Stripped {
    code: String,
    /// Modules in files of their own that are compiled for tests only.
    modules: Vec<String>,
}

/// Removes every item under `#[cfg(test)]` from code whose comments and strings are blank.
fn without_tests(code: &str) -> Stripped {
    const MARK: &str = "#[cfg(test)]";
    let mut result = Stripped { code: String::new(), modules: Vec::new() };
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        result.code += &rest[..at];
        rest = &rest[at + MARK.len()..];
        let (mut depth, mut end) = (0usize, rest.len());
        for (index, byte) in rest.bytes().enumerate() {
            match byte {
                b'{' => depth += 1,
                b'}' if depth <= 1 => {
                    end = index + 1;
                    break;
                }
                b'}' => depth -= 1,
                b';' if depth == 0 => {
                    end = index + 1;
                    break;
                }
                _ => {}
            }
        }
        let item = rest[..end].trim().trim_start_matches("pub").trim();
        if let Some(name) = item.strip_prefix("mod ").and_then(|item| item.strip_suffix(';')) {
            result.modules.push(name.trim().to_string());
        }
        rest = &rest[end..];
    }
    result.code += rest;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> usize {
        without_tests(&without_comments(text)).code.lines().filter(|line| !line.trim().is_empty()).count()
    }

    #[test]
    fn comments_and_blanks_do_not_count() {
        assert_eq!(lines("//! doc\n\nfn a() {} // why\n/* a\n /* b */\n*/\nfn b() {}\n"), 2);
    }

    #[test]
    fn strings_hide_what_looks_like_comments() {
        assert_eq!(lines("let a = \"// no \\\" /* \";\nlet b = r#\"/* \" \"#;\nlet c = '\"';\nfn d<'a>() {}\n"), 4);
    }

    #[test]
    fn lines_of_a_string_count() {
        assert_eq!(lines("asm!(r#\"\n nop\n\n nop // why\n \"#);\n"), 4);
    }

    #[test]
    fn tests_do_not_count() {
        assert_eq!(lines("fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() { '}'; }\n}\nfn c() {}\n"), 2);
        let stripped = without_tests("#[cfg(test)]\nmod simulation;\nfn a() {}\n");
        assert_eq!(stripped.modules, ["simulation"]);
        assert_eq!(module_paths(Path::new("q/mod.rs"), "t")[0], Path::new("q/t.rs"));
        assert_eq!(module_paths(Path::new("q/r.rs"), "t")[0], Path::new("q/r/t.rs"));
    }
}
