//! The header of the Linux port, `include/linux/portico/abi.h`, in the kernel's style, and the patch that adds it.
//!
//! It has what an ordinary guest uses: no management calls, and no names of the device tree, which a kernel's drivers spell out.

use crate::groups::{Group, Value};
use crate::header::{paragraph, screaming};
use crate::records::{self, Record};
use portico_abi::call::{Call, MANAGEMENT_BASE};
use portico_abi::channel::{ChannelHeader, ChannelState};
use portico_abi::page::InfoPage;
use portico_abi::{ObjectType, Status, UID};
use std::fmt::Write;

/// The patch that adds the header.
pub const PATCH: &str = "0002-virt-portico-Add-the-ABI-of-the-hypervisor.patch";

/// Path in the kernel's tree.
const PATH: &str = "include/linux/portico/abi.h";

/// Columns of a line.
const WIDTH: usize = 80;
/// Column at which values begin.
const VALUES: usize = 40;

/// Groups that a guest's kernel has no use for.
const LEFT_OUT: [&str; 11] =
    ["interrupt_kind", "ids", "config", "attrs", "extent_flags", "run", "power", "sched", "addresses", "dt", "pages"];

/// Records that a guest's kernel uses.
const RECORDS: [&str; 15] = [
    "run_state",
    "vcpu_page",
    "stolen_time",
    "info_page",
    "channel_header",
    "domain_status",
    "offer",
    "accept",
    "block_disk",
    "block_segment",
    "block_request",
    "block_response",
    "net_interface",
    "net_statistics",
    "net_frame",
];

/// The whole header.
pub fn write(groups: &[Group]) -> String {
    let mut out = String::from(
        "/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */\n\
         /*\n * ABI of the Portico hypervisor, as an ordinary guest uses it.\n *\n \
         * Generated from the definition of the ABI: do not edit.\n */\n\
         #ifndef _LINUX_PORTICO_ABI_H\n#define _LINUX_PORTICO_ABI_H\n\n\
         #include <linux/build_bug.h>\n#include <linux/stddef.h>\n#include <linux/types.h>\n\n\
         /* Answer of the vendor-hypervisor UID query, x0 to x3. */\n",
    );
    for (index, word) in UID.iter().enumerate() {
        define(&mut out, &format!("PORTICO_UID_{index}"), &format!("{word:#010x}"));
    }
    out.push_str("\n/* Statuses: x0 of every call. */\n");
    for &(_, value, name, words) in Status::TABLE {
        let value = if value < 0 { format!("({value})") } else { value.to_string() };
        paragraph(&mut out, &format!("{words}."), WIDTH);
        define(&mut out, &format!("PORTICO_{}", screaming(name)), &value);
    }
    calls(&mut out);
    for group in groups.iter().filter(|group| !LEFT_OUT.contains(&group.name)) {
        constants(&mut out, group);
    }
    out.push_str("\n/* Types of objects */\n");
    for (object, _, name) in ObjectType::TABLE {
        define(&mut out, &format!("PORTICO_TYPE_{}", screaming(name)), &(*object as u8).to_string());
    }
    out.push_str("\n/* The domain argument that means the calling domain */\n");
    define(&mut out, "PORTICO_SELF_DOMAIN", &format!("{:#x}", portico_abi::handle::SELF_DOMAIN.raw()));
    out.push_str("\n/* First words of pages and windows */\n");
    define(&mut out, "PORTICO_INFO_MAGIC", &format!("{:#x}", InfoPage::MAGIC));
    define(&mut out, "PORTICO_CHANNEL_MAGIC", &format!("{:#x}", ChannelHeader::MAGIC));
    out.push_str("\n/* State of a side of a channel */\n");
    for (name, state) in [
        ("CLOSED", ChannelState::Closed),
        ("INIT", ChannelState::Init),
        ("CONNECTED", ChannelState::Connected),
        ("CLOSING", ChannelState::Closing),
    ] {
        define(&mut out, &format!("PORTICO_CHANNEL_{name}"), &(state as u32).to_string());
    }
    for record in records::all().iter().filter(|record| RECORDS.contains(&record.name)) {
        structure(&mut out, record);
    }
    out.push_str("\n#endif /* _LINUX_PORTICO_ABI_H */\n");
    out
}

