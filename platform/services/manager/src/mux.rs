//! One terminal for many guests.
//!
//! Who has the keyboard has the *focus*. While the manager has it, every guest's lines are shown after their guest's
//! name, the prompt stays below them, and what a person is typing is drawn again when a line has come in
//! between. While a guest has it, that guest's bytes pass as they are, the manager's own lines are still
//! shown, and other guests' lines wait: they are shown when the focus returns. All lines go into a history
//! per guest and into one of all, so that a person who comes late can see what was.
//!
//! Keys: `Ctrl-]` switches between the manager and the guest that had the keyboard last; `Ctrl-^` goes to
//! the next guest. (`Ctrl-A` is left alone: QEMU takes it.)
//!
//! Fairness: the caller reads a bounded number of bytes from each guest in turn, and from none while
//! [`Mux::is_congested`]; a guest that floods the terminal fills its own ring and waits.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::edit::{Edit, LineEditor};
use crate::history::History;
use crate::text::LineCleaner;

/// `Ctrl-]`.
pub const KEY_SWITCH: u8 = 0x1d;
/// `Ctrl-^`.
pub const KEY_NEXT: u8 = 0x1e;
/// What stands before the manager's own lines.
pub const OWN_PREFIX: &str = "portico: ";
const PROMPT: &str = "portico> ";
/// A line that was begun is shown after this time, in nanoseconds.
const PARTIAL_NS: u64 = 100_000_000;
/// The prompt comes back after this time even if output never pauses, in nanoseconds.
const PROMPT_NS: u64 = 500_000_000;
const CONGESTED_BYTES: usize = 4096;
const HISTORY_BYTES: usize = 32 << 10;
const LOG_BYTES: usize = 128 << 10;
/// Lines shown of a guest's history when it gets the keyboard.
const REPLAY_LINES: usize = 20;

/// Who has the keyboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Focus {
    /// The manager's prompt.
    Manager,
    /// A guest, by its number here.
    Guest(usize),
}

/// What a key asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Run this command line.
    Command(String),
    /// Give this byte to a guest.
    Input(usize, u8),
    /// Complete the line: call [`Mux::complete`].
    Complete,
}

#[derive(Debug)]
struct Source {
    name: String,
    cleaner: LineCleaner,
    history: History,
    partial_since: Option<u64>,
}

/// The multiplexer. Times are nanoseconds of any clock that only goes forward.
#[derive(Debug)]
pub struct Mux {
    sources: Vec<Source>,
    log: History,
    out: VecDeque<u8>,
    focus: Focus,
    last_guest: Option<usize>,
    /// Number of the first line of all that was not shown because a guest has the focus.
    unseen_from: u64,
    editor: LineEditor,
    prompt: Prompt,
}

/// Whether the prompt is on the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prompt {
    /// Not before a key is pressed.
    Asleep,
    /// It was overwritten, or a command is running: draw it when output pauses, at the latest at this time.
    Due(u64),
    /// It is the last thing on the terminal.
    Shown,
}

impl Mux {
    /// A multiplexer without guests. With `awake` false it shows no prompt until a key is pressed.
    pub fn new(prompt_from_start: bool) -> Self {
        Self {
            sources: Vec::new(),
            log: History::new(LOG_BYTES),
            out: VecDeque::new(),
            focus: Focus::Manager,
            last_guest: None,
            unseen_from: 0,
            editor: LineEditor::default(),
            prompt: if prompt_from_start { Prompt::Due(0) } else { Prompt::Asleep },
        }
    }

    /// Adds a guest and returns its number here.
    pub fn add_source(&mut self, name: &str) -> usize {
        self.sources.push(Source {
            name: String::from(name),
            cleaner: LineCleaner::default(),
            history: History::new(HISTORY_BYTES),
            partial_since: None,
        });
        self.sources.len() - 1
    }

    /// Who has the keyboard.
    pub fn focus(&self) -> Focus {
        self.focus
    }

    /// True if so much waits for the terminal that guests should wait too.
    pub fn is_congested(&self) -> bool {
        self.out.len() >= CONGESTED_BYTES
    }

