//! The reference tables of `ABI.md`, between markers.

use crate::groups::{Group, Value};
use crate::records;
use crate::source::plain;
use portico_abi::call::{Bound, Call, MANAGEMENT_BASE};
use portico_abi::record::{DomainState, EndReason, FaultKind, FaultVerb, RegisterId, VcpuState};
use portico_abi::{ObjectType, Rights, Status};
use std::fmt::Write;

const BEGIN: &str = "<!-- generated: ";
const END: &str = "<!-- end of generated -->";

/// Puts the tables between the markers of a document.
///
/// # Errors
/// If a marker names no table or has no end, or a table has no marker.
pub fn insert(document: &str, groups: &[Group]) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = document;
    let mut used = Vec::new();
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (name, after) = after.split_once(" -->").ok_or("ABI.md: a marker without `-->`")?;
        let (_, after) = after.split_once(END).ok_or_else(|| format!("ABI.md: no end after `{name}`"))?;
        let table = table(name, groups).ok_or_else(|| format!("ABI.md: there is no table `{name}`"))?;
        let _ = write!(out, "{before}{BEGIN}{name} -->\n\n{table}\n{END}");
        used.push(name);
        rest = after;
    }
    out.push_str(rest);
    for name in groups.iter().map(|group| group.name).chain([
        "calls",
        "management",
        "statuses",
        "rights",
        "enumerations",
        "records",
    ]) {
        if !used.contains(&name) {
            return Err(format!("ABI.md: no marker for the table `{name}`"));
        }
    }
    Ok(out)
}

fn table(name: &str, groups: &[Group]) -> Option<String> {
    Some(match name {
        "calls" => calls(|number| number < MANAGEMENT_BASE),
        "management" => calls(|number| number >= MANAGEMENT_BASE),
        "statuses" => statuses(),
        "rights" => rights(),
        "enumerations" => enumerations(),
        "records" => structures(),
        _ => constants(groups.iter().find(|group| group.name == name)?),
    })
}

fn calls(select: impl Fn(u32) -> bool) -> String {
    let mut out = String::new();
    for row in Call::TABLE.iter().filter(|row| select(row.number)) {
        let results = if row.results.is_empty() { String::new() } else { format!(" → {}", row.results.join(", ")) };
        let bound = match row.bound {
            Bound::Bounded => "bounded",
            Bound::Restartable => "restartable",
            Bound::Blocks => "blocks",
            Bound::NoReturn => "does not return",
        };
        let _ = writeln!(out, "**`{:#05x}` `{}({}){results}`**", row.number, row.name, row.args.join(", "));
        let _ = writeln!(out, "Id `{:#x}`; rights: {}; {bound}.", row.call.function_id(), row.rights);
        let _ = writeln!(out, "{}\n", plain(row.doc));
    }
    out
}

fn statuses() -> String {
    let mut out = String::from("| x0 | status | meaning |\n| --- | --- | --- |\n");
    for (_, value, name, words) in Status::TABLE {
        let _ = writeln!(out, "| {value} | `{name}` | {words} |");
    }
    out
}

fn rights() -> String {
    let mut out = String::from("| type | object |\n| --- | --- |\n");
    for (object, _, name) in ObjectType::TABLE {
        let _ = writeln!(out, "| {} | {name} |", *object as u8);
    }
    out.push_str("\n| bit | right |\n| --- | --- |\n");
    for (name, right) in Rights::all().iter_names() {
        let _ = writeln!(out, "| {} | `{name}` |", right.bits().trailing_zeros());
    }
    out
}

fn constants(group: &Group) -> String {
    let mut out = String::from("| name | value | meaning |\n| --- | --- | --- |\n");
    for constant in &group.constants {
        let value = match constant.value {
            Value::Number(value) if value <= 0xffff => value.to_string(),
            Value::Number(value) => format!("{value:#x}"),
            Value::Text(text) => format!("`{text}`"),
        };
        let _ = writeln!(out, "| `{}` | {value} | {} |", constant.name, constant.doc);
    }
    out
}

fn enumerations() -> String {
    let mut out = String::from("| enumeration | values |\n| --- | --- |\n");
    macro_rules! row {
        ($title:literal, $type:ident) => {
            let values: Vec<_> = $type::TABLE.iter().map(|(_, value, name)| format!("{value} {name}")).collect();
            let _ = writeln!(out, concat!("| ", $title, " | {} |"), values.join(", "));
        };
    }
    row!("state of a domain", DomainState);
    row!("why a domain ended", EndReason);
    row!("kind of a fault", FaultKind);
    row!("verb of `vcpu_fault_reply`", FaultVerb);
    row!("state of a vCPU", VcpuState);
    row!("register of `vcpu_state`", RegisterId);
    out
}

fn structures() -> String {
    let mut out = String::new();
    for record in records::all() {
        let _ = writeln!(out, "**`{}`**, {} bytes. {}\n", record.name, record.size, record.doc);
        out.push_str("| offset | field | type |\n| --- | --- | --- |\n");
        for field in record.fields.iter().filter(|field| !field.name.starts_with('_')) {
            let ctype = field.ctype.trim_start_matches("struct portico_").trim_end_matches("_t");
            let count = field.count.map_or(String::new(), |count| format!("[{count}]"));
            let _ = writeln!(out, "| {} | `{}` | {ctype}{count} |", field.offset, field.name);
        }
        out.push('\n');
    }
    out
}
