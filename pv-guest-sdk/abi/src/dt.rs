//! Names in the device tree that every guest gets in x0.
//!
//! ```text
//! /hypervisor {
//!     compatible = "portico,portico-1";
//!     interrupt-controller; #interrupt-cells = <3>; ranges;
//!     portico,name = "web";
//!     console@IPA { compatible = "portico,console"; reg = <ipa size>; portico,port = <handle>; portico,side = <1>; };
//!     channel@IPA { compatible = "portico,channel"; portico,name = "link"; portico,peer = "db"; reg; portico,port; portico,cookie; portico,side; };
//!     block@IPA { compatible = "portico,block"; portico,name = "root"; portico,queue = <0>; portico,queues = <1>; reg; portico,port; portico,cookie; portico,side; };
//!     net@IPA { compatible = "portico,net"; portico,name = "net0"; reg; portico,port; portico,cookie; portico,side; };
//!     control { compatible = "portico,control"; reg; portico,port; portico,side; };   (services only)
//!     bundle { reg; };         (manager only)
//! };
//! ```
//! `reg` has 2 address and 2 size cells. An interrupt has three cells: [`interrupt::PERCPU`] and a bit of every vCPU, and its trigger (1 edge,
//! 4 level); the timer's is the only one in the tree, devices have ports. `/memory`, `/cpus`, `/psci` (method "hvc"), `/timer` and `/chosen`
//! (`bootargs`, `linux,initrd-*`, `rng-seed`) are as in every arm64 device tree.

/// `compatible` of the machine that a guest sees: of the tree's root.
pub const MACHINE: &str = "portico,guest";
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
/// `compatible` of a queue of a disk, at either end.
pub const BLOCK: &str = "portico,block";
/// `compatible` of a network interface, at either end.
pub const NET: &str = "portico,net";
/// `compatible` of the control channel between the manager and a service.
pub const CONTROL: &str = "portico,control";
/// `compatible` of the machine's console UART, in the console service.
pub const UART: &str = "portico,uart";
/// `compatible` of memory that a service may let a device reach.
pub const DMA: &str = "portico,dma";
/// Property: queues of the disk (32 bits).
pub const QUEUES: &str = "portico,queues";
/// Property: which queue of the disk this is (32 bits).
pub const QUEUE: &str = "portico,queue";
/// Property, services only: machine address (64 bits) of the window or memory, for devices.
pub const MACHINE_ADDRESS: &str = "portico,machine-address";
/// Property, services only: raw handle of the interrupt of a device of the machine.
pub const INTERRUPT: &str = "portico,interrupt";
/// Name of the node of the boot bundle.
pub const BUNDLE_NODE: &str = "bundle";
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

/// First cell of an interrupt.
pub mod interrupt {
    /// The second cell is a bit that is bound on every vCPU. Other first cells are reserved.
    pub const PERCPU: u32 = 1;
}

/// Properties of the nodes of services, at the back-ends' side: between the manager and its services, not for guests.
pub mod service {
    /// Text: name of the machine's disk behind a virtual one.
    pub const DISK: &str = "portico,disk";
    /// 64 bits: first byte of the range of that disk, if it is a range.
    pub const FIRST: &str = "portico,first";
    /// 64 bits: bytes of the range.
    pub const BYTES: &str = "portico,bytes";
    /// 32 bits: number of the partition, from 1, if it is one.
    pub const PARTITION: &str = "portico,partition";
    /// Text: name of the partition, if it is named so.
    pub const LABEL: &str = "portico,label";
    /// Empty: writes are refused.
    pub const READ_ONLY: &str = "portico,read-only";
    /// 32 bits: requests a second; absent for no limit.
    pub const IOPS: &str = "portico,iops";
    /// 64 bits: bytes a second; absent for no limit.
    pub const RATE: &str = "portico,rate";
    /// 32 bits: how much may exceed the rate at once: requests of a disk, bytes of an interface.
    pub const BURST: &str = "portico,burst";
    /// Text: programming interface of the UART, `pl011` or `ns16550`.
    pub const UART_KIND: &str = "portico,uart-kind";
    /// 32 bits: registers of a 16550 are so many powers of two apart.
    pub const REGISTER_SHIFT: &str = "portico,register-shift";
    /// Empty: registers of a 16550 take accesses of 32 bits.
    pub const REGISTER_WIDE: &str = "portico,register-wide";
    /// Text: name of the bridge of an interface.
    pub const BRIDGE: &str = "portico,bridge";
    /// 6 bytes: address of an interface.
    pub const MAC: &str = "portico,mac";
    /// 32 bits: largest payload of a frame on the bridge.
    pub const MTU: &str = "portico,mtu";
    /// Empty: the bridge of this interface has the uplink.
    pub const UPLINK: &str = "portico,uplink";
}
