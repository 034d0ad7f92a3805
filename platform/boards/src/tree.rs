//! One pass over a flattened device tree (Devicetree Specification v0.4, "Flattened Devicetree (DTB) Format").
//!
//! [`Tree::walk`] visits each node once, in order, with its ancestors at hand, so an address is translated through
//! every bus on the way to the root. Boot time counts here: the general crates that we measured look nodes up by
//! scanning from the start again, or can't give a node's parents. Tests hold this reader against one of them.
//!
//! Never panics, whatever the bytes; nesting deeper than [`MAX_DEPTH`] is skipped.

use crate::machine::Range;

/// Deepest node that is visited; the root is at depth 0.
pub const MAX_DEPTH: usize = 8;

const MAGIC: u32 = 0xd00d_feed;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// What is wrong with a device tree or the machine in it, in words.
pub type Refusal = &'static str;

/// It does not begin with the magic number.
pub const NO_TREE: Refusal = "x0 does not point to a device tree";
/// A block lies outside it, or it does not begin at a multiple of 4.
pub const TRUNCATED: Refusal = "the device tree is truncated";
/// The structure block is malformed.
pub const MALFORMED: Refusal = "the device tree is malformed";

/// A device tree whose header has been checked.
#[derive(Clone, Copy)]
pub struct Tree<'a> {
    structure: &'a [u8],
    /// The same bytes, for loads of whole cells: the target has no unaligned ones.
    words: &'a [u32],
    strings: &'a [u8],
    reservations: &'a [u8],
}

/// A node and its place.
pub struct Node<'t, 'a> {
    tree: &'t Tree<'a>,
    /// From the root down to itself.
    levels: &'t [Level<'a>],
    /// The last of them.
    level: &'t Level<'a>,
}

/// What is remembered of a node while its descendants are visited.
#[derive(Clone, Copy, Default)]
struct Level<'a> {
    name: &'a [u8],
    /// Offset of the first property.
    properties: usize,
    compatible: &'a [u8],
    reg: &'a [u8],
    interrupts: &'a [u8],
    ranges: Option<&'a [u8]>,
    disabled: bool,
    address_cells: u32,
    size_cells: u32,
}

/// Reads the total size from the first 8 bytes of a device tree, if they are one's.
#[must_use]
pub fn total_size(header: &[u8]) -> Option<usize> {
    (be32(header, 0)? == MAGIC).then_some(be32(header, 4)? as usize)
}

impl<'a> Tree<'a> {
    /// Checks the header.
    ///
    /// # Errors
    /// [`NO_TREE`] or [`TRUNCATED`].
    pub fn new(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let field = |index: usize| be32(bytes, index * 4).map(|value| value as usize).ok_or(TRUNCATED);
        if field(0)? != MAGIC as usize {
            return Err(NO_TREE);
        }
        let bytes = bytes.get(..field(1)?).ok_or(TRUNCATED)?;
        let block = |start: usize, len: usize| bytes.get(start..)?.get(..len);
        let structure = block(field(2)?, field(9)?).ok_or(TRUNCATED)?;
        // SAFETY: every bit pattern is a `u32`.
        let (unaligned, words, _) = unsafe { structure.align_to() };
        if !unaligned.is_empty() {
            return Err(TRUNCATED);
        }
        Ok(Self {
            structure,
            words,
            strings: block(field(3)?, field(8)?).ok_or(TRUNCATED)?,
            reservations: bytes.get(field(4)?..).ok_or(TRUNCATED)?,
        })
    }

