//! The desk: everything that must outlive an instance of the service, and the journal by which it changes.
//!
//! Bytes of rings are written behind their index, where they mean nothing yet. Then the words that change together, indices of
//! guests' rings among them, are written to the journal, the journal is made valid by one store, the words are stored, and the
//! journal is made invalid. An instance that finds a valid journal stores the words again. So each commit happens once
//! or not at all, at whichever instruction the last instance ended.
//!
//! Bytes leave the output ring one by one: `SENDING` runs ahead of `SENT` while one is given to the UART. If an instance ended just there,
//! nobody knows whether the byte has left; see [`Desk::recover`].

use crate::history::Ring;
use crate::layout::{self, ENTRY_BYTES, TABLE};
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering, compiler_fence};
use portico_abi::channel::console;
use portico_sdk::window::Window;

/// Bytes that are copied from the output ring at once.
const PIECE: usize = 64;
/// Words at the beginning of the desk that the service alone writes: a copy of them is kept.
const OWN_WORDS: usize = layout::LINE / 4;

const _: () = assert!(OWN_WORDS == 32, "as many as `changed` has bits");

/// A word that only commits change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// At an offset of the desk.
    Desk(usize),
    /// `tail` of a guest's output.
    Tail(usize),
    /// `head` of a guest's input.
    Input(usize),
    /// `tail` of what the manager says.
    Inbox,
    /// `head` of what the manager is told.
    Outbox,
}

impl Word {
    /// In the entry of a guest.
    pub const fn entry(source: usize, at: usize) -> Word {
        Word::Desk(TABLE + source * ENTRY_BYTES + at)
    }

    const fn encode(self) -> u32 {
        match self {
            Word::Desk(at) => at as u32,
            Word::Tail(source) => 1 << 28 | source as u32,
            Word::Input(source) => 2 << 28 | source as u32,
            Word::Inbox => 3 << 28,
            Word::Outbox => 4 << 28,
        }
    }

    const fn decode(raw: u32) -> Word {
        let low = (raw & 0x0fff_ffff) as usize;
        match raw >> 28 {
            1 => Word::Tail(low),
            2 => Word::Input(low),
            3 => Word::Inbox,
            4 => Word::Outbox,
            _ => Word::Desk(low),
        }
    }
}

/// The windows of a guest.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// Its console.
    pub console: Window,
    /// Its history.
    pub history: Ring,
}

/// The desk with all windows whose words it changes.
#[derive(Debug)]
pub struct Desk {
    desk: Window,
    letters: Window,
    /// Windows by guest.
    places: Vec<Option<Places>>,
    /// What waits for the terminal.
    pub out: Ring,
    /// Lines of all.
    pub log: Ring,
    /// The words at the beginning, as they will be after the commit, and a bit for each that it changes.
    own: [u32; OWN_WORDS],
    changed: u32,
    /// Other words that the commit changes.
    changes: Vec<(Word, u32)>,
    /// `SENT`.
    sent: u32,
}

impl Desk {
    /// Takes the desk and the box. `None` if a window is too small.
    pub fn new(desk: Window, letters: Window) -> Option<Desk> {
        desk.part(0, layout::DESK_BYTES)?;
        letters.part(0, layout::BOX_BYTES)?;
        let out = Ring::new(desk, layout::OUT, layout::OUT_BYTES)?;
        let log = Ring::new(desk, layout::LOG, layout::LOG_BYTES)?;
        let (places, changes) = (Vec::new(), Vec::new());
        let mut desk = Desk { desk, letters, places, out, log, own: [0; OWN_WORDS], changed: 0, changes, sent: 0 };
        desk.read_own();
        Some(desk)
    }

    /// Takes the copy of the words at the beginning anew. Nothing may have been set.
    fn read_own(&mut self) {
        self.own = core::array::from_fn(|index| self.load(Word::Desk(4 * index)));
        self.sent = self.load(Word::Desk(layout::SENT));
    }

    /// The window of the box.
    pub fn letters(&self) -> Window {
        self.letters
    }

