//! What manager and service say to each other: frames of a header and a payload, whole or not at all.

use alloc::vec::Vec;

/// Bytes of a header: kind, length of the payload, a number.
pub const HEADER: usize = 8;
/// Longest payload.
pub const MAX_PAYLOAD: usize = 1000;
/// The number that names no guest.
pub const NOBODY: u32 = u32::MAX;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// To the service: a line about what happened. It is kept.
    Event = 1,
    /// To the service: lines that answer a command. They are not kept.
    Reply = 2,
    /// To the service: the command is done, the prompt may come back.
    Done = 3,
    /// To the service: guest *number* has ended; its last byte is before the index in the payload (4 bytes).
    Ended = 4,
    /// To the service: guest *number* does not come back by itself.
    Gone = 5,
    /// To the service: give guest *number* the keyboard.
    Focus = 6,
    /// To the service: show so many (payload, 4 bytes) kept lines of guest *number*, or of all.
    Log = 7,
    /// To the service: a word with which the typed one may be completed.
    Word = 8,
    /// To the service: that was the last.
    WordsEnd = 9,
    /// To the service: what guest *number* wrote without its console.
    Output = 10,
    /// To the service: the machine ends; say [`Kind::Closed`] when everything has left the UART.
    Close = 11,
    /// To the manager: a command line.
    Line = 32,
    /// To the manager: the words that can be typed are wanted.
    Complete = 33,
    /// To the manager: everything has left the UART.
    Closed = 34,
}

impl Kind {
    const ALL: [Kind; 14] = [
        Kind::Event,
        Kind::Reply,
        Kind::Done,
        Kind::Ended,
        Kind::Gone,
        Kind::Focus,
        Kind::Log,
        Kind::Word,
        Kind::WordsEnd,
        Kind::Output,
        Kind::Close,
        Kind::Line,
        Kind::Complete,
        Kind::Closed,
    ];
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// Its number.
    pub number: u32,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Message {
    /// A message; what of the payload is too long is cut off.
    pub fn new(kind: Kind, number: u32, payload: &[u8]) -> Message {
        let payload = payload.get(..MAX_PAYLOAD).unwrap_or(payload);
        Message { kind, number, payload: Vec::from(payload) }
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.payload.len());
        bytes.extend([self.kind as u8, 0]);
        bytes.extend((self.payload.len() as u16).to_le_bytes());
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// Reads the message that `bytes` begin with. `None` if they do not begin with a whole one.
    pub fn read(bytes: &[u8]) -> Option<Message> {
        let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
        let [kind, zero, low, high, a, b, c, d] = *header;
        let kind = Kind::ALL.into_iter().find(|known| *known as u8 == kind).filter(|_| zero == 0)?;
        let payload = rest.get(..usize::from(u16::from_le_bytes([low, high])))?;
        (payload.len() <= MAX_PAYLOAD).then(|| Message::new(kind, u32::from_le_bytes([a, b, c, d]), payload))
    }

    /// Bytes of the whole.
    pub fn len(&self) -> usize {
        HEADER + self.payload.len()
    }

    /// Never: it has a header.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The payload as a number.
    pub fn word(&self) -> u32 {
        self.payload.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, MAX_PAYLOAD, Message};
    use proptest::prelude::*;

    #[test]
    fn every_kind_comes_back() {
        for kind in Kind::ALL {
            let message = Message::new(kind, 7, b"text");
            assert_eq!(Message::read(&message.to_bytes()), Some(message));
        }
        assert_eq!(Message::new(Kind::Event, 0, &[b'x'; 2000]).payload.len(), MAX_PAYLOAD);
        assert_eq!(Message::read(&[1, 0, 9, 0, 0, 0, 0, 0, b'x']), None);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(message) = Message::read(&bytes) {
                prop_assert!(message.len() <= bytes.len());
            }
        }
    }
}
