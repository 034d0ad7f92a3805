//! What the hypervisor needs to know of its machine, read from the device tree.

use crate::list::List;
use crate::tree::{Node, Refusal, Tree, until};
use crate::uart::UartKind;

/// A range of physical addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

impl Range {
    /// The address behind the last, saturated.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }
}

/// A processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// Affinity fields of its `MPIDR_EL1`.
    pub mpidr: u64,
    /// Where it polls for its entry point, if it is started by a spin-table; else by PSCI.
    pub release_address: Option<u64>,
}

/// How PSCI is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Psci {
    /// The machine has none.
    #[default]
    None,
    /// By SMC: the firmware is below us.
    Smc,
    /// By HVC: we are a guest of somebody at EL2.
    Hvc,
}

/// The interrupt controller.
#[derive(Clone, Copy, Debug, Default)]
pub enum Gic {
    /// None that is supported. Never in what [`Machine::from_dtb`] returns.
    #[default]
    None,
    /// GICv2 with virtualization.
    V2 {
        /// Distributor.
        gicd: Range,
        /// CPU interface.
        gicc: Range,
        /// Virtual interface control.
        gich: Range,
        /// Virtual CPU interface, which guests get.
        gicv: Range,
    },
    /// GICv3 or later.
    V3 {
        /// Distributor.
        gicd: Range,
        /// Redistributor regions.
        gicr: List<Range, 4>,
    },
}

/// The console UART.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UartInfo {
    /// Its programming interface.
    pub kind: UartKind,
    /// Its registers.
    pub registers: Range,
    /// Its interrupt number at the GIC.
    pub interrupt: Option<u32>,
}

/// The machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine<'a> {
    /// Memory, as described.
    pub memory: List<Range, 16>,
    /// Memory that is not to be used: reservation block and `/reserved-memory`.
    pub reserved: List<Range, 32>,
    /// Processors, at most 16; further ones are left alone.
    pub cpus: List<Cpu, 16>,
    /// How PSCI is called.
    pub psci: Psci,
    /// Interrupt controller.
    pub gic: Gic,
    /// Console UART: what `portico.uart=` in the boot arguments names, else `stdout-path`, else the first.
    pub uart: Option<UartInfo>,
    /// The initial RAM disk: our bundle.
    pub bundle: Option<Range>,
    /// Boot arguments.
    pub bootargs: &'a [u8],
    /// Entropy from the boot loader.
    pub rng_seed: &'a [u8],
}

impl<'a> Machine<'a> {
    /// Reads the machine from its device tree.
    ///
    /// # Errors
    /// Why the machine cannot be used. One without UART is no error.
    pub fn from_dtb(dtb: &'a [u8]) -> Result<Self, Refusal> {
        let mut machine = Self::default();
        machine.read(dtb).map(|()| machine)
    }

    /// Reads the machine from its device tree into `self`, which is as [`Default`] makes it. In place since it is large
    /// for the stack at boot. Even if it fails, `uart` is what was found, so that somebody can be told.
    ///
    /// # Errors
    /// As [`from_dtb`](Self::from_dtb).
    pub fn read(&mut self, dtb: &'a [u8]) -> Result<(), Refusal> {
        let tree = Tree::new(dtb)?;
        let mut found =
            Found { machine: self, uarts: List::default(), aliases: List::default(), stdout: &[], overflow: false };
        for range in tree.reservations() {
            found.reserve(range);
        }
        let walked = tree.walk(&mut |node| found.visit(node));
        found.choose_console();
        walked.and_then(|()| found.check())
    }
}

/// What a walk has found so far.
struct Found<'m, 'a> {
    machine: &'m mut Machine<'a>,
    /// UARTs, with the hash of their path.
    uarts: List<(Option<UartInfo>, u64), 6>,
    /// Names and paths of the serial ports.
    aliases: List<(&'a [u8], &'a [u8]), 8>,
    stdout: &'a [u8],
    overflow: bool,
}

