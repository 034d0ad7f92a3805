//! What guests write, and what is typed to them.
//!
//! A guest's ring is read ahead up to the end of a line, privately; its `tail` moves with the commit that prints and keeps the line. So what
//! an instance had read and not printed is read again by the next one.
//!
//! A guest that has nothing to say notifies when it has: of whole lines, or of everything while it has the screen. One that writes often is not to:
//! the service looks by itself, until the guest pauses. So a flood costs the guest and the service no notifications.

use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{Ordering, fence};

use portico_abi::channel::console;
use portico_sdk::text::copy;
use portico_sdk::window::Window;

use crate::desk::Word;
use crate::history::Ring;
use crate::layout;
use crate::mux::{ERASE, GUESTS_BELOW, Mux, SHOWN};
use crate::text::LineCleaner;

/// A line that was begun is shown after this time, in nanoseconds.
const PARTIAL_NS: u64 = 100_000_000;
/// Bytes taken from one guest before another has its turn.
const PER_TURN: usize = 1024;
/// Bytes copied at once.
const PIECE: usize = 256;
/// Most bytes that are read ahead without a line in them.
const AHEAD: u32 = 2048;

/// Value of [`console::OUT_WANT`]: all output.
const WANT_ALL: u32 = 1;
/// A guest that writes again within this time writes often; nanoseconds.
const OFTEN_NS: u64 = 500_000;
/// When one that writes often is looked at again, and after how long without output it is to notify again.
const PAUSE_NS: u64 = 1_000_000;

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
    /// When something was taken last.
    taken_at: u64,
    /// What it is to notify of: the value of [`console::OUT_WANT`].
    want: u32,
}

impl Source {
    /// A guest that is to notify of lines.
    pub(crate) fn new(name: String, console: Window) -> Source {
        let tail = load(&console, console::OUT_TAIL);
        let mut source = Source {
            name,
            console,
            cleaner: LineCleaner::default(),
            early: LineCleaner::default(),
            tail,
            read: tail,
            partial_since: None,
            taken_at: 0,
            want: 0,
        };
        source.ask(console::WANT_LINES);
        source
    }

