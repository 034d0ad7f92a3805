//! Sends a number over the channel `link` twice a second, and prints what comes back. Its peer is `example-pong`.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::time::Duration;
use portico_sdk::channel::{Channel, ChannelError};
use portico_sdk::{control, println, time};

portico_sdk::entry!(ping);

fn ping() -> u64 {
    // The number goes on from one peer to the next: what was not answered is sent again.
    let mut number = 1;
    loop {
        match talk(&mut number) {
            Err(ChannelError::Lost | ChannelError::TimedOut) => println!("the peer is gone, connecting anew"),
            Err(error) => {
                println!("cannot go on: {error:?}");
                return 1;
            }
            Ok(()) => return 0,
        }
    }
}

fn talk(number: &mut u64) -> Result<(), ChannelError> {
    let link = Channel::open("link")?;
    let result = exchange(&link, number);
    link.close();
    result
}

fn exchange(link: &Channel, number: &mut u64) -> Result<(), ChannelError> {
    let (mut sender, mut receiver) = link.queues::<64>()?;
    link.connect(time::deadline(Duration::from_secs(30)))?;
    println!("connected");
    loop {
        let mut message = [0; 64];
        message[..8].copy_from_slice(&number.to_le_bytes());
        let begin = time::now_ns();
        sender.send(&message, time::deadline(Duration::from_secs(2)))?;
        let answer = receiver.receive(time::deadline(Duration::from_secs(2)))?;
        let round_trip = time::now_ns().saturating_sub(begin);
        println!("ping {number}: answer {} after {} us", decode(&answer), round_trip / 1000);
        *number += 1;
        control::heartbeat();
        time::sleep(Duration::from_millis(500));
    }
}

fn decode(message: &[u8; 64]) -> u64 {
    message.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
