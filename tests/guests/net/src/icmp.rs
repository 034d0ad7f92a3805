//! Asks another guest for its hardware address, and pings it by its IP address: `to=10.0.0.2`, and `ip=10.0.0.1` is its own.
//!
//! Whole frames are made and looked at here, sums too: what answers is not tested against itself. (RFC 826, RFC 791, RFC 792)

use core::time::Duration;
use portico_sdk::device::DeviceError;
use portico_sdk::device::net::Interface;
use portico_sdk::{control, dtb, println, time};

use crate::talk::{Failure, Frame, LONGEST};

/// How long an answer may take before the request is made again.
const PATIENCE: Duration = Duration::from_millis(100);
/// Bytes before the data of an echo.
const HEADERS: usize = 42;
/// Bytes before the IP header.
const ETHERNET: usize = 14;

struct Pinger {
    net: Interface,
    ip: [u8; 4],
    to: [u8; 4],
    frame: Frame,
}

/// Pings for ever.
///
/// # Errors
/// If an answer is wrong.
pub fn ping() -> Result<(), Failure> {
    let net = Interface::open("net0", time::deadline(Duration::from_secs(20)))?;
    let mut pinger = Pinger { net, ip: address("ip")?, to: address("to")?, frame: Frame([0; 2048]) };
    let mac = loop {
        pinger.ask()?;
        if let Some(mac) = pinger.await_answer(Pinger::told)? {
            break mac;
        }
    };
    let mut number = 0_u32;
    loop {
        let bytes = HEADERS + 4 + (number as usize * 53) % (LONGEST - HEADERS - 3);
        pinger.echo(mac, number, bytes)?;
        match pinger.await_answer(|pinger, length| pinger.reply(length, number))? {
            Some(length) if length != bytes => return Err(Failure::Content(u64::from(number))),
            Some(_) => {
                number += 1;
                if number.is_multiple_of(100) {
                    println!("{number} echoes, lost {} times", pinger.net.lost());
                    control::heartbeat();
                }
            }
            None => {}
        }
    }
}

fn address(key: &str) -> Result<[u8; 4], Failure> {
    let text = dtb::bootarg(key).ok_or(Failure::Role)?;
    let address: core::net::Ipv4Addr = text.parse().map_err(|_| Failure::Role)?;
    Ok(address.octets())
}

/// One's complement sum of the 16-bit words.
fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

impl Pinger {
    fn send(&mut self, bytes: usize) -> Result<(), Failure> {
        let frame = self.frame.0.get(..bytes).unwrap_or_default();
        Ok(self.net.send(frame, time::deadline(Duration::from_secs(30)))?)
    }

    /// Asks everyone who has the address.
    fn ask(&mut self) -> Result<(), Failure> {
        let mac = self.net.mac();
        let frame = &mut self.frame.0;
        frame[..6].fill(0xff);
        frame[6..12].copy_from_slice(&mac);
        frame[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame[22..28].copy_from_slice(&mac);
        frame[28..32].copy_from_slice(&self.ip);
        frame[32..38].fill(0);
        frame[38..42].copy_from_slice(&self.to);
        self.send(42)
    }

    /// The hardware address of an ARP answer that is for us and from whom we asked.
    fn told(&mut self, bytes: usize) -> Option<[u8; 6]> {
        let mac = self.net.mac();
        let frame = self.frame.0.get(..bytes)?;
        let is_it = bytes >= 42
            && frame[..6] == mac
            && frame[12..22] == [8, 6, 0, 1, 8, 0, 6, 4, 0, 2]
            && frame[6..12] == frame[22..28]
            && frame[28..32] == self.to
            && frame[32..38] == mac
            && frame[38..42] == self.ip;
        is_it.then(|| frame[22..28].first_chunk().copied()).flatten()
    }

    fn echo(&mut self, to: [u8; 6], number: u32, bytes: usize) -> Result<(), Failure> {
        let mac = self.net.mac();
        let frame = &mut self.frame.0;
        frame[..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&mac);
        frame[12..14].copy_from_slice(&[8, 0]);
        let length = (bytes - ETHERNET) as u16;
        frame[14..26].copy_from_slice(&[0x45, 0, (length >> 8) as u8, length as u8, 0, 0, 0, 0, 64, 1, 0, 0]);
        frame[26..30].copy_from_slice(&self.ip);
        frame[30..34].copy_from_slice(&self.to);
        let header = !sum(&frame[14..34]);
        frame[24..26].copy_from_slice(&header.to_be_bytes());
        frame[34..38].copy_from_slice(&[8, 0, 0, 0]);
        frame[38..42].copy_from_slice(&[1, 2, (number >> 8) as u8, number as u8]);
        frame[42..46].copy_from_slice(&number.to_be_bytes());
        for (at, byte) in frame.iter_mut().enumerate().take(bytes).skip(46) {
            *byte = (number as usize * 3 + at) as u8;
        }
        let check = !sum(&frame[34..bytes]);
        frame[36..38].copy_from_slice(&check.to_be_bytes());
        self.send(bytes)
    }

    /// The length of the reply to our last request, if this frame is one. One of an earlier request may come late.
    fn reply(&mut self, bytes: usize, number: u32) -> Option<usize> {
        let frame = self.frame.0.get(..bytes)?;
        if bytes < HEADERS + 4 || frame[12..14] != [8, 0] || frame[42..46] != number.to_be_bytes() {
            return None;
        }
        let is_right = frame[..6] == self.net.mac()
            && sum(&frame[14..34]) == 0xffff
            && sum(&frame[34..]) == 0xffff
            && frame[26..30] == self.to
            && frame[30..34] == self.ip
            && frame[34..36] == [0, 0]
            && frame.iter().enumerate().skip(46).all(|(at, byte)| *byte == (number as usize * 3 + at) as u8);
        // A length that cannot be: it is the answer, and a wrong one.
        Some(if is_right { bytes } else { 0 })
    }

    /// Receives until there is what `take` takes, or patience is at its end.
    fn await_answer<T>(&mut self, take: impl Fn(&mut Pinger, usize) -> Option<T>) -> Result<Option<T>, Failure> {
        let deadline = time::deadline(PATIENCE);
        loop {
            while let Some(bytes) = self.net.receive(&mut self.frame.0)? {
                if let Some(taken) = take(self, bytes) {
                    return Ok(Some(taken));
                }
            }
            match self.net.wait(deadline) {
                Ok(()) => {}
                Err(DeviceError::TimedOut) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
