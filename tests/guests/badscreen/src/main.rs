//! A console service that lies to guests: in each of its ways for a while, then it serves as it should, and in the end it lies no more. It stands in place of
//! the console service. What guests write while it serves it prints to the UART, so a test sees how they have borne it. It tells the manager nothing.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod screen;
#[cfg(target_os = "none")]
mod service;

#[cfg(target_os = "none")]
portico_sdk::entry!(service::serve);

#[cfg(not(target_os = "none"))]
fn main() {}
