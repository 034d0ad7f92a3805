//! The `[block]`, `[net]` and `[console]` tables of a description, and which services a system needs.

use super::bridge::Bridges;
use crate::LoadOptions;
use crate::diagnostic::{Sink, Span};
use crate::guest::{self, read_memory, read_restart, read_share};
use crate::image::Images;
use crate::kernel::{self, Refused};
use crate::machine::Machine;
use crate::section::{At, Foreign, Keys, Section};
use crate::value::{self, CPUS_HELP};
use portico_abi::PAGE_SIZE;
use portico_bundle::description::{Reservation, RestartLimit, Service, ServiceKind};
use portico_bundle::names::SERVICE_PREFIX;
use std::path::Path;
use toml::de::DeTable;

pub(crate) const KEYS: Keys = Keys {
    known: &["kernel", "memory", "cpus", "weight", "cap", "reservation", "restart", "trusted-dma"],
    aliases: &[
        ("image", "kernel"),
        ("ram", "memory"),
        ("mem", "memory"),
        ("affinity", "cpus"),
        ("cpu_weight", "weight"),
        ("dma", "trusted-dma"),
        ("trusted", "trusted-dma"),
    ],
    foreign: &[
        Foreign { key: "vcpus", message: "a service has one vCPU", help: "leave `vcpus` out" },
        Foreign {
            key: "on_crash",
            message: "a service that fails is always restarted",
            help: "leave `on_crash` out; `restart` says how often",
        },
        Foreign { key: "watchdog", message: "services are always watched", help: "leave `watchdog` out" },
        Foreign { key: "name", message: "a service is named as its table is", help: "leave `name` out" },
    ],
    tables: &[],
};

/// Share of processor time of a service for which none was written: it works for every guest.
const DEFAULT_WEIGHT: u16 = 1024;

/// A service, and where its parts stand for later checks.
pub(crate) struct Draft {
    pub(crate) service: Service,
    pub(crate) subject: String,
    pub(crate) cpus: Option<At<u64>>,
    pub(crate) reservation: Option<At<Reservation>>,
}

/// Where a mistake is reported that no key of the service's table is at fault for.
struct Place {
    span: Span,
    subject: String,
}

/// What services are made of beside their own tables.
pub(crate) struct Context<'c> {
    pub(crate) drafts: &'c [guest::Draft<'c>],
    pub(crate) bridges: &'c Bridges,
    pub(crate) machine: &'c Machine,
    pub(crate) base: &'c Path,
    pub(crate) options: &'c LoadOptions<'c>,
}

/// Reads the tables of all services and returns those that the system needs.
pub(crate) fn read_all(
    root: &Section<'_>,
    context: &Context<'_>,
    images: &mut Images,
    sink: &mut Sink<'_>,
) -> Vec<Draft> {
    let nothing = DeTable::new();
    let mut services = Vec::new();
    for kind in ServiceKind::ALL {
        let table = root.table(sink, kind.name(), &format!("write a table `[{}]`", kind.name()));
        let written = table.is_some();
        let mut section = table.unwrap_or_else(|| Section::new(&nothing, 0..0, ""));
        section.subject = format!("{} service", kind.name());
        section.check_keys(sink, &KEYS);
        let (mut draft, memory) = read(kind, &section, sink);
        let Some(need) = need(kind, &section, context) else { continue };
        let place = if written { Place { span: section.span.clone(), subject: section.subject.clone() } } else { need };
        find_image(&mut draft.service, &section, memory.as_ref(), &place, context, images, sink);
        check_trust(&draft.service, &section, &place, context, sink);
        services.push(draft);
    }
    services
}

/// What needs the service, if anything does.
fn need(kind: ServiceKind, section: &Section<'_>, context: &Context<'_>) -> Option<Place> {
    let place = |span: &Span, subject: &str| Place { span: span.clone(), subject: subject.to_owned() };
    match kind {
        ServiceKind::Block => {
            let disk = context.drafts.iter().find_map(|draft| draft.disks.first())?;
            Some(place(&disk.span, &disk.subject))
        }
        ServiceKind::Net => {
            let vif = context.drafts.iter().find_map(|draft| draft.vifs.first())?;
            Some(place(&vif.span, &vif.subject))
        }
        // Every system has a console.
        ServiceKind::Console => Some(place(&section.span, &section.subject)),
    }
}

