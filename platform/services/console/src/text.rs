//! Guest bytes made fit for a terminal that shows several guests.
//!
//! A line of a guest is printed after its name. It must not be able to look like another guest's or the
//! manager's, so everything that moves the cursor or changes the terminal's state is taken out: control characters,
//! escape sequences (whole), C1 controls, and bytes that are not UTF-8.

use alloc::vec::Vec;
use portico_sdk::text::printable;

/// Splits a guest's bytes into clean lines, which are UTF-8.
#[derive(Clone, Debug, Default)]
pub struct LineCleaner {
    line: Vec<u8>,
    utf8: PartialChar,
    escape: Escape,
}

/// A character of which not all bytes have come.
#[derive(Clone, Copy, Debug, Default)]
struct PartialChar {
    bytes: [u8; 4],
    have: usize,
    need: usize,
}

/// Where in an escape sequence we are. (ECMA-48, "Control sequences")
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// After ESC.
    Start,
    /// In a control sequence, until its final byte.
    Control,
    /// In an operating-system command or other string, until BEL or ST. So many bytes at most.
    Text(u8),
}

impl LineCleaner {
    /// Longest line, in bytes; a longer one is cut into several.
    pub const MAX_LINE: usize = 512;

    /// Takes a byte. Returns a line when one is complete.
    pub fn push(&mut self, byte: u8) -> Option<Vec<u8>> {
        match self.escape {
            Escape::None => {}
            Escape::Start => {
                self.escape = match byte {
                    b'[' => Escape::Control,
                    b']' | b'P' | b'X' | b'^' | b'_' => Escape::Text(255),
                    // An intermediate byte: the sequence has one more.
                    0x20..=0x2f => Escape::Start,
                    _ => Escape::None,
                };
                if byte != b'\n' {
                    return None;
                }
            }
            Escape::Control => {
                if matches!(byte, 0x40..=0x7e) || byte < 0x20 {
                    self.escape = Escape::None;
                }
                if byte != b'\n' {
                    return None;
                }
            }
            Escape::Text(left) => {
                self.escape = match (byte, left) {
                    (0x07 | b'\n', _) | (_, 0) => Escape::None,
                    (0x1b, _) => Escape::Start,
                    (_, left) => Escape::Text(left - 1),
                };
                if byte != b'\n' {
                    return None;
                }
            }
        }
        match byte {
            b'\n' => {
                self.escape = Escape::None;
                self.end_char();
                return Some(core::mem::take(&mut self.line));
            }
            0x1b => self.escape = Escape::Start,
            b'\t' => self.line.push(b' '),
            0x20..=0x7e => {
                self.end_char();
                self.line.push(byte);
            }
            0x80..=0xff => self.multibyte(byte),
            // Carriage return, bell, backspace and the like.
            _ => {}
        }
        (self.line.len() >= Self::MAX_LINE).then(|| core::mem::take(&mut self.line))
    }

    /// The line that `bytes` begin with, if it is plain and whole, and nothing comes before it: its length, and that with its end. Then there is nothing to
    /// clean.
    pub fn whole_line(&self, bytes: &[u8]) -> Option<(usize, usize)> {
        if self.escape != Escape::None || self.utf8.have > 0 || self.has_partial() {
            return None;
        }
        let length = printable(bytes);
        let end = match bytes.get(length..)? {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            _ => return None,
        };
        (length < Self::MAX_LINE).then_some((length, length + end))
    }

    /// Takes the plain characters that `bytes` begin with, for as long as they do not complete a line. Returns how many it took.
    pub fn take_plain(&mut self, bytes: &[u8]) -> usize {
        if self.escape != Escape::None || self.utf8.have > 0 {
            return 0;
        }
        let room = (Self::MAX_LINE - 1).saturating_sub(self.line.len());
        let bytes = bytes.get(..room).unwrap_or(bytes);
        let count = printable(bytes);
        self.line.extend_from_slice(bytes.get(..count).unwrap_or_default());
        count
    }

    /// Takes the memory of a line that is no longer needed for the next one.
    pub fn reuse(&mut self, mut line: Vec<u8>) {
        if self.line.capacity() == 0 {
            line.clear();
            self.line = line;
        }
    }

    /// True if a line was begun.
    pub fn has_partial(&self) -> bool {
        !self.line.is_empty()
    }

    /// The line that was begun, if any.
    pub fn flush(&mut self) -> Option<Vec<u8>> {
        self.end_char();
        self.has_partial().then(|| core::mem::take(&mut self.line))
    }

