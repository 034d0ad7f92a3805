//! A checked system as a table for people, and as JSON for programs.

use crate::device::disk::format_source;
use crate::value::{format_cpus, format_mac, format_size};
use crate::{Content, Drive, System};
use portico_abi::PAGE_SIZE;
use portico_bundle::description::{Disk, Guest, Reservation, Service, Vif};
use serde_json::json;
use std::fmt::Write;

/// The system as a table.
pub(crate) fn text(system: &System) -> String {
    let machine = &system.machine;
    let description = &system.description;
    let mut out = format!(
        "system {}: machine {}, {} processors, {} of memory\n",
        description.name,
        machine.kind.name(),
        machine.cpus,
        format_size(machine.memory_bytes)
    );
    if !description.manager_cmdline.is_empty() {
        let _ = writeln!(out, "manager: {}", description.manager_cmdline);
    }
    let mut rows =
        vec![["guest", "memory", "vcpus", "cpus", "share", "on_crash", "depends", "kernel"].map(String::from)];
    rows.extend(description.guests.iter().map(|guest| row(guest, system)));
    table(&rows, &mut out);
    for channel in &description.channels {
        let name = |index: u16| description.guests.get(usize::from(index)).map_or("?", |guest| guest.name.as_str());
        let size = format_size(u64::from(channel.pages) * PAGE_SIZE);
        let _ = writeln!(out, "channel {}: {} - {}, {size}", channel.name, name(channel.a), name(channel.b));
    }
    for guest in &description.guests {
        for disk in &guest.disks {
            let _ = writeln!(out, "{}: {}", guest.name, disk_text(disk));
        }
        for vif in &guest.vifs {
            let bridge = description.bridges.get(usize::from(vif.bridge)).map_or("?", |bridge| bridge.name.as_str());
            let _ = writeln!(out, "{}: {}", guest.name, vif_text(vif, bridge));
        }
    }
    for bridge in &description.bridges {
        let uplink = if bridge.uplink { "with the uplink, " } else { "" };
        let _ = writeln!(out, "bridge {}: {uplink}MTU {}", bridge.name, bridge.mtu);
    }
    for service in &description.services {
        let _ = writeln!(out, "{}", service_text(service));
    }
    for drive in &system.drives {
        let _ = writeln!(out, "{}", drive_text(drive));
    }
    for forward in &system.forwards {
        let port = forward.port.map_or_else(|| String::from("a free port"), |port| format!("port {port}"));
        let _ = writeln!(out, "forward: {port} to {}", forward.to);
    }
    for note in &system.notes {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

fn disk_text(disk: &Disk) -> String {
    let mode = if disk.read_only { "read-only" } else { "read and write" };
    let mut text = format!("disk {} = {}, {mode}", disk.name, format_source(disk));
    if disk.iops > 0 {
        let _ = write!(text, ", {} requests/s", disk.iops);
    }
    if disk.bytes_per_s > 0 {
        let _ = write!(text, ", {}/s", format_size(disk.bytes_per_s));
    }
    if disk.burst > 0 {
        let _ = write!(text, ", {} at once", disk.burst);
    }
    let plural = if disk.queues == 1 { "" } else { "s" };
    let _ = write!(text, ", {} queue{plural} of {}", disk.queues, format_size(u64::from(disk.pages) * PAGE_SIZE));
    text
}

fn vif_text(vif: &Vif, bridge: &str) -> String {
    let mut text = format!("vif {} at {bridge}, {}", vif.name, format_mac(vif.mac));
    if vif.bytes_per_s > 0 {
        let _ = write!(text, ", {}/s, {} at once", format_size(vif.bytes_per_s), format_size(u64::from(vif.burst)));
    }
    let _ = write!(text, ", window {}", format_size(u64::from(vif.pages) * PAGE_SIZE));
    text
}

fn service_text(service: &Service) -> String {
    let mut text = format!(
        "service {}: {}, cpus {}, {}, restart ({} in {} s)",
        service.kind.name(),
        format_size(service.memory_pages * PAGE_SIZE),
        format_cpus(service.affinity),
        share(service.weight, service.cap_permille, service.reservation),
        service.restart.count,
        service.restart.window_s
    );
    if service.trusted_dma {
        text.push_str(", trusted with all memory");
    }
    text
}

fn drive_text(drive: &Drive) -> String {
    let mut text = format!("disk {}:", drive.name);
    match &drive.file {
        Some(file) => text += &format!(" {}", file.display()),
        None => text += " no file",
    }
    if let Some(bytes) = drive.bytes {
        let _ = write!(text, ", {}", format_size(bytes));
    }
    if let Some(image) = &drive.image {
        let _ = write!(text, ", a copy of {}", image.display());
    }
    for (index, partition) in drive.partitions.iter().enumerate() {
        let separator = if index == 0 { ';' } else { ',' };
        let _ = write!(text, "{separator} {} {} {}", index + 1, partition.label, format_size(partition.bytes));
        if let Content::Image(image) = &partition.content {
            let _ = write!(text, ", a copy of {}", image.display());
        }
    }
    text
}

fn share(weight: u16, cap_permille: u32, reservation: Option<Reservation>) -> String {
    match reservation {
        Some(reservation) => format!("{} of {} us", reservation.budget_us, reservation.period_us),
        None if cap_permille > 0 => format!("weight {weight}, cap {} %", f64::from(cap_permille) / 10.0),
        None => format!("weight {weight}"),
    }
}

fn row(guest: &Guest, system: &System) -> [String; 8] {
    let name = |index: &u16| system.description.guests.get(usize::from(*index)).map(|guest| guest.name.clone());
    let depends: Vec<String> = guest.depends.iter().filter_map(name).collect();
    let mut on_crash = format!("{:?}", guest.on_crash).to_lowercase();
    if guest.on_crash == portico_bundle::description::OnCrash::Restart {
        let _ = write!(on_crash, " ({} in {} s)", guest.restart.count, guest.restart.window_s);
    }
    [
        guest.name.clone(),
        match guest.memory_min_pages {
            0 => format_size(guest.memory_pages * PAGE_SIZE),
            min => format!("{}-{}", format_size(min * PAGE_SIZE), format_size(guest.memory_pages * PAGE_SIZE)),
        },
        guest.vcpus.to_string(),
        format_cpus(guest.affinity),
        share(guest.weight, guest.cap_permille, guest.reservation),
        on_crash,
        if depends.is_empty() { String::from("-") } else { depends.join(",") },
        guest.image.clone(),
    ]
}

fn table(rows: &[[String; 8]], out: &mut String) {
    let mut widths = [0; 8];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    for row in rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
    }
}

/// The system as JSON.
pub(crate) fn json(system: &System) -> String {
    let images: Vec<_> = system
        .images
        .iter()
        .map(|image| json!({ "entry": image.entry, "path": image.path, "bytes": image.bytes.len() }))
        .collect();
    let value = json!({
        "machine": system.machine,
        "system": system.description,
        "images": images,
        "disks": system.drives,
        "forwards": system.forwards,
        "notes": system.notes,
    });
    serde_json::to_string_pretty(&value).unwrap_or_else(|_| String::from("{}"))
}
