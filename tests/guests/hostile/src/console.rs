//! The console's window: indices that run ahead, back and round, words that are the service's, the header. (Rows 3, 4, 5 and 7 of the list of attacks.)

use core::sync::atomic::Ordering;
use core::time::Duration;
use portico_sdk::abi::channel::console as layout;
use portico_sdk::window::Window;
use portico_sdk::{console, dtb, time};
use test_kit::{Random, Tap};

/// Stores to the window.
const ROUNDS: u32 = 4000;
/// How long the service may take to serve again, and how often it must have.
const PATIENCE: Duration = Duration::from_secs(10);
const TIMES: u32 = 5;

/// To be made before a line is printed: what the service takes out of the ring again is then none of the report.
pub fn attempts(tap: &mut Tap) {
    let complaint = misuse();
    tap.none("the console serves after whatever was written to its window", complaint);
}

fn misuse() -> Option<&'static str> {
    let Some(node) = dtb::console() else { return Some("there is no console") };
    // SAFETY: the manager mapped the window for the life of the domain, and nothing else of the guest is there.
    let window = unsafe { Window::new(node.window.base, node.window.len as usize) };
    let Some(window) = window else { return Some("there is no window") };
    let load = |at: usize| window.word(at).map_or(0, |word| word.load(Ordering::Acquire));
    let store = |at: usize, value: u32| {
        window.word(at).inspect(|word| word.store(value, Ordering::Release));
    };
    let mut random = Random::new(1);
    for round in 0..ROUNDS {
        let by = random.next() as u32 >> (random.next() % 32);
        match round % 4 {
            0 => store(layout::OUT_HEAD, load(layout::OUT_HEAD).wrapping_add(by)),
            1 => store(layout::OUT_HEAD, load(layout::OUT_HEAD).wrapping_sub(by)),
            2 => store(layout::OUT_TAIL, load(layout::OUT_TAIL).wrapping_add(by)),
            _ => store((random.next() as usize % layout::OUT_OFFSET) & !3, by),
        }
        if round % 16 == 0 {
            console::flush();
        }
    }
    // Its own wish to be told, which it does not repeat.
    store(layout::OUT_WANT, 1);
    let end = time::deadline(PATIENCE);
    let mut served = 0;
    while served < TIMES {
        if time::passed(end) {
            return Some("it takes nothing any more");
        }
        console::write(b"\n");
        console::flush();
        time::sleep(Duration::from_millis(20));
        served += u32::from(load(layout::OUT_TAIL) == load(layout::OUT_HEAD));
    }
    None
}
