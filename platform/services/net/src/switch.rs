//! Where a frame goes.
//!
//! A port is a *station's*, that of a guest's interface, whose one address is known; or a *trunk*, behind which there may be anyone: the uplink. A station
//! sends from its own address only, and gets what is sent to it or to a group. A trunk's addresses are learned, and frames to an address
//! that nobody is known to have go to all trunks. They do not go to stations: those have told their address, and would only
//! see what is not theirs.

use crate::header::{Header, Mac};
use crate::learned::Learned;
use crate::stations::Stations;
use alloc::vec::Vec;
use portico_sdk::device::frames::Head;
use portico_service::limit::Limit;

/// Broadcasts and multicasts a second that a station may send: each is copied to everyone.
pub const STATION_GROUP_RATE: u64 = 1000;
/// The same for a trunk.
pub const TRUNK_GROUP_RATE: u64 = 10_000;
const NS_PER_S: u64 = 1_000_000_000;
/// How many of them may come at once.
const GROUP_BURST: u64 = 100;

/// What is behind a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One interface, with this address.
    Station(Mac),
    /// Others.
    Trunk,
}

/// Why a frame is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Too short, too long, or cut off.
    Size,
    /// Not from whom it says to be.
    Spoofed,
    /// To an address that no bridge forwards.
    Reserved,
    /// Too many to groups.
    Limited,
    /// To nobody.
    Unknown,
    /// What its header leaves to others does not fit it.
    Offload,
}

/// What is done with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Drop(Reason),
    /// It goes to one port.
    Forward(u16),
    /// It goes to all other ports of the bridge.
    Flood,
    /// It goes to all other trunks of the bridge.
    FloodTrunks,
}

#[derive(Debug)]
struct Port {
    bridge: u16,
    kind: Kind,
    longest: usize,
    groups: Limit,
}

/// A switch: several bridges that know nothing of each other.
#[derive(Debug)]
pub struct Switch {
    ports: Vec<Port>,
    stations: Stations,
    learned: Learned,
    /// For each bridge, its ports.
    members: Vec<Vec<u16>>,
    /// For each bridge, its trunks.
    trunks: Vec<Vec<u16>>,
}

impl Switch {
    /// Makes a switch of ports `(bridge, kind, longest frame)`. They are named by their index.
    pub fn new(ports: &[(u16, Kind, usize)]) -> Switch {
        let bridges = ports.iter().map(|port| usize::from(port.0) + 1).max().unwrap_or(0);
        let on = |bridge: usize, wants: fn(&Kind) -> bool| {
            let all = (0_u16..).zip(ports);
            all.filter(|(_, port)| usize::from(port.0) == bridge && wants(&port.1)).map(|(index, _)| index).collect()
        };
        let station = |(index, &(bridge, kind, _)): (u16, &(u16, Kind, usize))| match kind {
            Kind::Station(mac) => Some((bridge, mac, index)),
            Kind::Trunk => None,
        };
        let groups = |kind: Kind| match kind {
            Kind::Station(_) => Limit::new(STATION_GROUP_RATE, GROUP_BURST),
            Kind::Trunk => Limit::new(TRUNK_GROUP_RATE, GROUP_BURST),
        };
        Switch {
            stations: Stations::new((0_u16..).zip(ports).filter_map(station)),
            learned: Learned::default(),
            members: (0..bridges).map(|bridge| on(bridge, |_| true)).collect(),
            trunks: (0..bridges).map(|bridge| on(bridge, |kind| *kind == Kind::Trunk)).collect(),
            ports: ports
                .iter()
                .map(|&(bridge, kind, longest)| Port { bridge, kind, longest, groups: groups(kind) })
                .collect(),
        }
    }

    /// Decides on a frame of `bytes` bytes from port `from`, by a private copy of its head. Most frames do not need the time, in nanoseconds.
    #[inline]
    pub fn judge(&mut self, from: u16, head: &Head, bytes: usize, now_ns: impl Fn() -> u64) -> Verdict {
        let Some(port) = self.ports.get_mut(usize::from(from)) else { return Verdict::Drop(Reason::Unknown) };
        if bytes > port.longest {
            return Verdict::Drop(Reason::Size);
        }
        let Some(header) = Header::read(head, bytes) else { return Verdict::Drop(Reason::Size) };
        let bridge = port.bridge;
        match port.kind {
            Kind::Station(own) => {
                if header.source != own || header.arp_sender.is_some_and(|sender| sender != own) {
                    return Verdict::Drop(Reason::Spoofed);
                }
            }
            Kind::Trunk => {
                // A station's address from elsewhere is a loop or a lie.
                if header.source.is_group() || self.stations.find(bridge, header.source).is_some() {
                    return Verdict::Drop(Reason::Spoofed);
                }
                self.learned.learn(bridge, header.source, from, now_ns() / NS_PER_S);
            }
        }
        if header.destination.is_group() {
            return if header.destination.is_reserved() {
                Verdict::Drop(Reason::Reserved)
            } else if port.groups.take(1, now_ns()).is_err() {
                Verdict::Drop(Reason::Limited)
            } else {
                Verdict::Flood
            };
        }
        self.direct(from, bridge, header.destination, now_ns)
    }

