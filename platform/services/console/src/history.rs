//! Kept lines: bytes in a ring that belongs to the manager, lines ended by a line feed.
//!
//! A ring's index is free-running; who owns the index is the desk. What is written behind it is not part of the ring before
//! the index moves, and overwrites the oldest bytes: so the oldest [`SLACK`] bytes are not read.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use portico_sdk::window::Window;

/// Bytes at the old end that a commit in preparation may overwrite.
const SLACK: u32 = 2048;

/// A ring of bytes in a window.
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    window: Window,
    at: usize,
    size: u32,
}

impl Ring {
    /// The ring of `size` bytes, a power of two, at offset `at`. `None` if it is not inside the window.
    pub fn new(window: Window, at: usize, size: u32) -> Option<Ring> {
        window.part(at, size as usize)?;
        size.is_power_of_two().then_some(Ring { window, at, size })
    }

    /// Puts bytes at an index, not more than the ring has.
    pub fn put(&self, index: u32, bytes: &[u8]) {
        let start = (index & (self.size - 1)) as usize;
        let (first, second) = bytes.split_at(bytes.len().min(self.size as usize - start));
        let _ = self.window.write(self.at + start, first);
        if !second.is_empty() {
            let _ = self.window.write(self.at, second.get(..self.size as usize).unwrap_or(second));
        }
    }

    /// Copies bytes from an index on.
    pub fn get(&self, index: u32, bytes: &mut [u8]) {
        let start = (index & (self.size - 1)) as usize;
        let (first, second) = bytes.split_at_mut(bytes.len().min(self.size as usize - start));
        let _ = self.window.read(self.at + start, first);
        if !second.is_empty() {
            let _ = self.window.read(self.at, second);
        }
    }

    /// The byte at an index.
    pub fn byte(&self, index: u32) -> u8 {
        let mut byte = [0];
        self.get(index, &mut byte);
        byte[0]
    }

    /// Copies `from..to`, at most the ring.
    pub fn copy(&self, from: u32, to: u32) -> Vec<u8> {
        let mut bytes = vec![0; to.wrapping_sub(from).min(self.size) as usize];
        self.get(from, &mut bytes);
        bytes
    }

    /// Index of the first line that is still kept whole and is not before `from`, of a ring whose index is `head`.
    pub fn kept_from(&self, from: u32, head: u32) -> u32 {
        let room = self.size - SLACK;
        if head.wrapping_sub(from) <= room {
            return from;
        }
        let oldest = head.wrapping_sub(room);
        let cut = self.copy(oldest, head).iter().position(|&byte| byte == b'\n');
        oldest.wrapping_add(cut.map_or(0, |at| at as u32 + 1))
    }

    /// Index of the first of the last `count` lines before `head`, and how many there are from there.
    pub fn last(&self, count: usize, head: u32) -> (u32, usize) {
        let from = if head <= self.size - SLACK { 0 } else { self.kept_from(head.wrapping_sub(self.size), head) };
        let bytes = self.copy(from, head);
        let starts: Vec<usize> = core::iter::once(0)
            .chain(bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1))
            .filter(|&at| at < bytes.len())
            .collect();
        let first = starts.len().saturating_sub(count);
        match starts.get(first) {
            Some(&at) => (from.wrapping_add(at as u32), starts.len() - first),
            None => (head, 0),
        }
    }

    /// Lines between two indices.
    pub fn lines(&self, from: u32, to: u32) -> usize {
        self.copy(from, to).iter().filter(|&&byte| byte == b'\n').count()
    }

    /// The line that begins at `at`, and where the next one begins; not beyond `end`.
    pub fn line(&self, at: u32, end: u32) -> (String, u32) {
        let mut line = Vec::new();
        let mut next = at;
        while next != end && line.len() < self.size as usize {
            let mut piece = [0; 64];
            let count = piece.len().min(end.wrapping_sub(next) as usize);
            let piece = piece.get_mut(..count).unwrap_or_default();
            self.get(next, piece);
            if let Some(feed) = piece.iter().position(|&byte| byte == b'\n') {
                line.extend(piece.iter().take(feed));
                next = next.wrapping_add(feed as u32 + 1);
                break;
            }
            line.extend(piece.iter());
            next = next.wrapping_add(count as u32);
        }
        (String::from_utf8_lossy(&line).into_owned(), next)
    }
}

#[cfg(test)]
mod tests {
    use super::{Ring, SLACK};
    use crate::desk::tests::memory;
    use alloc::format;

    #[test]
    fn keeps_the_newest_lines() {
        let ring = Ring::new(memory(8192), 0, 8192).expect("inside");
        let mut head = 0_u32;
        for n in 0..2000 {
            let line = format!("line {n:04}\n");
            ring.put(head, line.as_bytes());
            head += line.len() as u32;
        }
        let (from, count) = ring.last(3, head);
        assert_eq!(count, 3);
        assert_eq!(ring.line(from, head), ("line 1997".into(), from + 10));
        let (from, count) = ring.last(9999, head);
        assert_eq!(count, (8192 - SLACK as usize) / 10);
        assert_eq!(ring.lines(from, head), count);
        assert_eq!(ring.kept_from(0, head), from);
        assert_eq!(ring.kept_from(head, head), head);
        assert_eq!(ring.last(5, 0), (0, 0));
        assert!(Ring::new(memory(64), 0, 128).is_none());
    }
}
