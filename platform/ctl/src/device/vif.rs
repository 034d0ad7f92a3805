//! A guest's `vif`: network interfaces.

use super::bridge::Bridges;
use super::{Entry, entries, read_name, read_window, subject};
use crate::diagnostic::{Sink, Span};
use crate::guest::Draft;
use crate::section::{At, Foreign, Keys, Scalar, Section};
use crate::value::{self, MAC_HELP, RATE_HELP, SIZE_HELP, Wrong, format_mac};
use portico_bundle::description::{MAX_VIFS, Vif};

pub(crate) const KEYS: Keys = Keys {
    known: &["name", "bridge", "mac", "rate", "burst", "window"],
    aliases: &[
        ("vifname", "name"),
        ("ifname", "name"),
        ("network", "bridge"),
        ("bandwidth", "rate"),
        ("address", "mac"),
        ("size", "window"),
    ],
    foreign: &[
        Foreign { key: "ip", message: "a guest chooses its IP address itself", help: "leave `ip` out, use `cmdline`" },
        Foreign { key: "script", message: "no script runs for an interface", help: "leave `script` out" },
        Foreign { key: "model", message: "there is one model of interface", help: "leave `model` out" },
        Foreign { key: "type", message: "there is one type of interface", help: "leave `type` out" },
    ],
    tables: &[],
};

const HELP: &str = "write a list such as [\"lan\"] or [{ bridge = \"lan\", rate = \"10M\" }]";
const BRIDGE_HELP: &str = "write `bridge = \"...\"`, the name of a `[[bridge]]`";

/// Size of a window for which none was written, in bytes: four frames that stand for segments in each direction.
const DEFAULT_WINDOW: u64 = 512 << 10;
/// `burst` of an interface with a rate for which none was written, in bytes.
const DEFAULT_BURST: u32 = 64 << 10;

/// A network interface as far as it can be compiled alone.
pub(crate) struct VifDraft<'a> {
    pub(crate) vif: Vif,
    pub(crate) subject: String,
    pub(crate) span: Span,
    bridge: Option<At<&'a str>>,
    mac: Option<At<[u8; 6]>>,
    index: usize,
}

/// Reads the network interfaces of a guest.
pub(crate) fn read_all<'a>(section: &Section<'a>, sink: &mut Sink<'_>) -> Vec<VifDraft<'a>> {
    let entries = entries(section, sink, "vif", HELP);
    if let (true, Some(list)) = (entries.len() > MAX_VIFS, section.raw("vif")) {
        sink.add(&list.span(), &section.subject, "too many network interfaces", format!("write at most {MAX_VIFS}"));
    }
    entries.into_iter().map(|(index, entry)| read(index, entry, &section.subject, sink)).collect()
}

fn read<'a>(index: usize, entry: Entry<'a>, guest: &str, sink: &mut Sink<'_>) -> VifDraft<'a> {
    let mut section = match entry {
        Entry::Text(bridge) => {
            let pages = (DEFAULT_WINDOW / portico_abi::PAGE_SIZE) as u32;
            let vif = Vif { name: format!("net{index}"), pages, ..Vif::default() };
            let (subject, span) = (subject("vif", &vif.name, guest), bridge.span.clone());
            return VifDraft { vif, subject, span, bridge: Some(bridge), mac: None, index };
        }
        Entry::Table(section) => section,
    };
    let name = read_name(&mut section, "vif", "net", index, sink);
    section.check_keys(sink, &KEYS);
    section.require(sink, "bridge", BRIDGE_HELP);
    let rate = section.parsed(sink, "rate", RATE_HELP, value::rate).map_or(0, |rate| rate.value);
    let limited = section.has("rate");
    let burst = section.parsed(sink, "burst", SIZE_HELP, parse_burst);
    if let (Some(burst), false) = (&burst, limited) {
        let message = "`burst` has a meaning only with `rate`";
        sink.add(&burst.span, &section.subject, message, "write that too, or leave `burst` out");
    }
    let vif = Vif {
        name,
        bridge: 0,
        mac: [0; 6],
        bytes_per_s: rate,
        burst: burst.map_or(if limited { DEFAULT_BURST } else { 0 }, |burst| burst.value),
        pages: read_window(&section, DEFAULT_WINDOW, sink),
    };
    VifDraft {
        vif,
        bridge: section.string(sink, "bridge", BRIDGE_HELP),
        mac: section.parsed(sink, "mac", MAC_HELP, value::mac),
        span: section.span.clone(),
        subject: section.subject,
        index,
    }
}

