//! What the block service decides, apart from the devices it drives: which requests make sense, where partitions are,
//! and what is said to an SD card.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod claims;
pub mod gpt;
pub mod request;
pub mod sd;
