//! The device tree of a guest.
//!
//! It has what every arm64 kernel looks for (memory, processors, PSCI, timer, boot arguments, RAM disk) and the
//! hypervisor node of [`portico_abi::dt`]. It names nothing of the machine.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use dtoolkit::ToPropertyValue;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use portico_abi::dt;
use portico_abi::port::BIT_TIMER;

/// Names the hypervisor node as an interrupt controller within the tree.
const PHANDLE: u32 = 1;
/// Phandle of the idle state.
const STANDBY: u32 = 2;
/// Third cell of an interrupt: "level-triggered, active high".
const LEVEL_HIGH: u32 = 4;

/// A window and a port by which a guest reaches a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// IPA of the window in the guest.
    pub ipa: u64,
    /// Size of the window in bytes.
    pub size: u64,
    /// Raw handle of the port in the guest's table.
    pub port: u32,
    /// Side of the guest, 0 or 1.
    pub side: u32,
}

/// A channel to another guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelNode<'a> {
    /// Name of the channel.
    pub name: &'a str,
    /// Name of the guest at the other end.
    pub peer: &'a str,
    /// Cookie of its ports.
    pub cookie: u64,
    /// How to reach it.
    pub link: Link,
}

/// A property of a device's node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing: that it is there says all.
    Empty,
    /// 32 bits.
    Word(u32),
    /// 64 bits.
    Long(u64),
    /// Text.
    Text(String),
    /// Bytes as they are.
    Bytes(Vec<u8>),
}

/// A device: a disk's queue, an interface, a device of the machine, memory for devices, the control page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceNode {
    /// Name of the node without its number: `block`.
    pub node: &'static str,
    /// Its `compatible`.
    pub compatible: &'static str,
    /// IPA of its window or registers.
    pub ipa: u64,
    /// Size of that in bytes.
    pub size: u64,
    /// What else is said of it.
    pub properties: Vec<(&'static str, Value)>,
}

/// Everything that a guest is told.
#[derive(Clone, Debug)]
pub struct Description<'a> {
    /// Name of the guest.
    pub name: &'a str,
    /// Boot arguments.
    pub cmdline: &'a str,
    /// IPA and size of its RAM in bytes.
    pub memory: (u64, u64),
    /// MPIDR affinity of each vCPU.
    pub mpidrs: &'a [u64],
    /// First and last-plus-one IPA of the RAM disk.
    pub ramdisk: Option<(u64, u64)>,
    /// Random bytes for its generator.
    pub rng_seed: Option<[u8; 32]>,
    /// Its console.
    pub console: Option<Link>,
    /// Its channels.
    pub channels: Vec<ChannelNode<'a>>,
    /// Its devices.
    pub devices: Vec<DeviceNode>,
}

/// MPIDR affinity of vCPU `index`: sixteen to a cluster, as interrupt controllers and kernels like it.
pub fn mpidr(index: u64) -> u64 {
    ((index / 16) << 8) | (index % 16)
}

/// Builds the flattened device tree.
pub fn build(guest: &Description<'_>) -> Vec<u8> {
    let mut tree = DeviceTree::new();
    let root = &mut tree.root;
    root.add_property(property("#address-cells", 2u32));
    root.add_property(property("#size-cells", 2u32));
    root.add_property(property("compatible", dt::MACHINE));
    root.add_property(property("model", "Portico guest"));
    root.add_property(property("interrupt-parent", PHANDLE));
    root.add_child(chosen(guest));
    let (base, bytes) = guest.memory;
    let mut memory = node(format!("memory@{base:x}"));
    memory.add_property(property("device_type", "memory"));
    memory.add_property(reg(base, bytes));
    root.add_child(memory);
    root.add_child(cpus(guest.mpidrs));
    let mut psci = node("psci");
    psci.add_property(property("compatible", &b"arm,psci-1.0\0arm,psci-0.2\0"[..]));
    psci.add_property(property("method", "hvc"));
    root.add_child(psci);
    let mut timer = node("timer");
    timer.add_property(property("compatible", "arm,armv8-timer"));
    timer.add_property(property("always-on", &b""[..]));
    timer.add_property(property("interrupt-names", "virt"));
    timer.add_property(cells("interrupts", [dt::interrupt::PERCPU, BIT_TIMER as u32, LEVEL_HIGH]));
    root.add_child(timer);
    root.add_child(hypervisor(guest));
    tree.to_dtb()
}

