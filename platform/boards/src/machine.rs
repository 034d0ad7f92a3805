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

/// The interrupt controller, by its programming interface and the registers of its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gic {
    /// GICv2 with virtualization: distributor, CPU interface, virtual interface control, virtual CPU interface, which guests get.
    V2,
    /// GICv3 or later: distributor, redistributor regions.
    V3,
}

/// The console UART.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UartInfo {
    /// Its programming interface.
    pub kind: UartKind,
    /// Its registers.
    pub registers: Range,
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
    /// Interrupt controller, if there is one that is supported.
    pub gic: Option<Gic>,
    /// Its registers, in the order that [`Gic`] gives.
    pub gic_registers: List<Range, 5>,
    /// Console UART: what `portico.uart=` in the boot arguments names, else `stdout-path`, else the first.
    pub uart: Option<UartInfo>,
    /// The initial RAM disk: our bundle. Empty if there is none.
    pub bundle: Range,
    /// Boot arguments.
    pub bootargs: &'a [u8],
    /// Entropy from the boot loader.
    pub rng_seed: &'a [u8],
}

impl<'a> Machine<'a> {
    /// Reads the machine from its device tree into `self`, which is as [`Default`] makes it. In place since it is large
    /// for the stack at boot. Even if it fails, `uart` is what was found, so that somebody can be told.
    ///
    /// # Errors
    /// Why the machine cannot be used. One without UART is no error.
    pub fn read(&mut self, dtb: &'a [u8]) -> Result<(), Refusal> {
        let tree = Tree::new(dtb)?;
        let mut found =
            Found { machine: self, tree, uarts: List::default(), aliases: usize::MAX, stdout: &[], overflow: false };
        for range in tree.reservations() {
            found.overflow |= range.len > 0 && !found.machine.reserved.push(range);
        }
        let walked = tree.walk(&mut |node| found.visit(node));
        found.choose_console();
        walked.and_then(|()| found.check())
    }
}

/// What a walk has found so far.
struct Found<'m, 'a> {
    machine: &'m mut Machine<'a>,
    tree: Tree<'a>,
    /// UARTs, with the hash of their path.
    uarts: List<(Option<UartInfo>, u64), 6>,
    /// Where the properties of `/aliases` are: paths of devices by short names.
    aliases: usize,
    stdout: &'a [u8],
    overflow: bool,
}