    /// Lets it notify of what `want` says. Look for output afterwards.
    fn ask(&mut self, want: u32) {
        self.want = want;
        if let Some(word) = self.console.word(console::OUT_WANT) {
            word.store(want, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
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

/// What a guest that has ended had written, and was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// There is nothing more of it.
    Taken,
    /// There is no room for it now.
    Waits,
}

/// Puts text at an index, which moves behind it.
fn put(to: &mut Vec<u8>, at: &mut usize, text: &[u8]) {
    let end = *at + text.len();
    if to.len() < end {
        to.resize(end, 0);
    }
    copy(text, to.get_mut(*at..end).unwrap_or_default());
    *at = end;
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
        let mut memory = core::mem::take(&mut self.piece);
        memory.resize(PIECE, 0);
        let mut taken = 0;
        while taken < PER_TURN {
            let Some(source) = self.source(id) else { break };
            let Some(head) = source.head() else {
                self.skip_lies(id);
                taken += 1;
                break;
            };
            let end = limit.unwrap_or(head);
            let count = end.wrapping_sub(source.read).min(head.wrapping_sub(source.read)) as usize;
            let bytes = memory.get_mut(..count.min(PIECE)).unwrap_or_default();
            if bytes.is_empty() || self.desk.waiting() >= GUESTS_BELOW {
                break;
            }
            if let Some(ring) = Ring::new(source.console, console::OUT_OFFSET, console::OUT_BYTES as u32) {
                ring.get(source.read, bytes);
            }
            taken += if is_raw { self.pass(id, bytes) } else { self.take_lines(id, bytes, now_ns) };
        }
        self.piece = memory;
        if taken > 0
            && let Some(source) = self.source_mut(id)
        {
            let is_often = now_ns.saturating_sub(core::mem::replace(&mut source.taken_at, now_ns)) < OFTEN_NS;
            if is_often && source.want != 0 {
                source.ask(0);
                self.has_unasked = true;
            }
        }
        taken > 0
    }

    /// Asks guests that have paused to notify again, and those whose kind of output has changed. To be called before a wait; there may be output afterwards.
    /// Returns when it is to be called again at the latest.
    pub fn rest(&mut self, now_ns: u64) -> Option<u64> {
        if !self.has_unasked {
            return None;
        }
        let focus = self.focus();
        let mut again = None;
        for (id, source) in self.sources.iter_mut().enumerate() {
            let Some(source) = source else { continue };
            let look_at = source.taken_at.saturating_add(PAUSE_NS);
            if source.want == 0 && now_ns < look_at {
                again = again.into_iter().chain([look_at]).min();
                continue;
            }
            let wanted = if focus == Some(id) { WANT_ALL } else { console::WANT_LINES };
            if source.want != wanted {
                source.ask(wanted);
            }
        }
        self.has_unasked = again.is_some();
        again
    }

    /// Takes what is before index `end`: a life of the guest has written so far. Its next life may be there already, and lie.
    pub(crate) fn take_rest(&mut self, id: usize, end: u32, now_ns: u64) -> Rest {
        loop {
            // What is behind, or more than the ring ahead, was taken long ago or was never there.
            let left = |source: &Source| end.wrapping_sub(source.read);
            let Some(before) = self.source(id).map(left).filter(|left| (1..=console::OUT_BYTES as u32).contains(left))
            else {
                return Rest::Taken;
            };
            let has_taken = self.take_output(id, Some(end), now_ns);
            let after = self.source(id).map_or(0, left);
            if !has_taken && self.desk.waiting() >= GUESTS_BELOW {
                return Rest::Waits;
            }
            // The index went back: what was before it is there no more. Nobody waits for that, and nobody follows it to and fro.
            if after >= before {
                return Rest::Taken;
            }
        }
    }

    /// Ends the line that guest `id` has begun: it is gone. To be committed by the caller.
    pub(crate) fn end_line(&mut self, id: usize) {
        let Some(source) = self.source_mut(id) else { return };
        let (line, early) = (source.cleaner.flush(), source.early.flush());
        source.cleaner = LineCleaner::default();
        source.early = LineCleaner::default();
        source.partial_since = None;
        if line.is_some() || self.desk.get(Word::Open(id)) > 0 {
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
        self.has_begun = true;
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
        if !self.has_begun {
            return;
        }
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
        self.has_begun = self.sources.iter().flatten().any(|source| source.partial_since.is_some());
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
            if let Some((length, end)) = source.cleaner.whole_line(rest) {
                if self.desk.waiting() >= GUESTS_BELOW {
                    return count;
                }
                let Some(source) = self.source_mut(id) else { return count };
                source.read = source.read.wrapping_add(end as u32);
                source.partial_since = None;
                count += end;
                self.record(id, rest.get(..length).unwrap_or_default());
                self.move_tail(id);
                self.commit_output(id);
                continue;
            }
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
            self.has_begun = true;
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
        let open = self.desk.get(Word::Open(id)) as usize + text.len();
        if open >= LineCleaner::MAX_LINE {
            self.record(id, &text);
            return;
        }
        self.append(id, &text);
        self.desk.set(Word::Open(id), open as u32);
        if let Some(source) = self.source_mut(id) {
            source.partial_since = None;
        }
    }

    /// Keeps a complete line of a guest and shows it, unless it waits or was shown as it came.
    fn record(&mut self, id: usize, line: &[u8]) {
        let mut named = core::mem::take(&mut self.named);
        let mut end = self.name_ends;
        if self.named_of != Some(id) {
            end = 0;
            for part in [ERASE, b"[", self.name(id).as_bytes(), b"] "] {
                put(&mut named, &mut end, part);
            }
            (self.named_of, self.name_ends) = (Some(id), end);
        }
        let open = self.desk.get(Word::Open(id)).min(LineCleaner::MAX_LINE as u32);
        if open > 0
            && let Some(history) = self.desk.history(id)
        {
            let head = self.desk.get(Word::Head(id));
            let begun = history.copy(head.wrapping_sub(open), head);
            put(&mut named, &mut end, String::from_utf8_lossy(&begun).as_bytes());
            self.desk.set(Word::Open(id), 0);
        }
        let from = end;
        put(&mut named, &mut end, line);
        put(&mut named, &mut end, b"\n");
        self.append(id, named.get(from..end).unwrap_or_default());
        self.keep(named.get(ERASE.len()..end).unwrap_or_default());
        if self.focus().is_none() {
            end -= 1;
            put(&mut named, &mut end, b"\r\n");
            // Above the prompt.
            let from = if self.word(layout::PROMPT) == SHOWN { 0 } else { ERASE.len() };
            self.raw(named.get(from..end).unwrap_or_default());
            if from == 0 {
                self.due(0);
            }
        }
        self.named = named;
    }

    fn append(&mut self, id: usize, text: &[u8]) {
        let word = Word::Head(id);
        let head = self.desk.get(word);
        let Some(history) = self.desk.history(id) else { return };
        history.put(head, text);
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
        fence(Ordering::SeqCst);
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