/// Parses `burst`: it holds the largest frame that a bridge may have.
fn parse_burst(scalar: Scalar<'_>) -> Result<u32, Wrong> {
    match u32::try_from(value::size(scalar)?) {
        Ok(bytes @ 0x4000..=0x4000_0000) => Ok(bytes),
        _ => Err((String::from("is out of range"), String::from("write a size from \"16K\" to \"1G\""))),
    }
}

/// Finds the bridges of a guest's interfaces and gives addresses to those that have none.
pub(super) fn resolve(draft: &mut Draft<'_>, bridges: &Bridges, system: &str, sink: &mut Sink<'_>) {
    for vif in &mut draft.vifs {
        if let Some(bridge) = &vif.bridge {
            vif.vif.bridge = find_bridge(bridge, &vif.subject, bridges, sink).unwrap_or(0);
        }
        vif.vif.mac = match &vif.mac {
            Some(mac) => mac.value,
            None => default_mac(system, &draft.guest.name, vif.index),
        };
    }
}

fn find_bridge(wanted: &At<&str>, subject: &str, bridges: &Bridges, sink: &mut Sink<'_>) -> Option<u16> {
    if wanted.value.contains(['=', ',']) {
        let pairs = wanted.value.split(',').filter_map(|pair| pair.split_once('='));
        let known = pairs.filter(|(key, _)| KEYS.known.contains(&key.trim()));
        let table: Vec<String> = known.map(|(key, value)| format!("{} = {:?}", key.trim(), value.trim())).collect();
        let help = if table.is_empty() { HELP.to_owned() } else { format!("write `{{ {} }}`", table.join(", ")) };
        sink.add(&wanted.span, subject, format!("`{}` is in the form of xl.cfg", wanted.value), help);
        return None;
    }
    bridges.find(wanted.value, &wanted.span, subject, sink)
}

/// An address that is locally administered and the same whenever the system is started: FNV-1a over the names of system and guest
/// and the index of the interface.
fn default_mac(system: &str, guest: &str, index: usize) -> [u8; 6] {
    let text = format!("{system}\0{guest}\0{index}");
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    let [_, _, first, rest @ ..] = hash.to_be_bytes();
    let [b, c, d, e, f] = rest;
    [first & !1 | 2, b, c, d, e, f]
}

/// Refuses two interfaces of one address.
pub(super) fn check_addresses(drafts: &[Draft<'_>], sink: &mut Sink<'_>) {
    let mut seen: Vec<&VifDraft<'_>> = Vec::new();
    for vif in drafts.iter().flat_map(|draft| &draft.vifs) {
        if let Some(other) = seen.iter().find(|other| other.vif.mac == vif.vif.mac) {
            let span = vif.mac.as_ref().map_or(&vif.span, |mac| &mac.span);
            let message = format!("has the address {} of {}", format_mac(vif.vif.mac), other.subject);
            sink.add(span, &vif.subject, message, "write a `mac` of its own");
        }
        seen.push(vif);
    }
}

#[cfg(test)]
mod tests {
    use super::default_mac;
    use portico_bundle::description::mac_is_valid;

    #[test]
    fn addresses_are_local_and_differ_by_system_guest_and_index() {
        let mut seen = std::collections::BTreeSet::new();
        for system in ["shop", "lab"] {
            for guest in ["web", "db"] {
                for index in 0..16 {
                    let mac = default_mac(system, guest, index);
                    assert!(mac_is_valid(&mac) && mac[0] & 2 != 0 && seen.insert(mac));
                }
            }
        }
        // Who has noted one wants it to stay.
        assert_eq!(crate::value::format_mac(default_mac("shop", "web", 0)), "a2:fa:13:bf:3b:7b");
    }
}
