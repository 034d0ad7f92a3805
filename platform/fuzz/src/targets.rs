//! Bodies of the targets whose crates have none of their own.

use core::sync::atomic::{AtomicU32, Ordering};
use portico_abi::device::block::{Request, SECTOR, Segment, shape};
use portico_abi::device::handshake::{Event, Handshake, Phase, Side, Words};
use portico_abi::device::{BACK, FRONT, refusal};
use portico_block::gpt::{self as partitions, Which};
use portico_block::request::{Limits, Segments, check, check_segments, table_is_inside};
use portico_boards::Machine;
use portico_manager::{loader, shell};

/// A system description in TOML: see [`portico_ctl::fuzz::description`].
pub fn toml(bytes: &[u8]) {
    portico_ctl::fuzz::description(&String::from_utf8_lossy(bytes));
}

/// A guest's kernel, ELF or `Image`: what is planned lies in the guest's memory and nothing overlaps.
pub fn kernel(bytes: &[u8]) {
    const BASE: u64 = 0x4000_0000;
    const MEMORY: u64 = 16 << 20;
    for ramdisk in [None, Some([0x55u8; 5000].as_slice())] {
        let Ok(plan) = loader::plan(bytes, ramdisk, BASE, MEMORY) else {
            continue;
        };
        let mut parts: Vec<(u64, u64)> = plan.segments.iter().map(|segment| (segment.offset, segment.end())).collect();
        parts.push((plan.dtb - BASE, plan.dtb - BASE + loader::DTB_BYTES));
        parts.sort_unstable();
        assert!(parts.iter().all(|(start, end)| start <= end && *end <= MEMORY), "{parts:?}");
        assert!(parts.is_sorted_by(|a, b| a.1 <= b.0), "{parts:?}");
        assert!((BASE..BASE + MEMORY).contains(&plan.entry), "{:#x}", plan.entry);
        assert_eq!(plan.ramdisk.is_some(), ramdisk.is_some());
    }
}

/// The device tree that EL2 is given.
pub fn machine_dtb(bytes: &[u8]) {
    let mut machine = Machine::default();
    if machine.read(bytes).is_ok() {
        // A machine that was accepted has something to boot on.
        assert!(machine.cpus.iter().next().is_some());
    }
}

/// A line typed at the manager's prompt.
pub fn shell(bytes: &[u8]) {
    let line = String::from_utf8_lossy(bytes);
    if let Err(text) = shell::parse(&line) {
        assert!(!text.is_empty());
    }
    let _ = shell::help(Some(&line));
}

/// A slot of a disk's request ring, and a table of segments behind it: what is let through stays in the disk and in the data area.
pub fn block_request(bytes: &[u8]) {
    let (Some(shape), Some(slot)) = (shape(64), bytes.first_chunk::<64>()) else { return };
    let limits = Limits {
        sectors: 1 << 20,
        is_read_only: false,
        features: 3,
        max_sectors: 512,
        max_segments: 64,
        max_discard: 1 << 16,
        max_zeroes: 1 << 16,
    };
    let request = Request::from_bytes(slot);
    let Ok(segments) = check(&request, &limits) else { return };
    assert!(request.sector.checked_add(u64::from(request.sectors)).is_some_and(|end| end <= limits.sectors));
    let list: Vec<Segment> = match segments {
        Segments::Inline(count) => request.segment[..count].to_vec(),
        Segments::Table(offset, count) => {
            assert!(count <= 64);
            if table_is_inside(&shape, offset, count) {
                assert!(offset >= shape.data && offset + 8 * count <= shape.data + shape.data_bytes);
            }
            let words = bytes[64..].chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_le_bytes));
            words.take(count).map(Segment::from_word).collect()
        }
    };
    if !list.is_empty() && check_segments(&list, request.sectors, &shape).is_ok() {
        let area = shape.data as u64..=(shape.data + shape.data_bytes) as u64;
        let mut total = 0;
        for segment in &list {
            let (first, end) = (u64::from(segment.offset), u64::from(segment.offset) + u64::from(segment.bytes));
            assert!(first < end && area.contains(&first) && area.contains(&end));
            total += end - first;
        }
        assert_eq!(total, u64::from(request.sectors) * SECTOR);
    }
}

