//! Writes to its console, and tells what was typed. Its arguments say how:
//!
//! * `lines=N`: `line 000000`, `line 000001` and so on, every `nap` us, N of them and then it ends; without end if not given. When a line was
//!   typed it prints `heard ...` in between;
//! * `bytes`: at a typed `o` it writes all byte values; after a typed `i` it takes 256 bytes and prints them as `got ...`; at a typed `b` it prints how
//!   many breaks of the line it was told;
//! * `victim`: lines without end, in pieces and as much as there is room for; each says how long one took at most. What is typed is taken and forgotten.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::time::Duration;
use portico_sdk::abi::port::DEADLINE_NEVER;
use portico_sdk::{console, dtb, println, time};

portico_sdk::entry!(talker);

fn talker() -> u64 {
    if dtb::bootarg("bytes").is_some() {
        bytes()
    } else if dtb::bootarg("victim").is_some() {
        victim()
    } else {
        lines()
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    dtb::bootarg(name).and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn lines() -> u64 {
    let nap = Duration::from_micros(number("nap", 1000));
    let mut typed = Vec::new();
    for line in 0..number("lines", u64::MAX) {
        // In one piece: on a loaded host a guest can stand still for so long between two that what it has begun is shown as a line of its own.
        console::write(format!("line {line:06}\n").as_bytes());
        let mut keys = [0; 64];
        let count = console::read(&mut keys);
        typed.extend(keys.iter().take(count));
        if let Some(end) = typed.iter().position(|&key| key == b'\r') {
            println!("heard {}", String::from_utf8_lossy(typed.get(..end).unwrap_or_default()));
            typed.clear();
        }
        if !nap.is_zero() {
            time::sleep(nap);
        }
    }
    0
}

fn bytes() -> u64 {
    println!("ready");
    loop {
        match take() {
            b'o' => {
                let all: Vec<u8> = (0..=255).collect();
                console::write(&all);
            }
            b'i' => {
                let mut text = String::new();
                for _ in 0..256 {
                    let _ = write!(text, "{:02x}", take());
                }
                println!("\ngot {text}");
            }
            b'b' => println!("\nbreaks {}", console::breaks()),
            _ => {}
        }
    }
}

fn victim() -> u64 {
    let scale = time::Scale::read();
    let mut slowest = 0;
    for line in 1_u64.. {
        let begin = time::now();
        let ms = scale.ns(slowest) / 1_000_000;
        // Filled, so that the ring is full soon if nobody takes it.
        println!("line {line}, slowest {ms} ms {:.>120}", "");
        console::write_some(b"some\n");
        let mut keys = [0; 64];
        let _ = console::read(&mut keys);
        slowest = slowest.max(time::now().saturating_sub(begin));
        time::sleep(Duration::from_millis(1));
    }
    0
}

/// Waits for a byte.
fn take() -> u8 {
    let mut key = [0];
    while console::read_wait(&mut key, DEADLINE_NEVER) != Ok(1) {}
    key[0]
}
