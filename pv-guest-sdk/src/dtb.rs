//! The device tree that the guest got in x0.
//!
//! Hides the parser. The tree comes from the manager, on which the guest depends anyway, but a damaged one is still only
//! ever an absent value here.

use crate::hvc;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use fdt::Fdt;
use fdt::helpers::UnalignedFallibleNode;
use fdt::parsing::NoPanic;
use fdt::parsing::unaligned::UnalignedParser;
use portico_abi::call::info;
use portico_abi::{Handle, dt};

type Tree = Fdt<'static, (UnalignedParser<'static>, NoPanic)>;
type Node = UnalignedFallibleNode<'static>;

static BLOB: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
static BLOB_LEN: AtomicUsize = AtomicUsize::new(0);

/// Bytes of the header; the offsets and sizes in it are checked here, since the parser adds them unchecked.
const HEADER_BYTES: usize = 40;
/// Largest tree that is accepted, in bytes.
const MAX_BYTES: usize = 2 << 20;

/// A range of guest-physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// IPA of the first byte.
    pub base: u64,
    /// Bytes.
    pub len: u64,
}

/// A channel as the tree describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelNode {
    /// Name of the channel; empty for the console.
    pub name: &'static str,
    /// Name of the domain at the other end; empty if not told.
    pub peer: &'static str,
    /// The window.
    pub window: Range,
    /// The port, in the caller's table.
    pub port: Handle,
    /// Cookie of all ports of this channel, in the caller's table; 0 if not told.
    pub cookie: u64,
    /// Which side the caller is, 0 or 1.
    pub side: u32,
}

/// Remembers where the tree is, if it looks like one.
///
/// # Safety
/// `blob` must be null or point to a device tree that stays, and is not changed, for ever.
pub unsafe fn init(blob: *const u8) {
    if blob.is_null() {
        return;
    }
    // SAFETY: a tree has at least its header.
    let header = unsafe { core::slice::from_raw_parts(blob, HEADER_BYTES) };
    let Some(len) = checked_len(header) else { return };
    BLOB.store(blob.cast_mut(), Ordering::Relaxed);
    BLOB_LEN.store(len, Ordering::Release);
}

/// Length of the tree if its header is sound.
fn checked_len(header: &[u8]) -> Option<usize> {
    let word = |index: usize| -> Option<usize> {
        let bytes = header.get(index * 4..index * 4 + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?) as usize)
    };
    let total = word(1)?;
    let inside = |offset: usize, size: usize| offset.checked_add(size).is_some_and(|end| end <= total);
    (word(0)? == 0xd00d_feed
        && (HEADER_BYTES..=MAX_BYTES).contains(&total)
        && inside(word(2)?, word(9)?)
        && inside(word(3)?, word(8)?))
    .then_some(total)
}

/// The tree's bytes; empty if there is none.
pub fn bytes() -> &'static [u8] {
    let len = BLOB_LEN.load(Ordering::Acquire);
    if len == 0 {
        return &[];
    }
    // SAFETY: `init` checked the length, and its caller promised that the tree stays.
    unsafe { core::slice::from_raw_parts(BLOB.load(Ordering::Relaxed), len) }
}

fn tree() -> Option<Tree> {
    let bytes = bytes();
    if bytes.is_empty() { None } else { Tree::new_unaligned_fallible(bytes).ok() }
}

fn node(path: &str) -> Option<Node> {
    let tree = tree()?;
    tree.find_node(path).ok().flatten()
}

fn property(node: &Node, name: &str) -> Option<&'static [u8]> {
    node.raw_property(name).ok().flatten().map(|property| property.value)
}

fn text(node: &Node, name: &str) -> Option<&'static str> {
    let raw = property(node, name)?;
    core::str::from_utf8(raw.strip_suffix(&[0]).unwrap_or(raw)).ok()
}

/// A number of 4 or 8 bytes.
fn number(raw: &[u8]) -> Option<u64> {
    match raw.len() {
        4 => Some(u64::from(u32::from_be_bytes(raw.try_into().ok()?))),
        8 => Some(u64::from_be_bytes(raw.try_into().ok()?)),
        _ => None,
    }
}

/// The ranges of a `reg` with 2 address and 2 size cells.
fn ranges(node: &Node) -> impl Iterator<Item = Range> + use<> {
    let raw = property(node, "reg").unwrap_or(&[]);
    raw.chunks_exact(16).filter_map(|entry| {
        let (base, len) = entry.split_at_checked(8)?;
        let (base, len) = (number(base)?, number(len)?);
        base.checked_add(len)?;
        Some(Range { base, len })
    })
}

/// Random bytes for this life of the domain; `None` where the machine has no entropy. Others of the domain can read them as well.
pub fn rng_seed() -> Option<&'static [u8]> {
    property(&node("/chosen")?, "rng-seed")
}

/// The ranges of RAM.
pub fn memory() -> impl Iterator<Item = Range> {
    children("/").filter(|(name, _)| *name == "memory").flat_map(|(_, node)| ranges(&node))
}

/// Children of a node, with their names without unit address. Stops at the first that is damaged.
fn children(path: &str) -> impl Iterator<Item = (&'static str, Node)> {
    node(path)
        .and_then(|node| node.children().ok())
        .map(|children| children.iter())
        .into_iter()
        .flatten()
        .map_while(Result::ok)
        .filter_map(|child| Some((child.name().ok()?.name, child)))
}

