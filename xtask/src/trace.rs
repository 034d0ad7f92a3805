//! `cargo xtask trace`: reads the trace rings of a running machine and prints them as one timeline.
//!
//! The machine is stopped while its memory is read, so that the rings agree with each other, and then runs on.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use elf::ElfBytes;
use elf::endian::LittleEndian;
use portico_core::trace::Event;
use portico_ctl::MachineKind;
use serde_json::json;

use crate::qmp::Qmp;
use crate::{build, record};

/// Name of the rings in the image's symbols.
const SYMBOL: &str = "PORTICO_TRACE";
/// Name of the image's first byte in its symbols.
const BASE_SYMBOL: &str = "__image_start";
/// Records of a ring.
const RING_RECORDS: usize = 256;
/// Bytes before the records of a ring: the count of records ever written, on a cache line of its own.
const RING_HEAD: usize = 64;
/// Bytes of a ring.
const RING_BYTES: usize = RING_HEAD + RING_RECORDS * RECORD_BYTES;

/// Bytes of a record.
const RECORD_BYTES: usize = 16;

/// A decoded record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    /// Low half of the counter.
    time: u32,
    /// Number of the event.
    event: u8,
    /// Processor that wrote it.
    pcpu: u8,
    /// First argument.
    a: u16,
    /// Second argument.
    b: u64,
}

impl Record {
    /// Reads the two words of a record (see [`portico_core::trace`]).
    fn decode([head, b]: [u64; 2]) -> Self {
        Self { time: head as u32, event: (head >> 32) as u8, pcpu: (head >> 40) as u8, a: (head >> 48) as u16, b }
    }

    /// Restores the full counter of a record that is at most 2^31 ticks away from `near`.
    fn full_time(self, near: u64) -> u64 {
        let difference = self.time.wrapping_sub(near as u32) as i32;
        near.wrapping_add(difference as i64 as u64)
    }
}

/// Options of `trace`.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Socket of QEMU's machine protocol; without, the machine that was started last
    #[arg(long, value_name = "SOCKET")]
    pub qmp: Option<PathBuf>,
    /// Only the newest records
    #[arg(long, value_name = "COUNT")]
    pub last: Option<usize>,
    /// Only records of this processor
    #[arg(long, value_name = "N")]
    pub pcpu: Option<u8>,
    /// Print a JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// If no machine runs or its rings cannot be found.
pub fn execute(options: &Options) -> Result<()> {
    for line in timeline(options)? {
        println!("{line}");
    }
    Ok(())
}

/// The lines that `trace` prints.
///
/// # Errors
/// As [`execute`].
pub fn timeline(options: &Options) -> Result<Vec<String>> {
    let mut records = read(options)?;
    records.retain(|record| options.pcpu.is_none_or(|pcpu| pcpu == record.pcpu));
    let skip = options.last.map_or(0, |last| records.len().saturating_sub(last));
    let mut before = None;
    let lines = records.iter().skip(skip).map(|record| {
        let line = if options.json { to_json(record) } else { to_text(record, before) };
        before = Some(record.time);
        line
    });
    Ok(lines.collect())
}

/// Reads and merges the rings.
fn read(options: &Options) -> Result<Vec<Record>> {
    let (socket, candidates) = match &options.qmp {
        Some(socket) => (socket.clone(), MachineKind::ALL.to_vec()),
        None => {
            let running = record::last()?;
            let kind = MachineKind::from_name(&running.machine).context("an unknown machine runs")?;
            (running.qmp.context("the machine that runs has no socket to ask it")?, vec![kind])
        }
    };
    let mut qmp = Qmp::connect(&socket)?;
    qmp.execute("stop", json!({}))?;
    let data = locate(&mut qmp, &candidates, SYMBOL).and_then(|(address, size)| qmp.read_memory(address, size));
    qmp.execute("cont", json!({}))?;
    decode(&data?)
}

/// Finds a symbol of the hypervisor in the memory of a machine that runs it: its physical address and size.
///
/// # Errors
/// If there is no such symbol, or the machine is none of `candidates`.
pub fn locate(qmp: &mut Qmp, candidates: &[MachineKind], name: &str) -> Result<(u64, u64)> {
    let elf = std::fs::read(build::built().hyp_elf).context("reading the hypervisor's symbols")?;
    let (address, size) = symbol(&elf, name)?;
    Ok((load_address(qmp, candidates)? + address - base(&elf)?, size))
}

/// Finds where QEMU put the image: 2 MiB above the start of memory, since its own first instructions are there.
fn load_address(qmp: &mut Qmp, candidates: &[MachineKind]) -> Result<u64> {
    let image = std::fs::read(build::built().hyp)?;
    let head = image.get(..64).context("the hypervisor's image is too short")?;
    for kind in candidates {
        let address = match kind {
            MachineKind::Virt | MachineKind::VirtGicv2 => 0x4020_0000,
            MachineKind::Raspi4b => 0x20_0000,
        };
        if qmp.read_memory(address, 64)? == head {
            return Ok(address);
        }
    }
    bail!("the machine does not run the hypervisor that was built last")
}

/// Finds a symbol: its address and size.
fn symbol(file: &[u8], name: &str) -> Result<(u64, u64)> {
    let parsed = ElfBytes::<LittleEndian>::minimal_parse(file)?;
    let (symbols, strings) = parsed.symbol_table()?.context("the hypervisor has no symbols")?;
    symbols
        .iter()
        .find(|symbol| strings.get(symbol.st_name as usize).is_ok_and(|found| found == name))
        .map(|symbol| (symbol.st_value, symbol.st_size))
        .with_context(|| format!("the hypervisor has no symbol {name}"))
}

