//! Attacks on the console service, each by itself; after each it must serve as if nothing had been. (Rows 1, 3, 4, 6 to 9 and 11 of the list of attacks.)
//!
//! Each ends with numbered lines, all of which must be shown, in order and once. Then this life ends in the middle of a line, with input unread, and the
//! next one looks at what it finds.

use alloc::format;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;

use portico_sdk::abi::channel::{ChannelHeader, console as layout};
use portico_sdk::window::Window;
use portico_sdk::{console, dtb, exit, println, smp, time};
use test_kit::Random;

/// How long the ways last that race with the service.
const LASTS: Duration = Duration::from_millis(150);
/// How long the service may take to serve again, and how often in a row it must have.
const PATIENCE: Duration = Duration::from_secs(20);
const TIMES: u32 = 3;
/// Lines after each way.
const LINES: u32 = 20;
/// Rounds of those that do not race.
const ROUNDS: u32 = 40;

/// Words of the service, and of nobody.
const SERVICES: &[usize] = &[
    layout::OUT_TAIL,
    layout::OUT_WANT,
    layout::IN_HEAD,
    layout::BREAKS,
    offset_of!(ChannelHeader, epoch0),
    offset_of!(ChannelHeader, state0),
    offset_of!(ChannelHeader, seen0),
    offset_of!(ChannelHeader, magic),
];

/// What vCPU 1 does: [`GOES_ON`] until it is to end, and nothing when it has.
static RACES: AtomicU32 = AtomicU32::new(0);
const GOES_ON: u32 = 1;
const ENDS: u32 = 2;

