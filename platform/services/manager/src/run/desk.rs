//! The manager's end of the console service: the windows that outlive it, and what is said to it and heard from it.
//!
//! What the service cannot take now waits here, within bounds; lines beyond them are counted, and that is told.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem::take;
use core::sync::atomic::Ordering;
use portico_abi::{Handle, PAGE_SIZE, Status};
use portico_console::layout;
use portico_console::message::{Kind, MAX_PAYLOAD, Message, NOBODY};
use portico_manager::memory::Piece;
use portico_sdk::pipe::{Consumer, Pipe, Producer};
use portico_sdk::println;
use portico_sdk::window::Window;

use crate::again::Left;
use crate::hv::{self, Machine};
use crate::place;

/// Most bytes that wait for the service. There is room for them from the beginning on: however much it makes the manager say, the heap does not grow for it.
const MAX_WAITING: usize = 32 << 10;
/// As much of that is only for what is no line.
const NOT_FOR_LINES: usize = 2 << 10;

/// What the service sent.
#[derive(Debug)]
pub enum Heard {
    /// A person typed this command.
    Line(String),
    /// A person wants to know what can be typed.
    Complete,
    /// Everything has left the UART.
    Closed,
}

#[derive(Debug)]
struct Windows {
    desk: (Piece<Handle>, Window),
    letters: (Piece<Handle>, Window),
    to: Producer,
    from: Consumer,
}

/// The desk.
#[derive(Debug, Default)]
pub struct Desk {
    windows: Option<Windows>,
    /// Messages, one behind the other.
    waiting: VecDeque<u8>,
    dropped: u64,
    heard: Vec<u8>,
    /// The service is to be notified.
    is_said: bool,
}

impl Desk {
    /// Takes over the windows that the manager's last life had, or makes them.
    ///
    /// # Errors
    /// Those of taking memory, lending and mapping.
    pub fn open(&mut self, machine: &mut Machine, left: &mut Left) -> Result<(), Status> {
        let desk = window(machine, left, place::DESK, layout::DESK_BYTES)?;
        let letters = window(machine, left, place::BOX, layout::BOX_BYTES)?;
        // Where the ends of the last life stood: a message is there wholly or not at all.
        let to = Producer::new(Pipe::console_out(letters.1).ok_or(Status::Invalid)?);
        let from = Consumer::new(Pipe::console_in(letters.1).ok_or(Status::Invalid)?);
        self.windows = Some(Windows { desk, letters, to, from });
        self.waiting.reserve_exact(MAX_WAITING);
        Ok(())
    }

    /// Pages of the windows.
    pub fn pages(&self) -> u64 {
        self.windows.as_ref().map_or(0, |windows| windows.desk.0.pages + windows.letters.0.pages)
    }

    /// Whether there is a service to talk to, now or later.
    pub fn is_open(&self) -> bool {
        self.windows.is_some()
    }

    /// There is no service, and will be none: what waits is printed by the hypervisor.
    pub fn give_up(&mut self) {
        self.windows = None;
        let mut waiting = take(&mut self.waiting);
        while let Some(message) = Message::read(waiting.make_contiguous()) {
            waiting.drain(..message.len());
            if message.kind == Kind::Event {
                println!("portico: {}", String::from_utf8_lossy(&message.payload));
            }
        }
    }

    /// Lends an instance of the service the windows.
    ///
    /// # Errors
    /// Those of lending and mapping.
    pub fn lend(&self, machine: &mut Machine, domain: Handle) -> Result<(), Status> {
        let Some(windows) = &self.windows else { return Err(Status::NotFound) };
        for ((piece, _), ipa) in [(&windows.desk, layout::DESK_IPA), (&windows.letters, layout::BOX_IPA)] {
            machine.lend(piece.extent, piece.pages, domain, ipa, hv::READ_WRITE)?;
        }
        Ok(())
    }

    /// Enters a guest in the service's table; its windows have been lent if there is a service.
    pub fn enter(&self, source: usize, name: &str, kind: u32) {
        let Some(window) = self.windows.as_ref().map(|windows| windows.desk.1) else { return };
        let at = layout::TABLE + source * layout::ENTRY_BYTES;
        let mut bytes = [0; layout::NAME_BYTES];
        bytes.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
        let _ = window.write(at, &bytes);
        if let Some(word) = window.word(at + layout::ENTRY_KIND) {
            word.store(kind, Ordering::Release);
        }
    }

