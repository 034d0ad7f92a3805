//! SD cards behind a host controller, by the processor alone.
//!
//! Written from the SD Association's "SD Host Controller Simplified Specification", version 3.00 (here HOST), and "Physical Layer Simplified
//! Specification", version 6.00 (here PHYS). The controller moves nothing by itself: each word of each block goes through its buffer data
//! port, so that it can reach no memory. Everything is said to it in words of 32 bits, which all controllers take.
//!
//! [`controller`] has the controller and its commands, [`start`] gets a card ready, [`transfer`] moves blocks without waiting for anything,
//! [`card`] decodes what cards say. What is waited for in `start`, and when an error is mended, has a limit of time.

pub mod card;
pub mod controller;
pub mod registers;
pub mod start;
pub mod transfer;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
