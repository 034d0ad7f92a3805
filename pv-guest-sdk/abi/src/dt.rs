//! Names in the device tree that every guest gets in x0.
//!
//! ```text
//! /hypervisor {
//!     compatible = "portico,portico-1";
//!     portico,name = "web";
//!     console { compatible = "portico,console"; reg = <ipa size>; portico,port = <handle>; portico,side = <1>; };
//!     channel@N { compatible = "portico,channel"; portico,name = "link"; portico,peer = "db"; reg; portico,port; portico,cookie; portico,side; };
//!     bundle { reg; };         (manager only)
//!     machine-dtb { reg; };    (manager only)
//! };
//! ```
//! `reg` has 2 address and 2 size cells. `/memory`, `/cpus`, `/psci` (method "hvc"), `/timer` and `/chosen`
//! (`bootargs`, `linux,initrd-*`, `rng-seed`) are as in every arm64 device tree.

/// `compatible` of the hypervisor node.
pub const HYPERVISOR: &str = "portico,portico-1";
/// Path of the hypervisor node.
pub const HYPERVISOR_PATH: &str = "/hypervisor";
/// `compatible` of the console channel.
pub const CONSOLE: &str = "portico,console";
/// `compatible` of a channel between guests.
pub const CHANNEL: &str = "portico,channel";
/// Property: name of the domain or channel.
pub const NAME: &str = "portico,name";
/// Property: name of the domain at the other end of a channel.
pub const PEER: &str = "portico,peer";
/// Property: raw handle of the port of a channel, in the guest's table.
pub const PORT: &str = "portico,port";
/// Property: cookie (64 bits) of every port that the guest is given for a channel. After the peer was restarted its old port is
/// gone; the new one is the port in the guest's own table with this cookie whose peer is there.
pub const COOKIE: &str = "portico,cookie";
/// Property: side of a channel, 0 or 1.
pub const SIDE: &str = "portico,side";
/// Name of the node of the boot bundle.
pub const BUNDLE_NODE: &str = "bundle";
/// Name of the node of the machine's own device tree.
pub const MACHINE_DTB_NODE: &str = "machine-dtb";

/// IPA at which RAM begins in every domain.
pub const RAM_BASE: u64 = 0x4000_0000;
/// IPA of the first vCPU page; that of vCPU n is n pages above.
pub const VCPU_PAGES: u64 = 0x0800_0000;
/// IPA of the information page.
pub const INFO_PAGE: u64 = 0x0810_0000;
/// IPA of the GICv2 CPU interface, where there is one.
pub const GICV: u64 = 0x0820_0000;
/// IPA from which channel windows are placed.
pub const WINDOWS: u64 = 0x0900_0000;
