//! The handshake of a device, as a machine over the six words of the channel's header: who sees whom, in which epoch.
//!
//! Each side has private copies of its own epoch and of the other's that it *met*: the one in which it read what the other side wrote
//! (offer or accept). It agrees to that one and to no later one, so that nothing that was read in one life of the other side is used in the next.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, Ordering};

#[cfg(not(loom))]
use core::sync::atomic::{AtomicU32, Ordering};

use super::{BACK, FRONT};
use crate::channel::ChannelState;

/// The words of one side.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// A [`ChannelState`].
    pub state: &'a AtomicU32,
    /// Its epoch; never 0 once it began.
    pub epoch: &'a AtomicU32,
    /// The other side's epoch for which it set its rings up.
    pub seen: &'a AtomicU32,
}

/// All the words, as one of the sides has them.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    /// The words that it writes.
    pub own: Side<'a>,
    /// The words that it reads.
    pub peer: Side<'a>,
    /// `refusal` of the offer.
    pub refusal: &'a AtomicU32,
}

/// Where a side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// There is no port whose other end is there.
    Unplugged,
    /// It has begun an epoch, and waits for the other side.
    Waiting,
    /// A front-end has accepted what was offered in this epoch of the back-end, and waits until that is seen.
    Accepted(u32),
    /// Both have seen each other; the other side's epoch.
    Connected(u32),
    /// Refused in this epoch of the other side: nothing happens until it begins anew.
    Refused(u32),
}

/// What a step found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing new.
    Nothing,
    /// The other side is ready for what comes next: a front-end reads the offer and accepts; a back-end reads what was accepted and
    /// welcomes or refuses.
    Peer,
    /// Connected now: the rings may be used.
    Connected,
    /// The other side is gone or began anew. What is under way must be ended before the next step.
    Lost,
}

/// One side.
#[derive(Clone, Copy, Debug)]
pub struct Handshake {
    side: u32,
    epoch: u32,
    /// The other side's epoch when it was last met.
    met: u32,
    phase: Phase,
}

impl Handshake {
    /// A side that has not begun; it goes on from the epoch that its last life left in the words.
    pub fn new(side: u32, words: &Words<'_>) -> Handshake {
        Handshake { side, epoch: words.own.epoch.load(Ordering::Relaxed), met: 0, phase: Phase::Unplugged }
    }

    /// Where it is.
    #[inline]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Its epoch.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Whether it is connected and nothing has changed: two loads.
    #[inline]
    pub fn is_well(&self, words: &Words<'_>) -> bool {
        match self.phase {
            Phase::Connected(epoch) => peer_epoch(words) == epoch && is_there(words),
            _ => false,
        }
    }

    /// Begins an epoch. The other side is to be notified.
    pub fn begin(&mut self, words: &Words<'_>) {
        set_state(words, ChannelState::Init);
        words.own.seen.store(0, Ordering::Release);
        // An epoch of 0 is nobody's: a side that never began.
        self.epoch = self.epoch.wrapping_add(1).max(1);
        words.own.epoch.store(self.epoch, Ordering::Release);
        if self.side == BACK {
            set_state(words, ChannelState::Connected);
        }
        self.phase = Phase::Waiting;
    }

    /// Looks at the other side's words. The second part of the answer says whether an epoch was begun, and the other side is to be notified.
    pub fn step(&mut self, words: &Words<'_>) -> (Event, bool) {
        match self.phase {
            Phase::Unplugged => (Event::Nothing, false),
            Phase::Connected(_) if self.is_well(words) => (Event::Nothing, false),
            Phase::Connected(_) => {
                self.lose(words);
                (Event::Lost, false)
            }
            Phase::Waiting => {
                // The epoch first: the other side stores it behind INIT, so that CONNECTED is not its last life's.
                self.met = peer_epoch(words);
                let is_ready = is_there(words) && self.is_answered(words);
                (if is_ready && self.met != 0 { Event::Peer } else { Event::Nothing }, false)
            }
            Phase::Accepted(epoch) => {
                // The refusal is read before a new epoch of ours makes the back-end forget it.
                if self.side == FRONT && peer_epoch(words) == epoch && is_refused(words) {
                    self.phase = Phase::Waiting;
                    return (Event::Peer, false);
                }
                if peer_epoch(words) != epoch || !is_there(words) {
                    self.begin(words);
                    return (Event::Nothing, true);
                }
                if words.peer.seen.load(Ordering::Acquire) != self.epoch {
                    return (Event::Nothing, false);
                }
                self.phase = Phase::Connected(epoch);
                (Event::Connected, false)
            }
            Phase::Refused(epoch) if peer_epoch(words) == epoch => (Event::Nothing, false),
            Phase::Refused(_) => {
                if self.side == BACK {
                    // Before the epoch can be seen: it is about the last one.
                    words.refusal.store(super::refusal::NONE, Ordering::Release);
                }
                self.begin(words);
                (Event::Nothing, true)
            }
        }
    }

    /// The front-end accepts what it read since it met the back-end.
    pub fn accept(&mut self, words: &Words<'_>) {
        words.own.seen.store(self.met, Ordering::Release);
        set_state(words, ChannelState::Connected);
        self.phase = Phase::Accepted(self.met);
    }

    /// The back-end agrees to what it read since it met the front-end.
    pub fn welcome(&mut self, words: &Words<'_>) {
        words.own.seen.store(self.met, Ordering::Release);
        self.phase = Phase::Connected(self.met);
    }

    /// Ends what was begun with the epoch that was met, until another; a back-end says why. If the other side has begun another already it is
    /// not to answer for what the last one did: then this one is lost, and nothing refused.
    pub fn refuse(&mut self, words: &Words<'_>, why: u32) {
        if peer_epoch(words) != self.met {
            return self.lose(words);
        }
        if self.side == BACK {
            words.refusal.store(why, Ordering::Release);
        }
        self.phase = Phase::Refused(self.met);
        set_state(words, ChannelState::Closed);
    }

    /// Ends this epoch; the next begins by [`Handshake::begin`].
    pub fn lose(&mut self, words: &Words<'_>) {
        set_state(words, ChannelState::Init);
        self.phase = Phase::Unplugged;
    }

    /// A back-end waits for an answer to its own offer, a front-end for any.
    fn is_answered(&self, words: &Words<'_>) -> bool {
        self.side == FRONT || words.peer.seen.load(Ordering::Acquire) == self.epoch
    }
}

fn peer_epoch(words: &Words<'_>) -> u32 {
    words.peer.epoch.load(Ordering::Acquire)
}

fn is_there(words: &Words<'_>) -> bool {
    words.peer.state.load(Ordering::Acquire) == ChannelState::Connected as u32
}

/// Whether the back-end has closed its epoch and says why. The manager closes that of one that ended, and says nothing.
fn is_refused(words: &Words<'_>) -> bool {
    words.peer.state.load(Ordering::Acquire) == ChannelState::Closed as u32
        && words.refusal.load(Ordering::Acquire) != super::refusal::NONE
}

fn set_state(words: &Words<'_>, state: ChannelState) {
    words.own.state.store(state as u32, Ordering::Release);
}
