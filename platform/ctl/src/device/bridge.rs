//! The `[[bridge]]` and `[[forward]]` tables of a description.

use crate::LoadOptions;
use crate::diagnostic::{Sink, Span, closest, one_of};
use crate::guest::read_name;
use crate::machine::Machine;
use crate::section::{Keys, Section};
use portico_bundle::description::{Bridge, MAX_BRIDGES, MTU};
use serde::Serialize;
use std::net::{Ipv4Addr, SocketAddrV4};

pub(crate) const KEYS: Keys = Keys {
    known: &["name", "uplink", "mtu"],
    aliases: &[("external", "uplink"), ("forward", "uplink")],
    foreign: &[],
    tables: &[],
};
pub(crate) const FORWARD_KEYS: Keys = Keys {
    known: &["to", "port"],
    aliases: &[("guest", "to"), ("target", "to"), ("from", "port"), ("host", "port"), ("host_port", "port")],
    foreign: &[],
    tables: &[],
};

/// `mtu` of a bridge for which none was written.
const DEFAULT_MTU: u16 = 1500;
/// First bytes of the addresses in the network that QEMU makes behind the uplink.
const NETWORK: [u8; 3] = [10, 0, 2];

/// A TCP port of the machine that runs QEMU by which a guest can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Forward {
    /// Address and port of the guest.
    pub to: SocketAddrV4,
    /// The port; `None` for any that is free.
    pub port: Option<u16>,
}

/// The bridges.
pub(crate) struct Bridges {
    drafts: Vec<BridgeDraft>,
    /// What differs from what the description says.
    pub(crate) notes: Vec<String>,
    /// Whether one is said to have the uplink, whatever the machine has.
    said: bool,
}

struct BridgeDraft {
    bridge: Bridge,
    subject: String,
    span: Span,
}

impl Bridges {
    /// The bridges in their compiled form.
    pub(crate) fn list(&self) -> Vec<Bridge> {
        self.drafts.iter().map(|draft| draft.bridge.clone()).collect()
    }

    /// Where the bridge with the uplink is described, and as what.
    pub(super) fn uplink(&self) -> Option<(&Span, &str)> {
        let found = self.drafts.iter().find(|draft| draft.bridge.uplink)?;
        Some((&found.span, &found.subject))
    }

    /// Index of the bridge of this name, or a diagnostic.
    pub(super) fn find(&self, name: &str, span: &Span, subject: &str, sink: &mut Sink<'_>) -> Option<u16> {
        if let Some(index) = self.drafts.iter().position(|draft| draft.bridge.name == name) {
            return u16::try_from(index).ok();
        }
        let names = || self.drafts.iter().map(|draft| draft.bridge.name.as_str()).filter(|name| !name.is_empty());
        let help = match closest(name, names()) {
            Some(near) => format!("write `{near}`"),
            None if names().next().is_some() => format!("write {}, or describe it with `[[bridge]]`", one_of(names())),
            None => String::from("describe it with `[[bridge]]`"),
        };
        sink.add(span, subject, format!("there is no bridge `{name}`"), help);
        None
    }
}