    /// Kind of a guest as the manager's table says: 0 for nobody.
    pub fn kind(&self, source: usize) -> u32 {
        if source < layout::MAX_SOURCES { self.load(Word::entry(source, layout::ENTRY_KIND)) } else { 0 }
    }

    /// Name of a guest as the manager's table says.
    pub fn name(&self, source: usize) -> String {
        let mut bytes = [0; layout::NAME_BYTES];
        let _ = self.desk.read(TABLE + source * ENTRY_BYTES, &mut bytes);
        let name = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    }

    /// Adds the windows of a guest. `None` if one is too small.
    pub fn add(&mut self, source: usize, console: Window, history: Window) -> Option<()> {
        console.part(0, console::WINDOW_BYTES)?;
        let history = Ring::new(history, 0, layout::HISTORY_BYTES as u32)?;
        if self.places.len() <= source {
            self.places.resize(source + 1, None);
        }
        *self.places.get_mut(source)? = Some(Places { console, history });
        Some(())
    }

    /// The windows of a guest.
    pub fn places(&self, source: usize) -> Option<Places> {
        self.places.get(source).copied().flatten()
    }

    /// Ends what the last instance had begun. To be called when the windows of all guests were added. Returns whether there was one, and
    /// what is to be sent before everything else.
    ///
    /// If nobody knows whether the last byte has left: a line feed is sent again; of another byte of a line the whole line is drawn again, over itself,
    /// if `is_lines`; else the byte is sent again.
    pub fn recover(&mut self, is_lines: bool) -> (bool, &'static [u8]) {
        let found = self.end_commit(is_lines);
        self.read_own();
        found
    }

    fn end_commit(&self, is_lines: bool) -> (bool, &'static [u8]) {
        if self.get(Word::Desk(layout::MAGIC)) != layout::MAGIC_VALUE {
            self.store(Word::Desk(layout::MAGIC), layout::MAGIC_VALUE);
            return (false, b"");
        }
        if self.load(Word::Desk(layout::JOURNAL)) == 1 {
            let count = self.load(Word::Desk(layout::JOURNAL_COUNT)) as usize;
            for entry in 0..count.min(layout::JOURNAL_MAX) {
                let at = layout::JOURNAL_ENTRIES + 8 * entry;
                self.store(Word::decode(self.load(Word::Desk(at))), self.load(Word::Desk(at + 4)));
            }
            self.store(Word::Desk(layout::JOURNAL), 0);
        }
        let sent = self.load(Word::Desk(layout::SENT));
        if self.load(Word::Desk(layout::SENDING)) == sent {
            return (true, b"");
        }
        self.store(Word::Desk(layout::SENDING), sent);
        if !is_lines || self.out.byte(sent) == b'\n' {
            return (true, b"");
        }
        let oldest = self.load(Word::Desk(layout::OUT_HEAD)).wrapping_sub(layout::OUT_BYTES);
        let mut start = sent;
        while start != oldest && start != 0 && self.out.byte(start.wrapping_sub(1)) != b'\n' {
            start = start.wrapping_sub(1);
        }
        self.store(Word::Desk(layout::SENDING), start);
        self.store(Word::Desk(layout::SENT), start);
        (true, b"\r\x1b[K")
    }

    /// A word, as it will be after the commit.
    #[inline]
    pub fn get(&self, word: Word) -> u32 {
        match word {
            Word::Desk(at) if at < layout::LINE => self.own.get(at / 4).copied().unwrap_or(0),
            _ => self.changes.iter().find(|(of, _)| *of == word).map_or_else(|| self.load(word), |(_, value)| *value),
        }
    }

    /// Sets a word with the next commit.
    #[inline]
    pub fn set(&mut self, word: Word, value: u32) {
        if let Word::Desk(at) = word
            && let Some(own) = self.own.get_mut(at / 4)
        {
            self.changed |= u32::from(*own != value) << (at / 4);
            *own = value;
            return;
        }
        match self.changes.iter_mut().find(|(of, _)| *of == word) {
            Some((_, old)) => *old = value,
            None => self.changes.push((word, value)),
        }
    }

