//! What tests came to: how many passed, and which failed.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// How many tests passed and failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Those that failed and are known by name.
    pub names: Vec<String>,
    /// Those that failed, and passed when they ran once more.
    pub unsteady: Vec<String>,
}

impl Outcome {
    /// Counts a step as one test.
    pub fn one(success: bool) -> Self {
        Self { passed: usize::from(success), failed: usize::from(!success), ..Self::default() }
    }

    /// Counts those of `other` as well.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.names.extend(other.names);
        self.unsteady.extend(other.unsteady);
    }

    /// Runs what failed once more by `run`. What passes then is counted as passed, and is unsteady.
    ///
    /// # Errors
    /// As `run`.
    pub fn retry(&mut self, run: impl Fn(&str) -> Result<Self>) -> Result<()> {
        for name in std::mem::take(&mut self.names) {
            let second = run(&name)?;
            if (second.passed, second.failed) == (1, 0) {
                self.passed += 1;
                self.failed -= 1;
                self.unsteady.push(name);
            } else {
                self.names.push(name);
            }
        }
        Ok(())
    }
}

/// Runs a command that is one test.
///
/// # Errors
/// If it cannot be started.
pub fn check(command: &mut Command) -> Result<Outcome> {
    let status = command.status().with_context(|| format!("starting {}", command.get_program().display()))?;
    Ok(Outcome::one(status.success()))
}

/// Runs a command that runs test binaries, and counts their tests.
///
/// # Errors
/// If it cannot be started, or its output not be read.
pub fn tests(command: &mut Command) -> Result<Outcome> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("a command without output")?;
    let mut outcome = Outcome::default();
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        outcome.names.extend(failed_name(&line).map(String::from));
        if let Some((passed, failed)) = counts(&line) {
            outcome.passed += passed;
            outcome.failed += failed;
        }
    }
    let status = child.wait()?;
    if !status.success() && outcome.failed == 0 {
        // It did not build, or a test binary died.
        outcome.failed = 1;
    }
    Ok(outcome)
}

/// Reads the last line of a test binary: `test result: ok. 3 passed; 0 failed; ...`.
fn counts(line: &str) -> Option<(usize, usize)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number =
        |word: &str| counts.split(';').find_map(|part| part.trim().strip_suffix(word)?.trim().parse::<usize>().ok());
    Some((number("passed")?, number("failed")?))
}

/// Reads the line of a test that failed: `test boot::off ... FAILED`.
fn failed_name(line: &str) -> Option<&str> {
    Some(line.strip_prefix("test ")?.strip_suffix("... FAILED")?.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Outcome {
        tests(Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn counts_what_test_binaries_print() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        assert_eq!(counts(line), Some((12, 3)));
        assert_eq!(counts("test a ... ok"), None);
        assert_eq!(failed_name("test boot::off_1    ... FAILED"), Some("boot::off_1"));
        assert_eq!(failed_name("test boot::off_1    ... ok"), None);
    }

    #[test]
    fn a_command_that_dies_is_a_failure() {
        let outcome = sh("echo 'test result: ok. 2 passed; 0 failed;'; exit 1");
        assert_eq!((outcome.passed, outcome.failed), (2, 1));
        let outcome = sh("echo 'test result: FAILED. 2 passed; 5 failed;'; exit 1");
        assert_eq!((outcome.passed, outcome.failed), (2, 5));
    }

    #[test]
    fn a_second_failure_stays_one() {
        let mut outcome = sh(
            "echo 'test a ... FAILED'; echo 'test b ... FAILED'; echo 'test result: FAILED. 1 passed; 2 failed;'; exit 1",
        );
        outcome.retry(|name| Ok(Outcome::one(name == "b"))).unwrap();
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(outcome, Outcome { passed: 2, failed: 1, names: names(&["a"]), unsteady: names(&["b"]) });
        // One that does not run at all has not passed.
        outcome.retry(|_| Ok(Outcome::default())).unwrap();
        assert_eq!((outcome.passed, outcome.failed), (2, 1));
    }
}