fn chosen(guest: &Description<'_>) -> DeviceTreeNode {
    let mut chosen = node("chosen");
    chosen.add_property(property("bootargs", guest.cmdline));
    if let Some((start, end)) = guest.ramdisk {
        chosen.add_property(property("linux,initrd-start", start));
        chosen.add_property(property("linux,initrd-end", end));
    }
    if let Some(seed) = guest.rng_seed {
        chosen.add_property(property("rng-seed", &seed[..]));
    }
    chosen
}

fn cpus(mpidrs: &[u64]) -> DeviceTreeNode {
    let mut cpus = node("cpus");
    cpus.add_property(property("#address-cells", 1u32));
    cpus.add_property(property("#size-cells", 0u32));
    for &mpidr in mpidrs {
        let mut cpu = node(format!("cpu@{mpidr:x}"));
        cpu.add_property(property("device_type", "cpu"));
        cpu.add_property(property("compatible", "arm,armv8"));
        cpu.add_property(property("reg", (mpidr & 0xff_ffff) as u32));
        cpu.add_property(property("enable-method", "psci"));
        cpu.add_property(property("cpu-idle-states", STANDBY));
        cpus.add_child(cpu);
    }
    cpus.add_child(idle_states());
    cpus
}

/// Standby by PSCI, which is WFI by a call. A kernel that has a choice of idle states guesses how long it will sleep, and stops its tick for long
/// sleeps only; without one it does so for each, which costs more than the sleep. (Devicetree, bindings/cpu/idle-states.yaml)
fn idle_states() -> DeviceTreeNode {
    let mut standby = node("standby");
    standby.add_property(property("compatible", "arm,idle-state"));
    standby.add_property(property("arm,psci-suspend-param", 0u32));
    standby.add_property(property("entry-latency-us", 1u32));
    standby.add_property(property("exit-latency-us", 1u32));
    standby.add_property(property("min-residency-us", 5000u32));
    standby.add_property(property("phandle", STANDBY));
    let mut states = node("idle-states");
    states.add_property(property("entry-method", "psci"));
    states.add_child(standby);
    states
}

fn hypervisor(guest: &Description<'_>) -> DeviceTreeNode {
    let mut hypervisor = node("hypervisor");
    hypervisor.add_property(property("compatible", dt::HYPERVISOR));
    hypervisor.add_property(property("#address-cells", 2u32));
    hypervisor.add_property(property("#size-cells", 2u32));
    hypervisor.add_property(property("ranges", &b""[..]));
    hypervisor.add_property(property("interrupt-controller", &b""[..]));
    hypervisor.add_property(property("#interrupt-cells", 3u32));
    hypervisor.add_property(property("phandle", PHANDLE));
    hypervisor.add_property(property(dt::NAME, guest.name));
    if let Some(link) = guest.console {
        let mut console = node(format!("console@{:x}", link.ipa));
        console.add_property(property("compatible", dt::CONSOLE));
        add_link(&mut console, link);
        hypervisor.add_child(console);
    }
    for channel in &guest.channels {
        let mut child = node(format!("channel@{:x}", channel.link.ipa));
        child.add_property(property("compatible", dt::CHANNEL));
        child.add_property(property(dt::NAME, channel.name));
        child.add_property(property(dt::PEER, channel.peer));
        child.add_property(property(dt::COOKIE, channel.cookie));
        add_link(&mut child, channel.link);
        hypervisor.add_child(child);
    }
    for device in &guest.devices {
        let mut child = node(format!("{}@{:x}", device.node, device.ipa));
        child.add_property(property("compatible", device.compatible));
        child.add_property(reg(device.ipa, device.size));
        for (name, value) in &device.properties {
            child.add_property(match value {
                Value::Empty => property(name, &b""[..]),
                Value::Word(word) => property(name, *word),
                Value::Long(long) => property(name, *long),
                Value::Text(text) => property(name, text.as_str()),
                Value::Bytes(bytes) => property(name, bytes.as_slice()),
            });
        }
        hypervisor.add_child(child);
    }
    hypervisor
}