    /// The ranges of the memory reservation block.
    pub fn reservations(&self) -> impl Iterator<Item = Range> + 'a {
        self.reservations
            .chunks_exact(16)
            .map(|entry| Range { start: be64(entry, 0).unwrap_or(0), len: be64(entry, 8).unwrap_or(0) })
            .take_while(|range| range.start != 0 || range.len != 0)
    }

    /// Calls `visit` for each node, parents first.
    ///
    /// # Errors
    /// [`MALFORMED`]; what was visited until then stays visited.
    pub fn walk(&self, visit: &mut impl FnMut(&Node<'_, 'a>)) -> Result<(), Refusal> {
        let mut levels = [Level::default(); MAX_DEPTH];
        let mut depth = 0;
        let mut at = 0;
        loop {
            match self.word(at).ok_or(MALFORMED)? {
                BEGIN_NODE => {
                    let name = until(self.structure.get(at + 4..).ok_or(MALFORMED)?, 0);
                    at += 4 + aligned(name.len() + 1);
                    let (level, end) = self.level(name, at);
                    at = end;
                    if let Some(slot) = levels.get_mut(depth) {
                        *slot = level;
                        visit(&Node { tree: self, levels: levels.get(..=depth).unwrap_or_default(), level: &level });
                    }
                    depth += 1;
                }
                END_NODE => {
                    depth = depth.checked_sub(1).ok_or(MALFORMED)?;
                    at += 4;
                }
                NOP => at += 4,
                END if depth == 0 => return Ok(()),
                _ => return Err(MALFORMED),
            }
        }
    }

    /// Reads the properties from `at`, keeps what placing and matching a node needs, and says where they end.
    fn level(&self, name: &'a [u8], mut at: usize) -> (Level<'a>, usize) {
        let mut level = Level { name, properties: at, address_cells: 2, size_cells: 1, ..Level::default() };
        while let Some((property, value, next)) = self.property(at) {
            // Most properties are of no interest, which their first letter tells.
            match property.first() {
                Some(b'c') if is(property, b"compatible") => level.compatible = value,
                Some(b'r') if is(property, b"reg") => level.reg = value,
                Some(b'r') if is(property, b"ranges") => level.ranges = Some(value),
                Some(b'i') if is(property, b"interrupts") => level.interrupts = value,
                Some(b's') if is(property, b"status") => level.disabled = !matches!(value, b"okay\0" | b"ok\0"),
                Some(b'#') if is(property, b"#address-cells") => level.address_cells = be32(value, 0).unwrap_or(2),
                Some(b'#') if is(property, b"#size-cells") => level.size_cells = be32(value, 0).unwrap_or(1),
                _ => {}
            }
            at = next;
        }
        (level, at)
    }

    /// Reads the cell at `at`, a multiple of 4.
    #[inline(always)]
    fn word(&self, at: usize) -> Option<u32> {
        self.words.get(at / 4).map(|word| u32::from_be(*word))
    }

    /// Reads the property at `at`: strings from its name on, value, offset of what follows. `None` if there is none.
    #[inline(never)]
    fn property(&self, mut at: usize) -> Option<(&'a [u8], &'a [u8], usize)> {
        while self.word(at)? == NOP {
            at += 4;
        }
        if self.word(at)? != PROP {
            return None;
        }
        let len = self.word(at + 4)? as usize;
        let name = self.word(at + 8)? as usize;
        let value = self.structure.get(at + 12..)?.get(..len)?;
        Some((self.strings.get(name..)?, value, at + 12 + aligned(len)))
    }
}