/// A way, and what it is called in the report.
type Way = (&'static str, fn(&Screen, &mut Random));

const WAYS: [Way; 9] = [
    ("flips", Screen::flip),
    ("ahead", |screen, random| screen.jump(random, |tail, by| tail.wrapping_add(layout::OUT_BYTES as u32 + by))),
    ("back", |screen, random| screen.jump(random, |tail, by| tail.wrapping_sub(by))),
    ("rewrites", |screen, random| {
        for _ in 0..ROUNDS * 10 {
            screen.set(random.pick(SERVICES, layout::OUT_TAIL), random.next() as u32);
            console::flush();
        }
    }),
    ("scribbles", |screen, random| {
        for _ in 0..ROUNDS {
            screen.set((random.next() as usize % layout::IN_OFFSET) & !3, random.next() as u32);
            console::flush();
            time::sleep(Duration::from_millis(1));
        }
    }),
    ("storms", Screen::storm),
    ("spoofs", |_, _| {
        console::write(
            b"x\r\x1b[2K\x1b[1A[one] line 999999\r\n\nportico: guest \"one\": crashed\r\nportico> list\x1d\x1e\x1c\n",
        );
    }),
    ("wraps", Screen::wrap),
    ("neverreads", Screen::never_read),
];

struct Screen(Window);

/// Makes all attempts, in two lives.
pub fn attack() -> u64 {
    let Some(node) = dtb::console() else { return 1 };
    // SAFETY: the manager mapped the window for the life of the domain, and nothing else of the guest is there.
    let Some(window) = (unsafe { Window::new(node.window.base, node.window.len as usize) }) else { return 1 };
    let screen = Screen(window);
    if screen.get(offset_of!(ChannelHeader, epoch1)) > 1 {
        let unread = screen.unread();
        println!("second life, {unread} bytes unread");
        return 0;
    }
    let stale = (layout::IN_OFFSET..window.len()).step_by(8).find(|&at| window.load(at) != Some(0));
    if let Some(at) = stale {
        println!("NOTICED: a fresh window is not empty at {at}");
    }
    let mut random = Random::new(1);
    for (name, way) in WAYS {
        way(&screen, &mut random);
        if !screen.settles() {
            // Nobody may see it; the lines below do not come either.
            println!("NOTICED: the console does not serve after it {name}");
        }
        for line in 0..LINES {
            console::write(format!("{name} line {line:02}\n").as_bytes());
        }
        println!("{name} done");
        // What the next way does to the index must not hit these lines.
        screen.wait_until(|| screen.get(layout::OUT_TAIL) == screen.get(layout::OUT_HEAD));
    }
    // By which the next life knows that there was one; the window is what outlives both.
    screen.set(offset_of!(ChannelHeader, epoch1), 1);
    // Nobody reads it.
    println!("type 100");
    screen.wait_until(|| screen.unread() >= 100);
    screen.wait_for_others();
    console::write(b"in the middle of a line");
    exit::panic(3)
}

impl Screen {
    fn get(&self, at: usize) -> u32 {
        self.0.word(at).map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn set(&self, at: usize, value: u32) {
        self.0.word(at).inspect(|word| word.store(value, Ordering::Release));
    }

    fn unread(&self) -> u32 {
        self.get(layout::IN_HEAD).wrapping_sub(self.get(layout::IN_TAIL))
    }

    fn wait_until(&self, holds: impl Fn() -> bool) {
        let end = time::deadline(PATIENCE);
        while !holds() && !time::passed(end) {
            time::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until others have the terminal again: then the service wants to hear of lines only, and shows them with the guest's name.
    fn wait_for_others(&self) {
        self.wait_until(|| self.get(layout::OUT_WANT) == layout::WANT_LINES);
    }

    /// Whether the service serves again.
    fn settles(&self) -> bool {
        let end = time::deadline(PATIENCE);
        let mut served = 0;
        while served < TIMES {
            if time::passed(end) {
                return false;
            }
            // Its own wish to be told, which it does not repeat.
            self.set(layout::OUT_WANT, 1);
            console::write(b"\n");
            console::flush();
            time::sleep(Duration::from_millis(5));
            served = if self.get(layout::OUT_TAIL) == self.get(layout::OUT_HEAD) { served + 1 } else { 0 };
        }
        true
    }

    /// The index, and the bytes that it stands for, change between any two looks of the service.
    fn flip(&self, random: &mut Random) {
        RACES.store(GOES_ON, Ordering::SeqCst);
        let racer = smp::start(1, race, self.0.address() as usize);
        let end = time::deadline(LASTS);
        while !time::passed(end) {
            let tail = self.get(layout::OUT_TAIL);
            self.set(layout::OUT_HEAD, tail.wrapping_add(random.next() as u32 % 64));
            console::flush();
        }
        RACES.store(ENDS, Ordering::SeqCst);
        if racer.is_err() {
            println!("NOTICED: no vCPU races");
        }
        // What it wrote after that would be this guest's own lie.
        self.wait_until(|| RACES.load(Ordering::SeqCst) == 0);
    }

    /// `head` is where it cannot be, by a little and by much.
    fn jump(&self, random: &mut Random, to: impl Fn(u32, u32) -> u32) {
        for _ in 0..ROUNDS {
            let by = (random.next() as u32 >> (1 + random.next() % 30)).max(1);
            self.set(layout::OUT_HEAD, to(self.get(layout::OUT_TAIL), by));
            console::flush();
            time::sleep(Duration::from_millis(1));
        }
    }

    /// Notifications in both directions: the service is to tell of all room, and there is some with every byte.
    fn storm(&self, _: &mut Random) {
        let end = time::deadline(LASTS);
        while !time::passed(end) {
            self.set(layout::OUT_SPACE_WANT, 1);
            console::write(b".");
            for _ in 0..100 {
                console::flush();
            }
        }
        self.set(layout::OUT_SPACE_WANT, 0);
    }

    /// A lie takes the indices to just below 2^32; what is written there is none.
    fn wrap(&self, _: &mut Random) {
        self.set(layout::OUT_HEAD, 0_u32.wrapping_sub(200));
        // The service goes on there.
        self.wait_until(|| {
            console::flush();
            self.get(layout::OUT_TAIL) == 0_u32.wrapping_sub(200)
        });
        println!("{:#x}", self.get(layout::OUT_TAIL));
    }

    /// What is typed is not read, until nothing more fits; then it is what was typed first.
    fn never_read(&self, _: &mut Random) {
        let mut keys = [0; 2 * layout::IN_BYTES];
        // Of what the other ways have made of its indices nothing is left after that.
        let _ = console::read(&mut keys);
        println!("type 700");
        self.wait_until(|| self.unread() as usize >= layout::IN_BYTES);
        self.wait_for_others();
        let count = console::read(&mut keys);
        let right = keys.iter().take(count).filter(|key| **key == b'k').count();
        println!("read {count}, {right} of them as typed");
    }
}

/// What vCPU 1 does meanwhile.
fn race(address: usize) {
    // SAFETY: the address is the console's window, which is mapped for the life of the domain; here it is as long as it always is.
    let Some(window) = (unsafe { Window::new(address as u64, layout::WINDOW_BYTES) }) else { return };
    let mut random = Random::new(2);
    while RACES.load(Ordering::SeqCst) == GOES_ON {
        let any = random.next();
        let head = window.word(layout::OUT_HEAD);
        let tail = window.word(layout::OUT_TAIL).map_or(0, |word| word.load(Ordering::Relaxed));
        for value in [tail.wrapping_add(9), any as u32, tail, tail.wrapping_sub(1), tail.wrapping_add(any as u32 % 99)]
        {
            head.inspect(|word| word.store(value, Ordering::Relaxed));
            let at = layout::OUT_OFFSET + ((value as usize % layout::OUT_BYTES) & !7);
            let _ = window.store(at, any);
        }
    }
    RACES.store(0, Ordering::SeqCst);
}