    /// Takes bytes that guest `id` wrote.
    pub fn guest_output(&mut self, id: usize, bytes: &[u8], now_ns: u64) {
        let is_raw = self.focus == Focus::Guest(id);
        let mut lines = Vec::new();
        let Some(source) = self.sources.get_mut(id) else { return };
        lines.extend(bytes.iter().filter_map(|&byte| source.cleaner.push(byte)));
        source.partial_since = source.cleaner.has_partial().then(|| source.partial_since.unwrap_or(now_ns));
        for line in lines {
            self.record(id, line);
        }
        if is_raw {
            self.raw(bytes);
        }
    }

    /// Ends the line that guest `id` has begun: it is gone.
    pub fn guest_ended(&mut self, id: usize) {
        let Some(source) = self.sources.get_mut(id) else { return };
        source.partial_since = None;
        let partial = source.cleaner.flush();
        source.cleaner = LineCleaner::default();
        if let Some(line) = partial {
            self.record(id, line);
        }
    }

    /// Prints a line of the manager's own about what happened, and keeps it in the history.
    pub fn event(&mut self, text: &str) {
        let line = format!("{OWN_PREFIX}{text}");
        self.log.push(line.clone());
        self.show(&line);
    }

    /// Prints lines that answer a command. They are not kept.
    pub fn reply(&mut self, text: &str) {
        for line in text.lines() {
            self.show(line);
        }
    }

    /// Takes a key.
    pub fn key(&mut self, byte: u8, now_ns: u64) -> Action {
        if self.prompt == Prompt::Asleep {
            self.prompt = Prompt::Due(now_ns);
        }
        match (byte, self.focus) {
            (KEY_SWITCH, Focus::Guest(_)) => self.focus_manager(now_ns),
            (KEY_SWITCH, Focus::Manager) => {
                if let Some(guest) = self.last_guest.or_else(|| self.sources.first().map(|_| 0)) {
                    self.focus_guest(guest);
                }
            }
            (KEY_NEXT, focus) => {
                let next = match focus {
                    Focus::Manager => 0,
                    Focus::Guest(id) => (id + 1) % self.sources.len().max(1),
                };
                if next < self.sources.len() {
                    self.focus_manager(now_ns);
                    self.focus_guest(next);
                }
            }
            (byte, Focus::Guest(id)) => return Action::Input(id, byte),
            (byte, Focus::Manager) => return self.edit_key(byte, now_ns),
        }
        Action::None
    }

