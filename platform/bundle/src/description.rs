//! The compiled system description: what the manager builds the system from.
//!
//! `portico` compiles it from a TOML file and has checked it; the manager decodes it and checks again what
//! its own safety depends on ([`System::check`]). It names images by their entry in the bundle.
//!
//! Encoded it is [`MAGIC`], [`VERSION`] as two little-endian bytes, and the postcard form of [`System`].

mod device;
mod service;

pub use device::{
    Bridge, Disk, MAX_LABEL, MAX_PARTITION, MTU, Part, QUEUES, SECTOR_BYTES, Vif, WINDOW_PAGES, label_is_valid,
    mac_is_valid,
};
pub use service::{Service, ServiceKind};

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// First bytes of an encoded description.
pub const MAGIC: &[u8; 4] = b"PSYS";
/// Version of the encoding. Another version is refused: bundle and manager are built together.
pub const VERSION: u16 = 3;
/// Longest name, of whatever it is, in bytes: what EL2 keeps of a domain's name.
pub const MAX_NAME: usize = 16;
/// Most guests of a system description.
pub const MAX_GUESTS: usize = 256;
/// Most channels of a system description.
pub const MAX_CHANNELS: usize = 1024;
/// Most bridges of a system description.
pub const MAX_BRIDGES: usize = 64;
/// Most disks of a guest.
pub const MAX_DISKS: usize = 16;
/// Most network interfaces of a guest.
pub const MAX_VIFS: usize = 16;
/// Most vCPUs of a guest.
pub const MAX_VCPUS: u16 = 48;
/// Largest `cap_permille`: a whole pCPU, the most that a vCPU can use.
pub const MAX_CAP_PERMILLE: u32 = 1000;

/// A whole system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    /// Its name, for people.
    pub name: String,
    /// Arguments of the manager.
    pub manager_cmdline: String,
    /// The guests. Others refer to them by their index.
    pub guests: Vec<Guest>,
    /// The channels between guests.
    pub channels: Vec<Channel>,
    /// The domains that hold devices and lend them to the guests; at most one of each kind.
    pub services: Vec<Service>,
    /// The switches that the guests' network interfaces are at. Those refer to them by their index.
    pub bridges: Vec<Bridge>,
}

/// What becomes of a guest that crashed, panicked or missed its watchdog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnCrash {
    /// It is built again, after a growing delay and within its [`RestartLimit`].
    Restart,
    /// It is destroyed and its memory is freed.
    #[default]
    Destroy,
    /// It stays as it is, to be looked at, until it is destroyed by hand.
    Preserve,
}

/// How often a guest may be restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartLimit {
    /// Most restarts within the window. One more and it stays destroyed.
    pub count: u32,
    /// Length of the window, in seconds.
    pub window_s: u32,
}

impl Default for RestartLimit {
    fn default() -> Self {
        RestartLimit { count: 5, window_s: 60 }
    }
}

/// Guaranteed processor time of each vCPU: `budget_us` in every `period_us`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// Period, in microseconds.
    pub period_us: u32,
    /// Budget within a period, in microseconds.
    pub budget_us: u32,
}

/// A guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Its name: 1 to [`MAX_NAME`] bytes of `a-z`, `A-Z`, `0-9`, `-`, `_`, `.`, unique among guests.
    pub name: String,
    /// Bundle entry of its kernel, `image/...`. Guests may share one.
    pub image: String,
    /// Bundle entry of its RAM disk, `ramdisk/...`.
    pub ramdisk: Option<String>,
    /// `bootargs` of its device tree.
    pub cmdline: String,
    /// Its RAM, in pages of 4 KiB.
    pub memory_pages: u64,
    /// As little RAM as it may be left with while it runs, in pages; 0 if its RAM is fixed. Otherwise both are whole blocks, and it has at
    /// most [`MAX_ELASTIC_PAGES`].
    pub memory_min_pages: u64,
    /// How many vCPUs it has, 1 to [`MAX_VCPUS`].
    pub vcpus: u16,
    /// Mask of the pCPUs on which its vCPUs may run; 0 for all.
    pub affinity: u64,
    /// Share of processor time relative to others, 1 to 65535.
    pub weight: u16,
    /// Most processor time for each vCPU, in thousandths of one pCPU; 0 for no limit.
    pub cap_permille: u32,
    /// If present, its vCPUs have this reservation and `weight` is not used.
    pub reservation: Option<Reservation>,
    /// What becomes of it when it crashes.
    pub on_crash: OnCrash,
    /// Limit for `OnCrash::Restart`.
    pub restart: RestartLimit,
    /// Indices of the guests that start before it. There is no cycle.
    pub depends: Vec<u16>,
    /// It counts as crashed if it sends no heartbeat for so many milliseconds; 0 for no watchdog.
    pub watchdog_ms: u32,
    /// Whether it starts with the machine, or only when told to.
    pub autostart: bool,
    /// Its disks. With one, the system has a block service.
    pub disks: Vec<Disk>,
    /// Its network interfaces. With one, the system has a net service.
    pub vifs: Vec<Vif>,
}