    /// Makes everything true that was set, at once.
    pub fn commit(&mut self) {
        let mut changed = core::mem::take(&mut self.changed);
        while changed != 0 {
            let index = changed.trailing_zeros() as usize;
            changed &= changed - 1;
            self.changes.push((Word::Desk(4 * index), self.own.get(index).copied().unwrap_or(0)));
        }
        if self.changes.len() > 1 {
            for (entry, (word, value)) in self.changes.iter().enumerate().take(layout::JOURNAL_MAX) {
                let entry = layout::JOURNAL_ENTRIES + 8 * entry;
                let _ = self.desk.store(entry, u64::from(word.encode()) | u64::from(*value) << 32);
            }
            self.store(Word::Desk(layout::JOURNAL_COUNT), self.changes.len() as u32);
            self.store(Word::Desk(layout::JOURNAL), 1);
        }
        for (word, value) in &self.changes {
            self.store(*word, *value);
        }
        if self.changes.len() > 1 {
            self.store(Word::Desk(layout::JOURNAL), 0);
            // The next entries are not written before.
            compiler_fence(Ordering::SeqCst);
        }
        self.changes.clear();
    }

    /// Bytes that wait for the terminal, those of the commit in preparation included.
    #[inline]
    pub fn waiting(&self) -> u32 {
        self.get(Word::Desk(layout::OUT_HEAD)).wrapping_sub(self.sent)
    }

    /// Puts bytes for the terminal. The caller looked for room; what does not fit is dropped.
    pub fn print(&mut self, bytes: &[u8]) {
        let head = self.get(Word::Desk(layout::OUT_HEAD));
        let room = layout::OUT_BYTES.saturating_sub(self.waiting()) as usize;
        let bytes = bytes.get(..room).unwrap_or(bytes);
        self.out.put(head, bytes);
        self.set(Word::Desk(layout::OUT_HEAD), head.wrapping_add(bytes.len() as u32));
    }

    /// Gives the terminal what it takes, at most `limit` bytes, one by one: `put` is called for no more than `room` has said there is room for. Returns
    /// how many.
    pub fn send(&mut self, limit: usize, mut room: impl FnMut() -> usize, mut put: impl FnMut(u8)) -> usize {
        let words = self.desk.word(layout::SENDING).zip(self.desk.word(layout::SENT));
        let Some((sending, done)) = words else { return 0 };
        let head = self.load(Word::Desk(layout::OUT_HEAD));
        let first = self.sent;
        // The other index may be anything.
        let end = first.wrapping_add(head.wrapping_sub(first).min(limit.min(layout::OUT_BYTES as usize) as u32));
        let mut sent = first;
        let mut has_room = true;
        while sent != end && has_room {
            let mut piece = [0; PIECE];
            let mut piece = piece.get_mut(..(end.wrapping_sub(sent) as usize).min(PIECE)).unwrap_or_default();
            self.out.get(sent, piece);
            while !piece.is_empty() {
                let (now, later) = piece.split_at_mut(room().min(piece.len()));
                has_room = !now.is_empty();
                if !has_room {
                    break;
                }
                for &byte in &*now {
                    sent = sent.wrapping_add(1);
                    sending.store(sent, Ordering::Release);
                    compiler_fence(Ordering::SeqCst);
                    put(byte);
                    compiler_fence(Ordering::SeqCst);
                    done.store(sent, Ordering::Release);
                }
                piece = later;
            }
        }
        self.sent = sent;
        sent.wrapping_sub(first) as usize
    }

    /// Keeps the line that is being typed.
    pub fn keep_line(&mut self, line: &str) {
        let bytes = line.as_bytes();
        let bytes = bytes.get(..layout::LINE_BYTES).unwrap_or(bytes);
        let _ = self.desk.write(layout::LINE, bytes);
        self.set(Word::Desk(layout::LINE_LEN), bytes.len() as u32);
    }

    /// The line that was being typed.
    pub fn kept_line(&self) -> String {
        let mut bytes = [0; layout::LINE_BYTES];
        let _ = self.desk.read(layout::LINE, &mut bytes);
        let len = self.get(Word::Desk(layout::LINE_LEN)) as usize;
        String::from_utf8_lossy(bytes.get(..len).unwrap_or_default()).into_owned()
    }