/// What reads the node of a device.
type Driver = for<'a> fn(&mut Found<'_, 'a>, &Node<'_, 'a>);

/// By `compatible`.
static DRIVERS: [(&[u8], Driver); 9] = [
    (b"arm,gic-v3", gic_v3),
    (b"arm,gic-400", gic_v2),
    (b"arm,cortex-a15-gic", gic_v2),
    (b"arm,cortex-a7-gic", gic_v2),
    (b"arm,pl011", pl011),
    (b"brcm,bcm2835-aux-uart", mini_uart),
    (b"ns16550a", ns16550),
    (b"ns16550", ns16550),
    (b"snps,dw-apb-uart", ns16550),
];

impl<'a> Found<'_, 'a> {
    fn reserve(&mut self, range: Range) {
        self.overflow |= range.len > 0 && !self.machine.reserved.push(range);
    }

    fn visit(&mut self, node: &Node<'_, 'a>) {
        match node.depth() {
            0 => {}
            1 => self.visit_top(node),
            2 if same(node.parent_name(), b"reserved-memory") => {
                if node.enabled() {
                    self.overflow |= !collect(&mut self.machine.reserved, node);
                }
            }
            2 if same(node.parent_name(), b"cpus") => self.cpu(node),
            _ => self.device(node),
        }
    }

    fn visit_top(&mut self, node: &Node<'_, 'a>) {
        let name = node.name();
        if same(name, b"chosen") {
            self.chosen(node);
        } else if same(name, b"aliases") {
            node.properties(|name, value| {
                // An alias too many only means that `stdout-path` may not resolve.
                let _ = name.first() == Some(&b's') && self.aliases.push((name, value));
            });
        } else if same(name, b"psci") {
            self.machine.psci = match node.text(b"method") {
                b"smc" => Psci::Smc,
                b"hvc" => Psci::Hvc,
                _ => Psci::None,
            };
        } else if name.first() == Some(&b'm') && same(node.text(b"device_type"), b"memory") {
            if node.enabled() {
                self.overflow |= !collect(&mut self.machine.memory, node);
            }
        } else {
            self.device(node);
        }
    }

    fn cpu(&mut self, node: &Node<'_, 'a>) {
        if same(node.text(b"device_type"), b"cpu")
            && let Some(reg) = node.raw_reg(0)
        {
            let spin = same(node.text(b"enable-method"), b"spin-table");
            let release_address = node.number(b"cpu-release-addr").filter(|_| spin);
            // Those that there is no room for stay off.
            let _ = self.machine.cpus.push(Cpu { mpidr: reg.start, release_address });
        }
    }

    fn device(&mut self, node: &Node<'_, 'a>) {
        for compatible in node.compatible() {
            for (name, driver) in &DRIVERS {
                if same(compatible, name) {
                    return driver(self, node);
                }
            }
        }
    }

    fn chosen(&mut self, node: &Node<'_, 'a>) {
        self.stdout = node.text(b"stdout-path");
        self.machine.bootargs = node.text(b"bootargs");
        self.machine.rng_seed = node.property(b"rng-seed").unwrap_or_default();
        if let (Some(start), Some(end)) = (node.number(b"linux,initrd-start"), node.number(b"linux,initrd-end")) {
            self.machine.bundle = (end > start).then(|| Range { start, len: end.saturating_sub(start) });
        }
    }

    fn uart(&mut self, node: &Node<'_, 'a>, kind: UartKind) {
        let Some(registers) = node.reg(0).filter(|_| node.enabled()) else { return };
        let path = node.path().fold(HASH_START, |hash, name| hash_bytes(hash_bytes(hash, b"/"), name));
        let info = Some(UartInfo { kind, registers, interrupt: node.interrupt().map(|(number, _)| number) });
        let _ = self.uarts.push((info, path));
    }

    /// Finds the UART that a path or alias names, options after a colon ignored; else the first.
    fn choose_console(&mut self) {
        let name = until(argument(self.machine.bootargs, b"portico.uart").unwrap_or(self.stdout), b':');
        let path = match self.aliases.iter().find(|(alias, _)| same(alias, name)) {
            Some((_, path)) => until(path, 0),
            None => name,
        };
        let path = hash_bytes(HASH_START, path);
        let named = self.uarts.iter().find(|(_, hash)| *hash == path);
        self.machine.uart = named.or(self.uarts.first()).and_then(|(info, _)| *info);
    }

    fn check(&self) -> Result<(), Refusal> {
        if self.overflow {
            return Err("the device tree has more memory ranges than are supported");
        }
        if self.machine.memory.is_empty() {
            return Err("the device tree describes no memory");
        }
        if self.machine.cpus.is_empty() {
            return Err("the device tree describes no processor");
        }
        match self.machine.gic {
            Gic::None => Err(NO_GIC),
            _ => Ok(()),
        }
    }
}

