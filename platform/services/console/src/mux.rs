//! One terminal for many guests.
//!
//! Who has the keyboard has the *focus*. While the manager has it, every guest's lines are shown after their guest's
//! name, the prompt stays below them, and what a person is typing is drawn again when a line has come in
//! between. While a guest has it, that guest's bytes pass as they are, the manager's own lines are still
//! shown, and other guests' lines wait: they are shown when the focus returns. All lines go into a history
//! per guest and into one of all, so that a person who comes late can see what was.
//!
//! Keys: `Ctrl-]` switches between the manager and the guest that had the keyboard last; `Ctrl-^` goes to
//! the next guest; after `Ctrl-\` a guest gets each of the three as it is. (`Ctrl-A` is left alone: QEMU takes it.)
//!
//! Fairness: a bounded number of bytes is taken from each guest in turn, and from none while much waits for the terminal; a guest
//! that floods it fills its own ring and waits. Keys and the manager have room of their own.
//!
//! Everything that is decided here becomes true by a commit of the [desk](crate::desk).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use portico_abi::channel::console;
use portico_sdk::window::Window;

use crate::desk::{Desk, Word};
use crate::edit::{Edit, LineEditor};
use crate::history::Ring;
use crate::layout;
use crate::message::{Kind, Message};
use crate::source::Source;

/// `Ctrl-]`.
pub const KEY_SWITCH: u8 = 0x1d;
/// `Ctrl-^`.
pub const KEY_NEXT: u8 = 0x1e;
/// `Ctrl-\`.
pub const KEY_ESCAPE: u8 = 0x1c;
/// What stands before the manager's own lines.
pub const OWN_PREFIX: &str = "portico: ";
const PROMPT: &str = "portico> ";
/// Takes the prompt away.
pub(crate) const ERASE: &[u8] = b"\r\x1b[K";
/// The prompt comes back after this time even if output never pauses, in nanoseconds.
const PROMPT_NS: u64 = 500_000_000;
/// Bytes that wait for the terminal, from which on nothing is taken from guests, from the manager, from the keyboard.
pub(crate) const GUESTS_BELOW: u32 = 4 << 10;
pub(crate) const MANAGER_BELOW: u32 = 8 << 10;
const KEYS_BELOW: u32 = 12 << 10;
/// Lines shown of a guest's history when it gets the keyboard.
const REPLAY_LINES: usize = 20;
/// Steps of one kind in a turn.
const STEPS: usize = 32;

/// The prompt was never there.
const FRESH: u32 = 0;
/// Not before a key is pressed.
const ASLEEP: u32 = 1;
/// It was overwritten: draw it when output pauses.
const DUE: u32 = 2;
/// It is the last thing on the terminal.
pub(crate) const SHOWN: u32 = 3;
/// A command is running.
const WAITING: u32 = 4;

/// Kept lines are being shown, and that is all.
const SHOW: u32 = 1;
/// Then the guest gets the keyboard.
const FOCUS: u32 = 2;

/// The multiplexer. Times are nanoseconds of any clock that only goes forward.
#[derive(Debug)]
pub struct Mux {
    pub(crate) desk: Desk,
    pub(crate) sources: Vec<Option<Source>>,
    pub(crate) editor: LineEditor,
    pub(crate) words: Vec<String>,
    /// The guest that is looked at first in the next turn.
    pub(crate) next: usize,
    /// Memory for what is taken from a guest.
    pub(crate) piece: Vec<u8>,
    /// Memory for a line: [`ERASE`], the name of guest `named_of`, which ends at `name_ends`, and the line.
    pub(crate) named: Vec<u8>,
    pub(crate) named_of: Option<usize>,
    pub(crate) name_ends: usize,
    /// Guests are to be asked to notify: see [`Mux::rest`].
    pub(crate) has_unasked: bool,
    /// A guest may have begun a line.
    pub(crate) has_begun: bool,
    /// Guests that want to hear of room or input.
    pub(crate) notices: Vec<usize>,
    pub(crate) is_closing: bool,
    /// The manager has something to read.
    is_letter_sent: bool,
    is_escaped: bool,
    prompt_at: u64,
    /// Nothing waited for the terminal when the turn began.
    was_quiet: bool,
    /// Sent before everything else.
    first: &'static [u8],
}

