//! What guests write, and what is typed to them.
//!
//! A guest's ring is read ahead up to the end of a line, privately; its `tail` moves with the commit that prints and keeps the line. So what
//! an instance had read and not printed is read again by the next one.

use alloc::string::String;
use core::sync::atomic::Ordering;

use portico_abi::channel::console;
use portico_sdk::window::Window;

use crate::desk::Word;
use crate::history::Ring;
use crate::layout;
use crate::mux::{GUESTS_BELOW, Mux};
use crate::text::LineCleaner;

/// A line that was begun is shown after this time, in nanoseconds.
const PARTIAL_NS: u64 = 100_000_000;
/// Bytes taken from one guest before another has its turn.
const PER_TURN: usize = 1024;
/// Bytes copied at once: as lines they must not fill what a commit may overwrite of the kept ones.
const PIECE: usize = 64;
/// Most bytes that are read ahead without a line in them.
const AHEAD: u32 = 2048;

/// A guest, as its output goes.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) name: String,
    console: Window,
    cleaner: LineCleaner,
    /// What came without its console has lines of its own.
    early: LineCleaner,
    /// `tail` as of the last commit. What stands in the window is not believed.
    tail: u32,
    /// Up to where it was read.
    read: u32,
    partial_since: Option<u64>,
}

impl Source {
    pub(crate) fn new(name: String, console: Window) -> Source {
        let tail = load(&console, console::OUT_TAIL);
        let source = Source {
            name,
            console,
            cleaner: LineCleaner::default(),
            early: LineCleaner::default(),
            tail,
            read: tail,
            partial_since: None,
        };
        if let Some(want) = console.word(console::OUT_WANT) {
            want.store(1, Ordering::Release);
        }
        source
    }

    /// Forgets what was read ahead.
    pub(crate) fn rewind(&mut self) {
        self.read = self.tail;
        self.cleaner = LineCleaner::default();
        self.partial_since = None;
    }

    pub(crate) fn has_output(&self) -> bool {
        load(&self.console, console::OUT_HEAD) != self.read
    }

    pub(crate) fn deadline(&self) -> Option<u64> {
        self.partial_since.map(|since| since.saturating_add(PARTIAL_NS))
    }

    /// `head`, if it makes sense.
    fn head(&self) -> Option<u32> {
        let head = load(&self.console, console::OUT_HEAD);
        let filled = head.wrapping_sub(self.tail);
        (filled as usize <= console::OUT_BYTES && filled >= self.read.wrapping_sub(self.tail)).then_some(head)
    }
}

fn load(window: &Window, at: usize) -> u32 {
    window.word(at).map_or(0, |word| word.load(Ordering::Acquire))
}

impl Mux {
    /// Takes a piece from every guest that has something, beginning behind the one that was last. Returns whether anything was taken.
    pub(crate) fn round(&mut self, now_ns: u64) -> bool {
        let (first, count) = (self.next, self.sources.len());
        let mut is_busy = false;
        for step in 0..count {
            let id = (first + step) % count;
            if !self.source(id).is_some_and(|source| source.has_output()) {
                continue;
            }
            if self.desk.waiting() >= GUESTS_BELOW {
                self.next = id;
                return is_busy;
            }
            is_busy |= self.take_output(id, None, now_ns);
            self.next = (id + 1) % count;
        }
        is_busy
    }

    /// Takes output of a guest, up to index `limit`. Returns whether anything was taken.
    pub(crate) fn take_output(&mut self, id: usize, limit: Option<u32>, now_ns: u64) -> bool {
        let is_raw = self.focus() == Some(id);
        let mut taken = 0;
        while taken < PER_TURN {
            let Some(source) = self.source(id) else { break };
            let Some(head) = source.head() else {
                self.skip_lies(id);
                return true;
            };
            let end = limit.unwrap_or(head);
            let count = end.wrapping_sub(source.read).min(head.wrapping_sub(source.read)) as usize;
            let mut piece = [0; PIECE];
            let bytes = piece.get_mut(..count.min(PIECE)).unwrap_or_default();
            if bytes.is_empty() || self.desk.waiting() >= GUESTS_BELOW {
                break;
            }
            if let Some(ring) = Ring::new(source.console, console::OUT_OFFSET, console::OUT_BYTES as u32) {
                ring.get(source.read, bytes);
            }
            taken += if is_raw { self.pass(id, bytes) } else { self.take_lines(id, bytes, now_ns) };
        }
        taken > 0
    }

