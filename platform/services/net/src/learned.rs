//! Addresses that were seen as senders behind a port that is not one station's: behind the uplink.
//!
//! The table has a fixed size, and whoever is out there can fill it: an address then costs the oldest of the four of its set its place, and frames to
//! that one go to all such ports again. Looking is always four comparisons.

use crate::header::Mac;
use alloc::vec::Vec;

/// Sets: a power of two.
const SETS: usize = 256;
/// Addresses of a set.
const WAYS: usize = 4;
/// Seconds after which an address that was not seen is forgotten. (IEEE 802.1Q, "Ageing Time", its recommended value)
pub const AGE_S: u64 = 300;
/// Odd, with bits all over.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// Address and bridge; 0 for none.
    key: u64,
    port: u16,
    /// When it was last seen, in seconds.
    seen_s: u64,
}

/// The table.
#[derive(Debug)]
pub struct Learned {
    sets: Vec<[Entry; WAYS]>,
}

impl Default for Learned {
    fn default() -> Self {
        Learned { sets: alloc::vec![[Entry::default(); WAYS]; SETS] }
    }
}

impl Learned {
    /// Most addresses that are known at once.
    pub const CAPACITY: usize = SETS * WAYS;

    /// Remembers that `mac` was seen behind `port`.
    pub fn learn(&mut self, bridge: u16, mac: Mac, port: u16, now_s: u64) {
        let key = key(bridge, mac);
        let Some(set) = self.sets.get_mut(set_of(key)) else { return };
        let own = set.iter().position(|entry| entry.key == key);
        let oldest = || (0..WAYS).min_by_key(|&way| set.get(way).map_or(0, |entry| entry.seen_s));
        if let Some(entry) = own.or_else(oldest).and_then(|way| set.get_mut(way)) {
            *entry = Entry { key, port, seen_s: now_s };
        }
    }

    /// Behind which port `mac` was seen lately.
    pub fn find(&self, bridge: u16, mac: Mac, now_s: u64) -> Option<u16> {
        let key = key(bridge, mac);
        let set = self.sets.get(set_of(key))?;
        let entry = set.iter().find(|entry| entry.key == key)?;
        (now_s.saturating_sub(entry.seen_s) <= AGE_S).then_some(entry.port)
    }
}

fn key(bridge: u16, mac: Mac) -> u64 {
    mac.number() | u64::from(bridge) << 48
}

fn set_of(key: u64) -> usize {
    (key.wrapping_mul(SPREAD) >> 56) as usize % SETS
}

#[cfg(test)]
mod tests {
    use super::{AGE_S, Learned, Mac};

    fn mac(number: u32) -> Mac {
        let [a, b, c, d] = number.to_be_bytes();
        Mac::new([2, 0, a, b, c, d])
    }

    #[test]
    fn learns_moves_and_forgets() {
        let mut table = Learned::default();
        table.learn(0, mac(1), 7, 100);
        assert_eq!((table.find(0, mac(1), 100), table.find(1, mac(1), 100)), (Some(7), None));
        table.learn(0, mac(1), 8, 200);
        assert_eq!(table.find(0, mac(1), 200 + AGE_S), Some(8));
        assert_eq!(table.find(0, mac(1), 201 + AGE_S), None);
        assert_eq!(table.find(0, mac(2), 200), None);
    }

    #[test]
    fn is_bounded_and_keeps_the_newest() {
        let mut table = Learned::default();
        for number in 0..100_000 {
            table.learn(0, mac(number), 1, u64::from(number));
            assert_eq!(table.find(0, mac(number), u64::from(number)), Some(1));
        }
        let known = (0..100_000).filter(|&number| table.find(0, mac(number), u64::from(number)).is_some()).count();
        assert!(known <= Learned::CAPACITY && known > Learned::CAPACITY * 3 / 4, "{known}");
    }
}
