//! The last lines of something, in a bounded number of bytes.

use alloc::collections::VecDeque;
use alloc::string::String;

/// Keeps the newest lines whose total length stays within a limit.
#[derive(Clone, Debug)]
pub struct History {
    lines: VecDeque<String>,
    bytes: usize,
    limit_bytes: usize,
    /// Number that the oldest kept line has, counted from the first line ever.
    first: u64,
}

impl History {
    /// Bytes that a line costs beside its own.
    const OVERHEAD: usize = 32;

    /// An empty history of at most `limit_bytes`.
    pub fn new(limit_bytes: usize) -> Self {
        Self { lines: VecDeque::new(), bytes: 0, limit_bytes, first: 0 }
    }

    /// Adds a line and drops the oldest ones for which no room is left.
    pub fn push(&mut self, line: String) {
        self.bytes = self.bytes.saturating_add(line.len()).saturating_add(Self::OVERHEAD);
        self.lines.push_back(line);
        while self.bytes > self.limit_bytes && self.lines.len() > 1 {
            if let Some(dropped) = self.lines.pop_front() {
                self.bytes = self.bytes.saturating_sub(dropped.len() + Self::OVERHEAD);
                self.first = self.first.saturating_add(1);
            }
        }
    }

    /// Number that the next line will have.
    pub fn next(&self) -> u64 {
        self.first.saturating_add(self.lines.len() as u64)
    }

    /// Kept lines from number `from` on; and how many of those asked for are no longer kept.
    pub fn since(&self, from: u64) -> (u64, impl Iterator<Item = &str>) {
        let lost = self.first.saturating_sub(from);
        let skip = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        (lost, self.lines.iter().skip(skip).map(String::as_str))
    }

    /// The last `count` kept lines.
    pub fn last(&self, count: usize) -> impl Iterator<Item = &str> {
        self.lines.iter().skip(self.lines.len().saturating_sub(count)).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::History;
    use alloc::format;
    use alloc::vec::Vec;

    #[test]
    fn keeps_the_newest_and_counts_the_lost() {
        let mut history = History::new(10 * (2 + History::OVERHEAD));
        for n in 0..25 {
            history.push(format!("{n:02}"));
        }
        assert_eq!(history.next(), 25);
        assert_eq!(history.last(2).collect::<Vec<_>>(), ["23", "24"]);
        let (lost, lines) = history.since(10);
        assert_eq!((lost, lines.count()), (5, 10));
        let (lost, lines) = history.since(23);
        assert_eq!((lost, lines.collect::<Vec<_>>()), (0, ["23", "24"].into()));
        assert_eq!(history.since(99).1.count(), 0);
    }

    #[test]
    fn a_line_longer_than_the_limit_is_kept_alone() {
        let mut history = History::new(10);
        history.push("a".repeat(100));
        history.push("b".repeat(100));
        assert_eq!(history.last(9).collect::<Vec<_>>(), ["b".repeat(100)]);
    }
}
