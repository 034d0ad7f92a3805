//! What it does to the manager, and how it asks whether that goes on.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use core::time::Duration;
use portico_console::layout;
use portico_console::message::{HEADER, Kind, Message};
use portico_sdk::abi::channel::console;
use portico_sdk::abi::dt;
use portico_sdk::window::Window;
use portico_sdk::{dtb, irq, time};
use portico_service::control::Control;
use test_kit::Random;

/// How long each of its ways takes, and how long the manager may take for an answer.
const LASTS: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(10);
/// How long until it asks again.
const AGAIN: Duration = Duration::from_secs(1);

/// The service.
struct Service {
    control: Control,
    letters: Window,
    desk: Window,
    /// The data register of a PL011, which is the first.
    uart: *mut u32,
    random: Random,
    /// Bytes ever said to the manager, if it believes so.
    said: u32,
}

/// A way to serve badly, once; the number is how often it was used before.
type Way = fn(&mut Service, u32);

/// Serves badly, and then not at all.
pub fn serve() -> u64 {
    // It polls; no handler is ever run.
    irq::mask();
    let Some(mut service) = Service::open() else { return 1 };
    service.control.ready();
    service.print("bad console: up");
    let ways: [(&str, Way); 7] = [
        ("truncates", Service::truncate),
        ("exaggerates", Service::exaggerate),
        ("invents", Service::invent),
        ("replays", Service::replay),
        ("jumps", Service::jump),
        ("scribbles", Service::scribble),
        ("storms", Service::storm),
    ];
    for (name, way) in ways {
        service.print(name);
        let end = time::deadline(LASTS);
        for turn in 0.. {
            way(&mut service, turn);
            service.control.notify();
            service.control.beat();
            if time::passed(end) {
                break;
            }
        }
        service.ask(name);
    }
    service.print("bad console: silent");
    portico_sdk::port::idle()
}

impl Service {
    fn open() -> Option<Service> {
        let control = Control::open()?;
        let node = dtb::devices(dt::UART).next()?;
        let uart = core::ptr::with_exposed_provenance_mut(node.window.base as usize);
        // SAFETY: the manager lends both for the life of the domain, and nothing else is there.
        let desk = unsafe { Window::new(layout::DESK_IPA, layout::DESK_BYTES) }?;
        // SAFETY: as above.
        let letters = unsafe { Window::new(layout::BOX_IPA, layout::BOX_BYTES) }?;
        Some(Service { control, letters, desk, uart, random: Random::new(time::now()), said: 0 })
    }

    /// Writes a line to the UART, which in QEMU takes whatever it is given.
    fn print(&self, line: &str) {
        for byte in line.bytes().chain(*b"\r\n") {
            // SAFETY: the manager mapped the UART's registers, for the life of the domain.
            unsafe { self.uart.write_volatile(u32::from(byte)) };
        }
    }

    fn set(&self, at: usize, value: u32) {
        self.letters.word(at).inspect(|word| word.store(value, Ordering::Release));
    }

    fn get(&self, at: usize) -> u32 {
        self.letters.word(at).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Puts bytes into the ring to the manager, whether there is room or not.
    fn say(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let at = console::IN_OFFSET + self.said as usize % console::IN_BYTES;
            let _ = self.letters.write(at, &[byte]);
            self.said = self.said.wrapping_add(1);
        }
        self.set(console::IN_HEAD, self.said);
    }

    /// Messages that end before they should.
    fn truncate(&mut self, turn: u32) {
        let whole = Message::new(Kind::Line, 0, b"help").to_bytes();
        let part = whole.get(..turn as usize % whole.len()).unwrap_or_default();
        self.say(part);
    }

    /// Messages that say that they are longer than they are, or than any may be.
    fn exaggerate(&mut self, turn: u32) {
        let mut bytes = Message::new(Kind::Line, 0, &[b'x'; 40]).to_bytes();
        let [_, _, low, high, ..] = &mut bytes[..] else { return };
        [*low, *high] = [41_u16, 1000, 1001, 0x7fff, 0xffff][turn as usize % 5].to_le_bytes();
        self.say(&bytes);
    }

