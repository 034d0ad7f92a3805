//! Doc comments out of the ABI's sources.

/// A `pub const` and its doc comment, joined to one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Documented {
    /// Name.
    pub name: String,
    /// Words.
    pub doc: String,
}

/// The constants of a module of a source file; `module` empty for those at its top level.
pub fn constants(source: &str, module: &str) -> Vec<Documented> {
    let indent = if module.is_empty() { "" } else { "    " };
    let begin = format!("pub mod {module} {{");
    let mut inside = module.is_empty();
    let mut doc = Vec::new();
    let mut found = Vec::new();
    for line in source.lines() {
        if !module.is_empty() && line == begin {
            inside = true;
            continue;
        }
        if inside && !module.is_empty() && line == "}" {
            break;
        }
        let Some(line) = line.strip_prefix(indent).filter(|line| inside && !line.starts_with(' ')) else { continue };
        if let Some(words) = line.strip_prefix("///") {
            doc.push(words.trim().to_owned());
        } else if let Some(rest) = line.strip_prefix("pub const ") {
            if let Some((name, _)) = rest.split_once(':').filter(|(name, _)| !name.contains('(')) {
                found.push(Documented { name: name.to_owned(), doc: plain(&doc.join(" ")) });
            }
            doc.clear();
        } else {
            doc.clear();
        }
    }
    found
}

/// Rust's links as plain words: [`crate::record::DomainStatus`] becomes `DomainStatus`.
pub fn plain(doc: &str) -> String {
    let mut out = String::new();
    let mut rest = doc;
    while let Some((before, after)) = rest.split_once("[`") {
        let Some((link, after)) = after.split_once("`]") else { break };
        out.push_str(before);
        out.push('`');
        out.push_str(link.rsplit("::").next().unwrap_or(link));
        out.push('`');
        rest = after;
    }
    out.push_str(rest);
    out.replace('\n', " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{constants, plain};

    #[test]
    fn reads_constants_of_a_module() {
        let source = "/// Top.\npub const A: u64 = 1;\npub mod m {\n    /// One\n    /// two.\n    pub const B: u64 = 1 << 3;\n    pub const fn f(a: u64) {}\n}\n";
        assert_eq!(constants(source, "").len(), 1);
        let inner = constants(source, "m");
        assert_eq!((inner.len(), inner[0].name.as_str(), inner[0].doc.as_str()), (1, "B", "One two."));
        assert_eq!(plain("see [`a::B`] and\n [`C`]."), "see `B` and `C`.");
    }
}
