//! Stage-2 descriptors. (Arm DDI 0487, "VMSAv8-64 translation table format descriptors")

use crate::addr::Pa;
use portico_abi::call::attrs;

/// What a mapping allows: the `attrs` of the ABI, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Attrs(u8);

const _: () = assert!(attrs::ALL == 0xf);

impl Attrs {
    /// Normal memory, read-only.
    pub const READ: Attrs = Attrs(attrs::READ as u8);
    /// Normal memory, read and execute.
    pub const READ_EXEC: Attrs = Attrs((attrs::READ | attrs::EXEC) as u8);
    /// Normal memory, read and write.
    pub const READ_WRITE: Attrs = Attrs((attrs::READ | attrs::WRITE) as u8);
    /// Normal memory, read, write and execute.
    pub const READ_WRITE_EXEC: Attrs = Attrs((attrs::READ | attrs::WRITE | attrs::EXEC) as u8);
    /// Device-nGnRE, read and write.
    pub const DEVICE: Attrs = Attrs((attrs::READ | attrs::WRITE | attrs::DEVICE) as u8);

    /// Checks attributes of a call. `READ` is always on. `None` for an unknown bit or executable device memory.
    pub const fn from_abi(raw: u64) -> Option<Self> {
        if raw & !attrs::ALL != 0 || (raw & attrs::DEVICE != 0 && raw & attrs::EXEC != 0) {
            return None;
        }
        Some(Self((raw | attrs::READ) as u8))
    }

    /// Writable.
    pub const fn can_write(self) -> bool {
        self.0 as u64 & attrs::WRITE != 0
    }

    /// Executable.
    pub const fn can_execute(self) -> bool {
        self.0 as u64 & attrs::EXEC != 0
    }

    /// Device memory.
    pub const fn is_device(self) -> bool {
        self.0 as u64 & attrs::DEVICE != 0
    }

    /// Says whether `self` allows nothing that `limit` does not, and has the same memory type.
    pub const fn within(self, limit: Attrs) -> bool {
        self.0 & !limit.0 == 0 && self.is_device() == limit.is_device()
    }
}

/// First level of the walk.
pub const START_LEVEL: u8 = 1;
/// Last level of the walk.
pub const LAST_LEVEL: u8 = 3;
/// Entries of a table.
pub const ENTRIES: usize = 512;

const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
const VALID: u64 = 1 << 0;
const TABLE_OR_PAGE: u64 = 1 << 1;
const MEM_NORMAL_WB: u64 = 0b1111 << 2;
const MEM_DEVICE_NGNRE: u64 = 0b0001 << 2;
const MEM_MASK: u64 = 0b1111 << 2;
const S2AP_READ: u64 = 1 << 6;
const S2AP_WRITE: u64 = 1 << 7;
const SH_INNER: u64 = 0b11 << 8;
const ACCESS_FLAG: u64 = 1 << 10;
const EXECUTE_NEVER: u64 = 1 << 54;

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing.
    Invalid,
    /// The next table.
    Table(Pa),
    /// A block or page.
    Leaf(Pa, Attrs),
}

/// Pages that an entry of `level` covers: 2^18, 2^9 or 1.
pub const fn level_pages(level: u8) -> u64 {
    match level {
        0 | 1 => 1 << 18,
        2 => 1 << 9,
        _ => 1,
    }
}

/// Index into the table of `level` for an IPA.
pub const fn index(ipa: u64, level: u8) -> usize {
    (ipa >> (12 + 9 * (LAST_LEVEL.saturating_sub(level)) as u32)) as usize & (ENTRIES - 1)
}

/// Encodes a block (levels 1 and 2) or page (level 3).
pub const fn encode_leaf(pa: Pa, attrs: Attrs, level: u8) -> u64 {
    let kind = if level == LAST_LEVEL { VALID | TABLE_OR_PAGE } else { VALID };
    let memory = if attrs.is_device() { MEM_DEVICE_NGNRE } else { MEM_NORMAL_WB | SH_INNER };
    let write = if attrs.can_write() { S2AP_WRITE } else { 0 };
    let execute = if attrs.can_execute() { 0 } else { EXECUTE_NEVER };
    (pa.raw() & ADDRESS) | kind | memory | S2AP_READ | write | ACCESS_FLAG | execute
}

/// Encodes a pointer to a table.
pub const fn encode_table(table: Pa) -> u64 {
    (table.raw() & ADDRESS) | VALID | TABLE_OR_PAGE
}

/// Says whether an entry is anything. Where a whole table is gone through, [`decode`] would cost too much.
#[inline(always)]
pub const fn is_valid(desc: u64) -> bool {
    desc & VALID != 0
}

/// Says whether a valid entry of `level` points to a table.
#[inline(always)]
pub const fn is_table(desc: u64, level: u8) -> bool {
    desc & TABLE_OR_PAGE != 0 && level < LAST_LEVEL
}

/// Decodes an entry of `level`. What the architecture reserves counts as invalid.
pub const fn decode(desc: u64, level: u8) -> Entry {
    if !is_valid(desc) {
        return Entry::Invalid;
    }
    let pa = Pa::new(desc & ADDRESS);
    if is_table(desc, level) {
        return Entry::Table(pa);
    }
    if (desc & TABLE_OR_PAGE == 0) == (level == LAST_LEVEL) {
        return Entry::Invalid;
    }
    let mut raw = attrs::READ;
    if desc & S2AP_WRITE != 0 {
        raw |= attrs::WRITE;
    }
    if desc & EXECUTE_NEVER == 0 {
        raw |= attrs::EXEC;
    }
    if desc & MEM_MASK == MEM_DEVICE_NGNRE {
        raw |= attrs::DEVICE;
    }
    Entry::Leaf(pa, Attrs(raw as u8))
}