    /// Whether a guest is in the service's table.
    pub fn has_entered(&self, source: usize) -> bool {
        let Some(window) = self.windows.as_ref().map(|windows| windows.desk.1) else { return false };
        let kind = window.word(layout::TABLE + source * layout::ENTRY_BYTES + layout::ENTRY_KIND);
        kind.is_some_and(|kind| kind.load(Ordering::Acquire) != 0)
    }

    /// Prints a line about what happened.
    pub fn event(&mut self, text: &str) {
        if self.is_open() {
            self.say(Kind::Event, 0, text.as_bytes());
        } else {
            println!("portico: {text}");
        }
    }

    /// Prints lines that answer a command.
    pub fn reply(&mut self, text: &str) {
        let mut rest = text;
        while !rest.is_empty() {
            let part = rest.get(..rest.floor_char_boundary(MAX_PAYLOAD)).unwrap_or(rest);
            // At the end of a line, if there is one.
            let part = match part.rfind('\n') {
                Some(at) if part.len() < rest.len() => part.get(..=at).unwrap_or(part),
                _ => part,
            };
            self.say(Kind::Reply, 0, part.as_bytes());
            rest = rest.get(part.len()..).unwrap_or_default();
        }
    }

    /// Shows the last lines of a guest, or of all.
    pub fn log(&mut self, source: Option<usize>, lines: usize) {
        self.say(Kind::Log, source.unwrap_or(NOBODY as usize), &(lines as u32).to_le_bytes());
    }

    /// Says something about a guest, or about none.
    pub fn say(&mut self, kind: Kind, source: usize, payload: &[u8]) {
        if !self.is_open() {
            return;
        }
        let is_line = matches!(kind, Kind::Event | Kind::Reply | Kind::Output | Kind::Word);
        let bytes = Message::new(kind, source as u32, payload).to_bytes();
        let room = MAX_WAITING - if is_line { NOT_FOR_LINES } else { 0 };
        if self.waiting.len() + bytes.len() > room {
            self.dropped = self.dropped.saturating_add(u64::from(is_line));
            return;
        }
        self.waiting.extend(bytes);
        self.pump();
    }

    /// Passes on what waits, as far as there is room. Returns whether the service is to be notified.
    pub fn pump(&mut self) -> bool {
        let Some(windows) = self.windows.as_mut() else { return false };
        while let Some(message) = Message::read(self.waiting.make_contiguous()) {
            let bytes = message.to_bytes();
            match windows.to.room() {
                Ok(room) if room as usize >= bytes.len() => {}
                Ok(_) => break,
                Err(_) => windows.to.resynchronize(),
            }
            // Whole, since there is room: the service sees all of it or nothing.
            if windows.to.write(&bytes).is_err() {
                break;
            }
            self.waiting.drain(..bytes.len());
            self.is_said = true;
        }
        if self.waiting.is_empty() && self.dropped > 0 {
            let text = format!("{} lines of the manager were dropped: the console was away", take(&mut self.dropped));
            self.say(Kind::Event, 0, text.as_bytes());
        }
        take(&mut self.is_said)
    }

    /// Whether something waits for the service.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What the service sent.
    pub fn hear(&mut self) -> Vec<Heard> {
        let Some(windows) = self.windows.as_mut() else { return Vec::new() };
        let mut bytes = [0; portico_abi::channel::console::IN_BYTES];
        match windows.from.read(&mut bytes) {
            Ok(count) => self.heard.extend(bytes.iter().take(count)),
            Err(_) => {
                windows.from.resynchronize();
                self.heard.clear();
            }
        }
        let mut heard = Vec::new();
        while let Some(message) = Message::read(&self.heard) {
            self.heard.drain(..message.len());
            match message.kind {
                Kind::Line => heard.push(Heard::Line(String::from_utf8_lossy(&message.payload).into_owned())),
                Kind::Complete => heard.push(Heard::Complete),
                Kind::Closed => heard.push(Heard::Closed),
                _ => {}
            }
        }
        // Messages come whole: what is no message never becomes one.
        self.heard.clear();
        heard
    }
}

fn window(machine: &mut Machine, left: &mut Left, ipa: u64, bytes: usize) -> Result<(Piece<Handle>, Window), Status> {
    let pages = (bytes as u64).div_ceil(PAGE_SIZE);
    let piece = match left.window(ipa, pages) {
        Some(piece) => piece,
        None => hv::shared(machine, pages, ipa)?,
    };
    // SAFETY: the extent is mapped there, for good, as RAM that no Rust object is in.
    let window = unsafe { Window::new(ipa, bytes) }.ok_or(Status::Invalid)?;
    Ok((piece, window))
}