impl Mux {
    /// Takes the desk over from the last instance, if there was one. `open` gives the windows, console and history, of a guest that the
    /// manager's table names. With `is_quiet` a new desk shows no prompt before a key is pressed.
    pub fn new(desk: Desk, is_quiet: bool, open: impl FnMut(usize) -> Option<(Window, Window)>) -> Self {
        let mut mux = Self {
            desk,
            sources: Vec::new(),
            editor: LineEditor::default(),
            words: Vec::new(),
            next: 0,
            piece: Vec::new(),
            named: Vec::new(),
            named_of: None,
            name_ends: 0,
            has_unasked: true,
            has_begun: false,
            was_quiet: true,
            notices: Vec::new(),
            is_closing: false,
            is_letter_sent: true,
            is_escaped: false,
            prompt_at: 0,
            first: b"",
        };
        let added = mux.add_windows(open);
        mux.first = mux.desk.recover(mux.focus().is_none()).1;
        let prompt = match (mux.word(layout::PROMPT), is_quiet) {
            (FRESH, true) => ASLEEP,
            (FRESH, false) | (WAITING, _) => DUE,
            (other, _) => other,
        };
        mux.set(layout::PROMPT, prompt);
        mux.desk.commit();
        let line = mux.desk.kept_line();
        mux.editor.resume(&line);
        mux.adopt(&added);
        mux
    }

    /// Looks for guests that are new in the manager's table.
    pub fn look(&mut self, open: impl FnMut(usize) -> Option<(Window, Window)>) {
        let added = self.add_windows(open);
        self.adopt(&added);
    }

    /// Who has the keyboard: a guest, or the manager.
    pub fn focus(&self) -> Option<usize> {
        (self.word(layout::FOCUS) as usize).checked_sub(1)
    }

    /// Does a bounded piece of what there is to do. Returns whether anything was done.
    pub fn turn(&mut self, now_ns: u64) -> bool {
        self.was_quiet = !self.has_output();
        let mut is_busy = self.repeat(Self::job_step);
        if self.has_job() {
            return is_busy;
        }
        is_busy |= self.repeat(|mux| mux.inbox_step(now_ns));
        if !self.has_job() && self.inbox_is_empty() {
            is_busy |= self.round(now_ns);
        }
        self.tick(now_ns);
        is_busy
    }

    /// Whether keys can be taken now.
    pub fn takes_keys(&self) -> bool {
        !self.has_job() && self.desk.waiting() < KEYS_BELOW
    }

    /// Takes a key.
    pub fn key(&mut self, byte: u8, now_ns: u64) {
        if self.word(layout::PROMPT) == ASLEEP {
            self.due(now_ns);
        }
        let is_escaped = core::mem::take(&mut self.is_escaped);
        match (byte, self.focus()) {
            (byte, Some(id)) if is_escaped => {
                if !matches!(byte, KEY_SWITCH | KEY_NEXT | KEY_ESCAPE) {
                    self.type_to(id, KEY_ESCAPE);
                }
                self.type_to(id, byte);
            }
            (KEY_ESCAPE, Some(_)) => self.is_escaped = true,
            (KEY_SWITCH, Some(_)) => self.focus_manager(None, now_ns),
            (KEY_SWITCH, None) => {
                let last = (self.word(layout::LAST) as usize).checked_sub(1);
                let first = || self.guests().find(|&id| self.desk.kind(id) == layout::GUEST).or(self.guests().next());
                if let Some(guest) = last.or_else(first) {
                    self.focus_guest(guest);
                }
            }
            (KEY_NEXT, focus) => {
                let after = focus.map_or(0, |id| id + 1);
                let next = self.guests().find(|&id| id >= after).or(self.guests().next());
                match (next, focus) {
                    (None, _) => {}
                    (Some(next), None) => self.focus_guest(next),
                    (Some(next), Some(_)) => self.focus_manager(Some(next), now_ns),
                }
            }
            (byte, Some(id)) => self.type_to(id, byte),
            (byte, None) => self.edit_key(byte, now_ns),
        }
        self.desk.commit();
    }

    /// Takes a break condition of the line: it is counted in the window of the guest that has the keyboard.
    pub fn line_break(&mut self) {
        let Some(id) = self.focus() else { return };
        let count = self.desk.places(id);
        if let Some(count) = count.as_ref().and_then(|places| places.console.word(console::BREAKS)) {
            use core::sync::atomic::Ordering;
            count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        }
        self.notices.push(id);
    }

