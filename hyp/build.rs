//! Passes the linker script, on the bare-metal target only, and makes the manager's device tree: the boot contract of every guest, and where the
//! bundle and the machine's own tree are. What boot finds out is filled into places of which the generated `TREE` tells the offsets.

use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node, Property, ToPropertyValue};
use portico_abi::dt;
use std::error::Error;
use std::{env, fs};

/// Bytes of boot arguments, with a NUL, that fit the tree.
const ARGUMENTS_BYTES: usize = 2048;
/// What a device tree's reader skips: the room behind short arguments.
const NOP: u32 = 4;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=hyp.ld");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let folder = env::var("CARGO_MANIFEST_DIR")?;
        println!("cargo:rustc-link-arg-bins=-T{folder}/hyp.ld");
        println!("cargo:rustc-link-arg-bins=-no-pie");
        println!("cargo:rustc-link-arg-bins=-zmax-page-size=4096");
    }
    let memory = format!("memory@{:x}", dt::RAM_BASE);
    let tree = tree(&memory);
    let offset = |path: &str, name| -> Result<usize, Box<dyn Error>> {
        let fdt = Fdt::new(&tree)?;
        let node = fdt.find_node(path).ok_or("no such node")?;
        let property = node.property(name).ok_or("no such property")?;
        Ok(property.value().as_ptr() as usize - tree.as_ptr() as usize)
    };
    let generated = format!(
        "static TREE: Tree = Tree {{ bytes: &{tree:?}, arguments_bytes: {ARGUMENTS_BYTES}, arguments: {}, memory: {}, bundle: {}, machine: {} }};",
        offset("/chosen", "bootargs")?,
        offset(&format!("/{memory}"), "reg")?,
        offset(&format!("/hypervisor/{}", dt::BUNDLE_NODE), "reg")?,
        offset(&format!("/hypervisor/{}", dt::MACHINE_DTB_NODE), "reg")?,
    );
    Ok(fs::write(format!("{}/manager_tree.rs", env::var("OUT_DIR")?), generated)?)
}

fn tree(memory: &str) -> Vec<u8> {
    let reg = || property("reg", [0u32; 4]);
    let cpu = [
        property("device_type", "cpu"),
        property("compatible", "arm,armv8"),
        property("enable-method", "psci"),
        property("reg", 0u32),
    ];
    let cpus = [property("#address-cells", 1u32), property("#size-cells", 0u32)];
    let hypervisor = [property("compatible", dt::HYPERVISOR), property(dt::NAME, "manager")];
    let properties =
        [property("#address-cells", 2u32), property("#size-cells", 2u32), property("compatible", dt::MACHINE)];
    let children = [
        node("chosen", [property("bootargs", [NOP; ARGUMENTS_BYTES / 4])], []),
        node(memory, [property("device_type", "memory"), reg()], []),
        node("cpus", cpus, [node("cpu@0", cpu, [])]),
        node("psci", [property("compatible", "arm,psci-1.0"), property("method", "hvc")], []),
        node("hypervisor", hypervisor, [dt::BUNDLE_NODE, dt::MACHINE_DTB_NODE].map(|name| node(name, [reg()], []))),
    ];
    let mut tree = DeviceTree::new();
    tree.root = node("", properties, children);
    tree.to_dtb()
}

fn node<const P: usize, const C: usize>(
    name: &str,
    properties: [DeviceTreeProperty; P],
    children: [DeviceTreeNode; C],
) -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new_unchecked(name);
    properties.into_iter().for_each(|property| node.add_property(property));
    children.into_iter().for_each(|child| node.add_child(child));
    node
}

fn property<T: ToPropertyValue>(name: &str, value: T) -> DeviceTreeProperty {
    DeviceTreeProperty::new_unchecked(name, value)
}
