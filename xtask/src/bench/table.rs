//! How figures are shown: as a table and as JSON.

use anyhow::Result;
use portico_ctl::MachineKind;
use serde_json::{Value, json};

use super::{Figures, Row};

/// The peers, in the order of the table.
const PEERS: [(&str, &str); 6] = [
    ("none", "none"),
    ("bao", "Bao"),
    ("hvisor", "hvisor"),
    ("xen_null", "Xen null"),
    ("xen_credit2", "credit2"),
    ("kvm", "KVM"),
];

/// Figures by machine, the first one being the machine of `ours` in JSON.
type Measured = [(MachineKind, Figures)];

/// Prints the table: a column for each machine, the goal, and the peers. A figure above its goal is marked.
pub fn print(rows: &[Row], measured: &Measured) {
    let mut header = format!("{:<20} {:<54}", "", "");
    for (kind, _) in measured {
        header += &format!("{:>11} ", kind.name());
    }
    header += &format!("{:>8}", "goal");
    for (_, name) in PEERS {
        header += &format!("{name:>9}");
    }
    println!("{header}");
    for row in rows {
        let mut line = format!("{:<20} {:<54}", row.name, row.work);
        for (_, figures) in measured {
            let value = figures.get(&row.name).copied().unwrap_or_default();
            let mark = if row.goal.is_some_and(|goal| value > goal) { '*' } else { ' ' };
            line += &format!("{:>11}{mark}", short(value));
        }
        line += &format!("{:>8}", row.goal.map_or("-".into(), short));
        for (key, _) in PEERS {
            line += &format!("{:>9}", row.peers.get(key).map_or("-".into(), |value| short(*value)));
        }
        println!("{line} {}", row.unit);
    }
    println!(
        "* above the goal. Figures are instructions of the whole machine, not times of a board: see xtask/data/peers.toml."
    );
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
pub fn to_json(rows: &[Row], measured: &Measured) -> Result<String> {
    let list: Vec<Value> = rows
        .iter()
        .map(|row| {
            let of = |figures: &Figures| figures.get(&row.name).copied();
            let by_machine: serde_json::Map<String, Value> =
                measured.iter().map(|(kind, figures)| (kind.name().to_string(), json!(of(figures)))).collect();
            json!({
                "name": row.name,
                "unit": row.unit,
                "ours": measured.first().and_then(|(_, figures)| of(figures)),
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
    use super::*;

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
        let figures = |value| Figures::from([("a".to_string(), value)]);
        let measured = [(MachineKind::Virt, figures(1)), (MachineKind::VirtGicv2, figures(2))];
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
