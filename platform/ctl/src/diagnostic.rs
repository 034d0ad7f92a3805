//! What is wrong with a system description, where, and what to write instead.

use serde::Serialize;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The file, as the caller named it.
    pub file: PathBuf,
    /// Line, from 1; 0 if it is about the whole file.
    pub line: usize,
    /// Column in characters, from 1; 0 if it is about the whole file.
    pub column: usize,
    /// What it is about: `guest "web"`.
    pub subject: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        if let Some(subject) = &self.subject {
            write!(f, " {subject}:")?;
        }
        write!(f, " {}: {}", self.message, self.help)
    }
}

/// Every mistake of a description, in order of lines. Never empty when it is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Report {
    /// The mistakes.
    pub diagnostics: Vec<Diagnostic>,
}

impl Report {
    /// The report as a JSON list.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_else(|_| String::from("[]"))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.diagnostics.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

/// A range of bytes of the description.
pub(crate) type Span = Range<usize>;

/// Collects the mistakes found in one text.
pub(crate) struct Sink<'a> {
    file: &'a Path,
    text: &'a str,
    found: Vec<Diagnostic>,
}

impl<'a> Sink<'a> {
    pub(crate) fn new(file: &'a Path, text: &'a str) -> Self {
        Sink { file, text, found: Vec::new() }
    }

    /// Records a mistake at `span`; an empty `subject` means none.
    pub(crate) fn add(&mut self, span: &Span, subject: &str, message: impl Into<String>, help: impl Into<String>) {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        self.found.push(Diagnostic {
            file: self.file.to_path_buf(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            subject: (!subject.is_empty()).then(|| subject.to_owned()),
            message: message.into(),
            help: help.into(),
        });
    }

    /// Records a mistake about the file as a whole.
    pub(crate) fn add_whole(&mut self, message: impl Into<String>, help: impl Into<String>) {
        self.found.push(Diagnostic {
            file: self.file.to_path_buf(),
            line: 0,
            column: 0,
            subject: None,
            message: message.into(),
            help: help.into(),
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(crate) fn into_report(mut self) -> Report {
        self.found.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
        Report { diagnostics: self.found }
    }
}

/// The candidate that `word` is most likely a misspelling of.
pub(crate) fn closest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let word = word.to_lowercase();
    let distance_to = |candidate: &'c str| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), candidate);
    let (distance, best) = candidates.into_iter().map(distance_to).min_by_key(|(distance, _)| *distance)?;
    (distance <= (best.len().max(word.len()) / 3).clamp(1, 3)).then_some(best)
}

/// `a`, `b` or `c`, each in backquotes.
pub(crate) fn one_of<'c>(words: impl IntoIterator<Item = &'c str>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}
