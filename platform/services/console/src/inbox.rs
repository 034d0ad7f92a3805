//! What the manager says.

use alloc::format;
use alloc::string::String;
use core::sync::atomic::Ordering;

use portico_abi::channel::console;

use crate::desk::Word;
use crate::history::Ring;
use crate::layout;
use crate::message::{HEADER, Kind, MAX_PAYLOAD, Message, NOBODY};
use crate::mux::{MANAGER_BELOW, Mux, OWN_PREFIX};
use crate::source::Rest;

impl Mux {
    /// Whether the manager has said nothing more.
    pub(crate) fn inbox_is_empty(&self) -> bool {
        self.desk.letters().word(console::OUT_HEAD).map_or(0, |word| word.load(Ordering::Acquire))
            == self.desk.get(Word::Desk(layout::INBOX))
    }

    /// Does what the next message says. Returns whether anything was done.
    pub(crate) fn inbox_step(&mut self, now_ns: u64) -> bool {
        let letters = self.desk.letters();
        let tail = self.desk.get(Word::Desk(layout::INBOX));
        let head = letters.word(console::OUT_HEAD).map_or(tail, |word| word.load(Ordering::Acquire));
        if head == tail || self.desk.waiting() >= MANAGER_BELOW || self.word(layout::JOB) != 0 {
            return false;
        }
        let mut bytes = [0; HEADER + MAX_PAYLOAD];
        let count = bytes.len().min(head.wrapping_sub(tail) as usize);
        let bytes = bytes.get_mut(..count).unwrap_or_default();
        if let Some(ring) = Ring::new(letters, console::OUT_OFFSET, console::OUT_BYTES as u32) {
            ring.get(tail, bytes);
        }
        let next = match Message::read(bytes) {
            Some(message) => match self.obey(&message, now_ns) {
                Obeyed::Done => tail.wrapping_add(message.len() as u32),
                Obeyed::InPart => return false,
            },
            // The manager does not do that.
            None => head,
        };
        self.desk.set(Word::Desk(layout::INBOX), next);
        self.desk.commit();
        true
    }

    fn obey(&mut self, message: &Message, now_ns: u64) -> Obeyed {
        let text = String::from_utf8_lossy(&message.payload);
        let guest = message.number as usize;
        match message.kind {
            Kind::Event => {
                let line = format!("{OWN_PREFIX}{text}\n");
                self.keep(line.as_bytes());
                self.show(line.strip_suffix('\n').unwrap_or(&line));
            }
            Kind::Reply => self.reply(&text),
            Kind::Done => self.done(now_ns),
            Kind::Ended => {
                if self.take_rest(guest, message.word(), now_ns) == Rest::Waits {
                    return Obeyed::InPart;
                }
                self.end_line(guest);
            }
            Kind::Gone if self.focus() == Some(guest) => self.focus_manager(None, now_ns),
            Kind::Focus => {
                if self.focus().is_none() {
                    self.focus_guest(guest);
                }
            }
            Kind::Log => {
                let of = (message.number != NOBODY).then_some(guest);
                self.show_log(of, message.word() as usize);
            }
            Kind::Word => self.words.push(text.into_owned()),
            Kind::WordsEnd => self.complete(now_ns),
            Kind::Output => self.early_output(guest, &message.payload, now_ns),
            Kind::Close => self.close(),
            Kind::Gone | Kind::Line | Kind::Complete | Kind::Closed => {}
        }
        Obeyed::Done
    }

    /// Completes the last word typed.
    fn complete(&mut self, now_ns: u64) {
        let words = core::mem::take(&mut self.words);
        let candidates = self.editor.complete(words.iter().map(String::as_str));
        if !candidates.is_empty() {
            let text = candidates.join("  ");
            self.reply(&text);
        }
        self.hide_prompt();
        let line = String::from(self.editor.line());
        self.desk.keep_line(&line);
        self.due(now_ns);
    }
}

enum Obeyed {
    Done,
    /// There is no room for more now.
    InPart,
}
