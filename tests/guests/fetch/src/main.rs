//! Fetches a page from a web server and prints how long it is, and its CRC-32.
//!
//! `from=10.0.2.2:8000` says where it is, `path=/` which page.
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
            println!("fetched {} bytes, crc {:08x}", page.len(), crc(&page));
            0
        }
        Err(why) => {
            println!("fetch failed: {why}");
            1
        }
    }
}

fn fetch() -> Result<Vec<u8>, &'static str> {
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
    let (mut sent, mut answer) = (0, Vec::new());
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
                    answer.extend_from_slice(bytes);
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
    let end = answer.windows(4).position(|end| end == b"\r\n\r\n").ok_or("no answer")?;
    if !answer.starts_with(b"HTTP/1.0 200") && !answer.starts_with(b"HTTP/1.1 200") {
        return Err("another status than 200");
    }
    Ok(answer.split_off(end + 4))
}

/// CRC-32, as zip has it.
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 != 0 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}