    /// Gives the terminal what it takes, at most `limit` bytes: `put` is called for no more than `room` has said there is room for. Returns how
    /// many.
    pub fn send(&mut self, limit: usize, mut room: impl FnMut() -> usize, mut put: impl FnMut(u8)) -> usize {
        while let Some((&byte, rest)) = self.first.split_first() {
            if room() == 0 {
                return 0;
            }
            put(byte);
            self.first = rest;
        }
        self.desk.send(limit, room, put)
    }

    /// Whether something waits for the terminal.
    pub fn has_output(&self) -> bool {
        self.desk.waiting() > 0 || !self.first.is_empty()
    }

    /// A guest that is to be notified.
    #[inline]
    pub fn take_notice(&mut self) -> Option<usize> {
        self.notices.pop()
    }

    /// Whether the manager is to be notified.
    pub fn take_letter_sent(&mut self) -> bool {
        core::mem::take(&mut self.is_letter_sent)
    }

    /// Whether the manager waits until everything has left the UART, and nothing is left but that.
    pub fn is_closing(&self) -> bool {
        self.is_closing && !self.has_output()
    }

    /// Tells the manager that everything has left.
    pub fn closed(&mut self) {
        self.is_closing = false;
        self.tell(Kind::Closed, b"");
        self.desk.commit();
    }

    /// Whether a guest or the manager has something that was not taken yet.
    pub fn has_input(&self) -> bool {
        self.has_job() || !self.inbox_is_empty() || self.sources.iter().flatten().any(Source::has_output)
    }

    /// Whether the prompt is to be drawn, now or later.
    pub fn is_prompt_wanted(&self) -> bool {
        matches!((self.word(layout::PROMPT), self.focus()), (DUE | WAITING, None))
    }

    /// When [`Mux::turn`] has something to do, if nothing else comes.
    pub fn deadline(&self) -> Option<u64> {
        let begun =
            if self.has_begun { self.sources.iter().flatten().filter_map(Source::deadline).min() } else { None };
        let prompt = self.is_prompt_wanted().then_some(self.prompt_at.saturating_add(PROMPT_NS));
        begun.into_iter().chain(prompt).min()
    }

    /// Guests in the table, by number.
    fn guests(&self) -> impl Iterator<Item = usize> {
        self.sources.iter().enumerate().filter(|(_, source)| source.is_some()).map(|(id, _)| id)
    }

    fn add_windows(&mut self, mut open: impl FnMut(usize) -> Option<(Window, Window)>) -> Vec<usize> {
        let mut added = Vec::new();
        for id in 0..layout::MAX_SOURCES {
            if self.desk.kind(id) == 0 || self.desk.places(id).is_some() {
                continue;
            }
            let windows = open(id);
            if windows.and_then(|(console, history)| self.desk.add(id, console, history)).is_some() {
                added.push(id);
            }
        }
        added
    }

    fn adopt(&mut self, added: &[usize]) {
        for &id in added {
            let Some(places) = self.desk.places(id) else { continue };
            if self.sources.len() <= id {
                self.sources.resize_with(id + 1, || None);
            }
            if let Some(slot) = self.sources.get_mut(id) {
                *slot = Some(Source::new(self.desk.name(id), places.console));
            }
            // The last instance may have ended before it told of room or input.
            self.notices.push(id);
        }
    }

    fn repeat(&mut self, mut step: impl FnMut(&mut Self) -> bool) -> bool {
        (0..STEPS).take_while(|_| step(self)).count() > 0
    }

    pub(crate) fn word(&self, at: usize) -> u32 {
        self.desk.get(Word::Desk(at))
    }

    pub(crate) fn set(&mut self, at: usize, value: u32) {
        self.desk.set(Word::Desk(at), value);
    }

    pub(crate) fn name(&self, id: usize) -> &str {
        self.sources.get(id).and_then(Option::as_ref).map_or("", |source| source.name.as_str())
    }

    /// Prints lines that are not kept.
    pub(crate) fn reply(&mut self, text: &str) {
        for line in text.lines() {
            self.show(line);
        }
    }

    /// Keeps a line, with its end, in the log of all.
    pub(crate) fn keep(&mut self, line: &[u8]) {
        let head = self.word(layout::LOG_HEAD);
        self.desk.log.put(head, line);
        self.set(layout::LOG_HEAD, head.wrapping_add(line.len() as u32));
        self.set(layout::LOG_LINES, self.word(layout::LOG_LINES).wrapping_add(1));
    }

    /// Prints a line, above the prompt if that is shown.
    pub(crate) fn show(&mut self, line: impl AsRef<[u8]>) {
        if self.focus().is_none() {
            self.hide_prompt();
        } else {
            self.raw(b"\r\n");
        }
        self.raw(line.as_ref());
        self.raw(b"\r\n");
    }

