//! Paravirtual devices: what a front-end and a back-end promise each other.
//!
//! A device is a channel ([`crate::channel`]): a window, a pair of ports, and the convention of states and epochs. The
//! front-end, in the guest, is [`FRONT`]; the back-end, in a service, is [`BACK`]. All buffers are in the window.
//!
//! | offset | what | written by |
//! | --- | --- | --- |
//! | 0 | [`crate::channel::ChannelHeader`] | as it says |
//! | [`OFFER`] | [`Offer`], then what the kind of device adds | the back-end |
//! | [`ACCEPT`] | [`Accept`] | the front-end |
//! | [`RINGS`] | control words and slots of the rings | as the ring says |
//! | by kind | data | as the kind says |
//!
//! # Negotiation
//!
//! 1. The back-end begins an epoch (state `Init`), writes its offer, and says `Connected`.
//! 2. The front-end begins an epoch, waits until the back-end's state is `Connected`, and copies the offer. It checks that the kind is its own and
//!    the major version is known, and takes the features that it knows. It writes what it took to [`Accept`], sets its words of the
//!    rings anew, stores the back-end's epoch to its `seen`, says `Connected`, and notifies.
//! 3. The back-end sees `Connected` and its own epoch in `seen`. It copies [`Accept`] and checks it: features must be a subset of the offer's. It
//!    sets its words of the rings anew, stores the front-end's epoch to its `seen`, and notifies. From then on both may use the rings.
//!
//! An accept that makes no sense is refused: the back-end says `Closed`, writes why to [`Offer::refusal`], and waits for another epoch of the front-end.
//!
//! When the epoch or the state of the other side changes the device is *lost*: both sides begin again at 1 or 2. The rings are then
//! empty, requests without an answer were perhaps done and perhaps not, and the front-end, which keeps every request until its
//! answer, makes them again. Requests are such that this cannot be seen.

pub mod block;
pub mod control;
pub mod handshake;
pub mod net;

use core::mem::{offset_of, size_of};

/// Side of the back-end: the service.
pub const BACK: u32 = 0;
/// Side of the front-end: the guest.
pub const FRONT: u32 = 1;
/// Offset of the [`Offer`] in the window.
pub const OFFER: usize = 256;
/// Offset of the [`Accept`] in the window.
pub const ACCEPT: usize = 448;
/// Offset of the first ring.
pub const RINGS: usize = 512;

/// `kind` of an offer.
pub mod kind {
    /// A disk: [`super::block`].
    pub const BLOCK: u32 = 1;
    /// A network interface: [`super::net`].
    pub const NET: u32 = 2;
}

/// `refusal` of an offer.
pub mod refusal {
    /// Nothing was refused.
    pub const NONE: u32 = 0;
    /// The version is not known.
    pub const VERSION: u32 = 1;
    /// Features that were not offered, or that exclude each other.
    pub const FEATURES: u32 = 2;
    /// The front-end broke the protocol: an index that lies, a slot that makes no sense.
    pub const PROTOCOL: u32 = 3;
    /// What stands behind the device is not there: the machine has no such disk or partition.
    pub const ABSENT: u32 = 4;
    /// There is no disk now: the manager took it away, or has not added one yet. Written by the manager, while no back-end has the device.
    pub const REMOVED: u32 = 5;
}

/// What every back-end offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Offer {
    /// One of [`kind`].
    pub kind: u32,
    /// Version of the kind's protocol: major << 16 | minor.
    pub version: u32,
    /// Features of the kind that the back-end has.
    pub features: u64,
    /// One of [`refusal`]: why the back-end closed the last epoch of the front-end.
    pub refusal: u32,
    /// Zero.
    pub _reserved: [u32; 3],
}

/// What the front-end takes of an offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Accept {
    /// The version that is spoken: the back-end's major, and the smaller minor.
    pub version: u32,
    /// Zero.
    pub _reserved: u32,
    /// The features that are used.
    pub features: u64,
}

const _: () = assert!(size_of::<Offer>() == 32 && offset_of!(Offer, features) == 8);
const _: () = assert!(size_of::<Accept>() == 16 && ACCEPT + size_of::<Accept>() <= RINGS);