    /// Whether everything before index `end` was taken.
    pub(crate) fn has_taken(&self, id: usize, end: u32) -> bool {
        // What is behind, or more than the ring ahead, was taken long ago or was never there.
        let left = |source: &Source| end.wrapping_sub(source.read) as usize;
        self.source(id).is_none_or(|source| !(1..=console::OUT_BYTES).contains(&left(source)))
    }

    /// Ends the line that guest `id` has begun: it is gone. To be committed by the caller.
    pub(crate) fn end_line(&mut self, id: usize) {
        let Some(source) = self.source_mut(id) else { return };
        let (line, early) = (source.cleaner.flush(), source.early.flush());
        source.cleaner = LineCleaner::default();
        source.early = LineCleaner::default();
        source.partial_since = None;
        if line.is_some() || self.desk.get(Word::entry(id, layout::ENTRY_OPEN)) > 0 {
            self.record(id, &line.unwrap_or_default());
        }
        if let Some(early) = early {
            self.record(id, &early);
        }
        self.move_tail(id);
    }

    /// Takes what a guest wrote without its console. To be committed by the caller.
    pub(crate) fn early_output(&mut self, id: usize, bytes: &[u8], now_ns: u64) {
        if self.focus() == Some(id) {
            self.raw(bytes);
        }
        for &byte in bytes {
            let Some(source) = self.source_mut(id) else { return };
            source.partial_since.get_or_insert(now_ns);
            if let Some(line) = source.early.push(byte) {
                self.record(id, &line);
            }
        }
    }

    /// Shows lines that were begun long ago.
    pub(crate) fn tick_sources(&mut self, now_ns: u64) {
        for id in 0..self.sources.len() {
            let is_due = self.source(id).and_then(Source::deadline).is_some_and(|at| now_ns >= at);
            if !is_due || self.desk.waiting() >= GUESTS_BELOW {
                continue;
            }
            let Some(source) = self.source_mut(id) else { continue };
            source.partial_since = None;
            let lines = [source.cleaner.flush(), source.early.flush()];
            for line in lines.into_iter().flatten() {
                self.record(id, &line);
            }
            self.move_tail(id);
            self.commit_output(id);
        }
    }

    /// Gives a guest a byte from the keyboard. To be committed by the caller.
    pub(crate) fn type_to(&mut self, id: usize, byte: u8) {
        let Some(places) = self.desk.places(id) else { return };
        let head = self.desk.get(Word::Input(id));
        let used = head.wrapping_sub(load(&places.console, console::IN_TAIL)) as usize;
        if used == console::IN_BYTES {
            self.raw(b"\x07");
            return;
        }
        if let Some(ring) = Ring::new(places.console, console::IN_OFFSET, console::IN_BYTES as u32) {
            ring.put(head, &[byte]);
        }
        // A guest whose index makes no sense begins anew with this byte.
        let tail = load(&places.console, console::IN_TAIL);
        let next = if used > console::IN_BYTES { tail } else { head.wrapping_add(1) };
        self.desk.set(Word::Input(id), next);
        self.notices.push(id);
    }

    /// Prints and keeps complete lines. Returns how many bytes were taken: the rest waits for room.
    fn take_lines(&mut self, id: usize, bytes: &[u8], now_ns: u64) -> usize {
        let mut count = 0;
        while let Some(rest) = bytes.get(count..).filter(|rest| !rest.is_empty()) {
            let Some(source) = self.source_mut(id) else { return count };
            let plain = source.cleaner.take_plain(rest);
            source.read = source.read.wrapping_add(plain as u32);
            count += plain;
            let mut line = None;
            if let Some(&byte) = bytes.get(count) {
                // It may end a line, for which there must be room.
                if self.desk.waiting() >= GUESTS_BELOW {
                    return count;
                }
                let Some(source) = self.source_mut(id) else { return count };
                source.read = source.read.wrapping_add(1);
                line = source.cleaner.push(byte);
                count += 1;
            }
            let Some(source) = self.source_mut(id) else { return count };
            source.partial_since = source.cleaner.has_partial().then(|| source.partial_since.unwrap_or(now_ns));
            let is_far = source.read.wrapping_sub(source.tail) > AHEAD;
            match line {
                Some(line) => {
                    self.record(id, &line);
                    if let Some(source) = self.source_mut(id) {
                        source.cleaner.reuse(line);
                    }
                }
                None if is_far => self.keep_open(id),
                None => continue,
            }
            self.move_tail(id);
            self.commit_output(id);
        }
        count
    }