    pub(crate) fn hide_prompt(&mut self) {
        if self.word(layout::PROMPT) == SHOWN {
            self.raw(ERASE);
            self.due(0);
        }
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.desk.print(bytes);
    }

    /// The prompt is to come back.
    pub(crate) fn due(&mut self, now_ns: u64) {
        self.set(layout::PROMPT, DUE);
        self.prompt_at = now_ns;
    }

    /// The command is done.
    pub(crate) fn done(&mut self, now_ns: u64) {
        if self.word(layout::PROMPT) == WAITING {
            self.due(now_ns);
        }
    }

    /// Leaves the terminal on a fresh line without a prompt, for the end of the machine.
    pub(crate) fn close(&mut self) {
        self.hide_prompt();
        self.set(layout::PROMPT, ASLEEP);
        self.is_closing = true;
    }

    /// Gives the keyboard to guest `id`, after the last lines that it wrote.
    pub(crate) fn focus_guest(&mut self, id: usize) {
        let Some(places) = self.desk.places(id) else { return };
        let text =
            format!("{OWN_PREFIX}keyboard and screen of guest \"{}\"; Ctrl-] returns to the manager", self.name(id));
        self.show(&text);
        let head = self.desk.get(Word::Head(id));
        let from = places.history.last(REPLAY_LINES, head).0;
        self.begin_job(FOCUS, id + 1, from, head, id + 1);
    }

    /// Gives the keyboard back to the manager and shows what the other guests wrote meanwhile; then perhaps to another guest.
    pub(crate) fn focus_manager(&mut self, next: Option<usize>, now_ns: u64) {
        let Some(id) = self.focus() else { return };
        self.set(layout::FOCUS, 0);
        self.has_unasked = true;
        self.is_escaped = false;
        let head = self.word(layout::LOG_HEAD);
        let from = self.desk.log.kept_from(self.word(layout::UNSEEN), head);
        let kept = self.desk.log.lines(from, head) as u32;
        let lost = self.word(layout::LOG_LINES).wrapping_sub(self.word(layout::UNSEEN_LINES)).saturating_sub(kept);
        // What the guest did to the terminal's colours ends here.
        self.raw(b"\x1b[0m\r\n");
        self.show(format!("{OWN_PREFIX}keyboard of the manager"));
        if lost > 0 {
            self.show(format!("{OWN_PREFIX}{lost} lines in between are no longer kept"));
        }
        self.begin_job(SHOW, 0, from, head, id + 1);
        self.set(layout::JOB_NEXT, next.map_or(0, |next| next as u32 + 1));
        self.due(now_ns);
    }

    /// Shows the last `count` lines of a guest, or of all.
    pub(crate) fn show_log(&mut self, id: Option<usize>, count: usize) {
        let (ring, number, head) = match id {
            None => (Some(self.desk.log), 0, self.word(layout::LOG_HEAD)),
            Some(id) => {
                let ring = self.desk.places(id).map(|places| places.history);
                (ring, id + 1, self.desk.get(Word::Head(id)))
            }
        };
        if let Some(ring) = ring {
            self.begin_job(SHOW, number, ring.last(count, head).0, head, 0);
        }
    }

    fn begin_job(&mut self, job: u32, ring: usize, from: u32, end: u32, source: usize) {
        self.set(layout::JOB, job);
        self.set(layout::JOB_RING, ring as u32);
        self.set(layout::JOB_AT, from);
        self.set(layout::JOB_END, end);
        self.set(layout::JOB_SOURCE, source as u32);
        self.set(layout::JOB_NEXT, 0);
    }

    fn has_job(&self) -> bool {
        self.word(layout::JOB) != 0
    }

    fn job_ring(&self) -> Option<Ring> {
        match self.word(layout::JOB_RING) as usize {
            0 => Some(self.desk.log),
            number => self.desk.places(number - 1).map(|places| places.history),
        }
    }