/// The boot arguments; in the first domain, whose tree has none, those of the machine.
pub fn bootargs() -> &'static str {
    let of = |tree: Tree| text(&tree.find_node("/chosen").ok()??, "bootargs");
    let machines = || of(Tree::new_unaligned_fallible(machine()?).ok()?);
    tree().and_then(of).or_else(machines).unwrap_or("")
}

/// The value of `key=value` in the boot arguments; empty for a bare `key`.
pub fn bootarg(key: &str) -> Option<&'static str> {
    bootargs().split_ascii_whitespace().find_map(|word| match word.split_once('=') {
        Some((name, value)) if name == key => Some(value),
        None if word == key => Some(""),
        _ => None,
    })
}

/// The RAM disk, if there is one.
pub fn initrd() -> Option<Range> {
    let chosen = node("/chosen")?;
    let base = number(property(&chosen, "linux,initrd-start")?)?;
    let end = number(property(&chosen, "linux,initrd-end")?)?;
    Some(Range { base, len: end.checked_sub(base)? })
}

/// Name of the domain.
pub fn name() -> &'static str {
    node(dt::HYPERVISOR_PATH).and_then(|node| text(&node, dt::NAME)).unwrap_or("")
}

/// Affinities (MPIDR) of the vCPUs, in the order of their nodes.
pub fn cpus() -> impl Iterator<Item = u64> {
    children("/cpus").filter(|(name, _)| *name == "cpu").filter_map(|(_, node)| number(property(&node, "reg")?))
}

fn channel_of(node: &Node) -> Option<ChannelNode> {
    Some(ChannelNode {
        name: text(node, dt::NAME).unwrap_or(""),
        peer: text(node, dt::PEER).unwrap_or(""),
        window: ranges(node).next()?,
        port: Handle::from_raw(number(property(node, dt::PORT)?)? as u32),
        cookie: property(node, dt::COOKIE).and_then(number).unwrap_or(0),
        side: number(property(node, dt::SIDE)?)? as u32,
    })
}

/// A device as the tree describes it: a disk's queue, or a network interface.
#[derive(Clone, Copy, Debug)]
pub struct DeviceNode {
    /// Name of the device, unique among those of the guest; the queues of a disk share it.
    pub name: &'static str,
    /// Name of the domain at the other end; empty if not told.
    pub peer: &'static str,
    /// The window.
    pub window: Range,
    /// Cookie of the port: by it each life of the other side is found.
    pub cookie: u64,
    /// Which side the caller is: [`portico_abi::device::BACK`] or [`portico_abi::device::FRONT`].
    pub side: u32,
    node: Node,
}

impl DeviceNode {
    /// A property that is a number of 4 or 8 bytes.
    pub fn number(&self, name: &str) -> Option<u64> {
        property(&self.node, name).and_then(number)
    }

    /// A property that is text.
    pub fn text(&self, name: &str) -> Option<&'static str> {
        text(&self.node, name)
    }

    /// The bytes of a property.
    pub fn bytes(&self, name: &str) -> Option<&'static [u8]> {
        property(&self.node, name)
    }
}

/// The children of `/hypervisor` that are `compatible`: devices, at either end.
pub fn devices(compatible: &str) -> impl Iterator<Item = DeviceNode> {
    children(dt::HYPERVISOR_PATH).filter(move |(_, node)| is(node, compatible)).filter_map(|(_, node)| {
        Some(DeviceNode {
            name: text(&node, dt::NAME).unwrap_or(""),
            peer: text(&node, dt::PEER).unwrap_or(""),
            window: ranges(&node).next()?,
            cookie: property(&node, dt::COOKIE).and_then(number).unwrap_or(0),
            side: property(&node, dt::SIDE).and_then(number).unwrap_or(0) as u32,
            node,
        })
    })
}

fn is(node: &Node, compatible: &str) -> bool {
    text(node, "compatible") == Some(compatible)
}

/// The console channel.
pub fn console() -> Option<ChannelNode> {
    children(dt::HYPERVISOR_PATH).find(|(_, node)| is(node, dt::CONSOLE)).and_then(|(_, node)| channel_of(&node))
}

/// The channels to other domains.
pub fn channels() -> impl Iterator<Item = ChannelNode> {
    children(dt::HYPERVISOR_PATH).filter(|(_, node)| is(node, dt::CHANNEL)).filter_map(|(_, node)| channel_of(&node))
}

/// The boot bundle: manager only.
pub fn bundle() -> Option<Range> {
    children(dt::HYPERVISOR_PATH).find(|(name, _)| *name == dt::BUNDLE_NODE).and_then(|(_, node)| ranges(&node).next())
}

/// The machine's own device tree: manager only.
pub fn machine() -> Option<&'static [u8]> {
    let ipa = hvc::self_info(info::MACHINE_TREE, 0).ok()?;
    let first = core::ptr::with_exposed_provenance(ipa as usize);
    // SAFETY: EL2 mapped it there, read-only and for good; a tree has at least its header.
    let header = unsafe { core::slice::from_raw_parts(first, HEADER_BYTES) };
    // SAFETY: as above, all of it.
    Some(unsafe { core::slice::from_raw_parts(first, checked_len(header)?) })
}
