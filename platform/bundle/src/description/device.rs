//! What services lend to guests: virtual disks, and network interfaces at bridges.

use super::{MAX_BRIDGES, name_is_valid};
use alloc::string::String;
use core::ops::RangeInclusive;
use serde::{Deserialize, Serialize};

/// Range of a bridge's `mtu`.
pub const MTU: RangeInclusive<u16> = 576..=9000;
/// Range of a disk's `queues`.
pub const QUEUES: RangeInclusive<u16> = 1..=8;
/// Range of the size of a disk's queue or of a network interface, in pages: 32 KiB to 16 MiB.
pub const WINDOW_PAGES: RangeInclusive<u32> = 8..=4096;
/// Unit of a disk's `Range`, in bytes.
pub const SECTOR_BYTES: u64 = 512;
/// Most partitions of a GPT as it is usually made.
pub const MAX_PARTITION: u32 = 128;
/// Longest name of a GPT partition, in UTF-16 units.
pub const MAX_LABEL: usize = 36;

/// A switch between guests' network interfaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// Its name, unique among bridges; as a guest's name is.
    pub name: String,
    /// Whether the machine's network device is one of its ports. At most one bridge has it.
    pub uplink: bool,
    /// Largest payload of a frame, in bytes, in [`MTU`].
    pub mtu: u16,
}

/// Which part of a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// All of it.
    #[default]
    Whole,
    /// A GPT partition, by its number from 1 to [`MAX_PARTITION`].
    Number(u32),
    /// A GPT partition, by its name.
    Label(String),
    /// A range of bytes; both are multiples of [`SECTOR_BYTES`].
    Range {
        /// Its first byte.
        first: u64,
        /// Its length.
        bytes: u64,
    },
}

/// A virtual disk of a guest. The block service serves it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its name, by which the guest finds it. Unique within the guest, among its channels too.
    pub name: String,
    /// Name of the machine's disk: the serial of a virtio disk, or `sd`. Empty: nothing is there before the operator adds it.
    pub disk: String,
    /// The part of that disk which the guest gets.
    pub part: Part,
    /// The guest may only read it.
    pub read_only: bool,
    /// Most requests in a second; 0 for no limit.
    pub iops: u32,
    /// Most bytes in a second; 0 for no limit.
    pub bytes_per_s: u64,
    /// Requests that may exceed the rates at once.
    pub burst: u32,
    /// Number of queues, in [`QUEUES`].
    pub queues: u16,
    /// Size of the window of each queue, in pages of 4 KiB, in [`WINDOW_PAGES`].
    pub pages: u32,
}

/// A network interface of a guest. The net service serves it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vif {
    /// Its name, by which the guest finds it. Unique within the guest, among its channels and disks too.
    pub name: String,
    /// Index of the bridge that it is at.
    pub bridge: u16,
    /// Its address, of one station and unique in the system.
    pub mac: [u8; 6],
    /// Most bytes in a second that the guest may send; 0 for no limit.
    pub bytes_per_s: u64,
    /// Bytes that may exceed the rate at once.
    pub burst: u32,
    /// Size of its window, in pages of 4 KiB, in [`WINDOW_PAGES`].
    pub pages: u32,
}

impl Part {
    /// Says whether the two parts of one disk overlap, as far as that can be seen without the disk: a partition may
    /// also be a range, or have a number and a name.
    pub fn overlaps(&self, other: &Part) -> bool {
        match (self, other) {
            (Part::Whole, _) | (_, Part::Whole) => true,
            (Part::Range { first, bytes }, Part::Range { first: other_first, bytes: other_bytes }) => {
                *first < other_first.saturating_add(*other_bytes) && *other_first < first.saturating_add(*bytes)
            }
            (Part::Number(number), Part::Number(other)) => number == other,
            (Part::Label(label), Part::Label(other)) => label == other,
            (Part::Number(_) | Part::Label(_) | Part::Range { .. }, _) => false,
        }
    }

    fn is_valid(&self) -> bool {
        match self {
            Part::Whole => true,
            Part::Number(number) => (1..=MAX_PARTITION).contains(number),
            Part::Label(label) => label_is_valid(label),
            Part::Range { first, bytes } => {
                let whole = first.is_multiple_of(SECTOR_BYTES) && bytes.is_multiple_of(SECTOR_BYTES);
                whole && *bytes > 0 && first.checked_add(*bytes).is_some()
            }
        }
    }
}

/// Says whether a GPT partition can have this name.
pub fn label_is_valid(label: &str) -> bool {
    !label.is_empty() && !label.contains(char::is_control) && label.encode_utf16().count() <= MAX_LABEL
}

/// Says whether `mac` can be the address of one station.
pub fn mac_is_valid(mac: &[u8; 6]) -> bool {
    mac.first().is_some_and(|first| first & 1 == 0) && *mac != [0; 6]
}

impl Disk {
    /// Says whether a guest could change what another one has by these two disks, as far as that can be seen without
    /// the machine's disk.
    pub fn conflicts(&self, other: &Disk) -> bool {
        let may_change = !(self.is_empty() || self.read_only && other.read_only);
        may_change && self.disk == other.disk && self.part.overlaps(&other.part)
    }

    /// Whether nothing is behind it.
    pub fn is_empty(&self) -> bool {
        self.disk.is_empty()
    }

    /// The first rule of its fields that it breaks.
    pub(super) fn broken_rule(&self) -> Option<&'static str> {
        let rules = [
            (name_is_valid(&self.name), "bad name of a disk"),
            (
                name_is_valid(&self.disk) || self.is_empty() && self.part == Part::Whole,
                "bad name of the machine's disk",
            ),
            (self.part.is_valid(), "part of a disk out of range"),
            (QUEUES.contains(&self.queues), "number of queues out of range"),
            (WINDOW_PAGES.contains(&self.pages), "window of a disk out of range"),
        ];
        rules.into_iter().find_map(|(holds, text)| (!holds).then_some(text))
    }
}

impl Vif {
    /// The first rule of its fields that it breaks, where there are so many bridges.
    pub(super) fn broken_rule(&self, bridges: usize) -> Option<&'static str> {
        let rules = [
            (name_is_valid(&self.name), "bad name of a network interface"),
            (usize::from(self.bridge) < bridges, "network interface at an unknown bridge"),
            (mac_is_valid(&self.mac), "bad MAC address"),
            (WINDOW_PAGES.contains(&self.pages), "window of a network interface out of range"),
        ];
        rules.into_iter().find_map(|(holds, text)| (!holds).then_some(text))
    }
}

/// The first rule that the bridges of a system break.
pub(super) fn broken_rule_of_bridges(bridges: &[Bridge]) -> Option<&'static str> {
    if bridges.len() > MAX_BRIDGES {
        return Some("too many bridges");
    }
    if bridges.iter().filter(|bridge| bridge.uplink).count() > 1 {
        return Some("two bridges with the uplink");
    }
    bridges.iter().enumerate().find_map(|(index, bridge)| {
        let earlier = bridges.get(..index).unwrap_or_default();
        let rules = [
            (name_is_valid(&bridge.name), "bad name of a bridge"),
            (!earlier.iter().any(|other| other.name == bridge.name), "two bridges of one name"),
            (MTU.contains(&bridge.mtu), "MTU out of range"),
        ];
        rules.into_iter().find_map(|(holds, text)| (!holds).then_some(text))
    })
}
