//! The addresses of the guests' interfaces: known from the beginning, and never another's.

use crate::header::Mac;
use alloc::vec::Vec;

/// Marks a free place: no address has this number.
const FREE: u64 = u64::MAX;
/// Odd, with bits all over: spreads the addresses that one vendor or one description gives.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Who has which address, on which bridge.
#[derive(Debug)]
pub struct Stations {
    /// Address and bridge; port. A power of two of them, at least half of them free.
    places: Vec<(u64, u16)>,
    shift: u32,
}

impl Stations {
    /// Makes the table of all `(bridge, address, port)`. Of two with one address the first has it.
    pub fn new(stations: impl Iterator<Item = (u16, Mac, u16)> + Clone) -> Stations {
        let count = stations.clone().count();
        let size = (2 * count).next_power_of_two().max(2);
        let mut table = Stations { places: alloc::vec![(FREE, 0); size], shift: 64 - size.trailing_zeros() };
        for (bridge, mac, port) in stations {
            let key = key(bridge, mac);
            let free = table.search(key).find(|(found, _)| *found == FREE || *found == key).map(|(_, index)| index);
            if let Some(place) = free.and_then(|index| table.places.get_mut(index))
                && place.0 == FREE
            {
                *place = (key, port);
            }
        }
        table
    }

    /// The places from that of a key on, once round: what is in them, and their index.
    #[inline]
    fn search(&self, key: u64) -> impl Iterator<Item = (u64, usize)> {
        let mask = self.places.len() - 1;
        let first = (key.wrapping_mul(SPREAD) >> self.shift) as usize;
        (0..=mask).map(move |step| {
            let index = (first + step) & mask;
            (self.places.get(index).map_or(FREE, |place| place.0), index)
        })
    }

    /// The port of an address.
    #[inline]
    pub fn find(&self, bridge: u16, mac: Mac) -> Option<u16> {
        let key = key(bridge, mac);
        let (found, index) = self.search(key).find(|(found, _)| *found == key || *found == FREE)?;
        if found == FREE { None } else { self.places.get(index).map(|place| place.1) }
    }
}

#[inline]
fn key(bridge: u16, mac: Mac) -> u64 {
    mac.number() | u64::from(bridge) << 48
}

#[cfg(test)]
mod tests {
    use super::{Mac, Stations};
    use proptest::prelude::{any, prop_assert_eq, proptest};
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn is_a_map(list in proptest::collection::vec((0_u16..3, 0_u8..20, any::<bool>()), 0..100)) {
            let mac = |last: u8, far: bool| Mac::new([2, if far { 9 } else { 0 }, 0, 0, 0, last]);
            let stations: Vec<_> = (0..).zip(&list).map(|(port, &(bridge, last, far))| (bridge, mac(last, far), port)).collect();
            let table = Stations::new(stations.iter().copied());
            let mut map = BTreeMap::new();
            for (bridge, mac, port) in stations {
                map.entry((bridge, mac)).or_insert(port);
            }
            for bridge in 0..4 {
                for last in 0..21 {
                    for far in [false, true] {
                        prop_assert_eq!(table.find(bridge, mac(last, far)), map.get(&(bridge, mac(last, far))).copied());
                    }
                }
            }
        }
    }
}
