//! What the manager keeps for its own next life, beside what the handles in EL2 tell.
//!
//! There are two slots, written in turn, each with version, number, length and checksum: a manager that ends in the middle of
//! writing one has the other. What is read is checked like anything else that was written by others, since a manager that went astray may
//! have written there.

use alloc::vec::Vec;
use portico_bundle::description::{Disk, Guest};
use serde::{Deserialize, Serialize};

use crate::restart::RestartState;

/// First bytes of a slot.
const MAGIC: &[u8; 4] = b"PMGR";
/// Version of what follows.
const VERSION: u32 = 2;
/// More restarts of the manager within [`TOO_OFTEN_NS`] are too many.
const TOO_OFTEN: usize = 4;
/// That time, in nanoseconds.
const TOO_OFTEN_NS: u64 = 10_000_000_000;
/// Bytes before the encoded state: magic, version, number, length, checksum.
pub const HEADER: usize = 32;

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Memory that EL2 takes for clean may hold a guest's image: a guest was being filled.
    pub is_filling: bool,
    /// The machine is to end: `system_off`'s operation.
    pub ending: Option<u64>,
    /// When the manager was begun anew lately, oldest first, in nanoseconds.
    pub began: Vec<u64>,
    /// The machine is to end as soon as those guests have that were asked to: as `ending`, and until when they have time, in nanoseconds.
    pub leaving: Option<(u64, u64)>,
    /// Time of day at which the manager's counter was 0, if an operator set it: nanoseconds since 1970.
    pub wall_ns: Option<u64>,
    /// A tester wants the next lives to end early.
    pub doom: Option<Doom>,
    /// Disks that were added or taken away, by queue.
    pub disks: Vec<Plugged>,
    /// The guests, by number.
    pub guests: Vec<Record>,
}

/// Lives of the manager that end soon after they began, for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doom {
    /// How many more.
    pub lives: u64,
    /// Each has so many microseconds more than the one after it.
    pub step_us: u64,
}

impl Doom {
    /// Takes a life; returns how long it has, in microseconds.
    pub fn next(doom: &mut Option<Doom>) -> Option<u64> {
        let Doom { lives, step_us } = doom.take().filter(|doom| doom.lives > 0)?;
        *doom = Some(Doom { lives: lives - 1, step_us });
        Some(lives.saturating_mul(step_us))
    }
}

/// A queue of a disk that is not as in the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plugged {
    /// Number of the link.
    pub link: u32,
    /// In which order it was added.
    pub added: u32,
    /// What it is now.
    pub disk: Disk,
}

/// What is kept of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its name, if the rest is not kept.
    pub name: alloc::string::String,
    /// What it is to be, if that is not as in the bundle.
    pub description: Option<Guest>,
    /// What is to become of it.
    pub intent: Intent,
    /// Its restarts.
    pub restarts: RestartState,
    /// When it started, in nanoseconds.
    pub started_ns: u64,
    /// When its counter was 0, in nanoseconds.
    pub born_ns: u64,
}

/// What is to become of a guest. What it is now is asked of EL2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Intent {
    /// Not to exist.
    Absent,
    /// To exist, from this time on, in nanoseconds; what is there of it is to be taken down.
    Start(u64),
    /// To run on.
    Run,
    /// To be paused.
    Pause,
    /// To stay as it is, ended or stopped.
    Keep,
}

impl Saved {
    /// Notes that the manager was begun anew at `now_ns`. Returns whether that is too often to go on at once.
    pub fn note_restart(&mut self, now_ns: u64) -> bool {
        self.began.retain(|&then| now_ns.saturating_sub(then) < TOO_OFTEN_NS);
        self.began.push(now_ns);
        let is_too_often = self.began.len() > TOO_OFTEN;
        // What is older changes nothing.
        let from = self.began.len().saturating_sub(TOO_OFTEN + 1);
        self.began.drain(..from);
        is_too_often
    }

    /// Encodes it as number `number` for a slot of `room` bytes. When guests restarted goes first if it does not fit; `None` if that
    /// is not enough.
    pub fn encode(&self, number: u64, room: usize) -> Option<Vec<u8>> {
        self.encode_whole(number, room).or_else(|| {
            let mut shorter = self.clone();
            shorter.guests.iter_mut().for_each(|record| record.restarts.forget_times());
            shorter.encode_whole(number, room)
        })
    }

    fn encode_whole(&self, number: u64, room: usize) -> Option<Vec<u8>> {
        let body = postcard::to_allocvec(self).ok()?;
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&checksum(number, &body).to_le_bytes());
        bytes.extend_from_slice(&body);
        (bytes.len() <= room).then_some(bytes)
    }

    /// Bytes of what is in a slot that begins with `header`, which is counted. `None` if that is none of ours.
    pub fn len(header: &[u8; HEADER]) -> Option<usize> {
        let (_, len) = header.strip_prefix(MAGIC)?.split_at_checked(4 + 8)?;
        let body = u64::from_le_bytes(*len.first_chunk::<8>()?);
        usize::try_from(body).ok()?.checked_add(HEADER)
    }

    /// Decodes a slot. `None` if it holds nothing that is whole.
    pub fn decode(slot: &[u8]) -> Option<(u64, Saved)> {
        let rest = slot.strip_prefix(MAGIC)?;
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let (len, rest) = rest.split_first_chunk::<8>()?;
        let (sum, rest) = rest.split_first_chunk::<8>()?;
        let number = u64::from_le_bytes(*number);
        let body = rest.get(..usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
        if u32::from_le_bytes(*version) != VERSION || u64::from_le_bytes(*sum) != checksum(number, body) {
            return None;
        }
        let (saved, left) = postcard::take_from_bytes::<Saved>(body).ok()?;
        left.is_empty().then_some((number, saved))
    }

    /// The newer of two slots.
    pub fn newest(slots: [&[u8]; 2]) -> Option<(u64, Saved)> {
        slots.into_iter().filter_map(Self::decode).max_by_key(|(number, _)| *number)
    }
}

