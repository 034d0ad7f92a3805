//! Talks to others of its kind over the interface `net0`, or does what a guest should not.
//!
//! `net=` says what it does, `peer=` the address of the other one, `to=` its IP address. Frames have a number and bytes that follow from it, so that each is verified.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod bad;
#[cfg(target_os = "none")]
mod check;
#[cfg(target_os = "none")]
mod icmp;
#[cfg(target_os = "none")]
mod measure;
#[cfg(target_os = "none")]
mod talk;
#[cfg(target_os = "none")]
mod tcp;
#[cfg(target_os = "none")]
mod twist;

#[cfg(target_os = "none")]
portico_sdk::entry!(guest);

#[cfg(target_os = "none")]
fn guest() -> u64 {
    use portico_sdk::{dtb, println};
    let open = talk::End::open;
    let result = match dtb::bootarg("net") {
        Some("tcp") => tcp::stream(),
        Some("icmp") => icmp::ping(),
        Some("check") => check::check(true),
        Some("check-whole") => check::check(false),
        Some("twist") => twist::twist(false),
        Some("break") => twist::twist(true),
        role => open().and_then(|end| match role {
            Some("ping") => talk::ping(end),
            Some("echo") => talk::echo(end),
            Some("rtt") => measure::round_trips(end),
            Some("stream") => measure::stream(end),
            Some("sink") => measure::sink(end),
            Some("spoof") => bad::spoof(end),
            Some("flood") => bad::flood(end),
            Some("broadcast") => bad::broadcast(end),
            Some("lie") => bad::lie(end),
            Some("listen") => talk::listen(end),
            _ => Err(talk::Failure::Role),
        }),
    };
    match result {
        Ok(()) => 0,
        Err(failure) => {
            println!("failed: {failure:?}");
            1
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    // It has no network on a host.
}
