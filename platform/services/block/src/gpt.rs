//! GUID partition tables. (UEFI Specification 2.10, "GUID Partition Table (GPT) Disk Layout")
//!
//! What the disk holds is as untrusted as what a guest sends: a guest that has the whole disk wrote it.

use crc::{CRC_32_ISO_HDLC, Crc};

/// Bytes of a sector, and of the header.
pub const SECTOR: usize = 512;
/// Most bytes of the partition entries that are read: 128 entries of 128 bytes.
pub const MAX_ENTRY_BYTES: usize = 16384;

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// Where the entries stand, from the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// First sector of the entries.
    pub entries: u64,
    /// Bytes of all entries: up to [`MAX_ENTRY_BYTES`].
    pub bytes: usize,
    /// Bytes of an entry.
    entry_bytes: usize,
    crc: u32,
    first: u64,
    last: u64,
}

/// A partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// First sector.
    pub first: u64,
    /// Number of sectors.
    pub sectors: u64,
}

/// How a partition is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which<'a> {
    /// By number, from 1.
    Number(u32),
    /// By its name.
    Label(&'a str),
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_le_bytes(*word))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|word| u64::from_le_bytes(*word))
}

/// Reads the header, which stands in sector 1 of a disk of `sectors` sectors. `None` if there is none, or it is damaged.
pub fn header(sector: &[u8; SECTOR], sectors: u64) -> Option<Header> {
    let size = word(sector, 12)? as usize;
    if !sector.starts_with(b"EFI PART") || !(92..=SECTOR).contains(&size) {
        return None;
    }
    let mut copy = *sector;
    copy.get_mut(16..20)?.fill(0);
    if CRC.checksum(copy.get(..size)?) != word(sector, 16)? {
        return None;
    }
    let (count, entry_bytes) = (word(sector, 80)? as usize, word(sector, 84)? as usize);
    let bytes = count.checked_mul(entry_bytes)?;
    let header = Header {
        entries: long(sector, 72)?,
        bytes,
        entry_bytes,
        crc: word(sector, 88)?,
        first: long(sector, 40)?,
        last: long(sector, 48)?,
    };
    let end = header.entries.checked_add(bytes.div_ceil(SECTOR) as u64)?;
    let is_sound = entry_bytes >= 128
        && entry_bytes.is_multiple_of(8)
        && (1..=MAX_ENTRY_BYTES).contains(&bytes)
        && end <= sectors
        && header.last < sectors;
    is_sound.then_some(header)
}

/// Finds a partition among the entries. `None` if there is no such one, or the entries are damaged.
pub fn find(header: &Header, entries: &[u8], which: Which<'_>) -> Option<Partition> {
    let entries = entries.get(..header.bytes)?;
    if CRC.checksum(entries) != header.crc {
        return None;
    }
    let mut all = entries.chunks_exact(header.entry_bytes);
    let entry = match which {
        Which::Number(number) => all.nth((number as usize).checked_sub(1)?)?,
        Which::Label(label) => all.find(|entry| is_used(entry) && has_label(entry, label))?,
    };
    let (first, last) = (long(entry, 32)?, long(entry, 40)?);
    let is_sound = is_used(entry) && first <= last && first >= header.first && last <= header.last;
    is_sound.then(|| Partition { first, sectors: last - first + 1 })
}

fn is_used(entry: &[u8]) -> bool {
    entry.get(..16).is_some_and(|kind| kind.iter().any(|byte| *byte != 0))
}

/// Names are UTF-16, up to 36 units, ended by a zero if they are shorter.
fn has_label(entry: &[u8], label: &str) -> bool {
    let name = entry.get(56..128).unwrap_or_default();
    let units = name.chunks_exact(2).filter_map(|unit| unit.first_chunk().map(|unit| u16::from_le_bytes(*unit)));
    units.take_while(|unit| *unit != 0).eq(label.encode_utf16())
}

#[cfg(test)]
mod tests {
    use super::{CRC, Partition, SECTOR, Which, find, header};
    use proptest::prelude::{any, proptest};

    fn table() -> ([u8; SECTOR], Vec<u8>) {
        let mut entries = vec![0; 128 * 4];
        for (number, (first, last, name)) in [(34_u64, 99_u64, "boot"), (100, 199, "röot")].into_iter().enumerate() {
            let entry = &mut entries[number * 128..][..128];
            entry[0] = 1;
            entry[32..40].copy_from_slice(&first.to_le_bytes());
            entry[40..48].copy_from_slice(&last.to_le_bytes());
            for (to, unit) in entry[56..].chunks_exact_mut(2).zip(name.encode_utf16()) {
                to.copy_from_slice(&unit.to_le_bytes());
            }
        }
        let mut sector = [0; SECTOR];
        sector[..8].copy_from_slice(b"EFI PART");
        sector[12] = 92;
        for (at, value) in [(40, 34_u64), (48, 300), (72, 2)] {
            sector[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        for (at, value) in [(80, 4_u32), (84, 128), (88, CRC.checksum(&entries))] {
            sector[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let crc = CRC.checksum(&sector[..92]);
        sector[16..20].copy_from_slice(&crc.to_le_bytes());
        (sector, entries)
    }

    #[test]
    fn finds_by_number_and_by_name() {
        let (sector, entries) = table();
        let header = header(&sector, 400).unwrap();
        assert_eq!((header.entries, header.bytes), (2, 512));
        let root = Some(Partition { first: 100, sectors: 100 });
        assert_eq!(find(&header, &entries, Which::Number(2)), root);
        assert_eq!(find(&header, &entries, Which::Label("röot")), root);
        for which in [Which::Number(0), Which::Number(3), Which::Number(5), Which::Label("roo"), Which::Label("")] {
            assert_eq!(find(&header, &entries, which), None, "{which:?}");
        }
    }

    #[test]
    fn damage_is_noticed() {
        let (sector, mut entries) = table();
        assert_eq!(header(&sector, 300), None, "longer than the disk");
        let whole = header(&sector, 400).unwrap();
        entries[33] ^= 1;
        assert_eq!(find(&whole, &entries, Which::Number(1)), None);
        assert_eq!(find(&whole, &[], Which::Number(1)), None);
        for at in 0..92 {
            let mut damaged = sector;
            damaged[at] ^= 4;
            assert_eq!(header(&damaged, 400), None, "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(raw in proptest::collection::vec(any::<u8>(), 512), fix in any::<bool>(), sectors in any::<u64>()) {
            let mut sector: [u8; SECTOR] = raw.try_into().unwrap();
            if fix {
                sector[..8].copy_from_slice(b"EFI PART");
                sector[12..16].copy_from_slice(&92_u32.to_le_bytes());
                sector[16..20].fill(0);
                let crc = CRC.checksum(&sector[..92]);
                sector[16..20].copy_from_slice(&crc.to_le_bytes());
            }
            if let Some(header) = header(&sector, sectors) {
                let _ = find(&header, &vec![0; 16384], Which::Number(1));
            }
        }
    }
}
