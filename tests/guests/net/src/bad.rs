//! What guests should not do.

use core::sync::atomic::Ordering;
use core::time::Duration;
use portico_sdk::abi::device::net::Statistics;
use portico_sdk::abi::port::DEADLINE_NEVER;
use portico_sdk::abi::{device, dt, ring};
use portico_sdk::window::Window;
use portico_sdk::{dtb, println, time};

use crate::talk::{CONTENT, End, Failure};

/// Frames of each forbidden kind.
const EACH: u64 = 50;
/// Broadcasts that are sent as quickly as they can be.
const BROADCASTS: u64 = 20_000;

/// Waits until the service has shown what it counted: it does that now and then.
fn counted(end: &mut End, enough: impl Fn(&Statistics) -> bool) -> Statistics {
    let limit = time::deadline(Duration::from_secs(10));
    loop {
        let counts = end.net.statistics();
        if enough(&counts) || time::passed(limit) {
            return counts;
        }
        let _ = end.net.wait(time::deadline(Duration::from_millis(20)));
    }
}

/// Sends as another, in frames and in ARP messages; to addresses that no bridge forwards; too much.
///
/// # Errors
/// If the interface fails.
pub fn spoof(mut end: End) -> Result<(), Failure> {
    let before = end.net.statistics();
    let deadline = || time::deadline(Duration::from_secs(10));
    for number in 0..EACH {
        end.make(number, 100);
        let mut frame = end.out.0;
        // As the peer, to everyone.
        frame[..6].fill(0xff);
        frame[6..12].copy_from_slice(&end.peer);
        end.net.send(&frame[..100], deadline())?;
        // As nobody.
        frame[6..12].copy_from_slice(&[2, 0xde, 0xad, 0, 0, number as u8]);
        end.net.send(&frame[..100], deadline())?;
        // An ARP answer that says that the peer's IP address is elsewhere.
        frame[6..12].copy_from_slice(&end.net.mac());
        frame[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
        frame[22..28].copy_from_slice(&end.peer);
        end.net.send(&frame[..60], deadline())?;
        // To the bridge itself.
        end.make(number, 100);
        end.out.0[..6].copy_from_slice(&[1, 0x80, 0xc2, 0, 0, 0]);
        end.net.send(end.out.0.get(..100).unwrap_or_default(), deadline())?;
    }
    let counts = counted(&mut end, |counts| counts.spoofed - before.spoofed >= 3 * EACH && counts.reserved >= EACH);
    println!("spoofed: {} dropped, {} to reserved addresses, {} sent", counts.spoofed, counts.reserved, counts.sent);
    // One frame that may pass: the peer has heard nothing before it.
    end.make(u64::from(u32::MAX), CONTENT + 40);
    end.net.send(end.out.0.get(..CONTENT + 40).unwrap_or_default(), deadline())?;
    let counts = counted(&mut end, |counts| counts.sent > 0);
    println!("spoofing is done, {} sent", counts.sent);
    Ok(())
}

/// Sends to its peer for ever, as much as there is room for.
///
/// # Errors
/// If the interface fails.
pub fn flood(mut end: End) -> Result<(), Failure> {
    println!("flooding");
    let mut number = 0;
    loop {
        end.make(number, 64);
        while end.net.try_send(end.out.0.get(..64).unwrap_or_default())? {
            number += 1;
        }
        end.net.wait_for_room(64, DEADLINE_NEVER)?;
    }
}

/// Sends many broadcasts at once, and says what became of them.
///
/// # Errors
/// If the interface fails.
pub fn broadcast(mut end: End) -> Result<(), Failure> {
    end.peer = [0xff; 6];
    let begin = time::now_ns();
    for number in 0..BROADCASTS {
        end.make(number, 64);
        end.net.send(end.out.0.get(..64).unwrap_or_default(), time::deadline(Duration::from_secs(60)))?;
    }
    let ms = (time::now_ns() - begin) / 1_000_000;
    let counts = counted(&mut end, |counts| counts.sent + counts.limited >= BROADCASTS);
    println!("broadcast in {ms} ms: {} passed, {} limited", counts.sent, counts.limited);
    Ok(())
}

/// Breaks the protocol again and again: indices and headers that lie, and an accept that makes no sense.
///
/// # Errors
/// If the interface cannot be used again after.
pub fn lie(mut end: End) -> Result<(), Failure> {
    let node = dtb::devices(dt::NET).next().ok_or(Failure::Role)?;
    // SAFETY: the window is mapped for the life of the domain, and holds no Rust object.
    let window = unsafe { Window::new(node.window.base, node.window.len as usize) }.ok_or(Failure::Role)?;
    let shape = device::net::shape_of_window(window.len()).ok_or(Failure::Role)?;
    let head = shape.transmit.offset + ring::HEAD;
    let mut told = 0;
    for round in 0..100_u32 {
        let word = |at: usize, value: u32| {
            if let Some(word) = window.word(at) {
                word.store(value, Ordering::SeqCst);
            }
        };
        match round % 5 {
            // Far ahead.
            0 => word(head, 0x8000_0000 + round),
            // Backwards.
            1 => word(head, u32::MAX - round),
            // Headers that make no sense.
            2 => {
                for slot in 0..shape.transmit.slots {
                    let _ = window.store(shape.transmit.slot(slot), u64::MAX - u64::from(round));
                }
                word(head, 8);
            }
            // More was taken than there was.
            3 => word(shape.receive.offset + ring::TAIL, 0x7000_0000),
            // A version that nobody speaks.
            _ => {
                let _ = window.store(device::ACCEPT, 0x7fff_0000);
                word(head, 0x4000_0000);
            }
        }
        if let Some(port) = end.net.port() {
            let _ = port.notify();
        }
        // The service leaves, and the front-end begins again.
        let lost = end.net.lost();
        let limit = time::deadline(Duration::from_millis(200));
        while end.net.lost() == lost && !time::passed(limit) {
            let _ = end.net.receive(&mut end.into.0)?;
            let _ = end.net.wait(time::deadline(Duration::from_millis(10)));
        }
        told += u32::from(end.net.lost() > lost);
        end.net.connect(time::deadline(Duration::from_secs(10)))?;
    }
    println!("lied 100 times, was left {told} times, is connected");
    Ok(())
}
