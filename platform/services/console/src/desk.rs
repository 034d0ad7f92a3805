//! The desk: everything that must outlive an instance of the service, and how it changes.
//!
//! All words that change together stand in one *state*, of which the desk has two; a word of the desk says which of them holds. A commit writes the
//! other one, whole, and lets it hold by one store: so it happens or it does not, at whichever instruction an instance ends. Words that
//! others read (indices of a guest's rings and of the box) or that are too many for a state (those of the guests' histories) follow the state: they are
//! stored after it holds, and again by the next instance. A state has room for those of one guest, so a commit is about one guest at most.
//! Bytes of rings are written before, behind their index, where they mean nothing yet.
//!
//! *Rejected*: a journal of the words that change. It was written, stored and forgotten one by one, which cost ten times as much.
//!
//! Bytes leave the output ring one by one: `SENDING` runs ahead of `SENT` while some are given to the UART, and `SENT` moves behind each of them. If an
//! instance ended in between, nobody knows whether the next byte has left; see [`Desk::recover`].

use crate::history::Ring;
use crate::layout::{self, ENTRY_BYTES, TABLE};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering, compiler_fence};
use portico_abi::channel::console;
use portico_sdk::window::Window;

/// Bytes of the FIFOs that most UARTs have.
const FIFO: usize = 16;
/// Bytes that are copied from the output ring at once.
const PIECE: usize = 256;
/// Words of a state.
const WORDS: usize = layout::STATE_BYTES / 4;
/// Words that follow the state: of the box, and of its guest.
const LETTERS: u32 = bit(layout::INBOX) | bit(layout::OUTBOX);
const OF_GUEST: u32 = bit(layout::HEAD) | bit(layout::OPEN) | bit(layout::TAIL) | bit(layout::INPUT);

const _: () = assert!(WORDS <= 32, "`changed` has so many bits");

const fn bit(at: usize) -> u32 {
    1 << (at / 4)
}

/// A word that only commits change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// At an offset of the state.
    Desk(usize),
    /// Bytes ever put into the history of a guest.
    Head(usize),
    /// Bytes of a guest's last line in its history, as long as that has no end.
    Open(usize),
    /// `tail` of a guest's output.
    Tail(usize),
    /// `head` of a guest's input.
    Input(usize),
}

impl Word {
    /// Where it is in a state.
    const fn at(self) -> usize {
        match self {
            Word::Desk(at) => at,
            Word::Head(_) => layout::HEAD,
            Word::Open(_) => layout::OPEN,
            Word::Tail(_) => layout::TAIL,
            Word::Input(_) => layout::INPUT,
        }
    }

    /// The guest whose it is.
    const fn source(self) -> Option<usize> {
        match self {
            Word::Desk(_) => None,
            Word::Head(source) | Word::Open(source) | Word::Tail(source) | Word::Input(source) => Some(source),
        }
    }
}

/// A state, which is copied by pairs of words.
#[derive(Clone, Copy, Debug)]
#[repr(align(8))]
struct State([u32; WORDS]);

impl State {
    fn at(&self, at: usize) -> u32 {
        self.0.get(at / 4).copied().unwrap_or(0)
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
    /// The state as it will be after the commit, and a bit for each word that it changes.
    state: State,
    changed: u32,
    /// `HOLDS`.
    holds: u32,
    /// `SENT`.
    sent: u32,
    /// Memory for bytes on their way to the terminal.
    piece: Vec<u8>,
}

impl Desk {
    /// Takes the desk and the box. `None` if a window is too small.
    pub fn new(desk: Window, letters: Window) -> Option<Desk> {
        desk.part(0, layout::DESK_BYTES)?;
        letters.part(0, layout::BOX_BYTES)?;
        let out = Ring::new(desk, layout::OUT, layout::OUT_BYTES)?;
        let log = Ring::new(desk, layout::LOG, layout::LOG_BYTES)?;
        let word = |at: usize| load(desk.word(at));
        let (holds, sent) = (word(layout::HOLDS) & 1, word(layout::SENT));
        let state = State(core::array::from_fn(|index| word(state_at(holds) + 4 * index)));
        let piece = vec![0; PIECE];
        Some(Desk { desk, letters, places: Vec::new(), out, log, state, changed: 0, holds, sent, piece })
    }

    /// The window of the box.
    pub fn letters(&self) -> Window {
        self.letters
    }

    /// Kind of a guest as the manager's table says: 0 for nobody.
    pub fn kind(&self, source: usize) -> u32 {
        if source < layout::MAX_SOURCES { load(self.entry(source, layout::ENTRY_KIND)) } else { 0 }
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
        let Some(magic) = self.desk.word(layout::MAGIC) else { return (false, b"") };
        if magic.load(Ordering::Acquire) != layout::MAGIC_VALUE {
            magic.store(layout::MAGIC_VALUE, Ordering::Release);
            return (false, b"");
        }
        self.follow(LETTERS | OF_GUEST);
        if load(self.desk.word(layout::SENDING)) == self.sent {
            return (true, b"");
        }
        let is_drawn = is_lines && self.out.byte(self.sent) != b'\n';
        if is_drawn {
            let oldest = self.get(Word::Desk(layout::OUT_HEAD)).wrapping_sub(layout::OUT_BYTES);
            let mut start = self.sent;
            while start != oldest && start != 0 && self.out.byte(start.wrapping_sub(1)) != b'\n' {
                start = start.wrapping_sub(1);
            }
            self.sent = start;
            store(self.desk.word(layout::SENT), start);
        }
        store(self.desk.word(layout::SENDING), self.sent);
        (true, if is_drawn { b"\r\x1b[K" } else { b"" })
    }

