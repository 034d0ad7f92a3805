//! One pass over a flattened device tree (Devicetree Specification v0.4, "Flattened Devicetree (DTB) Format").
//!
//! [`Tree::walk`] visits each node once, in order, with its ancestors at hand, so an address is translated through
//! every bus on the way to the root. Boot time counts here: the general crates that we measured look nodes up by
//! scanning from the start again, or can't give a node's parents. Tests hold this reader against one of them.
//!
//! Never panics, whatever the bytes; nesting deeper than [`MAX_DEPTH`] is skipped.

use crate::machine::Range;
use core::iter;

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
/// A block lies outside it.
pub const TRUNCATED: Refusal = "the device tree is truncated";
/// The structure block is malformed.
pub const MALFORMED: Refusal = "the device tree is malformed";

/// A device tree whose header has been checked.
#[derive(Clone, Copy)]
pub struct Tree<'a> {
    structure: &'a [u8],
    strings: &'a [u8],
    reservations: &'a [u8],
}

/// A node and its place.
#[derive(Clone, Copy)]
pub struct Node<'t, 'a> {
    tree: &'t Tree<'a>,
    /// From the root down to itself.
    levels: &'t [Level<'a>],
}

/// What is remembered of a node while its descendants are visited.
#[derive(Clone, Copy, Default)]
struct Level<'a> {
    name: &'a [u8],
    /// Offset of what follows the name: the properties first.
    content: usize,
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
        Ok(Self {
            structure,
            strings: block(field(3)?, field(8)?).ok_or(TRUNCATED)?,
            reservations: bytes.get(field(4)?..).ok_or(TRUNCATED)?,
        })
    }

    /// The ranges of the memory reservation block.
    pub fn reservations(&self) -> impl Iterator<Item = Range> + 'a {
        self.reservations
            .chunks_exact(16)
            .filter_map(|entry| Some(Range { start: cells(entry, 0, 2)?, len: cells(entry, 8, 2)? }))
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
            match be32(self.structure, at).ok_or(MALFORMED)? {
                BEGIN_NODE => {
                    let name = until(self.structure.get(at + 4..).ok_or(MALFORMED)?, 0);
                    at += 4 + aligned(name.len() + 1);
                    if let Some(level) = levels.get_mut(depth) {
                        *level = Level { name, content: at };
                        visit(&Node { tree: self, levels: levels.get(..=depth).unwrap_or_default() });
                    }
                    depth += 1;
                }
                END_NODE => {
                    depth = depth.checked_sub(1).ok_or(MALFORMED)?;
                    at += 4;
                }
                PROP => at += 12 + aligned(be32(self.structure, at + 4).ok_or(MALFORMED)? as usize),
                NOP => at += 4,
                END if depth == 0 => return Ok(()),
                _ => return Err(MALFORMED),
            }
        }
    }

    /// The value of a property of the node whose properties are at `content`.
    #[must_use]
    #[inline(never)]
    pub fn property_of(&self, content: usize, name: &[u8]) -> Option<&'a [u8]> {
        let mut at = content;
        while let Some((property, value, next)) = self.property(at) {
            // Most differ in their first letter.
            if property.first() == name.first() && is(property, name) {
                return Some(value);
            }
            at = next;
        }
        None
    }

    /// Reads the property at `at`: strings from its name on, value, offset of what follows. `None` if there is none.
    #[inline(never)]
    fn property(&self, mut at: usize) -> Option<(&'a [u8], &'a [u8], usize)> {
        while be32(self.structure, at)? == NOP {
            at += 4;
        }
        if be32(self.structure, at)? != PROP {
            return None;
        }
        let len = be32(self.structure, at + 4)? as usize;
        let name = be32(self.structure, at + 8)? as usize;
        let value = self.structure.get(at + 12..)?.get(..len)?;
        Some((self.strings.get(name..)?, value, at + 12 + aligned(len)))
    }
}