    /// Shows a kept line. Returns whether there was one to show, and room.
    fn job_step(&mut self) -> bool {
        if !self.has_job() || self.desk.waiting() >= MANAGER_BELOW {
            return false;
        }
        let (at, end) = (self.word(layout::JOB_AT), self.word(layout::JOB_END));
        let source = (self.word(layout::JOB_SOURCE) as usize).checked_sub(1);
        match self.job_ring().filter(|_| at != end) {
            Some(ring) => {
                let (line, next) = ring.line(at, end);
                self.set(layout::JOB_AT, next);
                // What was shown as it came: the guest's own lines, and the manager's.
                let is_seen = self.word(layout::JOB) == SHOW
                    && source.is_some_and(|id| {
                        line.starts_with(OWN_PREFIX) || line.starts_with(&format!("[{}] ", self.name(id)))
                    });
                if !is_seen {
                    self.show(&line);
                }
            }
            None => self.end_job(source),
        }
        self.desk.commit();
        true
    }

    fn end_job(&mut self, source: Option<usize>) {
        let next = self.word(layout::JOB_NEXT) as usize;
        let job = self.word(layout::JOB);
        self.set(layout::JOB, 0);
        match (job, source) {
            (FOCUS, Some(id)) => {
                self.set(layout::FOCUS, id as u32 + 1);
                self.has_unasked = true;
                self.set(layout::LAST, id as u32 + 1);
                self.set(layout::UNSEEN, self.word(layout::LOG_HEAD));
                self.set(layout::UNSEEN_LINES, self.word(layout::LOG_LINES));
                if let Some(source) = self.sources.get_mut(id).and_then(Option::as_mut) {
                    source.rewind();
                }
            }
            _ => {
                if let Some(id) = next.checked_sub(1) {
                    self.focus_guest(id);
                }
            }
        }
    }

    /// Shows lines that were begun long ago, and draws the prompt when that is due. [`Mux::turn`] does so too; it is worth it as well when the
    /// terminal has just taken everything.
    pub fn tick(&mut self, now_ns: u64) {
        self.tick_sources(now_ns);
        if self.focus().is_some() || self.has_job() {
            return;
        }
        let is_late = now_ns >= self.prompt_at.saturating_add(PROMPT_NS);
        // Behind what comes now, if that is all.
        let is_calm = (self.was_quiet || !self.has_output()) && !self.has_input();
        let is_wanted = match self.word(layout::PROMPT) {
            DUE => is_calm || is_late,
            WAITING => is_late,
            _ => false,
        };
        if is_wanted && self.desk.waiting() < KEYS_BELOW {
            self.raw(PROMPT.as_bytes());
            self.desk.print(self.editor.line().as_bytes());
            self.set(layout::PROMPT, SHOWN);
        }
        self.desk.commit();
    }

    fn edit_key(&mut self, byte: u8, now_ns: u64) {
        let is_shown = self.word(layout::PROMPT) == SHOWN;
        match self.editor.key(byte) {
            Edit::Nothing => {}
            Edit::Echo(text) => {
                if is_shown {
                    self.raw(text.as_bytes());
                }
            }
            Edit::Redraw => {
                self.hide_prompt();
                self.due(now_ns);
            }
            Edit::Cancel => {
                self.raw(b"^C\r\n");
                self.due(now_ns);
            }
            Edit::Complete => {
                if !self.tell(Kind::Complete, b"") {
                    self.raw(b"\x07");
                }
            }
            Edit::Enter(line) => {
                if !is_shown {
                    self.raw(PROMPT.as_bytes());
                    self.raw(line.as_bytes());
                }
                self.raw(b"\r\n");
                self.due(now_ns);
                if !line.trim().is_empty() {
                    if self.tell(Kind::Line, line.as_bytes()) {
                        self.set(layout::PROMPT, WAITING);
                    } else {
                        self.reply("error: the manager does not answer");
                    }
                }
            }
        }
        let line = String::from(self.editor.line());
        self.desk.keep_line(&line);
    }

    /// Tells the manager something, with the next commit. False if there is no room.
    fn tell(&mut self, kind: Kind, payload: &[u8]) -> bool {
        let bytes = Message::new(kind, 0, payload).to_bytes();
        let letters = self.desk.letters();
        let Some(ring) = Ring::new(letters, console::IN_OFFSET, console::IN_BYTES as u32) else { return false };
        let head = self.desk.get(Word::Desk(layout::OUTBOX));
        let tail = letters.word(console::IN_TAIL).map_or(head, |word| word.load(core::sync::atomic::Ordering::Acquire));
        let used = head.wrapping_sub(tail) as usize;
        if used + bytes.len() > console::IN_BYTES {
            return false;
        }
        ring.put(head, &bytes);
        self.desk.set(Word::Desk(layout::OUTBOX), head.wrapping_add(bytes.len() as u32));
        self.is_letter_sent = true;
        true
    }
}

#[cfg(test)]
mod tests;
