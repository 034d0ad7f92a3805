//! What the test guests share: reports, random numbers, register patterns.
#![cfg_attr(target_os = "none", no_std)]

pub mod random;
#[cfg(target_os = "none")]
pub mod registers;
pub mod tap;

pub use random::Random;
pub use tap::Tap;
