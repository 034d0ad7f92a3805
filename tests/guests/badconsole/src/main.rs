//! A console service that misuses the box between it and the manager, and the desk. It stands in place of the console service.
//!
//! After each of its ways it asks the manager for `list` as a decent service does, and writes the answer to the UART: so a test sees whether the manager
//! goes on. Then it falls silent, for the manager to end it. It gives no command that harms: those are a person's, whose hand the service is.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod service;

#[cfg(target_os = "none")]
portico_sdk::entry!(service::serve);

#[cfg(not(target_os = "none"))]
fn main() {}
