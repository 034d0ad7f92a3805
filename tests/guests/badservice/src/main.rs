//! A service that misuses what it shares with the manager: its control page, and the port beside it. It stands in place of the block service.
//!
//! It says that it serves, and that it does not, again and again; counts back and forth; writes anything anywhere in the page, its header and
//! the manager's own words among it; and notifies without end. Then it falls silent, for the manager to end it.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![cfg_attr(not(target_os = "none"), allow(unused, reason = "a service for the target only"))]

use core::sync::atomic::Ordering;
use core::time::Duration;
use portico_sdk::abi::device::control::{BEAT, CHANGES, COUNTERS, READY};
use portico_sdk::abi::{Handle, dt};
use portico_sdk::port::{self, Port};
use portico_sdk::window::Window;
use portico_sdk::{dtb, println, time};
use test_kit::Random;

portico_sdk::entry!(serve);

/// How long each of its ways takes.
const LASTS: Duration = Duration::from_millis(700);

fn serve() -> u64 {
    let Some(node) = dtb::devices(dt::CONTROL).next() else { return 1 };
    // SAFETY: the manager mapped the page for the life of the domain, and nothing else of the guest is there.
    let Some(page) = (unsafe { Window::new(node.window.base, node.window.len as usize) }) else { return 1 };
    let handle = Handle::from_raw(node.number(dt::PORT).unwrap_or(0) as u32);
    let Ok(port) = Port::bind(handle) else { return 1 };
    let mut random = Random::new(time::now());
    let set = |at: usize, value: u32| {
        if let Some(word) = page.word(at) {
            word.store(value, Ordering::Release);
        }
    };
    let ways: [(&str, &mut dyn FnMut(u64)); 5] = [
        ("replays", &mut |turn| {
            set(READY, (turn & 1) as u32);
            set(BEAT, 1 + (turn & 1) as u32);
        }),
        ("counts back", &mut |turn| {
            set(BEAT, u32::MAX.wrapping_sub(turn as u32));
            set(CHANGES, (turn as u32).wrapping_neg());
        }),
        ("overflows", &mut |turn| {
            for at in (COUNTERS..page.len()).step_by(8) {
                let _ = page.store(at, u64::MAX - (turn & 1));
            }
            set(BEAT, turn as u32);
        }),
        ("scribbles", &mut |_| {
            let at = (random.next() as usize % page.len()) & !3;
            set(at, random.next() as u32);
        }),
        ("storms", &mut |turn| set(BEAT, turn as u32)),
    ];
    for (name, way) in ways {
        println!("bad service: {name}");
        let end = time::deadline(LASTS);
        for turn in 1.. {
            way(turn);
            let _ = port.notify();
            if time::passed(end) {
                break;
            }
        }
    }
    println!("bad service: silent");
    port::idle()
}