/// [`Refusal`]: no supported interrupt controller.
pub const NO_GIC: Refusal = "no GICv2 with virtualization and no GICv3 in the device tree";

fn gic_v3<'a>(found: &mut Found<'_, 'a>, node: &Node<'_, 'a>) {
    let Some(gicd) = node.reg(0) else { return };
    let regions = node.number(b"#redistributor-regions").unwrap_or(1).min(4) as usize;
    let mut gicr = List::default();
    for index in 1..=regions {
        let _ = node.reg(index).is_some_and(|region| gicr.push(region));
    }
    found.machine.gic = Gic::V3 { gicd, gicr };
}

fn gic_v2<'a>(found: &mut Found<'_, 'a>, node: &Node<'_, 'a>) {
    if let (Some(gicd), Some(gicc), Some(gich), Some(gicv)) = (node.reg(0), node.reg(1), node.reg(2), node.reg(3)) {
        found.machine.gic = Gic::V2 { gicd, gicc, gich, gicv };
    }
}

fn pl011<'a>(found: &mut Found<'_, 'a>, node: &Node<'_, 'a>) {
    found.uart(node, UartKind::Pl011);
}

fn mini_uart<'a>(found: &mut Found<'_, 'a>, node: &Node<'_, 'a>) {
    found.uart(node, UartKind::Ns16550 { register_shift: 2, wide: true });
}

fn ns16550<'a>(found: &mut Found<'_, 'a>, node: &Node<'_, 'a>) {
    let register_shift = node.number(b"reg-shift").unwrap_or(0) as u8;
    found.uart(node, UartKind::Ns16550 { register_shift, wide: node.number(b"reg-io-width") == Some(4) });
}

/// Finds `name=value`, or `name` alone with an empty value, among space-separated boot arguments.
#[must_use]
#[inline(never)]
pub fn argument<'a>(bootargs: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut rest = bootargs;
    while !rest.is_empty() {
        let word = until(rest, b' ');
        rest = rest.get(word.len() + 1..).unwrap_or_default();
        let key = until(word, b'=');
        if same(key, name) {
            return Some(word.get(key.len() + 1..).unwrap_or_default());
        }
    }
    None
}

/// Appends every entry of `reg` that is not empty; says whether there was room.
fn collect<const N: usize>(list: &mut List<Range, N>, node: &Node<'_, '_>) -> bool {
    let mut index = 0;
    while let Some(range) = node.reg(index) {
        if range.len > 0 && !list.push(range) {
            return false;
        }
        index += 1;
    }
    true
}

/// Compares bytes. One function, not a comparison by byte at each name: the target has no unaligned loads.
#[inline(never)]
fn same(left: &[u8], right: &[u8]) -> bool {
    left == right
}

/// Start of a path's hash.
const HASH_START: u64 = 0xcbf2_9ce4_8422_2325;

/// Adds bytes to an FNV-1a hash. Paths are told apart by it instead of being kept: a device tree that makes two collide
/// only misleads itself.
fn hash_bytes(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
