//! How figures are shown: as a table and as JSON.

use anyhow::Result;
use serde_json::{Value, json};

use super::counted::Span;
use super::{Measured, Row};

/// The peers, in the order of the table.
const PEERS: [(&str, &str); 6] = [
    ("none", "none"),
    ("bao", "Bao"),
    ("hvisor", "hvisor"),
    ("xen_null", "Xen null"),
    ("xen_credit2", "credit2"),
    ("kvm", "KVM"),
];

/// Prints the table: a column for each machine, the goal, and the peers. A figure above its goal is marked. What was measured here with no hypervisor, on the
/// first machine, stands in place of what `peers.toml` has.
pub fn print(rows: &[Row], measured: &[Measured]) {
    let mut header = format!("{:<23} {:<62}", "", "");
    for Measured { kind, .. } in measured {
        header += &format!("{:>11} ", kind.name());
    }
    header += &format!("{:>8}", "goal");
    for (_, name) in PEERS {
        header += &format!("{name:>9}");
    }
    println!("{header}");
    for row in rows {
        let mut line = format!("{:<23} {:<62}", row.name, row.work);
        for Measured { figures, .. } in measured {
            let value = figures.get(&row.name).copied().unwrap_or_default();
            let mark = if row.goal.is_some_and(|goal| value > goal) { '*' } else { ' ' };
            line += &format!("{:>11}{mark}", short(value));
        }
        line += &format!("{:>8}", row.goal.map_or("-".into(), short));
        let bare = measured.first().and_then(|first| first.bare.get(&row.name));
        for (key, _) in PEERS {
            let value = row.peers.get(key);
            let value = if key == "none" { bare.or(value) } else { value };
            line += &format!("{:>9}", value.map_or("-".into(), |value| short(*value)));
        }
        println!("{line} {}", row.unit);
    }
    println!(
        "* above the goal. Figures are instructions of the whole machine, not times of a board: see xtask/data/peers.toml."
    );
}

/// Prints of what the figures of the first machine are made, where that is known.
pub fn print_parts(measured: &[Measured]) {
    let Some(first) = measured.first().filter(|first| !first.parts.is_empty()) else { return };
    println!("\n{:<24}{:>11}{:>11}{:>11}{:>11}", first.kind.name(), "kernel", "program", "services", "EL2");
    for (name, span) in &first.parts {
        let parts = [span.kernel, span.program, span.services(), span.hypervisor].map(short);
        let [kernel, program, services, hypervisor] = parts;
        println!("{name:<24}{kernel:>11}{program:>11}{services:>11}{hypervisor:>11}");
    }
}

/// Shortens large figures.
fn short(value: u64) -> String {
    match value {
        0..100_000 => value.to_string(),
        100_000..100_000_000 => format!("{:.3} M", value as f64 / 1e6),
        _ => format!("{} M", value / 1_000_000),
    }
}

/// Writes a list of figures; with more than one machine `by_machine` has all.
/// `bare` is what was measured with no hypervisor, `parts` whose instructions it is made of.
pub fn to_json(rows: &[Row], measured: &[Measured]) -> Result<String> {
    let list: Vec<Value> = rows
        .iter()
        .map(|row| {
            let of = |measured: &Measured| measured.figures.get(&row.name).copied();
            let by_machine: serde_json::Map<String, Value> =
                measured.iter().map(|measured| (measured.kind.name().to_string(), json!(of(measured)))).collect();
            let first = measured.first();
            let parts = |span: &Span| json!({ "kernel": span.kernel, "program": span.program, "services": span.services(), "el2": span.hypervisor });
            json!({
                "name": row.name,
                "unit": row.unit,
                "ours": first.and_then(of),
                "bare": first.and_then(|first| first.bare.get(&row.name)),
                "parts": first.and_then(|first| first.parts.get(&row.name)).map(parts),
                "by_machine": by_machine,
                "goal": row.goal,
                "peers": row.peers,
                "work": row.work,
            })
        })
        .collect();
    Ok(serde_json::to_string_pretty(&list)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use portico_ctl::MachineKind;

    use super::*;
    use crate::bench::Figures;

    #[test]
    fn json_has_the_first_machine_as_ours() {
        let row = Row {
            name: "a".into(),
            work: String::new(),
            unit: "u".into(),
            goal: Some(5),
            tolerance: None,
            peers: Figures::new(),
        };
        let on = |kind, value| Measured {
            kind,
            figures: Figures::from([("a".to_string(), value)]),
            bare: Figures::new(),
            parts: BTreeMap::new(),
        };
        let measured = [on(MachineKind::Virt, 1), on(MachineKind::VirtGicv2, 2)];
        let list: Value = serde_json::from_str(&to_json(&[row], &measured).unwrap()).unwrap();
        assert_eq!((&list[0]["ours"], &list[0]["by_machine"]["virt-gicv2"]), (&json!(1), &json!(2)));
    }

    #[test]
    fn large_figures_are_shortened() {
        assert_eq!(
            (short(99_999), short(340_000), short(1_131_000_000)),
            ("99999".into(), "0.340 M".into(), "1131 M".into())
        );
    }
}
