//! A switch between the network interfaces of guests, and what it is made of, apart from the machine that it runs on.
//!
//! [`header`] reads the first bytes of a frame, of which there is a private copy. [`switch`] decides by them where it goes, with [`stations`], the addresses
//! of interfaces, and [`learned`], those that were seen elsewhere. [`vif`] is the back-end of one guest's interface. [`traffic`] moves frames between all
//! of them and the uplink. [`offload`] does what a sender left to do for those who do not do it themselves.
//!
//! Three rules hold throughout. Nothing is decided by what a guest can still change. A frame is copied once for each that gets it, from window to
//! window. Each turn does a bounded piece of work for each interface.
//!
//! Whoever has no room for a frame from another guest has it wait, for [`vif::PATIENCE_NS`] at most, in the sender's ring, with all that is behind it there; after that he
//! loses what is sent to him, until half of his ring is free. So TCP between guests loses nothing while both are served, and one who takes nothing, or
//! little, costs a sender that much once for each half of his ring. Frames from outside, and those to groups, never wait.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod header;
pub mod learned;
pub mod offload;
pub mod stations;
pub mod switch;
pub mod traffic;
pub mod vif;
