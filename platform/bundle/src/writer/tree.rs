//! The manager's device tree: the boot contract of every guest, and where the bundle is.

use alloc::format;
use alloc::vec::Vec;
use dtoolkit::ToPropertyValue;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use portico_abi::dt;
use portico_core::bundle;

/// Makes it for so much memory, and a bundle of so many bytes. Its size does not depend on them.
pub fn manager(memory_bytes: u64, bundle_bytes: u64) -> Vec<u8> {
    let reg = |ipa: u64, bytes: u64| property("reg", [ipa.to_be_bytes(), bytes.to_be_bytes()].as_flattened());
    let cpu = [
        property("device_type", "cpu"),
        property("compatible", "arm,armv8"),
        property("enable-method", "psci"),
        property("reg", 0u32),
    ];
    let cpus = [property("#address-cells", 1u32), property("#size-cells", 0u32)];
    let memory = [property("device_type", "memory"), reg(dt::RAM_BASE, memory_bytes)];
    let hypervisor = [property("compatible", dt::HYPERVISOR), property(dt::NAME, "manager")];
    let properties =
        [property("#address-cells", 2u32), property("#size-cells", 2u32), property("compatible", dt::MACHINE)];
    let children = [
        node(&format!("memory@{:x}", dt::RAM_BASE), memory, []),
        node("cpus", cpus, [node("cpu@0", cpu, [])]),
        node("psci", [property("compatible", "arm,psci-1.0"), property("method", "hvc")], []),
        node("hypervisor", hypervisor, [node(dt::BUNDLE_NODE, [reg(bundle::IPA, bundle_bytes)], [])]),
    ];
    let mut tree = DeviceTree::new();
    tree.root = node("", properties, children);
    tree.to_dtb()
}

/// Makes a node, whole.
pub fn node<const P: usize, const C: usize>(
    name: &str,
    properties: [DeviceTreeProperty; P],
    children: [DeviceTreeNode; C],
) -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new_unchecked(name);
    properties.into_iter().for_each(|property| node.add_property(property));
    children.into_iter().for_each(|child| node.add_child(child));
    node
}

/// Makes a property.
pub fn property<T: ToPropertyValue>(name: &str, value: T) -> DeviceTreeProperty {
    DeviceTreeProperty::new_unchecked(name, value)
}