fn add_link(node: &mut DeviceTreeNode, link: Link) {
    node.add_property(reg(link.ipa, link.size));
    node.add_property(property(dt::PORT, link.port));
    node.add_property(property(dt::SIDE, link.side));
}

/// A property of three cells.
fn cells(name: &str, values: [u32; 3]) -> DeviceTreeProperty {
    let mut bytes = [0u8; 12];
    for (to, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
        *to = value.to_be_bytes();
    }
    property(name, &bytes[..])
}

fn reg(base: u64, bytes: u64) -> DeviceTreeProperty {
    let mut value = [0u8; 16];
    let (low, high) = value.split_at_mut(8);
    low.copy_from_slice(&base.to_be_bytes());
    high.copy_from_slice(&bytes.to_be_bytes());
    property("reg", &value[..])
}

/// Names here are constants or made of hexadecimal digits, so they need no check.
fn node(name: impl Into<String>) -> DeviceTreeNode {
    DeviceTreeNode::new_unchecked(name)
}

fn property<T: ToPropertyValue>(name: &str, value: T) -> DeviceTreeProperty {
    DeviceTreeProperty::new_unchecked(name, value)
}

#[cfg(test)]
mod tests {
    use super::{ChannelNode, Description, DeviceNode, Link, Value, build, mpidr};
    use dtoolkit::fdt::Fdt;
    use dtoolkit::{Node, Property};

    fn example() -> alloc::vec::Vec<u8> {
        let link = Link { ipa: 0x900_0000, size: 0x5000, port: 0x0001_0003, side: 1 };
        build(&Description {
            name: "web",
            cmdline: "quiet x=1",
            memory: (0x4000_0000, 64 << 20),
            mpidrs: &[0, 1],
            ramdisk: Some((0x4300_0000, 0x4300_1000)),
            rng_seed: Some([9; 32]),
            console: Some(link),
            channels: [ChannelNode { name: "link", peer: "db", cookie: 7, link }].into(),
            devices: [DeviceNode {
                node: "block",
                compatible: portico_abi::dt::BLOCK,
                ipa: 0x910_0000,
                size: 0x42000,
                properties: [
                    (portico_abi::dt::NAME, Value::Text("root".into())),
                    (portico_abi::dt::QUEUE, Value::Word(0)),
                    (portico_abi::dt::COOKIE, Value::Long(5)),
                ]
                .into(),
            }]
            .into(),
        })
    }

    #[test]
    fn a_parser_finds_everything_again() {
        let blob = example();
        assert!(blob.len() as u64 <= crate::loader::DTB_BYTES);
        let fdt = Fdt::new(&blob).expect("valid");
        let value = |path: &str, name: &str| {
            let node = fdt.find_node(path).expect(path);
            node.property(name).expect(name).value().to_vec()
        };
        assert_eq!(value("/chosen", "bootargs"), b"quiet x=1\0");
        assert_eq!(value("/chosen", "linux,initrd-start"), 0x4300_0000u64.to_be_bytes());
        assert_eq!(value("/hypervisor/channel@9000000", "portico,peer"), b"db\0");
        assert_eq!(value("/hypervisor/console@9000000", "portico,port"), [0, 1, 0, 3]);
        assert_eq!(value("/hypervisor/block@9100000", "portico,name"), b"root\0");
        assert_eq!(value("/hypervisor/block@9100000", "reg")[..8], 0x910_0000u64.to_be_bytes());
        assert_eq!(value("/hypervisor/block@9100000", "portico,cookie"), 5u64.to_be_bytes());
        assert_eq!(value("/cpus/cpu@1", "enable-method"), b"psci\0");
        assert_eq!(value("/cpus/cpu@1", "cpu-idle-states"), value("/cpus/idle-states/standby", "phandle"));
        assert_eq!(value("/memory@40000000", "reg")[..8], 0x4000_0000u64.to_be_bytes());
        assert_eq!(value("/psci", "method"), b"hvc\0");
        assert_eq!(value("/hypervisor", "phandle"), value("/", "interrupt-parent"));
        assert_eq!(value("/timer", "interrupts"), [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 4]);
    }

    #[test]
    fn sixteen_vcpus_make_a_cluster() {
        assert_eq!([mpidr(0), mpidr(15), mpidr(16), mpidr(47)], [0, 15, 0x100, 0x20f]);
    }
}