    /// Completes the last word typed from `words`.
    pub fn complete<'a>(&mut self, words: impl Iterator<Item = &'a str>, now_ns: u64) {
        let candidates = self.editor.complete(words);
        if !candidates.is_empty() {
            self.reply(&candidates.join("  "));
        }
        self.hide_prompt();
        self.prompt = Prompt::Due(now_ns);
    }

    /// Gives the keyboard to guest `id`, after the last lines that it wrote.
    pub fn focus_guest(&mut self, id: usize) {
        let Some(source) = self.sources.get(id) else { return };
        let mut lines = alloc::vec![format!(
            "{OWN_PREFIX}keyboard and screen of guest \"{}\"; Ctrl-] returns to the manager",
            source.name
        )];
        lines.extend(source.history.last(REPLAY_LINES).map(String::from));
        for line in &lines {
            self.show(line);
        }
        self.focus = Focus::Guest(id);
        self.last_guest = Some(id);
        self.unseen_from = self.log.next();
    }

    /// Gives the keyboard back to the manager and shows what the other guests wrote meanwhile.
    pub fn focus_manager(&mut self, now_ns: u64) {
        let Focus::Guest(id) = self.focus else { return };
        self.focus = Focus::Manager;
        let seen = self.sources.get(id).map(|source| format!("[{}] ", source.name)).unwrap_or_default();
        let (lost, lines) = self.log.since(self.unseen_from);
        let missed: Vec<String> =
            lines.filter(|line| !line.starts_with(&seen) && !line.starts_with(OWN_PREFIX)).map(String::from).collect();
        // What the guest did to the terminal's colours ends here.
        self.raw(b"\x1b[0m\r\n");
        self.show(&format!("{OWN_PREFIX}keyboard of the manager"));
        if lost > 0 {
            self.show(&format!("{OWN_PREFIX}{lost} lines in between are no longer kept"));
        }
        for line in &missed {
            self.show(line);
        }
        self.prompt = Prompt::Due(now_ns);
    }

    /// Sounds the bell: a key could not be taken.
    pub fn bell(&mut self) {
        self.raw(b"\x07");
    }

    /// Leaves the terminal on a fresh line without a prompt, for the end of the machine.
    pub fn close(&mut self) {
        self.hide_prompt();
        self.prompt = Prompt::Asleep;
    }

    /// The last `count` lines of a guest, or of all.
    pub fn history(&self, id: Option<usize>, count: usize) -> Vec<String> {
        match id {
            None => self.log.last(count).map(String::from).collect(),
            Some(id) => self
                .sources
                .get(id)
                .into_iter()
                .flat_map(|source| source.history.last(count))
                .map(String::from)
                .collect(),
        }
    }

    /// Does what time asks for: lines that were begun long ago, the prompt.
    pub fn tick(&mut self, now_ns: u64) {
        for id in 0..self.sources.len() {
            let Some(source) = self.sources.get_mut(id) else { continue };
            if source.partial_since.is_some_and(|since| now_ns >= since.saturating_add(PARTIAL_NS)) {
                source.partial_since = None;
                if let Some(line) = source.cleaner.flush() {
                    self.record(id, line);
                }
            }
        }
        if let (Prompt::Due(at), Focus::Manager) = (self.prompt, self.focus)
            && (self.out.is_empty() || now_ns >= at.saturating_add(PROMPT_NS))
        {
            self.raw(PROMPT.as_bytes());
            let line = String::from(self.editor.line());
            self.raw(line.as_bytes());
            self.prompt = Prompt::Shown;
        }
    }

    /// When [`Mux::tick`] has something to do, if nothing else comes.
    pub fn deadline(&self) -> Option<u64> {
        let partial = self.sources.iter().filter_map(|source| source.partial_since).min();
        let prompt = match (self.prompt, self.focus) {
            (Prompt::Due(at), Focus::Manager) => Some(at),
            _ => None,
        };
        partial.map(|since| since.saturating_add(PARTIAL_NS)).into_iter().chain(prompt).min()
    }

    /// Bytes for the terminal, oldest first.
    pub fn pending_output(&self) -> &[u8] {
        let (first, second) = self.out.as_slices();
        if first.is_empty() { second } else { first }
    }

    /// Drops `count` bytes that the terminal has taken.
    pub fn consume_output(&mut self, count: usize) {
        self.out.drain(..count.min(self.out.len()));
    }

    fn edit_key(&mut self, byte: u8, now_ns: u64) -> Action {
        match self.editor.key(byte) {
            Edit::Nothing => Action::None,
            Edit::Echo(text) => {
                if self.prompt == Prompt::Shown {
                    self.raw(text.as_bytes());
                }
                Action::None
            }
            Edit::Redraw => {
                self.hide_prompt();
                self.prompt = Prompt::Due(now_ns);
                Action::None
            }
            Edit::Cancel => {
                self.raw(b"^C\r\n");
                self.prompt = Prompt::Due(now_ns);
                Action::None
            }
            Edit::Complete => Action::Complete,
            Edit::Enter(line) => {
                if self.prompt != Prompt::Shown {
                    self.raw(PROMPT.as_bytes());
                    self.raw(line.as_bytes());
                }
                self.raw(b"\r\n");
                self.prompt = Prompt::Due(now_ns);
                Action::Command(line)
            }
        }
    }

    /// Keeps a complete line of a guest and shows it, unless it waits or was shown as it came.
    fn record(&mut self, id: usize, line: String) {
        let Some(source) = self.sources.get_mut(id) else { return };
        let named = format!("[{}] {line}", source.name);
        source.history.push(line);
        if self.focus == Focus::Manager {
            self.show(&named);
        }
        self.log.push(named);
    }

    /// Prints a line, above the prompt if that is shown.
    fn show(&mut self, line: &str) {
        if self.focus == Focus::Manager {
            self.hide_prompt();
        } else {
            self.raw(b"\r\n");
        }
        self.raw(line.as_bytes());
        self.raw(b"\r\n");
    }

    fn hide_prompt(&mut self) {
        if self.prompt == Prompt::Shown {
            self.raw(b"\r\x1b[K");
            self.prompt = Prompt::Due(0);
        }
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.out.extend(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Focus, KEY_NEXT, KEY_SWITCH, Mux};
    use alloc::string::String;
    use proptest::prelude::*;

    fn drain(mux: &mut Mux) -> String {
        let mut all = alloc::vec::Vec::new();
        while !mux.pending_output().is_empty() {
            let chunk = mux.pending_output().to_vec();
            mux.consume_output(chunk.len());
            all.extend(chunk);
        }
        String::from_utf8(all).expect("UTF-8")
    }

    fn two(prompt: bool) -> (Mux, usize, usize) {
        let mut mux = Mux::new(prompt);
        let (web, db) = (mux.add_source("web"), mux.add_source("db"));
        (mux, web, db)
    }

    #[test]
    fn lines_of_two_guests_never_mix() {
        let (mut mux, web, db) = two(false);
        mux.guest_output(web, b"hel", 0);
        mux.guest_output(db, b"one\ntwo", 0);
        mux.guest_output(web, b"lo\n", 1);
        assert_eq!(drain(&mut mux), "[db] one\r\n[web] hello\r\n");
        mux.tick(200_000_000);
        assert_eq!(drain(&mut mux), "[db] two\r\n");
    }

    #[test]
    fn the_prompt_stays_below_and_keeps_what_was_typed() {
        let (mut mux, web, _) = two(true);
        mux.tick(0);
        assert_eq!(drain(&mut mux), "portico> ");
        assert_eq!(mux.key(b'l', 1), Action::None);
        mux.guest_output(web, b"hi\n", 2);
        assert_eq!(drain(&mut mux), "l\r\u{1b}[K[web] hi\r\n");
        mux.tick(3);
        assert_eq!(drain(&mut mux), "portico> l");
        assert_eq!(mux.key(b'\r', 4), Action::Command(String::from("l")));
    }

    #[test]
    fn a_quiet_terminal_has_no_prompt_until_a_key_comes() {
        let (mut mux, web, _) = two(false);
        mux.tick(0);
        mux.guest_output(web, b"hi\n", 0);
        assert_eq!(drain(&mut mux), "[web] hi\r\n");
        assert_eq!(mux.deadline(), None);
        mux.key(b'\r', 5);
        drain(&mut mux);
        mux.tick(6);
        assert_eq!(drain(&mut mux), "portico> ");
    }

    #[test]
    fn focus_passes_bytes_and_nothing_is_lost_meanwhile() {
        let (mut mux, web, db) = two(true);
        mux.guest_output(db, b"early\n", 0);
        drain(&mut mux);
        mux.focus_guest(db);
        assert!(drain(&mut mux).ends_with("early\r\n"));
        assert_eq!(mux.key(b'x', 1), Action::Input(db, b'x'));
        mux.guest_output(web, b"unseen\n", 2);
        mux.guest_output(db, b"\x1b[1mraw", 2);
        assert_eq!(drain(&mut mux), "\u{1b}[1mraw");
        assert_eq!(mux.key(KEY_SWITCH, 3), Action::None);
        assert_eq!(mux.focus(), Focus::Manager);
        let text = drain(&mut mux);
        assert!(text.contains("[web] unseen") && !text.contains("early"), "{text}");
        mux.key(KEY_SWITCH, 4);
        assert_eq!(mux.focus(), Focus::Guest(db));
        mux.key(KEY_NEXT, 4);
        assert_eq!(mux.focus(), Focus::Guest(web));
        assert_eq!(mux.history(Some(web), 9), ["unseen"]);
        assert_eq!(mux.history(None, 9), ["[db] early", "[web] unseen"]);
    }

    #[test]
    fn a_dead_guests_last_words_are_shown() {
        let (mut mux, web, _) = two(false);
        mux.guest_output(web, b"I am dy", 0);
        mux.guest_ended(web);
        mux.event("guest \"web\": exited with code 0");
        assert_eq!(drain(&mut mux), "[web] I am dy\r\nportico: guest \"web\": exited with code 0\r\n");
    }

    proptest! {
        #[test]
        fn no_keys_or_bytes_break_it(ops in prop::collection::vec((0u8..4, any::<u8>()), 0..500)) {
            let (mut mux, web, db) = two(true);
            for (now, (op, byte)) in ops.into_iter().enumerate() {
                let now = now as u64 * 50_000_000;
                match op {
                    0 => mux.guest_output(web, &[byte], now),
                    1 => mux.guest_output(db, &[byte, b'\n'], now),
                    2 => if mux.key(byte, now) == Action::Complete {
                        mux.complete(["list"].into_iter(), now);
                    },
                    _ => mux.tick(now),
                }
                let len = mux.pending_output().len();
                mux.consume_output(len);
            }
        }
    }
}
