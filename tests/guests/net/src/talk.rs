//! What well-behaved guests do.

use core::time::Duration;
use portico_sdk::abi::port::DEADLINE_NEVER;
use portico_sdk::device::DeviceError;
use portico_sdk::device::net::{Interface, NetError};
use portico_sdk::{control, dtb, println, time};

/// Longest frame without a tag.
pub const LONGEST: usize = 1514;
/// Bytes before a frame's number: addresses, and a type that is for experiments. (IEEE 802, "Local Experimental EtherTypes")
pub const NUMBER: usize = 14;
/// Where its content begins.
pub const CONTENT: usize = 24;
const KIND: [u8; 2] = [0x88, 0xb5];
/// How long an answer may take before the frame counts as lost, if nothing else is said: milliseconds.
const PATIENCE_MS: u64 = 2000;

/// What went wrong.
#[derive(Debug)]
pub enum Failure {
    /// No role, or no peer.
    Role,
    /// The interface.
    Net(#[expect(dead_code, reason = "printed")] NetError),
    /// A frame came that was not sent so.
    Content(#[expect(dead_code, reason = "printed")] u64),
    /// TCP has no connection.
    Connection,
    /// Nothing came any more, after so much.
    Silence(#[expect(dead_code, reason = "printed")] u64),
}

impl From<NetError> for Failure {
    fn from(error: NetError) -> Self {
        Self::Net(error)
    }
}

impl From<DeviceError> for Failure {
    fn from(error: DeviceError) -> Self {
        Self::Net(error.into())
    }
}

/// A frame, aligned so that it is copied by words.
#[repr(align(8))]
pub struct Frame(pub [u8; 2048]);

/// An interface and whom it talks to.
pub struct End {
    /// The interface.
    pub net: Interface,
    /// The other one.
    pub peer: [u8; 6],
    /// What is sent.
    pub out: Frame,
    /// What was received.
    pub into: Frame,
}

impl End {
    /// Opens the interface.
    ///
    /// # Errors
    /// If there is none, or no peer.
    pub fn open() -> Result<End, Failure> {
        let net = Interface::open("net0", time::deadline(Duration::from_secs(20)))?;
        let peer = match dtb::bootarg("peer") {
            Some(text) => parse_mac(text).ok_or(Failure::Role)?,
            None => [0xff; 6],
        };
        println!("net0 is up, mtu {}", net.mtu());
        Ok(End { net, peer, out: Frame([0; 2048]), into: Frame([0; 2048]) })
    }

    /// Makes a frame.
    pub fn make(&mut self, number: u64, bytes: usize) {
        let mac = self.net.mac();
        let out = &mut self.out.0;
        out[..6].copy_from_slice(&self.peer);
        out[6..12].copy_from_slice(&mac);
        out[12..14].copy_from_slice(&KIND);
        out[NUMBER..NUMBER + 8].copy_from_slice(&number.to_le_bytes());
        for (at, byte) in out.iter_mut().enumerate().take(bytes).skip(CONTENT) {
            *byte = content(number, at);
        }
    }

    /// Whether the frame that was received last is the peer's.
    pub fn is_from_peer(&self) -> bool {
        self.into.0[6..12] == self.peer
    }

    /// Receives a frame of ours, until `deadline`. Its number and length.
    ///
    /// # Errors
    /// If its content is wrong.
    pub fn receive(&mut self, deadline: u64) -> Result<Option<(u64, usize)>, Failure> {
        loop {
            match self.net.receive(&mut self.into.0)? {
                Some(bytes) if self.into.0[12..14] == KIND && bytes >= CONTENT => {
                    let number = number_of(&self.into.0);
                    let mut rest = self.into.0.iter().enumerate().take(bytes).skip(CONTENT);
                    if !rest.all(|(at, byte)| *byte == content(number, at)) {
                        return Err(Failure::Content(number));
                    }
                    return Ok(Some((number, bytes)));
                }
                Some(_) => {}
                None => match self.net.wait(deadline) {
                    Ok(()) => {}
                    Err(DeviceError::TimedOut) => return Ok(None),
                    Err(error) => return Err(error.into()),
                },
            }
        }
    }
}

/// The number of a frame.
pub fn number_of(frame: &[u8]) -> u64 {
    frame.get(NUMBER..NUMBER + 8).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn content(number: u64, at: usize) -> u8 {
    (number as u8).wrapping_mul(31).wrapping_add(at as u8)
}

/// An address, from its text.
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

/// Sends frames of all lengths to a peer that sends them back. What is lost, as when the service is started anew, is sent again.
///
/// # Errors
/// If an answer is wrong.
pub fn ping(mut end: End) -> Result<(), Failure> {
    let rounds = dtb::bootarg("rounds").and_then(|text| text.parse().ok()).unwrap_or(1000);
    let patience = dtb::bootarg("patience_ms").and_then(|text| text.parse().ok()).unwrap_or(PATIENCE_MS);
    let (mut number, mut again) = (0, 0);
    while number < rounds {
        let bytes = 64 + (number as usize * 37) % (LONGEST - 63);
        end.make(number, bytes);
        let frame = end.out.0.get(..bytes).unwrap_or_default();
        end.net.send(frame, time::deadline(Duration::from_secs(30)))?;
        let deadline = time::deadline(Duration::from_millis(patience));
        loop {
            match end.receive(deadline)? {
                Some((answer, length)) if answer == number && end.is_from_peer() => {
                    if length != bytes {
                        return Err(Failure::Content(number));
                    }
                    number += 1;
                    break;
                }
                // An answer that had been given up, or a broadcast that has the same number.
                Some(_) => {}
                None => {
                    // The first may come before its peer is there.
                    again += u64::from(number > 0);
                    break;
                }
            }
        }
        if number.is_multiple_of(250) {
            println!("pinged {number} times, {again} again, service lost {} times", end.net.lost());
        }
        control::heartbeat();
    }
    println!("ping is done: {number} answers, {again} again, service lost {} times", end.net.lost());
    Ok(())
}

/// Sends everything back to whom it came from.
///
/// # Errors
/// If the interface fails.
pub fn echo(mut end: End) -> Result<(), Failure> {
    let mac = end.net.mac();
    loop {
        while let Some(bytes) = end.net.receive(&mut end.into.0)? {
            let frame = end.into.0.get_mut(..bytes).unwrap_or_default();
            if frame.get(12..14) == Some(&KIND) && frame.first_chunk() == Some(&mac) {
                frame.copy_within(6..12, 0);
                frame[6..12].copy_from_slice(&mac);
                // Without room the answer is lost.
                let _ = end.net.try_send(frame)?;
            }
        }
        match end.net.wait(DEADLINE_NEVER) {
            Ok(()) | Err(DeviceError::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Counts what comes, and says so each second.
///
/// # Errors
/// If the interface fails.
pub fn listen(mut end: End) -> Result<(), Failure> {
    let mut count = 0_u64;
    loop {
        let deadline = time::deadline(Duration::from_secs(1));
        while end.receive(deadline)?.is_some() {
            count += 1;
        }
        println!("heard {count} frames");
    }
}