/// FNV-1a, by words where there are some.
fn checksum(number: u64, bytes: &[u8]) -> u64 {
    let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(mix(0xcbf2_9ce4_8422_2325, number), |sum, word| mix(sum, u64::from_le_bytes(*word)));
    rest.iter().fold(sum, |sum, byte| mix(sum, u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::{Doom, HEADER, Intent, MAGIC, Record, Saved};
    use crate::restart::RestartState;
    use proptest::prelude::*;

    fn saved(name: &str) -> Saved {
        let record = Record {
            name: name.into(),
            description: None,
            intent: Intent::Start(7),
            restarts: RestartState::default(),
            started_ns: 5,
            born_ns: 3,
        };
        Saved { is_filling: true, leaving: Some((1, 2)), guests: [record].into(), ..Saved::default() }
    }

    #[test]
    fn a_torn_write_leaves_the_older_slot() {
        let (old, new) =
            (saved("a").encode(1, 4096).unwrap_or_default(), saved("bcdefghijk").encode(2, 4096).unwrap_or_default());
        // The slot held number 0 before, and was written up to some byte.
        let before = saved("long-gone-x").encode(0, 4096).unwrap_or_default();
        for written in 0..new.len() {
            let mut torn = before.clone();
            torn.resize(before.len().max(new.len()), 0);
            torn[..written].copy_from_slice(&new[..written]);
            let newest = Saved::newest([&torn, &old]);
            assert_eq!(
                newest.map(|(number, saved)| (number, saved.guests[0].name.clone())),
                Some((1, "a".into())),
                "{written}"
            );
        }
        assert_eq!(Saved::newest([&new, &old]).map(|(number, _)| number), Some(2));
    }

    #[test]
    fn doomed_lives_are_shorter_and_shorter() {
        let mut doom = Some(Doom { lives: 3, step_us: 50 });
        assert_eq!([(); 4].map(|()| Doom::next(&mut doom)), [Some(150), Some(100), Some(50), None]);
        assert_eq!(doom, None);
    }

    #[test]
    fn restarts_that_follow_each_other_wait() {
        const S: u64 = 1_000_000_000;
        let mut saved = Saved::default();
        assert_eq!([0, 1, 2, 3].map(|at| saved.note_restart(at * S)), [false; 4]);
        assert!(saved.note_restart(4 * S) && saved.note_restart(5 * S));
        // Those of long ago do not count.
        assert!(!saved.note_restart(60 * S));
        for at in 0..1000 {
            saved.note_restart(at);
        }
        assert!(saved.began.len() <= 5);
    }

    #[test]
    fn times_of_restarts_go_if_there_is_no_room() {
        use crate::restart::{Ending, Policy};
        let policy = Policy { limit: 1000, window_ns: u64::MAX, ..Policy::default() };
        let mut full = saved("a");
        for now in 0..1000 {
            full.guests[0].restarts.decide(&policy, Ending::Crash, now << 40);
        }
        let Some((_, read)) = full.encode(1, 4096).and_then(|bytes| Saved::decode(&bytes)) else { panic!() };
        assert_eq!(read.guests[0].restarts.total(), 1000);
        assert!(full.encode(1, 65536).is_some_and(|bytes| bytes.len() > 4096));
    }

    #[test]
    fn the_newer_whole_slot_counts() {
        let (Some(old), Some(mut new)) = (saved("a").encode(1, 4096), saved("b").encode(2, 4096)) else { panic!() };
        assert_eq!(Saved::newest([&old, &new]), Some((2, saved("b"))));
        let last = new.len() - 1;
        new[last] ^= 1;
        assert_eq!(Saved::newest([&old, &new]), Some((1, saved("a"))));
        assert_eq!(Saved::newest([&[], &[0; 64]]), None);
        assert_eq!(new.first_chunk().and_then(Saved::len), Some(new.len()));
        assert_eq!(Saved::len(&[0; HEADER]), None);
        let mut endless = [0xff; HEADER];
        endless[..MAGIC.len()].copy_from_slice(MAGIC);
        assert_eq!(Saved::len(&endless), None);
        assert_eq!(saved("a").encode(1, HEADER), None);
    }

    proptest! {
        #[test]
        fn nothing_that_was_spoilt_is_taken(at in 0usize..60, bit in 0u8..8, junk in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut bytes = saved("a").encode(1, 4096).unwrap_or_default();
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
                prop_assert_eq!(Saved::decode(&bytes), None);
            }
            prop_assert_eq!(Saved::decode(&junk), None);
        }
    }
}
