//! Writes a small flattened device tree into a caller's buffer.
//!
//! EL2 uses it while it is compiled, for the manager's device tree: what boot finds out is filled into places that
//! [`FdtWriter::prop_reg`] and [`FdtWriter::prop_room`] tell, so nothing of the writer is in EL2. Domains built later get their trees
//! from the manager. No memory reservations. Property names must be in [`NAMES`], which is the strings block: that keeps the writer to
//! one pass. A write that does not fit makes [`FdtWriter::finish`] fail; those before it need no check.
//! (Devicetree Specification v0.4, "Flattened Devicetree (DTB) Format")

const MAGIC: u32 = 0xd00d_feed;
const VERSION: u32 = 17;
const LAST_COMPATIBLE: u32 = 16;
const HEADER_BYTES: usize = 40;
/// An empty memory reservation block.
const RESERVATION_BYTES: usize = 16;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// The strings block: all property names that can be written.
const NAMES: &[u8] = b"#address-cells\0#size-cells\0compatible\0device_type\0reg\0bootargs\0rng-seed\0\
linux,initrd-start\0linux,initrd-end\0stdout-path\0method\0enable-method\0interrupts\0interrupt-parent\0\
interrupt-controller\0#interrupt-cells\0phandle\0clock-frequency\0portico,name\0ranges\0status\0";

/// The tree did not fit the buffer, a name was unknown, or nodes were not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdtError;

/// A tree being written.
pub struct FdtWriter<'a> {
    buffer: &'a mut [u8],
    at: usize,
    depth: u32,
    failed: bool,
}

impl<'a> FdtWriter<'a> {
    /// Begins a tree. Begin the root node next, with an empty name.
    pub const fn new(buffer: &'a mut [u8]) -> Self {
        let mut writer = Self { buffer, at: HEADER_BYTES, depth: 0, failed: false };
        writer.bytes(&[0; RESERVATION_BYTES]);
        writer
    }

    /// Begins a node inside the current one.
    pub const fn begin_node(&mut self, name: &str) {
        self.cell(BEGIN_NODE);
        self.string(name);
        self.depth += 1;
    }

    /// Ends the current node.
    pub const fn end_node(&mut self) {
        self.cell(END_NODE);
        self.failed |= self.depth == 0;
        self.depth = self.depth.saturating_sub(1);
    }

    /// Writes a property of one cell.
    pub const fn prop_u32(&mut self, name: &str, value: u32) {
        self.prop_bytes(name, &value.to_be_bytes());
    }

    /// Writes a `reg` with one range, of two address and two size cells. Returns the offset of its value.
    pub const fn prop_reg(&mut self, address: u64, size_bytes: u64) -> usize {
        self.head("reg", 16);
        self.bytes(&address.to_be_bytes());
        self.bytes(&size_bytes.to_be_bytes());
        self.at - 16
    }

    /// Writes a string property.
    pub const fn prop_str(&mut self, name: &str, value: &str) {
        self.head(name, value.len() + 1);
        self.string(value);
    }

    /// Writes a property of raw bytes.
    pub const fn prop_bytes(&mut self, name: &str, value: &[u8]) {
        self.head(name, value.len());
        self.bytes(value);
        self.align();
    }

    /// Writes an empty property with room behind it for a value of up to `room` bytes. Returns the offset of that: whoever fills it
    /// writes the value there, and its length as a cell 8 bytes before.
    pub const fn prop_room(&mut self, name: &str, room: usize) -> usize {
        self.head(name, 0);
        let offset = self.at;
        while self.at < offset + room {
            self.cell(NOP);
        }
        offset
    }

    /// Ends the tree and returns its length in bytes.
    ///
    /// # Errors
    /// [`FdtError`] if anything before failed.
    pub const fn finish(mut self) -> Result<usize, FdtError> {
        self.cell(END);
        let structure = HEADER_BYTES + RESERVATION_BYTES;
        let strings = self.at;
        self.bytes(NAMES);
        self.align();
        let total = self.at;
        self.at = 0;
        self.cell(MAGIC);
        self.cell(total as u32);
        self.cell(structure as u32);
        self.cell(strings as u32);
        self.cell(HEADER_BYTES as u32);
        self.cell(VERSION);
        self.cell(LAST_COMPATIBLE);
        self.cell(0);
        self.cell(NAMES.len() as u32);
        self.cell((strings - structure) as u32);
        if self.failed || self.depth != 0 || total > u32::MAX as usize { Err(FdtError) } else { Ok(total) }
    }

    const fn head(&mut self, name: &str, len_bytes: usize) {
        self.cell(PROP);
        self.cell(len_bytes as u32);
        match name_offset(name.as_bytes()) {
            Some(offset) => self.cell(offset),
            None => self.failed = true,
        }
    }