/// All but the image, and where the memory is written.
fn read(kind: ServiceKind, section: &Section<'_>, sink: &mut Sink<'_>) -> (Draft, Option<At<u64>>) {
    let memory = read_memory(section, sink);
    let cpus = section.parsed(sink, "cpus", CPUS_HELP, value::cpus);
    let (weight, cap_permille, reservation) = read_share(section, DEFAULT_WEIGHT, sink);
    let service = Service {
        kind,
        image: format!("{SERVICE_PREFIX}{}", kind.name()),
        memory_pages: memory.as_ref().map_or(default_memory(kind), |memory| memory.value) / PAGE_SIZE,
        affinity: cpus.as_ref().map_or(0, |cpus| cpus.value),
        weight,
        cap_permille,
        reservation: reservation.as_ref().map(|reservation| reservation.value),
        trusted_dma: section.boolean(sink, "trusted-dma").unwrap_or(false),
        restart: read_restart(section, sink).map_or_else(RestartLimit::default, |restart| restart.value),
    };
    if let (ServiceKind::Console, Some(value)) = (kind, section.raw("trusted-dma")) {
        let message = "a console's UART cannot reach memory by itself";
        sink.add(&value.span(), &section.subject, message, "leave `trusted-dma` out");
    }
    (Draft { service, subject: section.subject.clone(), cpus, reservation }, memory)
}

/// Memory of a service for which none was written, in bytes.
const fn default_memory(kind: ServiceKind) -> u64 {
    match kind {
        ServiceKind::Block | ServiceKind::Net => 4 << 20,
        ServiceKind::Console => 1 << 20,
    }
}

/// Finds, reads and checks the image.
fn find_image(
    service: &mut Service,
    section: &Section<'_>,
    memory: Option<&At<u64>>,
    place: &Place,
    context: &Context<'_>,
    images: &mut Images,
    sink: &mut Sink<'_>,
) {
    let written = section.string(sink, "kernel", "write a path in quotes");
    let own = format!("service:{}", service.kind.name());
    let reference = written.as_ref().map_or(own.as_str(), |written| written.value);
    let span = written.as_ref().map_or(&place.span, |written| &written.span);
    let entry = service.image.clone();
    let index = match images.add_as(reference, entry, context.base, context.options) {
        Ok(index) => index,
        Err((message, help)) => return sink.add(span, &place.subject, message, help),
    };
    let Some(image) = images.list.get(index).filter(|_| context.options.read_images) else {
        return;
    };
    match kernel::check(&image.bytes, None, service.memory_pages * PAGE_SIZE) {
        Ok(()) => {}
        Err(Refused::File((message, help))) => sink.add(span, &place.subject, message, help),
        Err(Refused::Memory((message, help))) => {
            sink.add(memory.map_or(span, |memory| &memory.span), &place.subject, message, help);
        }
    }
}

/// Without an IOMMU a service that holds a bus master can reach all memory: the operator must have said that it may.
fn check_trust(service: &Service, section: &Section<'_>, place: &Place, context: &Context<'_>, sink: &mut Sink<'_>) {
    let uplink = context.bridges.uplink();
    let (device, other) = match service.kind {
        ServiceKind::Block if context.machine.kind.disk_reaches_memory() => ("disks, each of", ""),
        ServiceKind::Net if uplink.is_some() => ("network device,", ", or `uplink = false` in each `[[bridge]]`"),
        ServiceKind::Block | ServiceKind::Net | ServiceKind::Console => return,
    };
    if service.trusted_dma {
        return;
    }
    let value = section.raw("trusted-dma").map(toml::Spanned::span);
    let message = format!(
        "the {} service would hold the machine's {device} which can read and write all memory, that of the hypervisor too, \
         since no IOMMU holds it back",
        service.kind.name()
    );
    let help = format!(
        "if you trust that service as you trust the hypervisor, write `trusted-dma = true` in `[{}]`{other}",
        service.kind.name()
    );
    sink.add(value.as_ref().unwrap_or(&place.span), &place.subject, message, help);
}