/// Puts the header into the patch that adds it, with the counts that belong to it.
///
/// # Errors
/// If the patch adds no such file, or others too.
pub fn insert(patch: &str, header: &str) -> Result<String, String> {
    let begin = format!("+++ b/{PATH}\n");
    let (head, rest) = patch.split_once(&begin).ok_or_else(|| format!("the patch does not add {PATH}"))?;
    let (hunk, rest) = rest.split_once('\n').ok_or("the patch has no hunk")?;
    if !hunk.starts_with("@@ -0,0 +1,") || rest.contains("\ndiff --git ") {
        return Err(format!("the patch is not one that adds {PATH} and nothing else"));
    }
    let lines = header.lines().count();
    let tail: String = rest.lines().skip_while(|line| line.starts_with('+')).map(|line| format!("{line}\n")).collect();
    let mut out = String::new();
    for line in head.lines() {
        let line = if line.starts_with(&format!(" {PATH} | ")) {
            format!(" {PATH} | {lines} {}", "+".repeat(46))
        } else if line.starts_with(" 1 file changed, ") {
            format!(" 1 file changed, {lines} insertions(+)")
        } else if line.starts_with("index 0000000") {
            // The hash of the file, which nobody looks at where a file is new.
            "index 0000000..1111111".to_owned()
        } else {
            line.to_owned()
        };
        out.push_str(&line);
        out.push('\n');
    }
    let _ = writeln!(out, "{begin}@@ -0,0 +1,{lines} @@");
    for line in header.lines() {
        let _ = writeln!(out, "+{line}");
    }
    out.push_str(&tail);
    Ok(out)
}

/// A definition, its value in a column.
fn define(out: &mut String, name: &str, value: &str) {
    let mut line = format!("#define {name}");
    // At least one tab; those that reach the column.
    let tabs = VALUES.saturating_sub(line.len()).div_ceil(8).max(1);
    line.push_str(&"\t".repeat(tabs));
    let _ = writeln!(out, "{line}{value}");
}

fn calls(out: &mut String) {
    out.push_str("\n/* Function ids of the calls */\n");
    for row in Call::TABLE.iter().filter(|row| u64::from(row.call.function_id() & 0xffff) < MANAGEMENT_BASE.into()) {
        paragraph(out, &format!("{}({})", row.name, row.args.join(", ")), WIDTH);
        let id = row.call.function_id();
        define(out, &format!("PORTICO_CALL_{}", row.name.to_ascii_uppercase()), &format!("{id:#x}"));
    }
}

fn constants(out: &mut String, group: &Group) {
    let _ = writeln!(out, "\n/* {} */", group.title);
    for constant in &group.constants {
        paragraph(out, &constant.doc, WIDTH);
        let name = format!("{}{}", group.prefix, constant.name);
        match constant.value {
            Value::Number(value) if value <= 0xffff => define(out, &name, &value.to_string()),
            Value::Number(value) if value <= 0xffff_ffff => define(out, &name, &format!("{value:#x}")),
            Value::Number(value) => define(out, &name, &format!("{value:#x}ULL")),
            Value::Text(text) => define(out, &name, &format!("\"{text}\"")),
        }
    }
}

fn structure(out: &mut String, record: &Record) {
    out.push('\n');
    paragraph(out, record.doc, WIDTH);
    let _ = writeln!(out, "struct portico_{} {{", record.name);
    for field in &record.fields {
        let kind = match field.ctype {
            "uint8_t" => "u8",
            "uint16_t" => "u16",
            "uint32_t" => "u32",
            "uint64_t" => "u64",
            other => other,
        };
        let count = field.count.map_or(String::new(), |count| format!("[{count}]"));
        let _ = writeln!(out, "\t{kind} {}{count};", field.name);
    }
    let align = if record.align > 8 { format!(" __aligned({})", record.align) } else { String::new() };
    let _ = writeln!(out, "}}{align};\n");
    let name = record.name;
    let _ = writeln!(out, "static_assert(sizeof(struct portico_{name}) == {});", record.size);
    for field in record.fields.iter().filter(|field| !field.name.starts_with('_')) {
        let line = format!("static_assert(offsetof(struct portico_{name}, {}) == {});", field.name, field.offset);
        if line.len() <= WIDTH {
            let _ = writeln!(out, "{line}");
        } else {
            let _ = writeln!(
                out,
                "static_assert(offsetof(struct portico_{name}, {}) ==\n\t      {});",
                field.name, field.offset
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{PATH, insert, write};

    #[test]
    fn lines_fit() {
        let header = write(&crate::groups::all().unwrap());
        for line in header.lines() {
            let columns: usize =
                line.chars().fold(0, |at, letter| if letter == '\t' { (at / 8 + 1) * 8 } else { at + 1 });
            assert!(columns <= 100, "{line}");
        }
    }

    #[test]
    fn replaces_the_file_in_its_patch() {
        let patch = format!(
            "Subject: x\n---\n {PATH} | 2 ++\n 1 file changed, 2 insertions(+)\n\ndiff --git a/{PATH} b/{PATH}\n\
             index 000000000000..abc\n--- /dev/null\n+++ b/{PATH}\n@@ -0,0 +1,2 @@\n+old\n+older\n-- \n2.0\n"
        );
        let made = insert(&patch, "a\nb\nc\n").unwrap();
        assert!(made.contains("@@ -0,0 +1,3 @@\n+a\n+b\n+c\n-- \n2.0\n"), "{made}");
        assert!(made.contains("1 file changed, 3 insertions(+)") && !made.contains("old"), "{made}");
        assert_eq!(insert(&made, "a\nb\nc\n").unwrap(), made);
        assert!(insert("nothing", "a\n").is_err());
    }
}