/// A channel between two guests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// Its name, under which both guests find it. Unique within each guest.
    pub name: String,
    /// Index of the guest at side 0.
    pub a: u16,
    /// Index of the guest at side 1, another than `a`.
    pub b: u16,
    /// Size of its window, in pages of 4 KiB.
    pub pages: u32,
}

/// Why an encoded description was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DescriptionError {
    /// It does not begin with [`MAGIC`].
    BadMagic,
    /// It has another [`VERSION`].
    BadVersion(u16),
    /// It is cut short, has bytes left over, or does not decode.
    Malformed,
    /// It decodes, but breaks a rule of its fields; the text says which.
    Inconsistent(&'static str),
}

impl fmt::Display for DescriptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DescriptionError::BadMagic => f.write_str("not a compiled system description"),
            DescriptionError::BadVersion(found) => {
                write!(f, "system description has version {found}, this manager reads {VERSION}")
            }
            DescriptionError::Malformed => f.write_str("system description is malformed"),
            DescriptionError::Inconsistent(rule) => write!(f, "system description: {rule}"),
        }
    }
}

impl core::error::Error for DescriptionError {}

fn rule(holds: bool, text: &'static str) -> Result<(), DescriptionError> {
    unbroken((!holds).then_some(text))
}

fn unbroken(broken: Option<&'static str>) -> Result<(), DescriptionError> {
    broken.map_or(Ok(()), |text| Err(DescriptionError::Inconsistent(text)))
}

