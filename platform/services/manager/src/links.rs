//! Which windows there are, between whom, and how large: channels of the description, queues of disks, interfaces.
//!
//! Services have numbers behind those of the guests of the description, so that a link is between two numbers whatever its ends are.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use portico_abi::device::{block, net};
use portico_abi::dt::{self, service as property};
use portico_bundle::description::{Bridge, Disk, Part, ServiceKind, System, Vif};

use crate::fdt::Value;

/// Number of the first service; those of guests are below.
const FIRST_SERVICE: u16 = 0x8000;

/// The number of a service.
pub const fn number_of(kind: ServiceKind) -> u16 {
    FIRST_SERVICE
        + match kind {
            ServiceKind::Block => 0,
            ServiceKind::Net => 1,
            ServiceKind::Console => 2,
        }
}

/// Whether a number is a service's.
pub const fn is_service(number: u16) -> bool {
    number >= FIRST_SERVICE
}

/// What a link is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A channel between guests.
    Channel,
    /// A queue of a disk: which.
    Disk(Disk, u16),
    /// An interface, and its bridge.
    Vif(Vif, Bridge),
}

/// A window between two domains. Side 0 of a device is the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name, by which the guest finds it.
    pub name: String,
    /// Number of the domain at each side.
    pub sides: [u16; 2],
    /// Size of the window in pages, all included.
    pub pages: u64,
    /// What it is for.
    pub purpose: Purpose,
}

/// All links of a system.
pub fn all(system: &System) -> Vec<Link> {
    let mut links = Vec::new();
    for channel in &system.channels {
        links.push(Link {
            name: channel.name.clone(),
            sides: [channel.a, channel.b],
            pages: u64::from(channel.pages),
            purpose: Purpose::Channel,
        });
    }
    for (guest, number) in system.guests.iter().zip(0..) {
        for disk in &guest.disks {
            let pages = u64::from(disk.pages);
            for queue in 0..disk.queues {
                links.push(Link {
                    name: disk.name.clone(),
                    sides: [number_of(ServiceKind::Block), number],
                    pages: pages + block::control_pages(pages),
                    purpose: Purpose::Disk(disk.clone(), queue),
                });
            }
        }
        for vif in &guest.vifs {
            let Some(bridge) = system.bridges.get(usize::from(vif.bridge)) else { continue };
            links.push(Link {
                name: vif.name.clone(),
                sides: [number_of(ServiceKind::Net), number],
                pages: net_pages(u64::from(vif.pages)) + net::CONTROL_PAGES,
                purpose: Purpose::Vif(vif.clone(), bridge.clone()),
            });
        }
    }
    links
}

/// Rings have powers of two of slots: what is more is not used.
fn net_pages(pages: u64) -> u64 {
    1 << pages.clamp(net::MIN_PAGES, net::MAX_PAGES).ilog2()
}

impl Link {
    /// The disk that it is a queue of.
    pub fn disk(&self) -> Option<&Disk> {
        match &self.purpose {
            Purpose::Disk(disk, _) => Some(disk),
            Purpose::Channel | Purpose::Vif(..) => None,
        }
    }

    /// Whether it is a device with nothing behind it.
    pub fn is_empty(&self) -> bool {
        self.disk().is_some_and(Disk::is_empty)
    }

    /// Name and `compatible` of its node.
    pub fn node(&self) -> (&'static str, &'static str) {
        match self.purpose {
            Purpose::Channel => ("channel", dt::CHANNEL),
            Purpose::Disk(..) => ("block", dt::BLOCK),
            Purpose::Vif(..) => ("net", dt::NET),
        }
    }

    /// What its node says at `side`, beside the window and the port.
    pub fn properties(&self, side: usize, peer: &str) -> Vec<(&'static str, Value)> {
        let mut properties = Vec::from([
            (dt::NAME, Value::Text(self.name.clone())),
            (dt::PEER, Value::Text(String::from(peer))),
            (dt::SIDE, Value::Word(side as u32)),
        ]);
        match &self.purpose {
            Purpose::Channel => {}
            Purpose::Disk(disk, queue) => {
                properties.push((dt::QUEUES, Value::Word(u32::from(disk.queues))));
                properties.push((dt::QUEUE, Value::Word(u32::from(*queue))));
                if side == 0 {
                    disk_properties(disk, &mut properties);
                }
            }
            Purpose::Vif(vif, bridge) if side == 0 => vif_properties(vif, bridge, &mut properties),
            Purpose::Vif(..) => {}
        }
        properties
    }