impl<'a> Found<'_, 'a> {
    fn visit(&mut self, node: &Node<'_, 'a>) {
        let parent = node.parent().map_or(&[][..], |parent| parent.name());
        match (node.depth(), parent, node.name()) {
            (0, ..) => {}
            (1, _, b"chosen") => self.chosen(node),
            (1, _, b"aliases") => self.aliases = node.content(),
            (1, _, b"psci") => {
                self.machine.psci = match node.text(b"method") {
                    b"smc" => Psci::Smc,
                    b"hvc" => Psci::Hvc,
                    _ => Psci::None,
                };
            }
            (1, _, [b'm', ..]) if node.text(b"device_type") == b"memory" => {
                self.overflow |= node.enabled() && !collect(&mut self.machine.memory, node, usize::MAX);
            }
            (2, b"reserved-memory", _) => {
                self.overflow |= node.enabled() && !collect(&mut self.machine.reserved, node, usize::MAX);
            }
            (2, b"cpus", _) => self.cpu(node),
            _ => self.device(node),
        }
    }

    fn cpu(&mut self, node: &Node<'_, 'a>) {
        if node.text(b"device_type") == b"cpu"
            && let Some(reg) = node.raw_reg(0)
        {
            let spin = node.text(b"enable-method") == b"spin-table";
            let release_address = node.number(b"cpu-release-addr").filter(|_| spin);
            // Those that there is no room for stay off.
            let _ = self.machine.cpus.push(Cpu { mpidr: reg.start, release_address });
        }
    }

    fn device(&mut self, node: &Node<'_, 'a>) {
        for compatible in node.compatible() {
            let is = |name: &[u8]| name == compatible;
            if is(b"arm,gic-v3") {
                let regions = node.number(b"#redistributor-regions").unwrap_or(1).min(4) as usize;
                return self.gic(node, Gic::V3, 1 + regions);
            }
            if is(b"arm,gic-400") || is(b"arm,cortex-a15-gic") || is(b"arm,cortex-a7-gic") {
                return self.gic(node, Gic::V2, 4);
            }
            if is(b"arm,pl011") {
                return self.uart(node, UartKind::Pl011);
            }
            if is(b"brcm,bcm2835-aux-uart") {
                return self.uart(node, UartKind::Ns16550 { register_shift: 2, wide: true });
            }
            if is(b"ns16550a") || is(b"ns16550") || is(b"snps,dw-apb-uart") {
                let register_shift = node.number(b"reg-shift").unwrap_or(0) as u8;
                let wide = node.number(b"reg-io-width") == Some(4);
                return self.uart(node, UartKind::Ns16550 { register_shift, wide });
            }
        }
    }

    fn chosen(&mut self, node: &Node<'_, 'a>) {
        self.stdout = node.text(b"stdout-path");
        self.machine.bootargs = node.text(b"bootargs");
        self.machine.rng_seed = node.property(b"rng-seed").unwrap_or_default();
        if let (Some(start), Some(end)) = (node.number(b"linux,initrd-start"), node.number(b"linux,initrd-end")) {
            self.machine.bundle = Range { start, len: end.saturating_sub(start) };
        }
    }

    /// Takes the first `count` ranges of registers.
    fn gic(&mut self, node: &Node<'_, 'a>, kind: Gic, count: usize) {
        let mut registers = List::default();
        // There is room for as many as are asked for.
        let _ = collect(&mut registers, node, count);
        (self.machine.gic, self.machine.gic_registers) = (Some(kind), registers);
    }

    fn uart(&mut self, node: &Node<'_, 'a>, kind: UartKind) {
        let Some(registers) = node.reg(0).filter(|_| node.enabled()) else { return };
        let info = UartInfo { kind, registers };
        let path = node.and_above().fold(0, |hash, node| hash_name(hash, node.name()));
        let _ = self.uarts.push((Some(info), path));
    }

    /// Finds the UART that a path or alias names, options after a colon ignored; else the first.
    fn choose_console(&mut self) {
        let name = until(argument(self.machine.bootargs, b"portico.uart").unwrap_or(self.stdout), b':');
        let path = self.tree.property_of(self.aliases, name).map_or(name, |path| until(path, 0));
        let path = path.rsplit(|&byte| byte == b'/').fold(0, hash_name);
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
        match (self.machine.gic, self.machine.gic_registers.len()) {
            (Some(Gic::V2), 4) | (Some(Gic::V3), 2..) => Ok(()),
            _ => Err(NO_GIC),
        }
    }
}

/// [`Refusal`]: no supported interrupt controller.
pub const NO_GIC: Refusal = "no GICv2 with virtualization and no GICv3 in the device tree";

/// Finds `name=value`, or `name` alone with an empty value, among space-separated boot arguments.
#[must_use]
#[inline(never)]
pub fn argument<'a>(bootargs: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    bootargs.split(|&byte| byte == b' ').find_map(|word| {
        let key = until(word, b'=');
        (key == name).then(|| word.get(key.len() + 1..).unwrap_or_default())
    })
}

/// Appends the first `most` entries of `reg` but for those that are empty; says whether there was room.
fn collect<const N: usize>(list: &mut List<Range, N>, node: &Node<'_, '_>, most: usize) -> bool {
    (0..most).map_while(|index| node.reg(index)).all(|range| range.len == 0 || list.push(range))
}

/// Adds a name to the hash (FNV-1a) of a path, from its end on. Paths are told apart by it instead of being kept: a device
/// tree that makes two collide only misleads itself.
fn hash_name(hash: u64, name: &[u8]) -> u64 {
    name.iter().chain(b"/").fold(hash, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