    fn word(&self, word: Word) -> Option<&AtomicU32> {
        let console = |source: usize| self.places.get(source).and_then(Option::as_ref).map(|places| &places.console);
        match word {
            Word::Desk(at) => self.desk.word(at),
            Word::Tail(source) => console(source)?.word(console::OUT_TAIL),
            Word::Input(source) => console(source)?.word(console::IN_HEAD),
            Word::Inbox => self.letters.word(console::OUT_TAIL),
            Word::Outbox => self.letters.word(console::IN_HEAD),
        }
    }

    fn load(&self, word: Word) -> u32 {
        self.word(word).map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn store(&self, word: Word, value: u32) {
        // Release: no earlier store is made after this one.
        if let Some(word) = self.word(word) {
            word.store(value, Ordering::Release);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Desk, Word};
    use crate::layout;
    use portico_sdk::window::Window;

    /// Memory that stays for ever, as a window.
    pub(crate) fn memory(bytes: usize) -> Window {
        let memory: &'static mut [u64] = Vec::leak(vec![0_u64; bytes.div_ceil(8)]);
        // SAFETY: the memory is leaked and used as a window only.
        unsafe { Window::new(memory.as_mut_ptr().expose_provenance() as u64, bytes) }.expect("aligned")
    }

    pub(crate) fn desk() -> (Window, Window) {
        (memory(layout::DESK_BYTES), memory(layout::BOX_BYTES))
    }

    #[test]
    fn a_commit_happens_once_or_not_at_all() {
        let (window, letters) = desk();
        let mut desk = Desk::new(window, letters).expect("windows");
        assert_eq!(desk.recover(true), (false, b"".as_slice()));
        desk.set(Word::Desk(layout::FOCUS), 3);
        desk.set(Word::Inbox, 9);
        assert_eq!(desk.get(Word::Inbox), 9);
        drop(desk);
        let mut desk = Desk::new(window, letters).expect("windows");
        assert!(desk.recover(true).0);
        assert_eq!((desk.get(Word::Desk(layout::FOCUS)), desk.get(Word::Inbox)), (0, 0));
        desk.set(Word::Desk(layout::FOCUS), 3);
        desk.set(Word::Inbox, 9);
        desk.commit();
        // As if the instance had ended before the words were stored.
        desk.store(Word::Desk(layout::JOURNAL), 1);
        desk.store(Word::Inbox, 0);
        let mut desk = Desk::new(window, letters).expect("windows");
        desk.recover(true);
        assert_eq!((desk.get(Word::Desk(layout::FOCUS)), desk.get(Word::Inbox)), (3, 9));
    }

    #[test]
    fn what_was_sent_is_not_sent_again() {
        let (window, letters) = desk();
        let mut terminal = Vec::new();
        for stop in 1..12 {
            let mut desk = Desk::new(window, letters).expect("windows");
            let (is_next, first) = desk.recover(true);
            assert_eq!((is_next, first), (stop > 1, b"".as_slice()));
            if !is_next {
                desk.print(b"one\r\ntwo\r\nthree\r\n");
                desk.commit();
            }
            assert_eq!(desk.send(1, || 0, |_| unreachable!("there is no room")), 0);
            desk.send(2, || 7, |byte| terminal.push(byte));
        }
        assert_eq!(terminal, b"one\r\ntwo\r\nthree\r\n");
    }

    #[test]
    fn a_line_is_drawn_again_if_nobody_knows() {
        let (window, letters) = desk();
        let mut desk = Desk::new(window, letters).expect("windows");
        desk.recover(true);
        desk.print(b"one\r\ntwo\r\n");
        desk.commit();
        assert_eq!(desk.send(7, || 3, |_| {}), 7);
        desk.store(Word::Desk(layout::SENDING), 8);
        let mut desk = Desk::new(window, letters).expect("windows");
        assert_eq!(desk.recover(true), (true, b"\r\x1b[K".as_slice()));
        let mut rest = Vec::new();
        desk.send(99, || 1, |byte| rest.push(byte));
        assert_eq!(rest, b"two\r\n");
    }
}
