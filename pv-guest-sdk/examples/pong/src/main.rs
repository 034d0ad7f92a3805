//! Answers each number that comes over the channel `link` with its square. Its peer is `example-ping`.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::time::Duration;
use portico_sdk::abi::port::DEADLINE_NEVER;
use portico_sdk::channel::{Channel, ChannelError};
use portico_sdk::{println, time};

portico_sdk::entry!(pong);

fn pong() -> u64 {
    loop {
        match Channel::open("link").and_then(answer) {
            Err(ChannelError::Lost | ChannelError::TimedOut) => println!("the peer is gone, waiting for the next"),
            Err(error) => {
                println!("cannot go on: {error:?}");
                return 1;
            }
            Ok(()) => return 0,
        }
    }
}

fn answer(link: Channel) -> Result<(), ChannelError> {
    let result = serve(&link);
    link.close();
    result
}

fn serve(link: &Channel) -> Result<(), ChannelError> {
    let (mut sender, mut receiver) = link.queues::<64>()?;
    link.connect(DEADLINE_NEVER)?;
    println!("connected");
    loop {
        let mut message = receiver.receive(time::deadline(Duration::from_secs(30)))?;
        let number = message.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        message[..8].copy_from_slice(&number.wrapping_mul(number).to_le_bytes());
        sender.send(&message, time::deadline(Duration::from_secs(2)))?;
    }
}
