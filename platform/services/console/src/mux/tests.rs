use super::{KEY_ESCAPE, KEY_NEXT, KEY_SWITCH, Mux};
use crate::desk::Desk;
use crate::desk::tests::{desk, memory};
use crate::layout;
use crate::message::{Kind, Message, NOBODY};
use portico_abi::channel::console;
use portico_sdk::pipe::{Consumer, Pipe, Producer};
use portico_sdk::window::Window;
use proptest::prelude::*;

/// A machine around the multiplexer: the manager, guests, and the terminal.
struct Machine {
    desk: Window,
    letters: Window,
    consoles: Vec<Window>,
    histories: Vec<Window>,
    guests: Vec<Producer>,
    inputs: Vec<Consumer>,
    to: Producer,
    from: Consumer,
    mux: Mux,
    is_quiet: bool,
    terminal: Vec<u8>,
    now: u64,
}

impl Machine {
    fn new(names: &[&str], is_quiet: bool) -> Machine {
        let (window, letters) = desk();
        let consoles: Vec<Window> = names.iter().map(|_| memory(console::WINDOW_BYTES)).collect();
        let histories: Vec<Window> = names.iter().map(|_| memory(layout::HISTORY_BYTES)).collect();
        for (id, name) in names.iter().enumerate() {
            let at = layout::TABLE + id * layout::ENTRY_BYTES;
            window.write(at, name.as_bytes()).unwrap();
            window.word(at + layout::ENTRY_KIND).unwrap().store(layout::GUEST, core::sync::atomic::Ordering::Relaxed);
        }
        let mux = start(window, letters, &consoles, &histories, is_quiet);
        let guests = consoles.iter().map(|window| Producer::new(Pipe::console_out(*window).unwrap())).collect();
        let inputs = consoles.iter().map(|window| Consumer::new(Pipe::console_in(*window).unwrap())).collect();
        let to = Producer::new(Pipe::console_out(letters).unwrap());
        let from = Consumer::new(Pipe::console_in(letters).unwrap());
        Machine {
            desk: window,
            letters,
            consoles,
            histories,
            guests,
            inputs,
            to,
            from,
            mux,
            is_quiet,
            terminal: Vec::new(),
            now: 0,
        }
    }

    /// The service ends, at whatever it is, and the next instance begins.
    fn restart(&mut self) {
        self.mux = start(self.desk, self.letters, &self.consoles, &self.histories, self.is_quiet);
    }

    fn write(&mut self, guest: usize, text: &str) {
        assert_eq!(self.guests[guest].write(text.as_bytes()), Ok(text.len()));
    }

    fn say(&mut self, kind: Kind, number: usize, payload: &[u8]) {
        let bytes = Message::new(kind, number as u32, payload).to_bytes();
        assert_eq!(self.to.write(&bytes), Ok(bytes.len()));
    }

    fn ended(&mut self, guest: usize) {
        let head = self.consoles[guest].word(console::OUT_HEAD).unwrap().load(core::sync::atomic::Ordering::Relaxed);
        self.say(Kind::Ended, guest, &head.to_le_bytes());
    }

    fn heard(&mut self) -> Option<Message> {
        let mut bytes = [0; console::IN_BYTES];
        let count = self.from.read(&mut bytes).unwrap();
        Message::read(&bytes[..count])
    }

    fn typed(&mut self, guest: usize) -> Vec<u8> {
        let mut bytes = [0; console::IN_BYTES];
        let count = self.inputs[guest].read(&mut bytes).unwrap();
        bytes[..count].to_vec()
    }

    /// Lets it work until nothing is left to do; returns what the terminal got.
    fn run(&mut self) -> String {
        let terminal = &mut self.terminal;
        while self.mux.turn(self.now) | (self.mux.send(100, || 3, |byte| terminal.push(byte)) > 0) {}
        String::from_utf8_lossy(&core::mem::take(&mut self.terminal)).into_owned()
    }

    fn key(&mut self, byte: u8) -> String {
        self.mux.key(byte, self.now);
        self.run()
    }

    fn later(&mut self, ms: u64) -> String {
        self.now += ms * 1_000_000;
        self.run()
    }
}

fn start(desk: Window, letters: Window, consoles: &[Window], histories: &[Window], is_quiet: bool) -> Mux {
    Mux::new(Desk::new(desk, letters).unwrap(), is_quiet, |id| Some((*consoles.get(id)?, *histories.get(id)?)))
}

const WEB: usize = 0;
const DB: usize = 1;

