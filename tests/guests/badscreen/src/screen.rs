//! The console of one guest, from the service's side.

use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use core::time::Duration;

use portico_console::layout;
use portico_sdk::abi::Handle;
use portico_sdk::abi::channel::console;
use portico_sdk::window::Window;
use portico_sdk::{hvc, time};
use test_kit::Random;

/// What it does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// `tail` of the output runs ahead of what was written, and back.
    TailAhead,
    TailBack,
    /// It changes without end.
    TailFlips,
    /// It stands still, or moves by a byte now and then.
    TakesNothing,
    TakesDrops,
    /// `head` of the input runs ahead, and back, with anything in the ring.
    InputAhead,
    InputBack,
    /// Both are right, and what was typed changes while it is read.
    InputChanges,
    /// What the service wants to hear of changes without end.
    Wants,
    /// The guest's own words are written over: `head` of the output, `tail` of the input, its wish for room, its state.
    GuestsWords,
    /// Anything anywhere.
    Scribbles,
    /// Notifications without end.
    Storms,
}

/// How long each lasts: those that would hold up a guest that is too patient for longer than the others.
pub const LIES: [(Lie, Duration); 12] = [
    (Lie::TailAhead, SHORT),
    (Lie::TailBack, SHORT),
    (Lie::TailFlips, LONG),
    (Lie::TakesNothing, LONG),
    (Lie::TakesDrops, LONG),
    (Lie::InputAhead, SHORT),
    (Lie::InputBack, SHORT),
    (Lie::InputChanges, SHORT),
    (Lie::Wants, SHORT),
    (Lie::GuestsWords, SHORT),
    (Lie::Scribbles, SHORT),
    (Lie::Storms, SHORT),
];
const SHORT: Duration = Duration::from_millis(150);
const LONG: Duration = Duration::from_millis(3000);
/// Between two bytes of [`Lie::TakesDrops`]: less than a guest waits for one, so that only one who looks at how many it were gives up.
const DROP_EVERY: Duration = Duration::from_millis(150);
/// Changes in a turn, of lies whose point is that they race with the guest.
const RACES: u32 = 20_000;
/// How the lines begin of those that are lied to, once they are up.
const UP: [&[u8]; 2] = [b"line ", b"healthy "];
/// Longest line that is printed.
const LONGEST: usize = 512;

/// The console of a guest.
pub struct Screen {
    pub name: String,
    window: Window,
    /// The port by which the guest is notified.
    pub port: Option<Handle>,
    tail: u32,
    line: Vec<u8>,
    /// What comes next may be the end of a line whose beginning was not printed.
    is_inside: bool,
    drop_at: u64,
    /// It has begun to write what the test verifies.
    pub is_up: bool,
}

impl Screen {
    /// The console of guest `source`. `None` if its window makes no sense.
    pub fn open(source: usize, name: String) -> Option<Screen> {
        // SAFETY: the manager lends the window for the life of the domain, and nothing else is there.
        let window = unsafe { Window::new(layout::console_ipa(source), console::WINDOW_BYTES) }?;
        Some(Screen { name, window, port: None, tail: 0, line: Vec::new(), is_inside: true, drop_at: 0, is_up: false })
    }

    fn get(&self, at: usize) -> u32 {
        self.window.word(at).map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn set(&self, at: usize, value: u32) {
        self.window.word(at).inspect(|word| word.store(value, Ordering::Release));
    }

    fn notify(&self) {
        if let Some(port) = self.port {
            let _ = hvc::port_notify(port);
        }
    }

    /// Begins to keep to everything, as a new life of a service does that finds indices which make no sense.
    pub fn mend(&mut self) {
        self.tail = self.get(console::OUT_HEAD);
        self.set(console::OUT_TAIL, self.tail);
        self.set(console::IN_HEAD, self.get(console::IN_TAIL));
        // It looks by itself.
        self.set(console::OUT_WANT, 0);
        self.line.clear();
        self.is_inside = true;
        self.notify();
    }

    /// Takes what was written, as it should; `print` gets the whole lines.
    pub fn serve(&mut self, print: impl Fn(&str, &[u8])) {
        let head = self.get(console::OUT_HEAD);
        if head.wrapping_sub(self.tail) as usize > console::OUT_BYTES {
            return self.mend();
        }
        while self.tail != head {
            let mut byte = [0];
            let _ = self.window.read(console::OUT_OFFSET + self.tail as usize % console::OUT_BYTES, &mut byte);
            self.tail = self.tail.wrapping_add(1);
            match byte[0] {
                b'\n' => {
                    if !core::mem::take(&mut self.is_inside) {
                        self.is_up |= UP.iter().any(|word| self.line.starts_with(word));
                        print(&self.name, &self.line);
                    }
                    self.line.clear();
                }
                byte if self.line.len() < LONGEST => self.line.push(byte),
                _ => {}
            }
        }
        self.set(console::OUT_TAIL, self.tail);
        if self.get(console::OUT_SPACE_WANT) != 0 {
            self.notify();
        }
    }

    /// Lies, once or for a moment.
    pub fn lie(&mut self, lie: Lie, random: &mut Random) {
        let any = random.next() as u32;
        // Of any length in bits.
        let by = (any >> (random.next() % 32)).max(1);
        let head = self.get(console::OUT_HEAD);
        match lie {
            Lie::TailAhead => self.set(console::OUT_TAIL, head.wrapping_add(by)),
            Lie::TailBack => self.set(console::OUT_TAIL, self.get(console::OUT_TAIL).wrapping_sub(by)),
            Lie::TailFlips => {
                for step in 0..RACES {
                    self.set(console::OUT_TAIL, any.wrapping_add(step.wrapping_mul(0x1_0001)));
                }
            }
            Lie::TakesNothing => {}
            Lie::TakesDrops => {
                let is_full = head.wrapping_sub(self.tail) as usize >= console::OUT_BYTES;
                if is_full && time::passed(self.drop_at) {
                    self.tail = self.tail.wrapping_add(1);
                    self.set(console::OUT_TAIL, self.tail);
                    self.drop_at = time::deadline(DROP_EVERY);
                }
            }
            Lie::InputAhead => {
                self.fill_input(random);
                self.set(console::IN_HEAD, self.get(console::IN_TAIL).wrapping_add(by));
            }
            Lie::InputBack => self.set(console::IN_HEAD, self.get(console::IN_HEAD).wrapping_sub(by)),
            Lie::InputChanges => {
                self.set(console::IN_HEAD, self.get(console::IN_TAIL).wrapping_add(console::IN_BYTES as u32));
                for _ in 0..RACES / 100 {
                    self.fill_input(random);
                }
            }
            Lie::Wants => {
                for step in 0..RACES {
                    self.set(console::OUT_WANT, any.rotate_left(step));
                }
            }
            Lie::GuestsWords => {
                let words = [console::OUT_HEAD, console::IN_TAIL, console::OUT_SPACE_WANT, 0, 4, 8, 12, 16, 20, 24, 28];
                self.set(random.pick(&words, console::OUT_HEAD), any);
            }
            Lie::Scribbles => {
                for _ in 0..RACES / 100 {
                    self.set((random.next() as usize % self.window.len()) & !3, random.next() as u32);
                }
            }
            Lie::Storms => (0..RACES / 100).for_each(|_| self.notify()),
        }
        if !matches!(lie, Lie::Storms | Lie::TakesNothing) {
            self.notify();
        }
    }

    fn fill_input(&self, random: &mut Random) {
        for at in (0..console::IN_BYTES).step_by(8) {
            let _ = self.window.store(console::IN_OFFSET + at, random.next());
        }
    }
}
