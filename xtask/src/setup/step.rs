//! The steps of an installation, each of which can be printed for a person or taken.

use std::fmt;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::apt::NewSource;

/// A step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Run a command; the first word is the program.
    Run {
        /// The command.
        words: Vec<String>,
        /// Whether only root can.
        root: bool,
    },
    /// Add a source of packages, as root.
    AddSource(NewSource),
    /// Take the first; only if it fails, the others.
    Either {
        /// What is tried.
        first: Box<Step>,
        /// What is done when it fails.
        otherwise: Vec<Step>,
    },
    /// Take them all.
    All(Vec<Step>),
}

impl Step {
    /// Makes a step that runs a command as root.
    pub fn as_root(words: &[&str]) -> Step {
        Step::Run { words: words.iter().map(|word| word.to_string()).collect(), root: true }
    }

    /// Makes a step that runs a command as whoever we are.
    pub fn as_user(words: &[&str]) -> Step {
        Step::Run { words: words.iter().map(|word| word.to_string()).collect(), root: false }
    }

    /// Says whether only root can take it.
    pub fn needs_root(&self) -> bool {
        match self {
            Step::Run { root, .. } => *root,
            Step::AddSource(_) => true,
            Step::Either { first, .. } => first.needs_root(),
            Step::All(steps) => steps.iter().any(Step::needs_root),
        }
    }

    /// Takes it.
    ///
    /// # Errors
    /// If the command fails or the file cannot be written.
    pub fn take(&self) -> Result<()> {
        match self {
            Step::AddSource(source) => {
                std::fs::write(&source.path, &source.text).with_context(|| format!("writing {}", source.path.display()))
            }
            Step::All(steps) => steps.iter().try_for_each(Step::take),
            Step::Either { first, otherwise } => match first.take() {
                Ok(()) => Ok(()),
                Err(error) => {
                    eprintln!("{error:#}; another way:");
                    otherwise.iter().try_for_each(Step::take)
                }
            },
            Step::Run { words, .. } => {
                let (program, arguments) = words.split_first().context("an empty command")?;
                let mut command = Command::new(program);
                command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
                let status = command.status().with_context(|| format!("starting {program}"))?;
                if !status.success() {
                    bail!("`{}` failed", words.join(" "));
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Step {
    /// Writes it as a person would type it into a shell.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Run { words, root } => {
                write!(f, "{}{}", if *root { "sudo " } else { "" }, words.join(" "))
            }
            Step::All(steps) => f.write_str(&join(steps, "\n")),
            Step::Either { first, otherwise } => write!(f, "{first} || {{ {}; }}", join(otherwise, " && ")),
            Step::AddSource(source) => {
                write!(f, "sudo tee {} <<'END'\n{}END", source.path.display(), source.text)
            }
        }
    }
}

/// Writes steps one after the other.
fn join(steps: &[Step], separator: &str) -> String {
    steps.iter().map(Step::to_string).collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_a_person_would_type() {
        let step = Step::as_root(&["apt-get", "update"]);
        assert_eq!(step.to_string(), "sudo apt-get update");
        let source = NewSource { path: "/etc/apt/x.list".into(), text: "deb u s main\n".into() };
        let either = Step::Either { first: Box::new(Step::as_user(&["a", "b"])), otherwise: vec![step.clone(), step] };
        assert_eq!(either.to_string(), "a b || { sudo apt-get update && sudo apt-get update; }");
        assert_eq!(Step::AddSource(source).to_string(), "sudo tee /etc/apt/x.list <<'END'\ndeb u s main\nEND");
    }
}