    /// A word, as it will be after the commit.
    #[inline]
    pub fn get(&self, word: Word) -> u32 {
        match word.source() {
            Some(source) if !self.is_about(source) => load(self.follower(word)),
            _ => self.state.at(word.at()),
        }
    }

    /// Sets a word with the next commit. What was set of another guest is committed before.
    #[inline]
    pub fn set(&mut self, word: Word, value: u32) {
        if let Some(source) = word.source()
            && !self.is_about(source)
        {
            self.turn_to(source);
        }
        if let Some(old) = self.state.0.get_mut(word.at() / 4) {
            self.changed |= u32::from(*old != value) << (word.at() / 4);
            *old = value;
        }
    }

    /// Makes everything true that was set, at once.
    pub fn commit(&mut self) {
        if self.changed == 0 {
            return;
        }
        let changed = core::mem::take(&mut self.changed);
        let next = self.holds ^ 1;
        let pair = |at: usize| u64::from(self.state.at(8 * at)) | u64::from(self.state.at(8 * at + 4)) << 32;
        let _ = self.desk.store_words::<{ WORDS / 2 }>(state_at(next), core::array::from_fn(pair));
        store(self.desk.word(layout::HOLDS), next);
        self.holds = next;
        // What follows is not stored before.
        compiler_fence(Ordering::SeqCst);
        self.follow(changed);
        // The other state is not written before.
        compiler_fence(Ordering::SeqCst);
    }

    /// Stores what follows the state, of the words in `changed`.
    fn follow(&self, changed: u32) {
        if changed & LETTERS != 0 {
            store(self.letters.word(console::OUT_TAIL), self.state.at(layout::INBOX));
            store(self.letters.word(console::IN_HEAD), self.state.at(layout::OUTBOX));
        }
        if changed & OF_GUEST != 0
            && let Some(source) = (self.state.at(layout::SOURCE) as usize).checked_sub(1)
        {
            store(self.entry(source, layout::ENTRY_HEAD), self.state.at(layout::HEAD));
            store(self.entry(source, layout::ENTRY_OPEN), self.state.at(layout::OPEN));
            if let Some(console) = self.console(source) {
                store(console.word(console::OUT_TAIL), self.state.at(layout::TAIL));
                store(console.word(console::IN_HEAD), self.state.at(layout::INPUT));
            }
        }
    }

    fn is_about(&self, source: usize) -> bool {
        self.state.at(layout::SOURCE) as usize == source + 1
    }

    /// Takes the words of a guest into the state.
    #[cold]
    fn turn_to(&mut self, source: usize) {
        if self.changed & OF_GUEST != 0 {
            self.commit();
        }
        for word in [Word::Head(source), Word::Open(source), Word::Tail(source), Word::Input(source)] {
            let value = load(self.follower(word));
            if let Some(slot) = self.state.0.get_mut(word.at() / 4) {
                *slot = value;
            }
        }
        if let Some(slot) = self.state.0.get_mut(layout::SOURCE / 4) {
            *slot = source as u32 + 1;
        }
    }

    /// Where a word of a guest stands for the time in which the state is about another.
    fn follower(&self, word: Word) -> Option<&AtomicU32> {
        match word {
            Word::Desk(_) => None,
            Word::Head(source) => self.entry(source, layout::ENTRY_HEAD),
            Word::Open(source) => self.entry(source, layout::ENTRY_OPEN),
            Word::Tail(source) => self.console(source)?.word(console::OUT_TAIL),
            Word::Input(source) => self.console(source)?.word(console::IN_HEAD),
        }
    }

    /// The history of a guest.
    #[inline]
    pub fn history(&self, source: usize) -> Option<&Ring> {
        self.places.get(source).and_then(Option::as_ref).map(|places| &places.history)
    }

    fn entry(&self, source: usize, at: usize) -> Option<&AtomicU32> {
        self.desk.word(TABLE + source * ENTRY_BYTES + at)
    }

