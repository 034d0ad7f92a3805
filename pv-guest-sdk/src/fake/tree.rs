//! Writes the device tree of the fake domain: a few nodes, in the flattened format.
//! (Devicetree Specification, "Flattened Devicetree (DTB) Format")

use crate::dtb::ChannelNode;
use portico_abi::dt;

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const END: u32 = 9;

#[derive(Default)]
struct Writer {
    structure: Vec<u8>,
    strings: Vec<u8>,
}

impl Writer {
    fn word(&mut self, word: u32) {
        self.structure.extend(word.to_be_bytes());
    }

    fn pad(&mut self) {
        self.structure.resize(self.structure.len().next_multiple_of(4), 0);
    }

    fn node(&mut self, name: &str, body: impl FnOnce(&mut Self)) {
        self.word(BEGIN_NODE);
        self.structure.extend(name.bytes().chain([0]));
        self.pad();
        body(self);
        self.word(END_NODE);
    }

    fn property(&mut self, name: &str, value: &[u8]) {
        self.word(PROPERTY);
        self.word(value.len() as u32);
        self.word(self.strings.len() as u32);
        self.strings.extend(name.bytes().chain([0]));
        self.structure.extend(value);
        self.pad();
    }

    fn number(&mut self, name: &str, value: u32) {
        self.property(name, &value.to_be_bytes());
    }

    fn text(&mut self, name: &str, value: &str) {
        self.property(name, &[value.as_bytes(), &[0]].concat());
    }

    fn reg(&mut self, base: u64, len: u64) {
        self.property("reg", &[base.to_be_bytes(), len.to_be_bytes()].concat());
    }

    fn channel(&mut self, node: &ChannelNode) {
        self.reg(node.window.base, node.window.len);
        self.number(dt::PORT, node.port.raw());
        self.number(dt::SIDE, node.side);
    }
}

/// Writes the tree; the first of `channels` is the console.
pub fn write(
    bootargs: &str,
    channels: &[ChannelNode],
    devices: &[(&'static str, ChannelNode)],
    no_console: bool,
) -> Vec<u8> {
    let mut tree = Writer::default();
    tree.node("", |tree| {
        tree.number("#address-cells", 2);
        tree.number("#size-cells", 2);
        tree.node("memory@40000000", |tree| {
            tree.text("device_type", "memory");
            tree.reg(dt::RAM_BASE, 64 << 20);
        });
        tree.node("cpus", |tree| {
            tree.number("#address-cells", 1);
            tree.number("#size-cells", 0);
            tree.node("cpu@0", |tree| tree.number("reg", 0));
        });
        tree.node("chosen", |tree| tree.text("bootargs", bootargs));
        tree.node("hypervisor", |tree| {
            tree.text("compatible", dt::HYPERVISOR);
            tree.text(dt::NAME, "test");
            for (number, node) in channels.iter().enumerate() {
                if number > 0 {
                    tree.node(&format!("channel@{number}"), |tree| {
                        tree.text("compatible", dt::CHANNEL);
                        tree.text(dt::NAME, node.name);
                        tree.text(dt::PEER, node.peer);
                        tree.channel(node);
                    });
                } else if !no_console {
                    tree.node("console", |tree| {
                        tree.text("compatible", dt::CONSOLE);
                        tree.channel(node);
                    });
                }
            }
            for (number, (compatible, node)) in devices.iter().enumerate() {
                tree.node(&format!("device@{number}"), |tree| {
                    tree.text("compatible", compatible);
                    tree.text(dt::NAME, node.name);
                    tree.channel(node);
                    tree.property(dt::COOKIE, &node.cookie.to_be_bytes());
                });
            }
        });
    });
    tree.word(END);
    assemble(&tree)
}

fn assemble(tree: &Writer) -> Vec<u8> {
    const HEADER: usize = 40;
    const RESERVED: usize = 16;
    let structure = HEADER + RESERVED;
    let strings = structure + tree.structure.len();
    let total = strings + tree.strings.len();
    let header = [0xd00d_feed, total, structure, strings, HEADER, 17, 16, 0, tree.strings.len(), tree.structure.len()];
    let mut blob: Vec<u8> = header.iter().flat_map(|&word| (word as u32).to_be_bytes()).collect();
    blob.extend([0; RESERVED]);
    blob.extend(&tree.structure);
    blob.extend(&tree.strings);
    blob
}