    const fn string(&mut self, value: &str) {
        self.bytes(value.as_bytes());
        self.bytes(&[0]);
        self.align();
    }

    const fn cell(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    const fn align(&mut self) {
        while !self.at.is_multiple_of(4) {
            self.bytes(&[0]);
        }
    }

    const fn bytes(&mut self, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            if self.at < self.buffer.len() {
                self.buffer[self.at] = bytes[done];
            } else {
                self.failed = true;
            }
            self.at += 1;
            done += 1;
        }
    }
}

/// Where a name stands in [`NAMES`].
const fn name_offset(name: &[u8]) -> Option<u32> {
    let mut offset = 0;
    while offset < NAMES.len() {
        let mut len = 0;
        let mut same = true;
        while NAMES[offset + len] != 0 {
            same &= len < name.len() && NAMES[offset + len] == name[len];
            len += 1;
        }
        if same && len == name.len() {
            return Some(offset as u32);
        }
        offset += len + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{FdtError, FdtWriter};
    use proptest::prelude::*;

    fn sample(buffer: &mut [u8]) -> Result<usize, FdtError> {
        let mut fdt = FdtWriter::new(buffer);
        fdt.begin_node("");
        fdt.prop_u32("#address-cells", 2);
        fdt.prop_u32("#size-cells", 2);
        fdt.begin_node("memory@40000000");
        fdt.prop_str("device_type", "memory");
        fdt.prop_reg(0x4000_0000, 0x100_0000);
        fdt.end_node();
        fdt.begin_node("chosen");
        fdt.prop_bytes("rng-seed", &[1, 2, 3, 4, 5]);
        fdt.prop_room("bootargs", 8);
        fdt.end_node();
        fdt.end_node();
        fdt.finish()
    }

    fn word(blob: &[u8], offset: usize) -> usize {
        u32::from_be_bytes(blob[offset..offset + 4].try_into().unwrap()) as usize
    }

    /// A reader of its own: node and property names with the lengths of the values.
    fn outline(blob: &[u8]) -> Vec<(String, usize)> {
        let text = |at: usize| String::from_utf8(blob[at..].split(|b| *b == 0).next().unwrap().to_vec()).unwrap();
        let (mut at, strings, mut found) = (word(blob, 8), word(blob, 12), vec![]);
        assert_eq!(at + word(blob, 36), strings);
        loop {
            let token = word(blob, at);
            at += 4;
            match token {
                1 => {
                    let name = text(at);
                    at = (at + name.len() + 1).next_multiple_of(4);
                    found.push((name, 0));
                }
                2 => found.push(("}".into(), 0)),
                3 => {
                    let len = word(blob, at);
                    found.push((text(strings + word(blob, at + 4)), len));
                    at = (at + 8 + len).next_multiple_of(4);
                }
                4 => found.push(("room".into(), 0)),
                9 => break,
                other => panic!("token {other}"),
            }
        }
        assert_eq!(at, strings);
        found
    }

    #[test]
    fn written_tree_reads_back() {
        let mut buffer = [0xaa; 2048];
        let len = sample(&mut buffer).unwrap();
        assert_eq!(word(&buffer, 0), 0xd00d_feed);
        assert_eq!(word(&buffer, 4), len);
        assert!(buffer[40..56].iter().all(|byte| *byte == 0));
        let names: Vec<(String, usize)> = outline(&buffer);
        let want = [
            ("", 0),
            ("#address-cells", 4),
            ("#size-cells", 4),
            ("memory@40000000", 0),
            ("device_type", 7),
            ("reg", 16),
            ("}", 0),
            ("chosen", 0),
            ("rng-seed", 5),
            ("bootargs", 0),
            ("room", 0),
            ("room", 0),
            ("}", 0),
            ("}", 0),
        ];
        assert_eq!(names, want.map(|(name, len)| (name.to_string(), len)));
    }

    #[test]
    fn mistakes_fail_at_the_end() {
        let mut buffer = [0; 2048];
        let mut fdt = FdtWriter::new(&mut buffer);
        fdt.begin_node("");
        assert_eq!(fdt.finish(), Err(FdtError));
        let mut fdt = FdtWriter::new(&mut buffer);
        fdt.begin_node("");
        fdt.prop_u32("no-such-name", 0);
        fdt.end_node();
        assert_eq!(fdt.finish(), Err(FdtError));
        let mut fdt = FdtWriter::new(&mut buffer);
        fdt.end_node();
        fdt.begin_node("");
        assert_eq!(fdt.finish(), Err(FdtError));
    }

    proptest! {
        #[test]
        fn a_short_buffer_is_an_error(len in 0usize..1200) {
            let mut exact = [0; 2048];
            let need = sample(&mut exact).unwrap();
            prop_assert_eq!(sample(&mut vec![0; len]).is_ok(), len >= need);
        }
    }
}