fn two(is_quiet: bool) -> Machine {
    Machine::new(&["web", "db"], is_quiet)
}

#[test]
fn lines_of_two_guests_never_mix() {
    let mut machine = two(true);
    machine.write(WEB, "hel");
    machine.write(DB, "one\ntwo");
    assert_eq!(machine.run(), "[db] one\r\n");
    machine.write(WEB, "lo\n");
    assert_eq!(machine.run(), "[web] hello\r\n");
    assert_eq!(machine.later(200), "[db] two\r\n");
}

#[test]
fn the_prompt_stays_below_and_keeps_what_was_typed() {
    let mut machine = two(false);
    assert_eq!(machine.run(), "portico> ");
    assert_eq!(machine.key(b'l'), "l");
    machine.write(WEB, "hi\n");
    assert_eq!(machine.run(), "\r\u{1b}[K[web] hi\r\nportico> l");
    assert_eq!(machine.key(b'\r'), "\r\n");
    assert_eq!(machine.heard(), Some(Message::new(Kind::Line, 0, b"l")));
    machine.say(Kind::Reply, 0, b"a\nb\n");
    machine.say(Kind::Done, 0, b"");
    assert_eq!(machine.run(), "a\r\nb\r\nportico> ");
    // A manager that says nothing does not keep the prompt away.
    machine.key(b'x');
    assert_eq!(machine.key(b'\r'), "\r\n");
    assert_eq!(machine.later(600), "portico> ");
}

#[test]
fn a_quiet_terminal_has_no_prompt_until_a_key_comes() {
    let mut machine = two(true);
    machine.write(WEB, "hi\n");
    assert_eq!(machine.run(), "[web] hi\r\n");
    assert_eq!(machine.mux.deadline(), None);
    assert_eq!(machine.key(b'\r'), "portico> \r\nportico> ");
}

#[test]
fn focus_passes_bytes_and_nothing_is_lost_meanwhile() {
    let mut machine = two(false);
    machine.write(DB, "early\n");
    machine.run();
    machine.say(Kind::Focus, DB, b"");
    assert!(machine.run().ends_with("early\r\n"));
    machine.key(b'x');
    assert_eq!(machine.typed(DB), b"x");
    machine.write(WEB, "unseen\n");
    machine.write(DB, "\x1b[1mraw");
    assert_eq!(machine.run(), "\u{1b}[1mraw");
    let text = machine.key(KEY_SWITCH);
    assert!(text.contains("[web] unseen") && !text.contains("early"), "{text}");
    assert_eq!(machine.mux.focus(), None);
    machine.key(KEY_SWITCH);
    assert_eq!(machine.mux.focus(), Some(DB));
    machine.key(KEY_NEXT);
    assert_eq!(machine.mux.focus(), Some(WEB));
    machine.key(KEY_SWITCH);
    machine.say(Kind::Log, WEB, &9_u32.to_le_bytes());
    assert!(machine.run().contains("unseen\r\n"));
    machine.say(Kind::Log, NOBODY as usize, &9_u32.to_le_bytes());
    let text = machine.run();
    assert!(text.contains("[db] early\r\n[web] unseen\r\n"), "{text}");
}

#[test]
fn every_byte_passes_in_both_directions() {
    let mut machine = two(true);
    machine.say(Kind::Focus, DB, b"");
    machine.run();
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(machine.guests[DB].write(&all), Ok(256));
    machine.run();
    machine.guests[DB].write(&all).unwrap();
    while machine.mux.turn(0) {}
    machine.mux.send(999, || 3, |byte| machine.terminal.push(byte));
    assert_eq!(machine.terminal, all);
    for byte in 0..=255_u8 {
        if matches!(byte, KEY_SWITCH | KEY_NEXT | KEY_ESCAPE) {
            machine.key(KEY_ESCAPE);
        }
        machine.key(byte);
    }
    assert_eq!(machine.typed(DB), all);
    machine.key(KEY_ESCAPE);
    machine.key(b'q');
    assert_eq!(machine.typed(DB), [KEY_ESCAPE, b'q']);
}

#[test]
fn a_dead_guests_last_words_are_shown_before_its_end() {
    let mut machine = two(true);
    machine.write(WEB, "I am dy");
    machine.ended(WEB);
    machine.say(Kind::Event, 0, b"guest \"web\": exited with code 0");
    machine.write(WEB, "born again\n");
    assert_eq!(machine.run(), "[web] I am dy\r\nportico: guest \"web\": exited with code 0\r\n[web] born again\r\n");
    machine.say(Kind::Focus, WEB, b"");
    machine.run();
    machine.say(Kind::Gone, WEB, b"");
    machine.run();
    assert_eq!(machine.mux.focus(), None);
}