/// Reads all bridges.
pub(crate) fn read_all(
    root: &Section<'_>,
    machine: &Machine,
    options: &LoadOptions<'_>,
    sink: &mut Sink<'_>,
) -> Bridges {
    let mut drafts: Vec<BridgeDraft> = Vec::new();
    let mut written: Vec<Option<bool>> = Vec::new();
    for (index, (table, span)) in root.tables(sink, "bridge").into_iter().enumerate() {
        let mut section = Section::new(table, span, format!("bridge number {}", index + 1));
        if let Some(name) = section.raw("name").and_then(|name| name.get_ref().as_str()) {
            section.subject = format!("bridge {name:?}");
        }
        section.check_keys(sink, &KEYS);
        if index == MAX_BRIDGES {
            sink.add(&section.span, &section.subject, "too many bridges", format!("describe at most {MAX_BRIDGES}"));
        }
        let name = read_name(&section, sink);
        if let Some(name) = &name
            && drafts.iter().any(|other| other.bridge.name == name.value)
        {
            sink.add(&name.span, &section.subject, "another bridge has this name", "write a name of its own");
        }
        let mtu = u64::from(*MTU.start())..=u64::from(*MTU.end());
        let mtu = section.integer(sink, "mtu", mtu).map_or(DEFAULT_MTU, |mtu| mtu.value as u16);
        let uplink = section.boolean(sink, "uplink");
        if let (Some(true), true, Some(value)) = (uplink, written.contains(&Some(true)), section.raw("uplink")) {
            let message = "another bridge has the uplink, which is one";
            sink.add(&value.span(), &section.subject, message, "write `uplink = false`");
        }
        written.push(uplink);
        let name = name.map(|name| name.value.to_owned()).unwrap_or_default();
        let bridge = Bridge { name, uplink: uplink == Some(true), mtu };
        drafts.push(BridgeDraft { bridge, subject: section.subject, span: section.span });
    }
    // Who describes one bridge and says no more wants to be reached by it.
    if let (Some(first), Some(None), false) = (drafts.first_mut(), written.first(), written.contains(&Some(true))) {
        first.bridge.uplink = true;
    }
    let mut notes = Vec::new();
    let said = drafts.iter().any(|draft| draft.bridge.uplink);
    if !machine.kind.has_net() || !options.uplink {
        for draft in drafts.iter_mut().filter(|draft| draft.bridge.uplink) {
            draft.bridge.uplink = false;
            let name = machine.kind.name();
            if !machine.kind.has_net() {
                notes.push(format!("{} is without uplink: machine `{name}` has no network device", draft.subject));
            }
        }
    }
    Bridges { drafts, notes, said }
}

/// Reads all forwards. There are none if the machine has no uplink.
pub(crate) fn read_forwards(root: &Section<'_>, bridges: &Bridges, sink: &mut Sink<'_>) -> Vec<Forward> {
    let mut forwards: Vec<Forward> = Vec::new();
    for (index, (table, span)) in root.tables(sink, "forward").into_iter().enumerate() {
        let mut section = Section::new(table, span, format!("forward number {}", index + 1));
        section.check_keys(sink, &FORWARD_KEYS);
        if !bridges.said {
            let message = "no bridge has the uplink, by which it would go";
            sink.add(&section.span, &section.subject, message, "write `uplink = true` in a `[[bridge]]`");
        }
        let to = read_to(&section, sink);
        let port = section.integer(sink, "port", 1..=65_535);
        if let Some(port) = &port
            && forwards.iter().any(|other| other.port.map(u64::from) == Some(port.value))
        {
            let message = format!("another forward has port {}", port.value);
            sink.add(&port.span, &section.subject, message, "write another `port`, or leave it out");
        }
        if let Some(to) = to {
            forwards.push(Forward { to, port: port.map(|port| port.value as u16) });
        }
    }
    if bridges.uplink().is_none() {
        forwards.clear();
    }
    forwards
}

fn read_to(section: &Section<'_>, sink: &mut Sink<'_>) -> Option<SocketAddrV4> {
    let help = "write address and port of a guest, such as \"10.0.2.15:80\"";
    section.require(sink, "to", "write `to = \"10.0.2.15:80\"`, address and port of a guest");
    let to = section.string(sink, "to", help)?;
    let mut refuse = |message: String, help: &str| {
        sink.add(&to.span, &section.subject, message, help);
        None
    };
    let Ok(address) = to.value.parse::<SocketAddrV4>() else {
        if to.value.parse::<Ipv4Addr>().is_ok() {
            return refuse(format!("`{}` has no port", to.value), &format!("write \"{}:80\"", to.value));
        }
        return refuse(format!("`{}` is not an address with a port", to.value), help);
    };
    let [a, b, c, last] = address.ip().octets();
    if [a, b, c] != NETWORK || !(4..=254).contains(&last) {
        let message = format!("`{}` is no address for a guest at the uplink", address.ip());
        return refuse(message, "write one from 10.0.2.4 to 10.0.2.254");
    }
    if address.port() == 0 {
        return refuse(String::from("port 0 is none"), "write a port from 1 to 65535");
    }
    Some(address)
}
