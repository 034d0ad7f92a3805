//! A stream over TCP, in both directions at once, for as long as the operator lets it. Whatever happens to the service meanwhile, there is one
//! connection: what a service that died took with it TCP sends again.
//!
//! The stream is records. Each has its number and words that follow from number, direction and place: a byte that is lost, comes twice, moves or changes is
//! seen. The last record, after `e` was typed, says that it is the last.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;
use portico_sdk::device::stack::Stack;
use portico_sdk::{console, control, dtb, println, time};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::wire::Ipv4Address;

use crate::talk::Failure;

/// Words of a record.
const WORDS: usize = 61;
/// Bytes of a record: no divisor of a segment's.
const RECORD: usize = WORDS * 8;
/// Bit of a record's number: no other comes.
const LAST: u64 = 1 << 63;
/// The port that is listened at, and a local one that smoltcp leaves to its user.
const PORT: u16 = 7;
const LOCAL: u16 = 49_200;
/// Bytes that may be on their way.
const BUFFER: usize = 32 << 10;
/// How often it says how far it is.
const EVERY: Duration = Duration::from_millis(250);
/// How long nothing may come in: longer than a service may hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// A word of a record. (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators")
fn word(direction: u64, number: u64, at: usize) -> u64 {
    let mut z = number.wrapping_mul(WORDS as u64).wrapping_add(at as u64 + (direction << 60));
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

fn record(direction: u64, number: u64) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    for (at, chunk) in bytes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *chunk = if at == 0 { number } else { word(direction, number, at) }.to_le_bytes();
    }
    bytes
}

/// What is sent.
struct Outgoing {
    direction: u64,
    number: u64,
    bytes: [u8; RECORD],
    /// Bytes of the record that TCP has taken.
    taken: usize,
    is_last: bool,
}

impl Outgoing {
    fn new(direction: u64) -> Outgoing {
        Outgoing { direction, number: 0, bytes: record(direction, 0), taken: 0, is_last: false }
    }

    /// Gives TCP as much as it takes. `true` when the last record has gone.
    fn fill(&mut self, socket: &mut Socket<'_>, shall_end: bool) -> Result<bool, Failure> {
        while socket.can_send() && !(self.is_last && self.taken == RECORD) {
            if self.taken == RECORD {
                self.number += 1;
                self.is_last = shall_end;
                self.bytes = record(self.direction, self.number | if shall_end { LAST } else { 0 });
                self.taken = 0;
            }
            let rest = self.bytes.get(self.taken..).unwrap_or_default();
            self.taken += socket.send_slice(rest).map_err(|_| Failure::Connection)?;
        }
        Ok(self.is_last && self.taken == RECORD)
    }
}

/// What has come.
struct Arriving {
    direction: u64,
    /// Number of the record that is coming.
    number: u64,
    bytes: Vec<u8>,
    is_over: bool,
}

impl Arriving {
    /// Takes what TCP has, and looks at each record. Whether there was anything.
    fn drain(&mut self, socket: &mut Socket<'_>) -> Result<bool, Failure> {
        let mut has_come = false;
        while socket.can_recv() {
            has_come = true;
            let bytes = &mut self.bytes;
            let take = |come: &mut [u8]| {
                let count = come.len().min(RECORD - bytes.len());
                bytes.extend_from_slice(come.get(..count).unwrap_or_default());
                (count, ())
            };
            socket.recv(take).map_err(|_| Failure::Connection)?;
            if self.bytes.len() == RECORD {
                self.check()?;
            }
        }
        Ok(has_come)
    }

    fn check(&mut self) -> Result<(), Failure> {
        let number = self.bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        if self.is_over || number & !LAST != self.number || self.bytes != record(self.direction, number) {
            return Err(Failure::Content(self.number));
        }
        self.is_over = number & LAST != 0;
        self.number += 1;
        self.bytes.clear();
        Ok(())
    }
}

/// One side of the stream.
struct Side {
    stack: Stack,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
}

impl Side {
    /// Opens the interface; connects, or waits to be connected to.
    fn open() -> Result<Side, Failure> {
        let limit = time::deadline(PATIENCE);
        let mut sockets = SocketSet::new(Vec::new());
        let mut stack = Stack::open("net0", &mut sockets, limit)?;
        let buffer = || SocketBuffer::new(vec![0; BUFFER]);
        let handle = sockets.add(Socket::new(buffer(), buffer()));
        let socket = sockets.get_mut::<Socket<'_>>(handle);
        match dtb::bootarg("to") {
            None => socket.listen(PORT).map_err(|_| Failure::Connection)?,
            Some(text) => {
                let to: Ipv4Address = text.parse().map_err(|_| Failure::Role)?;
                let (interface, _) = stack.parts();
                socket.connect(interface.context(), (to, PORT), LOCAL).map_err(|_| Failure::Connection)?;
            }
        }
        Ok(Side { stack, sockets, handle })
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut::<Socket<'_>>(self.handle)
    }
}

/// Sends and takes records until `e` is typed to one side.
///
/// # Errors
/// If what comes is not what was sent, or nothing comes any more.
pub fn stream() -> Result<(), Failure> {
    let mut side = Side::open()?;
    // Who connects sends the one, who listens the other.
    let direction = u64::from(dtb::bootarg("to").is_some());
    let mut out = Outgoing::new(direction);
    let mut into = Arriving { direction: 1 - direction, number: 0, bytes: Vec::new(), is_over: false };
    let (mut shall_end, mut has_sent_all, mut lost) = (false, false, 0);
    let mut next_line = time::deadline(EVERY);
    let mut limit = time::deadline(PATIENCE);
    loop {
        side.stack.poll(&mut side.sockets);
        let has_come = into.drain(side.socket())?;
        // The one who is told last ends too.
        shall_end |= into.is_over || wants_end();
        has_sent_all = has_sent_all || out.fill(side.socket(), shall_end)?;
        if has_come {
            limit = time::deadline(PATIENCE);
            let now = side.stack.net().lost();
            if core::mem::replace(&mut lost, now) != now {
                println!("stream: served again, lost {now} times");
            }
        }
        if has_sent_all && into.is_over {
            side.socket().close();
            if !side.socket().is_open() || side.socket().send_queue() == 0 {
                break;
            }
        }
        if time::passed(limit) {
            return Err(Failure::Silence(into.number));
        }
        if time::passed(next_line) {
            next_line = time::deadline(EVERY);
            control::heartbeat();
            println!("stream: {} out, {} in, lost {lost} times", out.number, into.number);
        }
        if !has_come {
            side.stack.wait(&side.sockets, next_line)?;
        }
    }
    println!("stream is done: {} out, {} in, lost {} times", out.number + 1, into.number, side.stack.net().lost());
    linger(&mut side)
}

/// Whether the operator wants an end.
fn wants_end() -> bool {
    let mut typed = [0; 16];
    let count = console::read(&mut typed);
    typed.iter().take(count).any(|byte| *byte == b'e')
}

/// Answers for some time yet: the other side may not have heard that all of its records came.
fn linger(side: &mut Side) -> Result<(), Failure> {
    let end = time::deadline(Duration::from_secs(5));
    while !time::passed(end) {
        side.stack.poll(&mut side.sockets);
        side.stack.wait(&side.sockets, end)?;
    }
    Ok(())
}