    fn console(&self, source: usize) -> Option<&Window> {
        self.places.get(source).and_then(Option::as_ref).map(|places| &places.console)
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
        let first = self.sent;
        // The other index may be anything.
        let end = first.wrapping_add(self.waiting().min(limit.min(layout::OUT_BYTES as usize) as u32));
        let mut sent = first;
        let mut has_room = true;
        while sent != end && has_room {
            let length = (end.wrapping_sub(sent) as usize).min(PIECE);
            let mut piece = self.piece.get_mut(..length).unwrap_or_default();
            self.out.get(sent, piece);
            while !piece.is_empty() {
                let (now, later) = piece.split_at_mut(room().min(piece.len()));
                has_room = !now.is_empty();
                if !has_room {
                    break;
                }
                // An instance ends between two instructions, and what it stored before is there: nothing but the compiler must keep the order.
                sending.store(sent.wrapping_add(now.len() as u32), Ordering::Relaxed);
                compiler_fence(Ordering::SeqCst);
                let mut one = |&byte: &u8| {
                    put(byte);
                    compiler_fence(Ordering::SeqCst);
                    sent = sent.wrapping_add(1);
                    done.store(sent, Ordering::Relaxed);
                    compiler_fence(Ordering::SeqCst);
                };
                // So many at once as a UART takes when it is empty: without a loop's instructions between them.
                let (full, rest) = now.as_chunks::<FIFO>();
                full.iter().for_each(|bytes| bytes.iter().for_each(&mut one));
                rest.iter().for_each(one);
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
}

/// Where a state is in the desk.
const fn state_at(number: u32) -> usize {
    layout::STATES + (number & 1) as usize * layout::STATE_BYTES
}

fn load(word: Option<&AtomicU32>) -> u32 {
    word.map_or(0, |word| word.load(Ordering::Acquire))
}

fn store(word: Option<&AtomicU32>, value: u32) {
    // Release: no earlier store is made after this one.
    if let Some(word) = word {
        word.store(value, Ordering::Release);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Desk, Word};
    use crate::layout;
    use portico_abi::channel::console;
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

    const FOCUS: Word = Word::Desk(layout::FOCUS);
    const INBOX: Word = Word::Desk(layout::INBOX);

    fn taken(letters: &Window) -> u32 {
        super::load(letters.word(console::OUT_TAIL))
    }

    #[test]
    fn a_commit_happens_once_or_not_at_all() {
        let (window, letters) = desk();
        let mut desk = Desk::new(window, letters).expect("windows");
        assert_eq!(desk.recover(true), (false, b"".as_slice()));
        desk.set(FOCUS, 3);
        desk.set(INBOX, 9);
        assert_eq!((desk.get(INBOX), taken(&letters)), (9, 0));
        drop(desk);
        let mut desk = Desk::new(window, letters).expect("windows");
        assert!(desk.recover(true).0);
        assert_eq!((desk.get(FOCUS), desk.get(INBOX), taken(&letters)), (0, 0, 0));
        for round in 3..6 {
            desk.set(FOCUS, round);
            desk.set(INBOX, 9 * round);
            desk.commit();
            assert_eq!(taken(&letters), 9 * round);
            // As if the instance had ended before that was stored.
            super::store(letters.word(console::OUT_TAIL), 0);
            desk = Desk::new(window, letters).expect("windows");
            desk.recover(true);
            assert_eq!((desk.get(FOCUS), desk.get(INBOX), taken(&letters)), (round, 9 * round, 9 * round));
        }
    }

    /// Wherever an instance ends in a commit, all of it is true or nothing of it, words of the guest among them.
    #[test]
    fn a_state_holds_whole() {
        let (window, letters) = desk();
        let (console, history) = (memory(console::WINDOW_BYTES), memory(layout::HISTORY_BYTES));
        let open = || {
            let mut desk = Desk::new(window, letters).expect("windows");
            for source in 0..2 {
                desk.add(source, console, history).expect("windows");
            }
            desk.recover(true);
            desk
        };
        let mut desk = open();
        for (source, value) in [(0, 5), (1, 6), (0, 7)] {
            desk.set(Word::Head(source), value);
            desk.set(Word::Tail(source), value + 1);
            desk.set(FOCUS, value);
            desk.commit();
        }
        assert_eq!([0, 1].map(|source| desk.get(Word::Head(source))), [7, 6]);
        // A commit that had not come to the store that makes it hold.
        desk.set(Word::Head(0), 99);
        desk.set(FOCUS, 99);
        let other = super::state_at(desk.holds ^ 1);
        super::store(window.word(other + layout::FOCUS), 99);
        let desk = open();
        assert_eq!((desk.get(FOCUS), desk.get(Word::Head(0)), desk.get(Word::Head(1))), (7, 7, 6));
        // One that had not come further.
        super::store(window.word(other + layout::SOURCE), 2);
        super::store(window.word(other + layout::HEAD), 98);
        super::store(window.word(other + layout::TAIL), 97);
        super::store(window.word(layout::HOLDS), desk.holds ^ 1);
        let desk = open();
        assert_eq!((desk.get(FOCUS), desk.get(Word::Head(0)), desk.get(Word::Head(1))), (99, 7, 98));
        assert_eq!(super::load(console.word(console::OUT_TAIL)), 97);
        assert_eq!(super::load(desk.entry(1, layout::ENTRY_HEAD)), 98);
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
        super::store(window.word(layout::SENDING), 9);
        let mut desk = Desk::new(window, letters).expect("windows");
        assert_eq!(desk.recover(true), (true, b"\r\x1b[K".as_slice()));
        let mut rest = Vec::new();
        desk.send(99, || 1, |byte| rest.push(byte));
        assert_eq!(rest, b"two\r\n");
    }
}
