//! Channels of fixed-size messages, for C.

use crate::port::CPort;
use crate::text;
use alloc::boxed::Box;
use core::ffi::c_char;
use portico_sdk::Status;
use portico_sdk::channel::{Channel, ChannelError, Receiver, Sender};
use portico_sdk::hvc::handle_info;

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

/// Makes the rings of a channel, and does `first` with it.
fn with_rings(
    channel: Channel,
    first: impl FnOnce(&Channel) -> Result<(), ChannelError>,
) -> Result<CChannel, ChannelError> {
    let raw = Box::into_raw(Box::new(channel));
    // SAFETY: fresh from a box; taken back below, or in `portico_channel_close` after the rings are gone.
    let channel: &'static Channel = unsafe { &*raw };
    match channel.queues().and_then(|queues| first(channel).map(|()| queues)) {
        Ok((sender, receiver)) => Ok(CChannel { sender, receiver, channel: raw }),
        Err(error) => {
            // SAFETY: the rings are gone with the error.
            unsafe { Box::from_raw(raw) }.close();
            Err(error)
        }
    }
}

fn open(name: &str, deadline: u64) -> Result<CChannel, ChannelError> {
    with_rings(Channel::open(name)?, |channel| channel.connect(deadline))
}

/// Hands a channel over to C.
///
/// # Safety
/// `out` is writable.
unsafe fn give(opened: Result<CChannel, ChannelError>, out: *mut *mut CChannel) -> i64 {
    match opened {
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
/// `name` is a string that ends in NUL, `out` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portico_channel_open(name: *const c_char, deadline: u64, out: *mut *mut CChannel) -> i64 {
    // SAFETY: the caller's promise.
    let name = unsafe { text(name) };
    // SAFETY: the caller's promise.
    unsafe { give(open(name, deadline), out) }
}

/// See `portico.h`.
///
/// # Safety
/// `name` is a string that ends in NUL, `out` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portico_channel_try_open(name: *const c_char, out: *mut *mut CChannel) -> i64 {
    // SAFETY: the caller's promise.
    let name = unsafe { text(name) };
    // SAFETY: the caller's promise.
    unsafe { give(Channel::try_open(name).and_then(|channel| with_rings(channel, |_| Ok(()))), out) }
}

/// See `portico.h`.
///
/// # Safety
/// `channel` is open, `out` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portico_channel_port(channel: *const CChannel, out: *mut CPort) {
    // SAFETY: the caller's promise; the channel lives until `portico_channel_close`.
    let port = unsafe { &*(*channel).channel }.port();
    // SAFETY: the caller's promise.
    unsafe { out.write(CPort::of(&port)) };
}

/// See `portico.h`.
///
/// # Safety
/// `channel` is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portico_channel_try_connect(channel: *mut CChannel) -> i64 {
    // SAFETY: the caller's promise; the channel lives until `portico_channel_close`.
    let channel = unsafe { &*(*channel).channel };
    if channel.try_connect() {
        return 0;
    }
    // Whose peer is gone would wait for ever: nobody is left to notify it.
    match handle_info(channel.port().handle()) {
        Ok(info) if info.state == 0 => Status::Again.raw(),
        _ => Status::PeerGone.raw(),
    }
}

/// See `portico.h`.
///
/// # Safety
/// `channel` is connected, `message` has `PORTICO_MESSAGE_BYTES` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portico_channel_try_send(channel: *mut CChannel, message: *const [u8; 64]) -> i64 {
    // SAFETY: the caller's promise.
    let (CChannel { sender, channel, .. }, message) = unsafe { (&mut *channel, message.read()) };
    loop {
        match sender.try_send(&message) {
            Ok(true) => return 0,
            Ok(false) => {}
            Err(error) => return status(error),
        }
        // SAFETY: it lives until `portico_channel_close`.
        let armed = unsafe { &**channel }.check().and_then(|()| sender.arm());
        match armed {
            Ok(true) => return Status::Again.raw(),
            Ok(false) => {}
            Err(error) => return status(error),
        }
    }
}

/// See `portico.h`.
///
/// # Safety
/// `channel` is connected, `message` has `PORTICO_MESSAGE_BYTES` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portico_channel_try_receive(channel: *mut CChannel, message: *mut [u8; 64]) -> i64 {
    // SAFETY: the caller's promise.
    let CChannel { receiver, channel, .. } = unsafe { &mut *channel };
    loop {
        match receiver.try_receive() {
            Ok(Some(received)) => {
                // SAFETY: the caller's promise.
                unsafe { message.write(received) };
                return 0;
            }
            Ok(None) => {}
            Err(error) => return status(error),
        }
        // SAFETY: it lives until `portico_channel_close`.
        let armed = unsafe { &**channel }.check().and_then(|()| receiver.arm());
        match armed {
            Ok(true) => return Status::Again.raw(),
            Ok(false) => {}
            Err(error) => return status(error),
        }
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