impl System {
    /// Encodes the description.
    ///
    /// # Errors
    /// `Inconsistent` if it would not decode again.
    pub fn encode(&self) -> Result<Vec<u8>, DescriptionError> {
        self.check()?;
        let mut bytes = Vec::from(*MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        let body = postcard::to_allocvec(self).map_err(|_| DescriptionError::Malformed)?;
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    /// Decodes and checks a description.
    ///
    /// # Errors
    /// Any of [`DescriptionError`]; never panics, whatever the bytes are.
    pub fn decode(bytes: &[u8]) -> Result<System, DescriptionError> {
        let body = bytes.strip_prefix(MAGIC).ok_or(DescriptionError::BadMagic)?;
        let (version, body) = body.split_first_chunk::<2>().ok_or(DescriptionError::Malformed)?;
        let version = u16::from_le_bytes(*version);
        if version != VERSION {
            return Err(DescriptionError::BadVersion(version));
        }
        let (system, rest) = postcard::take_from_bytes::<System>(body).map_err(|_| DescriptionError::Malformed)?;
        if !rest.is_empty() {
            return Err(DescriptionError::Malformed);
        }
        system.check()?;
        Ok(system)
    }

    /// Checks the rules that are written at the fields.
    ///
    /// # Errors
    /// `Inconsistent` with the first rule that is broken.
    pub fn check(&self) -> Result<(), DescriptionError> {
        self.check_guests()?;
        self.check_channels()?;
        self.check_services()?;
        unbroken(device::broken_rule_of_bridges(&self.bridges))?;
        self.check_devices()
    }

    fn check_guests(&self) -> Result<(), DescriptionError> {
        rule(self.guests.len() <= MAX_GUESTS, "too many guests")?;
        for (index, guest) in self.guests.iter().enumerate() {
            rule(name_is_valid(&guest.name), "bad name of a guest")?;
            let earlier = self.guests.get(..index).unwrap_or_default();
            rule(!earlier.iter().any(|other| other.name == guest.name), "two guests of one name")?;
            rule((1..=MAX_VCPUS).contains(&guest.vcpus), "number of vCPUs out of range")?;
            rule((1..=MAX_MEMORY_PAGES).contains(&guest.memory_pages), "memory out of range")?;
            rule(guest.memory_min_pages == 0 || guest.is_elastic(), "least memory out of range")?;
            rule(guest.weight > 0, "weight out of range")?;
            rule(guest.cap_permille <= MAX_CAP_PERMILLE, "cap out of range")?;
            if let Some(Reservation { period_us, budget_us }) = guest.reservation {
                rule(budget_us > 0 && budget_us <= period_us, "reservation out of range")?;
            }
            let known = |&depends: &u16| usize::from(depends) < self.guests.len();
            rule(guest.depends.len() <= MAX_GUESTS, "too many dependencies")?;
            rule(guest.depends.iter().all(known), "depends on an unknown guest")?;
        }
        rule(self.order().is_some(), "guests depend on each other in a circle")
    }

    fn check_channels(&self) -> Result<(), DescriptionError> {
        rule(self.channels.len() <= MAX_CHANNELS, "too many channels")?;
        for (index, channel) in self.channels.iter().enumerate() {
            rule(name_is_valid(&channel.name), "bad name of a channel")?;
            let known = usize::from(channel.a.max(channel.b)) < self.guests.len();
            rule(known && channel.a != channel.b, "channel between unknown guests")?;
            rule((1..=MAX_CHANNEL_PAGES).contains(&channel.pages), "channel size out of range")?;
            let earlier = self.channels.get(..index).unwrap_or_default();
            let clash = |other: &Channel| {
                other.name == channel.name && [other.a, other.b].iter().any(|&g| g == channel.a || g == channel.b)
            };
            rule(!earlier.iter().any(clash), "two channels of one name at one guest")?;
        }
        Ok(())
    }

    fn check_services(&self) -> Result<(), DescriptionError> {
        for (index, service) in self.services.iter().enumerate() {
            let earlier = self.services.get(..index).unwrap_or_default();
            rule(!earlier.iter().any(|other| other.kind == service.kind), "two services of one kind")?;
            unbroken(service.broken_rule())?;
        }
        Ok(())
    }

    /// Checks the guests' disks and network interfaces.
    fn check_devices(&self) -> Result<(), DescriptionError> {
        let mut macs = BTreeSet::new();
        for (index, guest) in (0u16..).zip(&self.guests) {
            rule(guest.disks.len() <= MAX_DISKS, "too many disks")?;
            rule(guest.vifs.len() <= MAX_VIFS, "too many network interfaces")?;
            rule(guest.disks.is_empty() || self.service(ServiceKind::Block).is_some(), "disks without block service")?;
            rule(
                guest.vifs.is_empty() || self.service(ServiceKind::Net).is_some(),
                "network interfaces without net service",
            )?;
            let mut names: BTreeSet<&str> = BTreeSet::new();
            let own = self.channels.iter().filter(|channel| [channel.a, channel.b].contains(&index));
            names.extend(own.map(|channel| channel.name.as_str()));
            for disk in &guest.disks {
                unbroken(disk.broken_rule())?;
                rule(names.insert(&disk.name), "two channels or devices of one name at one guest")?;
            }
            for vif in &guest.vifs {
                unbroken(vif.broken_rule(self.bridges.len()))?;
                rule(names.insert(&vif.name), "two channels or devices of one name at one guest")?;
                rule(macs.insert(vif.mac), "two network interfaces of one MAC address")?;
            }
            let earlier = self.guests.get(..usize::from(index)).unwrap_or_default();
            let conflicts = |disk: &Disk| earlier.iter().flat_map(|other| &other.disks).any(|d| d.conflicts(disk));
            rule(!guest.disks.iter().any(conflicts), "a guest can write to another guest's disk")?;
        }
        Ok(())
    }

    /// The service of this kind.
    pub fn service(&self, kind: ServiceKind) -> Option<&Service> {
        self.services.iter().find(|service| service.kind == kind)
    }

    /// Indices of all guests, each after those it depends on and otherwise in the order of the description;
    /// `None` if they depend on each other in a circle.
    pub fn order(&self) -> Option<Vec<u16>> {
        let mut order = Vec::new();
        let mut placed = alloc::vec![false; self.guests.len()];
        while order.len() < self.guests.len() {
            let is_placed = |index: &u16| placed.get(usize::from(*index)).copied().unwrap_or(false);
            let next = (0u16..)
                .zip(&self.guests)
                .find(|(index, guest)| !is_placed(index) && guest.depends.iter().all(is_placed));
            let (index, _) = next?;
            *placed.get_mut(usize::from(index))? = true;
            order.push(index);
        }
        Some(order)
    }
}

impl Guest {
    /// Whether its RAM can change while it runs.
    pub fn is_elastic(&self) -> bool {
        let is_whole = |pages: u64| pages > 0 && pages.is_multiple_of(BLOCK_PAGES);
        is_whole(self.memory_min_pages)
            && is_whole(self.memory_pages)
            && (self.memory_min_pages..=MAX_ELASTIC_PAGES).contains(&self.memory_pages)
    }
}

/// Pages of a block: the unit in which RAM can change.
const BLOCK_PAGES: u64 = 512;
/// Most RAM of a guest whose RAM can change, in pages: 2 GiB. Each block of it is a handle of the manager's.
pub const MAX_ELASTIC_PAGES: u64 = 512 << 10;
/// Most RAM of a guest, in pages: 64 GiB.
pub const MAX_MEMORY_PAGES: u64 = 16 << 20;
/// Largest channel window, in pages: 16 MiB.
pub const MAX_CHANNEL_PAGES: u32 = 4096;

/// Says whether `name` can name a guest, channel, bridge, disk or network interface.
pub fn name_is_valid(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(allowed)
}