    /// Passes bytes of the guest that has the screen, and keeps its lines.
    fn pass(&mut self, id: usize, bytes: &[u8]) -> usize {
        self.raw(bytes);
        for &byte in bytes {
            let Some(source) = self.source_mut(id) else { break };
            source.read = source.read.wrapping_add(1);
            if let Some(line) = source.cleaner.push(byte) {
                self.record(id, &line);
            }
        }
        self.keep_open(id);
        self.move_tail(id);
        self.commit_output(id);
        bytes.len()
    }

    /// Keeps what there is of a line; it goes on.
    fn keep_open(&mut self, id: usize) {
        let Some(text) = self.source_mut(id).map(|source| source.cleaner.take()) else { return };
        let open = self.desk.get(Word::entry(id, layout::ENTRY_OPEN)) as usize + text.len();
        if open >= LineCleaner::MAX_LINE {
            self.record(id, &text);
            return;
        }
        self.append(id, &text);
        self.desk.set(Word::entry(id, layout::ENTRY_OPEN), open as u32);
        if let Some(source) = self.source_mut(id) {
            source.partial_since = None;
        }
    }

    /// Keeps a complete line of a guest and shows it, unless it waits or was shown as it came.
    fn record(&mut self, id: usize, line: &[u8]) {
        let Some(places) = self.desk.places(id) else { return };
        let head = self.desk.get(Word::entry(id, layout::ENTRY_HEAD));
        let open = self.desk.get(Word::entry(id, layout::ENTRY_OPEN)).min(LineCleaner::MAX_LINE as u32);
        let mut named = core::mem::take(&mut self.named);
        named.clear();
        named.push(b'[');
        named.extend_from_slice(self.name(id).as_bytes());
        named.extend_from_slice(b"] ");
        if open > 0 {
            let begun = places.history.copy(head.wrapping_sub(open), head);
            named.extend_from_slice(String::from_utf8_lossy(&begun).as_bytes());
        }
        named.extend_from_slice(line);
        named.push(b'\n');
        // With its end.
        let kept = named.get(named.len() - line.len() - 1..).unwrap_or_default();
        self.append(id, kept);
        self.desk.set(Word::entry(id, layout::ENTRY_OPEN), 0);
        if self.focus().is_none() {
            self.show(named.strip_suffix(b"\n").unwrap_or(&named));
        }
        self.keep(&named);
        self.named = named;
    }

    fn append(&mut self, id: usize, text: &[u8]) {
        let Some(places) = self.desk.places(id) else { return };
        let word = Word::entry(id, layout::ENTRY_HEAD);
        let head = self.desk.get(word);
        places.history.put(head, text);
        self.desk.set(word, head.wrapping_add(text.len() as u32));
    }

    /// What was read is taken, with the next commit.
    fn move_tail(&mut self, id: usize) {
        let Some(source) = self.source_mut(id) else { return };
        source.tail = source.read;
        let tail = source.tail;
        self.desk.set(Word::Tail(id), tail);
    }

    fn commit_output(&mut self, id: usize) {
        self.desk.commit();
        core::sync::atomic::fence(Ordering::SeqCst);
        if self.source(id).is_some_and(|source| load(&source.console, console::OUT_SPACE_WANT) != 0)
            && !self.notices.contains(&id)
        {
            self.notices.push(id);
        }
    }

    /// The guest's index makes no sense: what it wrote is dropped.
    fn skip_lies(&mut self, id: usize) {
        let Some(source) = self.source_mut(id) else { return };
        let head = load(&source.console, console::OUT_HEAD);
        source.tail = head;
        source.rewind();
        self.move_tail(id);
        self.commit_output(id);
    }

    fn source(&self, id: usize) -> Option<&Source> {
        self.sources.get(id).and_then(Option::as_ref)
    }

    fn source_mut(&mut self, id: usize) -> Option<&mut Source> {
        self.sources.get_mut(id).and_then(Option::as_mut)
    }
}
