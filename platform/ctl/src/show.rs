//! A checked system as a table for people, and as JSON for programs.

use crate::System;
use crate::value::{format_cpus, format_size};
use portico_abi::PAGE_SIZE;
use portico_bundle::description::Guest;
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
    out
}

fn row(guest: &Guest, system: &System) -> [String; 8] {
    let share = match guest.reservation {
        Some(reservation) => format!("{} of {} us", reservation.budget_us, reservation.period_us),
        None if guest.cap_permille > 0 => {
            format!("weight {}, cap {} %", guest.weight, f64::from(guest.cap_permille) / 10.0)
        }
        None => format!("weight {}", guest.weight),
    };
    let name = |index: &u16| system.description.guests.get(usize::from(*index)).map(|guest| guest.name.clone());
    let depends: Vec<String> = guest.depends.iter().filter_map(name).collect();
    let mut on_crash = format!("{:?}", guest.on_crash).to_lowercase();
    if guest.on_crash == portico_bundle::description::OnCrash::Restart {
        let _ = write!(on_crash, " ({} in {} s)", guest.restart.count, guest.restart.window_s);
    }
    [
        guest.name.clone(),
        format_size(guest.memory_pages * PAGE_SIZE),
        guest.vcpus.to_string(),
        format_cpus(guest.affinity),
        share,
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
    let value = json!({ "machine": system.machine, "system": system.description, "images": images });
    serde_json::to_string_pretty(&value).unwrap_or_else(|_| String::from("{}"))
}