impl<'a> Node<'_, 'a> {
    /// Its name, with the unit address.
    #[must_use]
    pub fn name(&self) -> &'a [u8] {
        self.level.name
    }

    /// Its depth; the root's is 0.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.levels.len().saturating_sub(1)
    }

    /// The name of its parent, empty for the root and its children.
    #[must_use]
    pub fn parent_name(&self) -> &'a [u8] {
        self.parent().map_or(&[], |parent| parent.name)
    }

    /// The names from below the root down to itself.
    pub fn path(&self) -> impl Iterator<Item = &'a [u8]> {
        self.levels.iter().skip(1).map(|level| level.name)
    }

    /// Whether it and all its ancestors are enabled.
    #[must_use]
    pub fn enabled(&self) -> bool {
        !self.levels.iter().any(|level| level.disabled)
    }

    /// Its `compatible` strings, most specific first.
    pub fn compatible(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.level.compatible.split(|&byte| byte == 0).filter(|name| !name.is_empty())
    }

    /// The value of a property, found by scanning this node's.
    #[must_use]
    #[inline(never)]
    pub fn property(&self, name: &[u8]) -> Option<&'a [u8]> {
        let mut at = self.level.properties;
        while let Some((property, value, next)) = self.tree.property(at) {
            if property.first() == name.first() && is(property, name) {
                return Some(value);
            }
            at = next;
        }
        None
    }

    /// Calls `visit` with the name and value of each property.
    pub fn properties(&self, mut visit: impl FnMut(&'a [u8], &'a [u8])) {
        let mut at = self.level.properties;
        while let Some((property, value, next)) = self.tree.property(at) {
            visit(until(property, 0), value);
            at = next;
        }
    }

    /// The value of a property of one or two cells.
    #[must_use]
    #[inline(never)]
    pub fn number(&self, name: &[u8]) -> Option<u64> {
        let value = self.property(name)?;
        if value.len() >= 8 { be64(value, 0) } else { be32(value, 0).map(u64::from) }
    }

    /// The value of a property that is one string; empty if there is none.
    #[must_use]
    pub fn text(&self, name: &[u8]) -> &'a [u8] {
        until(self.property(name).unwrap_or_default(), 0)
    }

    /// Entry `index` of `reg`, as it stands, without translation.
    #[must_use]
    #[inline(never)]
    pub fn raw_reg(&self, index: usize) -> Option<Range> {
        let parent = self.parent()?;
        let (address, size) = (parent.address_cells as usize, parent.size_cells as usize);
        let at = index.checked_mul((address.checked_add(size)?).checked_mul(4)?)?;
        let start = cells(self.level.reg, at, address)?;
        Some(Range { start, len: cells(self.level.reg, at + address * 4, size)? })
    }

    /// Entry `index` of `reg`, translated to a physical address through the `ranges` of every bus above. `None` if
    /// there is no such entry, or a bus does not pass it.
    #[must_use]
    #[inline(never)]
    pub fn reg(&self, index: usize) -> Option<Range> {
        let mut range = self.raw_reg(index)?;
        // From the parent up to below the root.
        let mut upper = self.levels.len().checked_sub(1)?;
        while upper > 1 {
            upper -= 1;
            let (bus, parent) = (self.levels.get(upper)?, self.levels.get(upper - 1)?);
            range.start = translate(bus, parent.address_cells, range)?;
        }
        Some(range)
    }

    /// Its first interrupt: the number at the GIC, and whether it is signalled by an edge. `None` if it has none.
    #[must_use]
    pub fn interrupt(&self) -> Option<(u32, bool)> {
        let value = self.level.interrupts;
        let base = if be32(value, 0)? == 0 { 32 } else { 16 };
        Some((be32(value, 4)?.checked_add(base)?, be32(value, 8)? & 3 != 0))
    }

    fn parent(&self) -> Option<&Level<'a>> {
        self.levels.get(self.levels.len().checked_sub(2)?)
    }
}

/// Takes an address on `bus` to the address space of the bus above, which has `parent_cells`.
fn translate(bus: &Level<'_>, parent_cells: u32, range: Range) -> Option<u64> {
    let ranges = bus.ranges?;
    if ranges.is_empty() {
        return Some(range.start);
    }
    let (child, parent, size) = (bus.address_cells as usize, parent_cells as usize, bus.size_cells as usize);
    let width = child.checked_add(parent)?.checked_add(size)?.checked_mul(4)?;
    if width == 0 {
        return None;
    }
    for entry in ranges.chunks_exact(width) {
        let offset = range.start.checked_sub(cells(entry, 0, child)?);
        if let Some(offset) =
            offset.filter(|&offset| cells(entry, (child + parent) * 4, size).is_some_and(|len| offset < len))
        {
            return cells(entry, child * 4, parent)?.checked_add(offset);
        }
    }
    None
}

/// Reads a number of `count` cells; of three (PCI), the low two.
#[inline(never)]
fn cells(bytes: &[u8], at: usize, count: usize) -> Option<u64> {
    match count {
        0 => Some(0),
        1 => be32(bytes, at).map(u64::from),
        2 => be64(bytes, at),
        3 => be64(bytes, at + 4),
        _ => None,
    }
}

#[inline(never)]
fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from(be32(bytes, at)?) << 32 | u64::from(be32(bytes, at.checked_add(4)?)?))
}

/// Whether the first of `strings` is `name`.
#[inline(never)]
fn is(strings: &[u8], name: &[u8]) -> bool {
    strings.strip_prefix(name).is_some_and(|rest| rest.first() == Some(&0))
}

/// What stands before the first `end`.
#[inline(never)]
pub(crate) fn until(bytes: &[u8], end: u8) -> &[u8] {
    bytes.split(|&byte| byte == end).next().unwrap_or_default()
}

const fn aligned(len: usize) -> usize {
    len.saturating_add(3) & !3
}