    /// In a few words, for people.
    pub fn describe(&self) -> String {
        match &self.purpose {
            Purpose::Channel => format!("channel {}", self.name),
            Purpose::Disk(disk, _) if disk.is_empty() => format!("disk {} (empty)", self.name),
            Purpose::Disk(disk, _) => {
                let part = match &disk.part {
                    Part::Whole => String::new(),
                    Part::Number(number) => format!(":{number}"),
                    Part::Label(label) => format!(":{label}"),
                    Part::Range { first, bytes } => format!("@{first}+{bytes}"),
                };
                format!("disk {} ({}{part}, {})", self.name, disk.disk, if disk.read_only { "ro" } else { "rw" })
            }
            Purpose::Vif(vif, bridge) => {
                let [a, b, c, d, e, f] = vif.mac;
                format!("vif {} ({}, {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x})", self.name, bridge.name)
            }
        }
    }
}

fn disk_properties(disk: &Disk, properties: &mut Vec<(&'static str, Value)>) {
    properties.push((property::DISK, Value::Text(disk.disk.clone())));
    match &disk.part {
        Part::Whole => {}
        Part::Number(number) => properties.push((property::PARTITION, Value::Word(*number))),
        Part::Label(label) => properties.push((property::LABEL, Value::Text(label.clone()))),
        Part::Range { first, bytes } => {
            properties.push((property::FIRST, Value::Long(*first)));
            properties.push((property::BYTES, Value::Long(*bytes)));
        }
    }
    if disk.read_only {
        properties.push((property::READ_ONLY, Value::Empty));
    }
    if disk.iops > 0 {
        properties.push((property::IOPS, Value::Word(disk.iops)));
    }
    if disk.bytes_per_s > 0 {
        properties.push((property::RATE, Value::Long(disk.bytes_per_s)));
    }
    if disk.burst > 0 {
        properties.push((property::BURST, Value::Word(disk.burst)));
    }
}

fn vif_properties(vif: &Vif, bridge: &Bridge, properties: &mut Vec<(&'static str, Value)>) {
    properties.push((property::BRIDGE, Value::Text(bridge.name.clone())));
    properties.push((property::MAC, Value::Bytes(vif.mac.to_vec())));
    properties.push((property::MTU, Value::Word(u32::from(bridge.mtu))));
    if bridge.uplink {
        properties.push((property::UPLINK, Value::Empty));
    }
    if vif.bytes_per_s > 0 {
        properties.push((property::RATE, Value::Long(vif.bytes_per_s)));
    }
    if vif.burst > 0 {
        properties.push((property::BURST, Value::Word(vif.burst)));
    }
}

#[cfg(test)]
mod tests {
    use super::{Purpose, all, is_service, number_of};
    use alloc::string::String;
    use alloc::vec;
    use portico_bundle::description::{Bridge, Disk, Guest, Part, ServiceKind, System, Vif};

    #[test]
    fn every_queue_has_a_window() {
        let disk = Disk {
            name: String::from("root"),
            disk: String::from("data"),
            part: Part::Number(1),
            read_only: true,
            iops: 0,
            bytes_per_s: 0,
            burst: 0,
            queues: 2,
            pages: 64,
        };
        let vif =
            Vif { name: String::from("net0"), bridge: 0, mac: [2, 0, 0, 0, 0, 1], bytes_per_s: 0, burst: 0, pages: 40 };
        let bridge = Bridge { name: String::from("lan"), uplink: true, mtu: 1500 };
        let guest = Guest { disks: vec![disk], vifs: vec![vif], ..Guest::default() };
        let system = System { guests: vec![guest], bridges: vec![bridge], ..System::default() };
        let links = all(&system);
        assert_eq!(links.len(), 3);
        assert_eq!((links[1].pages, links[2].pages), (66, 33));
        assert_eq!(links[0].sides, [number_of(ServiceKind::Block), 0]);
        assert!(matches!(links[1].purpose, Purpose::Disk(_, 1)));
        assert!(is_service(links[2].sides[0]) && !is_service(links[2].sides[1]));
        assert!(links[0].properties(0, "web").len() > links[0].properties(1, "block").len());
        assert_eq!(links[0].describe(), "disk root (data:1, ro)");
        assert_eq!(links[2].describe(), "vif net0 (lan, 02:00:00:00:00:01)");
    }
}
