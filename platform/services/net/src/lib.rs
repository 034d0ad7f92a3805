//! A switch between the network interfaces of guests, and what it is made of, apart from the machine that it runs on.
//!
//! [`header`] reads the first bytes of a frame, of which there is a private copy. [`switch`] decides by them where it goes, with [`stations`], the addresses
//! of interfaces, and [`learned`], those that were seen elsewhere. [`vif`] is the back-end of one guest's interface. [`traffic`] moves frames between all
//! of them and the uplink.
//!
//! Three rules hold throughout. Nothing is decided by what a guest can still change. A frame is copied once for each that gets it, from window to
//! window, and whoever has no room loses it: nobody waits for another. Each turn does a bounded piece of work for each interface.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod header;
pub mod learned;
pub mod stations;
pub mod switch;
pub mod traffic;
pub mod vif;