    /// What of the line is complete so far; it goes on.
    pub fn take(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.line)
    }

    fn put(&mut self, character: char) {
        let character = if character.is_control() { char::REPLACEMENT_CHARACTER } else { character };
        self.line.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    }

    fn multibyte(&mut self, byte: u8) {
        let need = match byte {
            0x80..=0xbf => 0,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 1,
        };
        if need > 0 {
            self.end_char();
            self.utf8 = PartialChar { bytes: [byte, 0, 0, 0], have: 1, need };
        } else if self.utf8.have > 0 && self.utf8.have < self.utf8.need {
            if let Some(slot) = self.utf8.bytes.get_mut(self.utf8.have) {
                *slot = byte;
            }
            self.utf8.have += 1;
        } else {
            self.put(char::REPLACEMENT_CHARACTER);
            return;
        }
        if self.utf8.have == self.utf8.need {
            self.end_char();
        }
    }

    /// Puts the character whose bytes were collected; a replacement if they are not one.
    fn end_char(&mut self) {
        let PartialChar { bytes, have, .. } = core::mem::take(&mut self.utf8);
        if have == 0 {
            return;
        }
        let decoded = bytes.get(..have).and_then(|bytes| core::str::from_utf8(bytes).ok());
        let character = decoded.and_then(|text| text.chars().next());
        self.put(character.unwrap_or(char::REPLACEMENT_CHARACTER));
    }
}

#[cfg(test)]
mod tests {
    use super::LineCleaner;
    use alloc::string::String;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn lines(bytes: &[u8]) -> Vec<String> {
        let mut cleaner = LineCleaner::default();
        let mut all: Vec<Vec<u8>> = bytes.iter().filter_map(|&byte| cleaner.push(byte)).collect();
        all.extend(cleaner.flush());
        all.into_iter().map(|line| String::from_utf8(line).expect("UTF-8")).collect()
    }

    proptest! {
        /// Taking plain characters at once comes to the same as taking them one by one.
        #[test]
        fn pieces_make_no_difference(bytes in proptest::collection::vec(prop_oneof![4 => 0x20_u8..0x7f, 1 => any::<u8>(), 1 => Just(b'\n')], 0..2000)) {
            let mut cleaner = LineCleaner::default();
            let mut all = Vec::new();
            let mut at = 0;
            while at < bytes.len() {
                if let Some((length, end)) = cleaner.whole_line(&bytes[at..]) {
                    all.push(String::from_utf8(bytes[at..][..length].to_vec()).expect("UTF-8"));
                    at += end;
                    continue;
                }
                at += cleaner.take_plain(&bytes[at..]);
                if let Some(&byte) = bytes.get(at) {
                    if let Some(line) = cleaner.push(byte) {
                        all.push(String::from_utf8(line.clone()).expect("UTF-8"));
                        cleaner.reuse(line);
                    }
                    at += 1;
                }
            }
            all.extend(cleaner.flush().map(|line| String::from_utf8(line).expect("UTF-8")));
            prop_assert_eq!(all, lines(&bytes));
        }
    }

    #[test]
    fn plain_text_and_unicode_pass() {
        assert_eq!(lines(b"hello\r\nworld\n"), ["hello", "world"]);
        assert_eq!(lines("gr\u{fc}\u{df}e \u{1f980}\n".as_bytes()), ["gr\u{fc}\u{df}e \u{1f980}"]);
        assert_eq!(lines(b"no newline"), ["no newline"]);
        assert_eq!(lines(b"\n\n"), ["", ""]);
    }

    #[test]
    fn nothing_can_move_the_cursor_or_speak_for_another() {
        assert_eq!(lines(b"a\r[db] lie\n"), ["a[db] lie"]);
        assert_eq!(lines(b"\x1b[2J\x1b[31mred\x1b[0m\n"), ["red"]);
        assert_eq!(lines(b"\x1b]0;title\x07x\n"), ["x"]);
        assert_eq!(lines(b"\x1b]0;title\x1b\\x\n"), ["x"]);
        assert_eq!(lines(b"\xc2\x9b2Jx\n"), ["\u{fffd}2Jx"]);
        assert_eq!(lines(b"\x9b\xff\xc3(\n"), ["\u{fffd}\u{fffd}\u{fffd}("]);
        assert_eq!(lines(b"\x1b[\nnext\n"), ["", "next"]);
    }

    #[test]
    fn an_endless_line_is_cut() {
        let all = lines(&[b'x'; 3 * LineCleaner::MAX_LINE]);
        assert_eq!(all.len(), 3);
    }

    proptest! {
        #[test]
        fn output_has_no_control_characters(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            for line in lines(&bytes) {
                prop_assert!(line.len() <= LineCleaner::MAX_LINE + 8);
                prop_assert!(!line.chars().any(char::is_control));
            }
        }
    }
}