/// The guest's next life is there before the end of the last one is heard of, and says that less was written than had been: nobody waits for the rest.
#[test]
fn a_next_life_that_takes_words_back_holds_up_nobody() {
    for (took, back) in [(0, 7), (0, 3), (2, 6), (2, 0x4000_0000)] {
        let mut machine = two(true);
        machine.write(WEB, "words");
        machine.ended(WEB);
        machine.say(Kind::Event, 0, b"guest \"web\": exited with code 0");
        let head = machine.consoles[WEB].word(console::OUT_HEAD).unwrap();
        let end = head.load(core::sync::atomic::Ordering::Relaxed);
        if took > 0 {
            machine.mux.take_output(WEB, Some(took), 0);
        }
        head.store(end.wrapping_sub(back), core::sync::atomic::Ordering::Relaxed);
        machine.write(DB, "well\n");
        let text = machine.run();
        assert!(text.contains("portico: guest \"web\": exited with code 0\r\n"), "{text}");
        assert!(text.ends_with("[db] well\r\n"), "{text}");
        machine.guests[WEB].resynchronize();
        machine.write(WEB, "again\n");
        assert_eq!(machine.run(), "[web] again\r\n");
    }
}

#[test]
fn a_flood_leaves_room_for_others() {
    let mut machine = two(true);
    let flood = "x".repeat(60) + "\n";
    for _ in 0..200 {
        machine.write(WEB, &flood);
    }
    for _ in 0..50 {
        machine.mux.turn(0);
    }
    machine.write(DB, "quiet\n");
    let mut text = String::new();
    let mut sent = 0;
    while !text.contains("[db] quiet") {
        machine.mux.turn(0);
        sent += machine.mux.send(64, || 3, |byte| text.push(char::from(byte)));
        assert!(sent < 8 << 10, "it waits behind the flood");
    }
}

#[test]
fn a_guest_that_lies_is_skipped() {
    let mut machine = two(true);
    let head = machine.consoles[WEB].word(console::OUT_HEAD).unwrap();
    head.store(0x8000_0000, core::sync::atomic::Ordering::Relaxed);
    machine.write(DB, "well\n");
    assert_eq!(machine.run(), "[db] well\r\n");
    machine.guests[WEB].resynchronize();
    machine.write(WEB, "better\n");
    assert_eq!(machine.run(), "[web] better\r\n");
}

#[test]
fn the_next_instance_goes_on() {
    let mut machine = two(false);
    machine.run();
    machine.key(b'l');
    machine.key(b'o');
    machine.write(WEB, "half a");
    machine.run();
    machine.restart();
    machine.write(WEB, " line\n");
    assert_eq!(machine.run(), "\r\u{1b}[K[web] half a line\r\nportico> lo");
    machine.say(Kind::Log, WEB, &9_u32.to_le_bytes());
    machine.run();
    machine.restart();
    machine.say(Kind::Log, WEB, &9_u32.to_le_bytes());
    assert!(machine.run().contains("half a line\r\n"));
    assert_eq!(machine.key(b'\r'), "\r\n");
    assert_eq!(machine.heard(), Some(Message::new(Kind::Line, 0, b"lo")));
}

#[test]
fn who_writes_often_need_not_notify_until_it_pauses() {
    let mut machine = two(true);
    let wanted = |machine: &Machine, id: usize| {
        machine.consoles[id].word(console::OUT_WANT).unwrap().load(core::sync::atomic::Ordering::Relaxed)
    };
    let rest = |machine: &mut Machine| machine.mux.rest(machine.now);
    machine.now = 1_000_000_000;
    assert_eq!(rest(&mut machine), None);
    assert_eq!([WEB, DB].map(|id| wanted(&machine, id)), [console::WANT_LINES; 2]);
    machine.write(WEB, "now\n");
    machine.run();
    assert_eq!((wanted(&machine, WEB), rest(&mut machine)), (console::WANT_LINES, None));
    machine.now += 10_000;
    machine.write(WEB, "and again\n");
    machine.run();
    assert_eq!((wanted(&machine, WEB), wanted(&machine, DB)), (0, console::WANT_LINES));
    let again = rest(&mut machine);
    assert_eq!((again, wanted(&machine, WEB)), (Some(machine.now + 1_000_000), 0));
    // It is looked at then, and has written more; and then it has not.
    machine.now += 1_000_000;
    machine.write(WEB, "and more\n");
    assert_eq!(machine.run(), "[web] and more\r\n");
    machine.now += 900_000;
    assert_eq!((rest(&mut machine), wanted(&machine, WEB)), (Some(machine.now + 100_000), 0));
    machine.now += 100_000;
    assert_eq!((rest(&mut machine), wanted(&machine, WEB)), (None, console::WANT_LINES));
    // The guest that has the screen is to tell of everything, the others of lines.
    machine.say(Kind::Focus, DB, b"");
    machine.run();
    assert_eq!((rest(&mut machine), wanted(&machine, WEB), wanted(&machine, DB)), (None, console::WANT_LINES, 1));
    machine.key(KEY_SWITCH);
    assert_eq!((rest(&mut machine), wanted(&machine, DB)), (None, console::WANT_LINES));
    // Another instance asks anew, of whatever it finds.
    machine.consoles[WEB].word(console::OUT_WANT).unwrap().store(0, core::sync::atomic::Ordering::Relaxed);
    machine.restart();
    assert_eq!(wanted(&machine, WEB), console::WANT_LINES);
}

