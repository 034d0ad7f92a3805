//! Serves a page over HTTP, by smoltcp on the interface `net0`.
//!
//! Its address is in the boot arguments, `ip=10.0.2.15/24 gw=10.0.2.2`, or comes by DHCP.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;
use portico_sdk::abi::port::DEADLINE_NEVER;
use portico_sdk::device::DeviceError;
use portico_sdk::device::block::Disk;
use portico_sdk::device::stack::Stack;
use portico_sdk::{control, dtb, println, time};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};

portico_sdk::entry!(web);

/// Clients that are served at once; others wait for one of them to end.
const CLIENTS: usize = 4;
/// Bytes that one of them may have under way in each direction: longest request, longest page.
const BUFFER: usize = 4096;
const PORT: u16 = 80;
/// How long a client may say nothing.
const PATIENCE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(10);

fn web() -> u64 {
    match serve() {
        Ok(()) => 0,
        Err(error) => {
            println!("no network: {error:?}");
            1
        }
    }
}

fn serve() -> Result<(), DeviceError> {
    if let Err(status) = control::obey() {
        println!("nobody can ask for an orderly end: {}", status.describe());
    }
    let disk = describe_disk();
    let mut sockets = SocketSet::new(Vec::new());
    let mut stack = Stack::open("net0", &mut sockets, time::deadline(Duration::from_secs(30)))?;
    let clients: Vec<SocketHandle> = (0..CLIENTS).map(|_| sockets.add(new_socket())).collect();
    let mut address = None;
    let mut served = 0;
    loop {
        stack.poll(&mut sockets);
        if stack.address() != address {
            address = stack.address();
            match address {
                Some(address) => println!("serving http://{address}:{PORT}/"),
                None => println!("waiting for an address"),
            }
        }
        for &client in &clients {
            let socket = sockets.get_mut::<Socket<'_>>(client);
            if attend(socket, &disk, served) {
                served += 1;
            }
        }
        // What was answered goes out before the next sleep.
        stack.poll(&mut sockets);
        control::heartbeat();
        stack.wait(&sockets, DEADLINE_NEVER)?;
    }
}

fn new_socket() -> Socket<'static> {
    let buffer = || SocketBuffer::new(vec![0; BUFFER]);
    let mut socket = Socket::new(buffer(), buffer());
    socket.set_timeout(Some(PATIENCE));
    socket
}

/// Does what can be done for a client. Returns whether it was answered.
fn attend(socket: &mut Socket<'_>, disk: &str, served: u64) -> bool {
    match socket.state() {
        State::Closed => {
            // There is nothing to be told if it fails: the next turn tries again.
            let _ = socket.listen(PORT);
            return false;
        }
        // Both sides have closed: a late segment of this connection's would find none, and few clients would take all sockets for seconds.
        State::TimeWait => socket.abort(),
        // It has said all it will say, and was not answered.
        State::CloseWait if !socket.can_recv() => socket.close(),
        _ => {}
    }
    if !socket.can_recv() || !socket.may_send() {
        return false;
    }
    // The request stays in the socket's buffer until its head is all there.
    let answer = socket.recv(|bytes| match head_of(bytes) {
        Some(head) => (bytes.len(), Some(answer(head, disk, served))),
        None if bytes.len() == BUFFER => (bytes.len(), Some(refuse("431 Request Header Fields Too Large"))),
        None => (0, None),
    });
    let Ok(Some(answer)) = answer else { return false };
    let _ = socket.send_slice(answer.as_bytes());
    socket.close();
    true
}

/// The first line of a request whose head has ended.
fn head_of(bytes: &[u8]) -> Option<&str> {
    bytes.windows(4).any(|end| end == b"\r\n\r\n").then(|| {
        let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
        core::str::from_utf8(line).unwrap_or("")
    })
}

fn answer(line: &str, disk: &str, served: u64) -> String {
    let mut words = line.split(' ');
    match (words.next(), words.next()) {
        (Some("GET"), Some("/")) => {
            let name = dtb::name();
            let seconds = time::now_ns() / 1_000_000_000;
            let page = format!(
                "<!DOCTYPE html><title>{name}</title><h1>{name}</h1>\n<p>A guest of Portico, up for {seconds} s, {served} pages served.\n{disk}"
            );
            format!("{}{page}", header("200 OK", page.len()))
        }
        (Some("GET"), Some(_)) => refuse("404 Not Found"),
        _ => refuse("405 Method Not Allowed"),
    }
}

fn refuse(status: &str) -> String {
    format!("{}{status}\n", header(status, status.len() + 1))
}

fn header(status: &str, bytes: usize) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {bytes}\r\nConnection: close\r\n\r\n"
    )
}

/// A line of the page for the first disk, if the guest has one.
fn describe_disk() -> String {
    let Some(name) = Disk::names().next() else { return String::new() };
    match Disk::open(name, time::deadline(Duration::from_secs(10))) {
        Ok(disk) => format!("<p>Its disk {name} has {} KiB.\n", disk.info().sectors / 2),
        Err(error) => format!("<p>Its disk {name} is not there: {error:?}.\n"),
    }
}