    /// Messages of kinds that there are not, or that are not for the manager; lines that are no text, and commands that are none.
    fn invent(&mut self, turn: u32) {
        let kind = turn as u8;
        let mut bytes = Message::new(Kind::Event, turn, &self.random.next().to_le_bytes()).to_bytes();
        bytes[0] = if [Kind::Line as u8, Kind::Closed as u8].contains(&kind) { 0 } else { kind };
        self.say(&bytes);
        let text = [self.random.next(), self.random.next()].map(u64::to_le_bytes);
        self.say(&Message::new(Kind::Line, 0, text.as_flattened()).to_bytes());
    }

    /// Answers to what nobody asked, and what was said already.
    fn replay(&mut self, turn: u32) {
        self.say(&Message::new([Kind::Closed, Kind::Complete][turn as usize % 2], turn, b"").to_bytes());
        self.set(console::IN_HEAD, self.said.wrapping_sub(HEADER as u32));
        self.control.notify();
        self.set(console::IN_HEAD, self.said);
    }

    /// Indices that run ahead, and back.
    fn jump(&mut self, _turn: u32) {
        for at in [console::IN_HEAD, console::OUT_TAIL] {
            let by = self.random.next() as u32 >> (self.random.next() % 32);
            self.set(at, self.get(at).wrapping_add(by));
        }
    }

    /// Anything anywhere in the box and in the desk, the manager's own words among it.
    fn scribble(&mut self, _turn: u32) {
        for window in [self.letters, self.desk] {
            let at = (self.random.next() as usize % window.len()) & !3;
            let value = self.random.next() as u32;
            window.word(at).inspect(|word| word.store(value, Ordering::Relaxed));
        }
    }

    /// Commands without end, whose answers nobody takes.
    fn storm(&mut self, _turn: u32) {
        self.say(&Message::new(Kind::Line, 0, b"help").to_bytes());
    }

    /// Asks as a decent service does, and prints the answer; or that there was none.
    fn ask(&mut self, name: &str) {
        let end = time::deadline(PATIENCE);
        // Both sides begin anew, where nobody can have been: the manager takes an index that makes no sense as it is.
        let begin = self.get(console::OUT_HEAD) ^ 0x8000_0000;
        self.said ^= 0x8000_0000;
        self.set(console::OUT_TAIL, begin);
        self.set(console::IN_HEAD, self.said);
        self.control.notify();
        time::sleep(Duration::from_millis(100));
        let mut ask_at = 0;
        let mut tail = begin;
        let mut waiting: Vec<u8> = Vec::new();
        while !time::passed(end) {
            // Again and again: an answer for which there is no more room behind those that nobody took is dropped.
            if time::passed(ask_at) {
                self.say(&Message::new(Kind::Line, 0, b"list").to_bytes());
                self.control.notify();
                ask_at = time::deadline(AGAIN);
            }
            self.control.beat();
            time::sleep(Duration::from_millis(1));
            let head = self.get(console::OUT_HEAD);
            // Not before the manager has begun anew.
            if head.wrapping_sub(tail) as usize > console::OUT_BYTES {
                continue;
            }
            while tail != head {
                let mut byte = [0];
                let _ = self.letters.read(console::OUT_OFFSET + tail as usize % console::OUT_BYTES, &mut byte);
                waiting.push(byte[0]);
                tail = tail.wrapping_add(1);
            }
            self.set(console::OUT_TAIL, tail);
            self.control.notify();
            while let Some(message) = Message::read(&waiting) {
                waiting.drain(..message.len());
                let text = alloc::string::String::from_utf8_lossy(&message.payload);
                if message.kind == Kind::Reply && text.contains("neighbour") && text.contains("running") {
                    for line in text.lines() {
                        self.print(line);
                    }
                    self.print(&alloc::format!("answered while it {name}"));
                    return;
                }
            }
        }
        self.print(&alloc::format!("NOTICED: no answer while it {name}"));
    }
}