#[test]
fn breaks_are_counted_for_whom_has_the_keyboard() {
    let mut machine = two(true);
    while machine.mux.take_notice().is_some() {}
    machine.mux.line_break();
    machine.say(Kind::Focus, DB, b"");
    machine.run();
    machine.mux.line_break();
    assert_eq!((machine.mux.take_notice(), machine.mux.take_notice()), (Some(DB), None));
    let breaks =
        |id: usize| machine.consoles[id].word(console::BREAKS).unwrap().load(core::sync::atomic::Ordering::Relaxed);
    assert_eq!((breaks(WEB), breaks(DB)), (0, 1));
}

#[test]
fn completes_with_the_managers_words() {
    let mut machine = two(false);
    machine.run();
    for byte in *b"lo\t" {
        machine.key(byte);
    }
    assert_eq!(machine.heard(), Some(Message::new(Kind::Complete, 0, b"")));
    machine.say(Kind::Word, 0, b"log");
    machine.say(Kind::Word, 0, b"list");
    machine.say(Kind::WordsEnd, 0, b"");
    assert_eq!(machine.run(), "\r\u{1b}[Kportico> log ");
    machine.say(Kind::Close, 0, b"");
    assert_eq!(machine.run(), "\r\u{1b}[K");
    assert!(machine.mux.is_closing());
    machine.mux.closed();
    assert_eq!(machine.heard().map(|message| message.kind), Some(Kind::Closed));
}

proptest! {
    #[test]
    fn no_keys_or_bytes_break_it(ops in prop::collection::vec((0u8..6, any::<u8>()), 0..500)) {
        let mut machine = two(false);
        for (op, byte) in ops {
            machine.now += 50_000_000;
            match op {
                0 => drop(machine.guests[WEB].write(&[byte])),
                1 => drop(machine.guests[DB].write(&[byte, b'\n'])),
                2 => drop(machine.key(byte)),
                3 => machine.restart(),
                4 => machine.ended(usize::from(byte & 1)),
                _ => drop(machine.run()),
            }
            machine.heard();
            machine.typed(WEB);
            machine.typed(DB);
        }
    }

    /// Whenever an instance ends, every line is on the terminal once, in order.
    #[test]
    fn no_restart_loses_or_doubles_a_line(steps in prop::collection::vec((0u8..5, 1usize..300), 1..120)) {
        let mut machine = two(true);
        let mut terminal = Vec::new();
        let mut written = [0_u32; 2];
        for (op, amount) in steps {
            match op {
                0 | 1 => {
                    let id = usize::from(op);
                    let line = format!("line {:04} of {id}\n", written[id]);
                    if machine.guests[id].room().unwrap() as usize > line.len() {
                        machine.write(id, &line);
                        written[id] += 1;
                    }
                }
                2 => { machine.mux.turn(0); }
                3 => { machine.mux.send(amount, || 3, |byte| terminal.push(byte)); }
                _ => machine.restart(),
            }
        }
        while machine.mux.turn(0) | (machine.mux.send(100, || 3, |byte| terminal.push(byte)) > 0) {}
        let text = String::from_utf8(terminal).unwrap();
        for (id, name) in ["web", "db"].iter().enumerate() {
            let got: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(&format!("[{name}] "))).collect();
            let wanted: Vec<String> = (0..written[id]).map(|n| format!("line {n:04} of {id}")).collect();
            prop_assert_eq!(got, wanted);
        }
    }
}