/// Returns the virtual address of the image's first byte.
fn base(file: &[u8]) -> Result<u64> {
    if let Ok((address, _)) = symbol(file, BASE_SYMBOL) {
        return Ok(address);
    }
    let parsed = ElfBytes::<LittleEndian>::minimal_parse(file)?;
    let segments = parsed.segments().context("the hypervisor has no segments")?;
    let loaded = segments.iter().filter(|segment| segment.p_type == elf::abi::PT_LOAD);
    loaded.map(|segment| segment.p_vaddr).min().context("the hypervisor has nothing to load")
}

/// Decodes the rings and merges them by time.
fn decode(data: &[u8]) -> Result<Vec<Record>> {
    if !data.len().is_multiple_of(RING_BYTES) {
        bail!("the rings have another layout than this decoder knows");
    }
    let word = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).unwrap_or_default();
    let mut records = Vec::new();
    for ring in data.chunks_exact(RING_BYTES) {
        let head = word(&ring[..8]);
        for index in head.saturating_sub(RING_RECORDS as u64)..head {
            let at = RING_HEAD + (index as usize % RING_RECORDS) * RECORD_BYTES;
            let record = Record::decode([word(&ring[at..at + 8]), word(&ring[at + 8..at + 16])]);
            if record.event != Event::None as u8 {
                records.push(record);
            }
        }
    }
    // Times are the low half of a counter: they are compared by their distance from one of them.
    if let Some(near) = records.first().map(|record| record.time) {
        records.sort_by_key(|record| record.full_time(1 << 48 | u64::from(near)));
    }
    Ok(records)
}

/// Returns the names of an event and of its arguments.
fn names(record: &Record) -> (String, &'static str, &'static str) {
    match Event::TABLE.iter().find(|(event, ..)| *event as u8 == record.event) {
        Some((_, name, a, b)) => (name.to_string(), a, b),
        None => (format!("event-{}", record.event), "a", "b"),
    }
}

/// Writes a record as a line of the timeline: its time, that since the one before, and who did what.
fn to_text(record: &Record, before: Option<u32>) -> String {
    let (name, a, b) = names(record);
    let since = before.map_or(0, |before| record.time.wrapping_sub(before));
    let indent = usize::from(record.pcpu) * 2;
    let value = if record.b > 0xffff { format!("0x{:x}", record.b) } else { record.b.to_string() };
    format!(
        "{:>10} {since:>+9} pcpu{:<2}{:indent$} {name:<8} {a}={} {b}={value}",
        record.time, record.pcpu, "", record.a
    )
}

/// Writes a record as JSON.
fn to_json(record: &Record) -> String {
    let (name, a, b) = names(record);
    json!({ "time": record.time, "pcpu": record.pcpu, "event": name, a: record.a, b: record.b }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use portico_core::trace::encode;

    /// Makes a ring that has seen records of these words.
    fn ring(records: &[[u64; 2]]) -> Vec<u8> {
        let mut bytes = vec![0; RING_BYTES];
        bytes[..8].copy_from_slice(&(records.len() as u64).to_le_bytes());
        for (index, record) in records.iter().enumerate() {
            let at = RING_HEAD + (index % RING_RECORDS) * RECORD_BYTES;
            for (n, word) in record.iter().enumerate() {
                bytes[at + n * 8..at + n * 8 + 8].copy_from_slice(&word.to_le_bytes());
            }
        }
        bytes
    }

    #[test]
    fn merges_rings_by_time_across_a_wrap() {
        let record = |time, pcpu| encode(time, Event::Wake, pcpu, 1, 2);
        let first = ring(&[record(0xffff_fff0, 0), record(0x1_0000_0010, 0)]);
        let second = ring(&[record(0xffff_fff8, 1), record(0x1_0000_0008, 1)]);
        let order: Vec<_> = decode(&[first, second].concat()).unwrap().iter().map(|r| (r.time, r.pcpu)).collect();
        assert_eq!(order, [(0xffff_fff0, 0), (0xffff_fff8, 1), (8, 1), (16, 0)]);
    }

    #[test]
    fn a_full_ring_holds_the_newest() {
        let all: Vec<_> = (0..300).map(|time| encode(time, Event::Fault, 0, 0, 0)).collect();
        let records = decode(&ring(&all)).unwrap();
        assert_eq!((records.len(), records[0].time), (RING_RECORDS, 44));
        assert!(decode(&[0; 100]).is_err());
    }

    #[test]
    fn records_come_back() {
        let now = 0xffff_ffff_1234_5678;
        let record = Record::decode(encode(now, Event::Domain, 7, 0xabcd, u64::MAX));
        let want = Record { time: 0x1234_5678, event: Event::Domain as u8, pcpu: 7, a: 0xabcd, b: u64::MAX };
        assert_eq!(record, want);
        for drift in [0, 1, 0x7fff_ffff, -0x7fff_ffff] {
            assert_eq!(record.full_time(now.wrapping_add_signed(drift)), now);
        }
    }

    #[test]
    fn lines_name_their_arguments() {
        let line = to_text(&Record::decode(encode(100, Event::Switch, 1, 3, 65535)), Some(90));
        assert!(line.contains("+10") && line.contains("switch") && line.contains("to=3 from=65535"), "{line}");
    }
}
