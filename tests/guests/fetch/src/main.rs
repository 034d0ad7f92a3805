//! Fetches a page from a web server and prints how long it is, and its CRC-32.
//!
//! `from=10.0.2.2:8000` says where it is, `path=/` which page. Nothing of it is kept, so that it may be longer than the guest's memory.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddrV4;
use core::time::Duration;
use portico_sdk::device::stack::Stack;
use portico_sdk::{dtb, println, time};
use smoltcp::iface::SocketSet;
use smoltcp::socket::tcp::{Socket, SocketBuffer};

portico_sdk::entry!(guest);

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// A local port that smoltcp leaves to its user.
const LOCAL: u16 = 49_200;

fn guest() -> u64 {
    match fetch() {
        Ok(page) => {
            println!("fetched {} bytes, crc {:08x}", page.bytes, !page.crc);
            0
        }
        Err(why) => {
            println!("fetch failed: {why}");
            1
        }
    }
}

fn fetch() -> Result<Page, &'static str> {
    let from: SocketAddrV4 = dtb::bootarg("from").and_then(|text| text.parse().ok()).ok_or("no `from`")?;
    let path = dtb::bootarg("path").unwrap_or("/");
    let limit = time::deadline(PATIENCE);
    let mut sockets = SocketSet::new(Vec::new());
    let mut stack = Stack::open("net0", &mut sockets, limit).map_err(|_| "no interface")?;
    while stack.address().is_none() {
        if time::passed(limit) {
            return Err("no address");
        }
        stack.poll(&mut sockets);
        stack.wait(&sockets, limit).map_err(|_| "the interface failed")?;
    }
    let buffer = || SocketBuffer::new(vec![0; 16384]);
    let handle = sockets.add(Socket::new(buffer(), buffer()));
    let (interface, _) = stack.parts();
    let connected =
        sockets.get_mut::<Socket<'_>>(handle).connect(interface.context(), (*from.ip(), from.port()), LOCAL);
    connected.map_err(|_| "it cannot connect")?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {from}\r\n\r\n");
    let (mut sent, mut answer) = (0, Answer::default());
    loop {
        stack.poll(&mut sockets);
        let socket = sockets.get_mut::<Socket<'_>>(handle);
        if sent < request.len() && socket.can_send() {
            sent += socket.send_slice(request.as_bytes().get(sent..).unwrap_or_default()).map_err(|_| "send")?;
        }
        let mut has_received = false;
        while socket.can_recv() {
            has_received = true;
            socket
                .recv(|bytes| {
                    answer.take(bytes);
                    (bytes.len(), ())
                })
                .map_err(|_| "receive")?;
        }
        if !socket.is_active() || (sent == request.len() && !socket.may_recv()) {
            break;
        }
        if time::passed(limit) {
            return Err("no answer");
        }
        if !has_received {
            stack.wait(&sockets, limit).map_err(|_| "the interface failed")?;
        }
    }
    if !answer.is_in_page {
        return Err("no answer");
    }
    if !answer.head.starts_with(b"HTTP/1.0 200") && !answer.head.starts_with(b"HTTP/1.1 200") {
        return Err("another status than 200");
    }
    Ok(answer.page)
}

/// What came of a page.
struct Page {
    bytes: usize,
    /// CRC-32 as zip has it, before its bits are turned over.
    crc: u32,
}

impl Page {
    fn take(&mut self, bytes: &[u8]) {
        let step = |crc: u32, _| if crc & 1 != 0 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        self.crc = bytes.iter().fold(self.crc, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step));
        self.bytes += bytes.len();
    }
}

/// What came of a server's answer.
struct Answer {
    /// Its head, with the empty line.
    head: Vec<u8>,
    /// The head is complete.
    is_in_page: bool,
    page: Page,
}

impl Default for Answer {
    fn default() -> Answer {
        Answer { head: Vec::new(), is_in_page: false, page: Page { bytes: 0, crc: u32::MAX } }
    }
}

impl Answer {
    fn take(&mut self, mut bytes: &[u8]) {
        while !self.is_in_page
            && let Some((&byte, behind)) = bytes.split_first()
        {
            self.head.push(byte);
            self.is_in_page = self.head.ends_with(b"\r\n\r\n");
            bytes = behind;
        }
        self.page.take(bytes);
    }
}
