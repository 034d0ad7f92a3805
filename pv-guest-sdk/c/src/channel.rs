//! Channels of fixed-size messages, for C.

use crate::text;
use alloc::boxed::Box;
use core::ffi::c_char;
use portico_sdk::Status;
use portico_sdk::channel::{Channel, ChannelError, Receiver, Sender};

/// Bytes of a message: `PORTICO_MESSAGE_BYTES` of the header.
const MESSAGE_BYTES: usize = 64;

/// `struct portico_channel` of the header: an open channel with its two rings.
pub struct CChannel {
    // The rings borrow the channel: it is leaked while they live, and taken back in `portico_channel_close`.
    sender: Sender<'static, MESSAGE_BYTES>,
    receiver: Receiver<'static, MESSAGE_BYTES>,
    channel: *mut Channel,
}

/// An error as C has it.
fn status(error: ChannelError) -> i64 {
    match error {
        ChannelError::NotFound => Status::NotFound,
        ChannelError::BadWindow => Status::Invalid,
        ChannelError::Call(status) => status,
        ChannelError::Corrupt => Status::BadState,
        ChannelError::Lost => Status::PeerGone,
        ChannelError::TimedOut => Status::TimedOut,
    }
    .raw()
}

fn result(result: Result<(), ChannelError>) -> i64 {
    result.map_or_else(status, |()| 0)
}

fn open(name: &str, deadline: u64) -> Result<CChannel, ChannelError> {
    let raw = Box::into_raw(Box::new(Channel::open(name)?));
    // SAFETY: fresh from a box; taken back below, or in `portico_channel_close` after the rings are gone.
    let channel: &'static Channel = unsafe { &*raw };
    let connected = channel.queues().and_then(|queues| channel.connect(deadline).map(|()| queues));
    match connected {
        Ok((sender, receiver)) => Ok(CChannel { sender, receiver, channel: raw }),
        Err(error) => {
            // SAFETY: the rings are gone with the error.
            unsafe { Box::from_raw(raw) }.close();
            Err(error)
        }
    }
}

/// See `portico.h`.
///
/// # Safety
/// `name` is a string that ends in NUL, `out` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portico_channel_open(name: *const c_char, deadline: u64, out: *mut *mut CChannel) -> i64 {
    // SAFETY: the caller's promise.
    match open(unsafe { text(name) }, deadline) {
        Ok(channel) => {
            // SAFETY: the caller's promise.
            unsafe { out.write(Box::into_raw(Box::new(channel))) };
            0
        }
        Err(error) => status(error),
    }
}

/// See `portico.h`.
///
/// # Safety
/// `channel` is open, `message` has `PORTICO_MESSAGE_BYTES` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portico_channel_send(channel: *mut CChannel, message: *const [u8; 64], deadline: u64) -> i64 {
    // SAFETY: the caller's promise.
    let (channel, message) = unsafe { (&mut *channel, message.read()) };
    result(channel.sender.send(&message, deadline))
}

/// See `portico.h`.
///
/// # Safety
/// `channel` is open, `message` has `PORTICO_MESSAGE_BYTES` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portico_channel_receive(channel: *mut CChannel, message: *mut [u8; 64], deadline: u64) -> i64 {
    // SAFETY: the caller's promise.
    let channel = unsafe { &mut *channel };
    match channel.receiver.receive(deadline) {
        Ok(received) => {
            // SAFETY: the caller's promise.
            unsafe { message.write(received) };
            0
        }
        Err(error) => status(error),
    }
}

/// See `portico.h`.
///
/// # Safety
/// `channel` is open, and is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portico_channel_close(channel: *mut CChannel) {
    // SAFETY: the caller's promise: made by `portico_channel_open`.
    let CChannel { channel, .. } = *unsafe { Box::from_raw(channel) };
    // SAFETY: made by `open`; its borrowers are gone.
    unsafe { Box::from_raw(channel) }.close();
}