impl<'t, 'a> Node<'t, 'a> {
    /// Its name, with the unit address.
    #[must_use]
    pub fn name(&self) -> &'a [u8] {
        self.levels.last().map_or(&[], |level| level.name)
    }

    /// Its depth; the root's is 0.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.levels.len().saturating_sub(1)
    }

    /// The node that it is in; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (_, levels) = self.levels.split_last().filter(|(_, above)| !above.is_empty())?;
        Some(Self { levels, ..*self })
    }

    /// It, what it is in, and so on up to the root.
    pub fn and_above(&self) -> impl Iterator<Item = Self> {
        iter::successors(Some(*self), Self::parent)
    }

    /// Whether it and all its ancestors are enabled.
    #[must_use]
    pub fn enabled(&self) -> bool {
        let okay = |status: &[u8]| matches!(status, b"okay\0" | b"ok\0");
        self.and_above().all(|node| node.property(b"status").is_none_or(okay))
    }

    /// Its `compatible` strings, most specific first.
    pub fn compatible(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.property(b"compatible").unwrap_or_default().split(|&byte| byte == 0).filter(|name| !name.is_empty())
    }

    /// The value of a property.
    #[must_use]
    pub fn property(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.tree.property_of(self.content(), name)
    }

    /// Where its properties are, for [`Tree::property_of`].
    #[must_use]
    pub fn content(&self) -> usize {
        self.levels.last().map_or(usize::MAX, |level| level.content)
    }

    /// The value of a property of one or two cells.
    #[must_use]
    #[inline(never)]
    pub fn number(&self, name: &[u8]) -> Option<u64> {
        let value = self.property(name)?;
        cells(value, 0, if value.len() < 8 { 1 } else { 2 })
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
        let (address, size) = self.parent()?.cells();
        let at = index.checked_mul((address.checked_add(size)?).checked_mul(4)?)?;
        let reg = self.property(b"reg").unwrap_or_default();
        Some(Range { start: cells(reg, at, address)?, len: cells(reg, at + address * 4, size)? })
    }

    /// Entry `index` of `reg`, translated to a physical address through the `ranges` of every bus above. `None` if
    /// there is no such entry, or a bus does not pass it.
    #[must_use]
    #[inline(never)]
    pub fn reg(&self, index: usize) -> Option<Range> {
        let range = self.raw_reg(index)?;
        // The root is no bus.
        let buses = self.and_above().skip(1).take(self.depth().saturating_sub(1));
        let start = { buses }.try_fold(range.start, |start, bus| bus.translate(start))?;
        Some(Range { start, ..range })
    }

    /// Takes an address on this bus to the address space of the bus above.
    fn translate(&self, address: u64) -> Option<u64> {
        let ranges = self.property(b"ranges")?;
        if ranges.is_empty() {
            return Some(address);
        }
        let ((child, size), (parent, _)) = (self.cells(), self.parent()?.cells());
        let width = child.checked_add(parent)?.checked_add(size)?.checked_mul(4).filter(|&width| width > 0)?;
        ranges.chunks_exact(width).find_map(|entry| {
            let offset = address.checked_sub(cells(entry, 0, child)?)?;
            let len = cells(entry, (child + parent) * 4, size)?;
            (offset < len).then_some(cells(entry, child * 4, parent)?.checked_add(offset)?)
        })
    }

    /// Cells of an address and of a size in what it contains.
    fn cells(&self) -> (usize, usize) {
        let number = |name, otherwise| self.number(name).unwrap_or(otherwise) as usize;
        (number(b"#address-cells", 2), number(b"#size-cells", 1))
    }
}

/// Reads a number of `count` cells; of three (PCI), the low two.
#[inline(never)]
pub(crate) fn cells(bytes: &[u8], at: usize, count: usize) -> Option<u64> {
    (0..count).try_fold(0, |number, index| Some(number << 32 | u64::from(be32(bytes, at + index * 4)?)))
}

#[inline(always)]
fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
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