    /// Where a frame to one address goes.
    #[inline]
    fn direct(&self, from: u16, bridge: u16, to: Mac, now_ns: impl Fn() -> u64) -> Verdict {
        let known = self.stations.find(bridge, to);
        match known.or_else(|| self.learned.find(bridge, to, now_ns() / NS_PER_S)) {
            // It is where it came from.
            Some(port) if port == from => Verdict::Drop(Reason::Unknown),
            Some(port) => Verdict::Forward(port),
            None => match self.trunks(from) {
                [] => Verdict::Drop(Reason::Unknown),
                [only] if *only == from => Verdict::Drop(Reason::Unknown),
                [only] => Verdict::Forward(*only),
                _ => Verdict::FloodTrunks,
            },
        }
    }

    /// The ports of the bridge that `port` is at, itself among them.
    pub fn members(&self, port: u16) -> &[u16] {
        self.of_bridge(&self.members, port)
    }

    /// The trunks of the bridge that `port` is at, itself perhaps among them.
    pub fn trunks(&self, port: u16) -> &[u16] {
        self.of_bridge(&self.trunks, port)
    }

    fn of_bridge<'a>(&self, lists: &'a [Vec<u16>], port: u16) -> &'a [u16] {
        let list = self.ports.get(usize::from(port)).and_then(|port| lists.get(usize::from(port.bridge)));
        list.map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::{Head, Kind, Mac, Reason, Switch, Verdict};
    use crate::learned::AGE_S;
    use portico_sdk::device::frames::HEAD;
    use proptest::prelude::{any, prop_assert, proptest};

    const LONGEST: usize = 1518;
    const SECOND: u64 = 1_000_000_000;

    fn judge(switch: &mut Switch, from: u16, head: &[u8; HEAD], bytes: usize, now_ns: u64) -> Verdict {
        switch.judge(from, &Head::from_bytes(head), bytes, || now_ns)
    }

    fn mac(last: u8) -> [u8; 6] {
        [2, 0, 0, 0, 0, last]
    }

    fn head(to: [u8; 6], from: [u8; 6]) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        head[..6].copy_from_slice(&to);
        head[6..12].copy_from_slice(&from);
        head[12] = 8;
        head
    }

    /// Stations 0 to 2 and trunks 3 and 4 on bridge 0; station 5 and trunk 6 on bridge 1; station 7, with the address of 0, on bridge 2.
    fn switch() -> Switch {
        let station = |bridge, last| (bridge, Kind::Station(Mac::new(mac(last))), LONGEST);
        let trunk = |bridge| (bridge, Kind::Trunk, LONGEST);
        let first = [station(0, 0), station(0, 1), station(0, 2), trunk(0), trunk(0)];
        Switch::new(&[&first[..], &[station(1, 5), trunk(1), station(2, 0)]].concat())
    }

    #[test]
    fn stations_reach_each_other_on_their_bridge_only() {
        let mut switch = switch();
        assert_eq!(judge(&mut switch, 0, &head(mac(1), mac(0)), 60, SECOND), Verdict::Forward(1));
        assert_eq!(judge(&mut switch, 1, &head(mac(0), mac(1)), 60, SECOND), Verdict::Forward(0));
        assert_eq!(judge(&mut switch, 0, &head(mac(5), mac(0)), 60, SECOND), Verdict::FloodTrunks);
        assert_eq!(judge(&mut switch, 5, &head(mac(0), mac(5)), 60, SECOND), Verdict::Forward(6));
        assert_eq!(judge(&mut switch, 7, &head(mac(1), mac(0)), 60, SECOND), Verdict::Drop(Reason::Unknown));
        assert_eq!(
            judge(&mut switch, 0, &head(mac(0), mac(0)), 60, SECOND),
            Verdict::Drop(Reason::Unknown),
            "to itself"
        );
        assert_eq!((switch.members(0), switch.trunks(0)), (&[0, 1, 2, 3, 4][..], &[3, 4][..]));
        assert_eq!((switch.members(7), switch.trunks(7), switch.members(99)), (&[7][..], &[][..], &[][..]));
    }

    #[test]
    fn nobody_sends_as_another() {
        let mut switch = switch();
        assert_eq!(judge(&mut switch, 0, &head(mac(1), mac(2)), 60, SECOND), Verdict::Drop(Reason::Spoofed));
        assert_eq!(judge(&mut switch, 0, &head([0xff; 6], [0xff; 6]), 60, SECOND), Verdict::Drop(Reason::Spoofed));
        let mut arp = head([0xff; 6], mac(0));
        arp[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
        arp[22..28].copy_from_slice(&mac(1));
        assert_eq!(judge(&mut switch, 0, &arp, 60, SECOND), Verdict::Drop(Reason::Spoofed));
        arp[22..28].copy_from_slice(&mac(0));
        assert_eq!(judge(&mut switch, 0, &arp, 60, SECOND), Verdict::Flood);
        // From outside: with a station's address, and with a group's.
        assert_eq!(judge(&mut switch, 3, &head(mac(1), mac(0)), 60, SECOND), Verdict::Drop(Reason::Spoofed));
        assert_eq!(judge(&mut switch, 3, &head(mac(1), [1; 6]), 60, SECOND), Verdict::Drop(Reason::Spoofed));
        assert_eq!(
            judge(&mut switch, 6, &head(mac(5), mac(0)), 60, SECOND),
            Verdict::Forward(5),
            "not one of this bridge"
        );
    }

    #[test]
    fn sizes_and_reserved_addresses_are_checked() {
        let mut switch = switch();
        let frame = head(mac(1), mac(0));
        for (bytes, verdict) in [
            (13, Verdict::Drop(Reason::Size)),
            (14, Verdict::Forward(1)),
            (LONGEST, Verdict::Forward(1)),
            (LONGEST + 1, Verdict::Drop(Reason::Size)),
        ] {
            assert_eq!(judge(&mut switch, 0, &frame, bytes, SECOND), verdict);
        }
        let reserved = head([1, 0x80, 0xc2, 0, 0, 0xe], mac(0));
        assert_eq!(judge(&mut switch, 0, &reserved, 60, SECOND), Verdict::Drop(Reason::Reserved));
    }

    #[test]
    fn trunks_are_learned_and_forgotten() {
        let mut switch = switch();
        let far = [0x52, 0x55, 10, 0, 2, 2];
        assert_eq!(judge(&mut switch, 0, &head(far, mac(0)), 60, SECOND), Verdict::FloodTrunks);
        assert_eq!(judge(&mut switch, 4, &head(mac(0), far), 60, SECOND), Verdict::Forward(0));
        assert_eq!(judge(&mut switch, 0, &head(far, mac(0)), 60, SECOND), Verdict::Forward(4));
        assert_eq!(judge(&mut switch, 3, &head(far, [4; 6]), 60, SECOND), Verdict::Forward(4));
        assert_eq!(
            judge(&mut switch, 4, &head(far, [6; 6]), 60, SECOND),
            Verdict::Drop(Reason::Unknown),
            "already there"
        );
        // It moves.
        assert_eq!(judge(&mut switch, 3, &head([0xff; 6], far), 60, SECOND), Verdict::Flood);
        assert_eq!(judge(&mut switch, 0, &head(far, mac(0)), 60, SECOND), Verdict::Forward(3));
        let later = (AGE_S + 2) * SECOND;
        assert_eq!(judge(&mut switch, 0, &head(far, mac(0)), 60, later), Verdict::FloodTrunks);
        assert_eq!(
            judge(&mut switch, 5, &head(far, mac(5)), 60, SECOND),
            Verdict::Forward(6),
            "one trunk needs no learning"
        );
        assert_eq!(judge(&mut switch, 6, &head([8; 6], far), 60, SECOND), Verdict::Drop(Reason::Unknown));
    }

    #[test]
    fn groups_are_limited() {
        let mut switch = switch();
        let frame = head([0xff; 6], mac(0));
        let (mut passed, mut others) = (0, 0);
        for step in 0..100_000_u64 {
            let now = SECOND + step * 20_000;
            passed += u32::from(judge(&mut switch, 0, &frame, 60, now) == Verdict::Flood);
            if step % 100 == 0 {
                others +=
                    u32::from(judge(&mut switch, 1, &head([1, 0, 0x5e, 0, 0, 1], mac(1)), 60, now) == Verdict::Flood);
            }
        }
        // Two seconds, and the burst.
        assert!((2000..=2200).contains(&passed), "{passed}");
        assert_eq!(others, 1000, "each has a limit of its own");
        assert_eq!(judge(&mut switch, 0, &head(mac(1), mac(0)), 60, 3 * SECOND), Verdict::Forward(1));
    }

    proptest! {
        /// Whatever is in a frame: a station never sends as another, and a verdict never leads off the bridge or back.
        #[test]
        fn verdicts_stay_on_the_bridge(bytes in proptest::collection::vec(any::<u8>(), HEAD), near in 0_u8..4, from in 0_u16..9, len in 0_usize..2000) {
            let mut switch = switch();
            let mut head: [u8; HEAD] = bytes.try_into().unwrap();
            if near > 0 {
                let to = mac(head[5] % 8);
                head[..6].copy_from_slice(&to);
            }
            if near > 1 {
                head[6..12].copy_from_slice(&mac(from as u8));
            }
            if near > 2 {
                head[12..14].copy_from_slice(&[8, 6]);
            }
            match judge(&mut switch, from, &head, len, SECOND) {
                Verdict::Drop(_) => {}
                Verdict::Forward(port) => prop_assert!(port != from && switch.members(from).contains(&port)),
                Verdict::Flood => prop_assert!(head[0] & 1 == 1),
                Verdict::FloodTrunks => prop_assert!(!switch.trunks(from).is_empty()),
            }
        }
    }
}