/// The second sector of a disk, and its partition entries behind it. Their sums are made right first: whoever writes a table can do so too.
pub fn gpt(bytes: &[u8]) {
    const SECTORS: u64 = 1 << 16;
    const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    let Some(sector) = bytes.first_chunk::<512>() else { return };
    let mut sector = *sector;
    let number = |at: usize| sector[at..].first_chunk().map_or(0, |word| u32::from_le_bytes(*word)) as usize;
    let (size, entries) = (number(12), number(80).saturating_mul(number(84)));
    if let Some(entries) = bytes[512..].get(..entries) {
        sector[88..92].copy_from_slice(&CRC.checksum(entries).to_le_bytes());
    }
    sector[16..20].fill(0);
    if let Some(head) = sector.get(..size) {
        let sum = CRC.checksum(head).to_le_bytes();
        sector[16..20].copy_from_slice(&sum);
    }
    let Some(header) = partitions::header(&sector, SECTORS) else { return };
    assert!(header.bytes <= partitions::MAX_ENTRY_BYTES && header.entries < SECTORS);
    for which in [Which::Number(1), Which::Number(u32::MAX), Which::Label("data")] {
        if let Some(found) = partitions::find(&header, &bytes[512..], which) {
            assert!(found.sectors > 0 && found.first + found.sectors <= SECTORS);
        }
    }
}

/// Both sides of a device's handshake, while somebody writes into the words: whatever they find they go on, and each agrees to none but the epoch
/// that it met. The input is steps: who does what, or which word becomes what.
pub fn handshake(bytes: &[u8]) {
    let words: [AtomicU32; 7] = Default::default();
    let [a, b, c, d, e, f, why] = &words;
    let (back, front) = (Side { state: a, epoch: b, seen: c }, Side { state: d, epoch: e, seen: f });
    let of = |side: u32| {
        let (own, peer) = if side == BACK { (back, front) } else { (front, back) };
        Words { own, peer, refusal: why }
    };
    let mut sides = [BACK, FRONT].map(|side| Handshake::new(side, &of(side)));
    for step in bytes.chunks(2).take(400) {
        let (what, value) = (step[0], u32::from(step.get(1).copied().unwrap_or(0)));
        let side = u32::from(what & 1);
        let (words_of, handshake) = (of(side), &mut sides[side as usize]);
        match what >> 1 & 7 {
            0..=3 => {
                if handshake.phase() == Phase::Unplugged {
                    handshake.begin(&words_of);
                }
                match handshake.step(&words_of).0 {
                    Event::Peer if side == FRONT => handshake.accept(&words_of),
                    Event::Peer => {
                        handshake.welcome(&words_of);
                        assert_eq!(handshake.phase(), Phase::Connected(c.load(Ordering::Relaxed)));
                    }
                    Event::Lost => assert_eq!(handshake.phase(), Phase::Unplugged),
                    Event::Nothing | Event::Connected => {}
                }
                assert!(handshake.epoch() != 0);
            }
            4 if handshake.phase() != Phase::Unplugged => handshake.refuse(&words_of, refusal::PROTOCOL),
            4 => {}
            5 => handshake.lose(&words_of),
            _ => words[(what >> 4) as usize % 7].store(value, Ordering::Relaxed),
        }
    }
    // Left alone, each can be begun anew and is met: nobody is stuck for ever.
    let [back_end, front_end] = &mut sides;
    back_end.begin(&of(BACK));
    front_end.begin(&of(FRONT));
    for _ in 0..4 {
        if front_end.step(&of(FRONT)).0 == Event::Peer {
            front_end.accept(&of(FRONT));
        }
        if back_end.step(&of(BACK)).0 == Event::Peer {
            back_end.welcome(&of(BACK));
        }
    }
    assert!(back_end.is_well(&of(BACK)) && front_end.is_well(&of(FRONT)));
}
