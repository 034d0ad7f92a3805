//! The line that a person types at the prompt: editing, recall and completion.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

/// What a key did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Nothing to show.
    Nothing,
    /// Show this text (echo of a plain key).
    Echo(String),
    /// Draw the whole line anew.
    Redraw,
    /// A line was entered.
    Enter(String),
    /// The line was given up.
    Cancel,
    /// The person asks to complete the line.
    Complete,
}

/// A line being edited. The cursor is always at its end.
#[derive(Clone, Debug, Default)]
pub struct LineEditor {
    line: String,
    recalled: VecDeque<String>,
    position: usize,
    escape: u8,
    last_was_cr: bool,
}

impl LineEditor {
    const MAX_LINE: usize = 200;
    const MAX_RECALL: usize = 32;

    /// The line so far.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// Begins with a line that was being typed before.
    pub fn resume(&mut self, line: &str) {
        self.line = line.chars().filter(char::is_ascii).take(Self::MAX_LINE).collect();
    }

    /// Takes a byte from the keyboard. Only ASCII is taken: every command and name is.
    pub fn key(&mut self, byte: u8) -> Edit {
        let after_cr = core::mem::replace(&mut self.last_was_cr, byte == b'\r');
        if self.escape > 0 {
            return self.in_escape(byte);
        }
        match byte {
            b'\n' if after_cr => Edit::Nothing,
            b'\r' | b'\n' => self.enter(),
            0x08 | 0x7f => match self.line.pop() {
                Some(_) => Edit::Echo(String::from("\x08 \x08")),
                None => Edit::Nothing,
            },
            b'\t' => Edit::Complete,
            0x03 => {
                self.line.clear();
                self.position = 0;
                Edit::Cancel
            }
            0x15 => {
                self.line.clear();
                Edit::Redraw
            }
            0x17 => {
                let kept = self.line.trim_end().rfind(' ').map_or(0, |at| at + 1);
                self.line.truncate(kept);
                Edit::Redraw
            }
            0x0c | 0x12 => Edit::Redraw,
            0x10 => self.recall(1),
            0x0e => self.recall(-1),
            0x1b => {
                self.escape = 1;
                Edit::Nothing
            }
            0x20..=0x7e if self.line.len() < Self::MAX_LINE => {
                self.line.push(char::from(byte));
                Edit::Echo(String::from(char::from(byte)))
            }
            _ => Edit::Nothing,
        }
    }

    /// Completes the last word from `words`: as far as all that begin so agree. Returns the candidates if there is
    /// more than one and nothing could be added.
    pub fn complete<'a>(&mut self, words: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
        let start = self.line.rfind(' ').map_or(0, |at| at + 1);
        let typed = self.line.get(start..).unwrap_or_default();
        let candidates: Vec<&str> = words.filter(|word| word.starts_with(typed)).collect();
        let Some(first) = candidates.first() else { return Vec::new() };
        let mut common = *first;
        for word in &candidates {
            let same = common.bytes().zip(word.bytes()).take_while(|(a, b)| a == b).count();
            common = common.get(..same).unwrap_or_default();
        }
        let grows = common.len() > typed.len();
        let addition = String::from(common.get(typed.len()..).unwrap_or_default());
        self.line.push_str(&addition);
        if candidates.len() == 1 {
            self.line.push(' ');
            return Vec::new();
        }
        if grows { Vec::new() } else { candidates }
    }

    fn enter(&mut self) -> Edit {
        let line = core::mem::take(&mut self.line);
        if !line.trim().is_empty() && self.recalled.front() != Some(&line) {
            self.recalled.push_front(line.clone());
            self.recalled.truncate(Self::MAX_RECALL);
        }
        self.position = 0;
        Edit::Enter(line)
    }

    fn in_escape(&mut self, byte: u8) -> Edit {
        match (self.escape, byte) {
            (1, b'[' | b'O') => {
                self.escape = 2;
                Edit::Nothing
            }
            (2, b'0'..=b'9' | b';') => Edit::Nothing,
            (2, b'A') => {
                self.escape = 0;
                self.recall(1)
            }
            (2, b'B') => {
                self.escape = 0;
                self.recall(-1)
            }
            _ => {
                self.escape = 0;
                Edit::Nothing
            }
        }
    }

    fn recall(&mut self, step: isize) -> Edit {
        let position = self.position.saturating_add_signed(step).min(self.recalled.len());
        self.position = position;
        self.line = match position.checked_sub(1) {
            Some(index) => self.recalled.get(index).cloned().unwrap_or_default(),
            None => String::new(),
        };
        Edit::Redraw
    }
}

#[cfg(test)]
mod tests {
    use super::{Edit, LineEditor};
    use alloc::string::String;
    use proptest::prelude::*;

    fn typed(editor: &mut LineEditor, bytes: &[u8]) -> Edit {
        bytes.iter().map(|&byte| editor.key(byte)).last().unwrap_or(Edit::Nothing)
    }

    #[test]
    fn edits_enters_and_recalls() {
        let mut editor = LineEditor::default();
        assert_eq!(typed(&mut editor, b"lisx\x7ft\r"), Edit::Enter(String::from("list")));
        assert_eq!(editor.key(b'\n'), Edit::Nothing);
        assert_eq!(typed(&mut editor, b"info web\x17"), Edit::Redraw);
        assert_eq!(editor.line(), "info ");
        typed(&mut editor, b"\x15\x1b[A");
        assert_eq!(editor.line(), "list");
        typed(&mut editor, b"\x1b[B");
        assert_eq!(editor.line(), "");
        assert_eq!(typed(&mut editor, b"abc\x03"), Edit::Cancel);
    }

    #[test]
    fn completes_as_far_as_it_is_sure() {
        let mut editor = LineEditor::default();
        let words = ["pause", "create", "console"];
        typed(&mut editor, b"p");
        assert!(editor.complete(words.into_iter()).is_empty());
        assert_eq!(editor.line(), "pause ");
        typed(&mut editor, b"\x15c");
        assert_eq!(editor.complete(words.into_iter()), ["create", "console"]);
        typed(&mut editor, b"zz");
        assert!(editor.complete(words.into_iter()).is_empty());
        assert_eq!(editor.line(), "czz");
    }

    proptest! {
        #[test]
        fn no_keys_break_it(keys in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut editor = LineEditor::default();
            for key in keys {
                if editor.key(key) == Edit::Complete {
                    editor.complete(["list", "log"].into_iter());
                }
                prop_assert!(editor.line().len() <= LineEditor::MAX_LINE + 8 && editor.line().is_ascii());
            }
        }
    }
}
