//! Devices of the machine, and which service gets which.
//!
//! A service gets whole pages of registers, since that is what stage 2 can tell apart, with the interrupts of what is in them, and memory that
//! its devices may reach, with its machine address. The extents stay the manager's: each instance of a service gets them lent.
//!
//! When a service ends, what it told its devices to do is not over. Its memory, and what they may reach, is used again only after
//! [`Devices::reset`].

use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};
use portico_abi::call::attrs;
use portico_abi::{Handle, PAGE_SIZE, Rights, Status, dt};
use portico_boards::devices::{self, Device};
use portico_boards::{UartInfo, UartKind};
use portico_bundle::description::ServiceKind;
use portico_manager::fdt::{DeviceNode, Value};
use portico_manager::memory::Piece;
use portico_sdk::hvc::{self, Trigger};
use portico_sdk::{dtb, mem, sync};

use crate::again::Left;
use crate::hv::{self, Machine};
use crate::place;

/// How device trees call what is given to services.
const VIRTIO: &str = "virtio,mmio";
/// The SD host controller of the Raspberry Pi 4.
const EMMC2: &str = "brcm,bcm2711-emmc2";
/// First IPA for device registers, in the manager and in services.
const REGISTERS: u64 = mem::DEVICES.start + 0x10_0000;
/// Where they are mapped in the manager to see what they are.
const PROBE: u64 = mem::DEVICES.end - STRIDE;
/// Bytes between two mappings of registers.
const STRIDE: u64 = 0x1_0000;
/// Registers of a virtio transport: magic number, kind of device, status. (VIRTIO 1.2, "MMIO Device Register Layout")
const MAGIC: u64 = 0;
const DEVICE_ID: u64 = 8;
const STATUS: u64 = 0x70;
/// Looks at a device that is being reset before it is given up.
const RESET_LOOKS: u32 = 1_000_000;

/// What stands in a page.
#[derive(Debug)]
struct Slot {
    /// Offset of the registers in the page.
    offset: u64,
    bytes: u64,
    interrupt: Handle,
}

/// Registers that only one service can have.
#[derive(Debug)]
struct Registers {
    compatible: &'static str,
    kind: ServiceKind,
    extent: Handle,
    pages: u64,
    ipa: u64,
    slots: Vec<Slot>,
    /// What else its node says.
    properties: Vec<(&'static str, Value)>,
}

/// The devices for services.
#[derive(Debug, Default)]
pub struct Devices {
    registers: Vec<Registers>,
    dma: Vec<(ServiceKind, Piece<Handle>)>,
}

impl Devices {
    /// Finds what the machine has for services of `kinds`. What cannot be used is said in words.
    pub fn find(machine: &mut Machine, kinds: &[ServiceKind]) -> (Devices, Vec<String>) {
        let mut devices = Devices::default();
        let mut troubles = Vec::new();
        if kinds.is_empty() {
            return (devices, troubles);
        }
        let Some(bytes) = dtb::machine() else { return (devices, troubles) };
        if kinds.contains(&ServiceKind::Console) {
            let added = uart(bytes).and_then(|uart| devices.add_uart(machine, bytes, &uart));
            troubles.extend(added.err().map(|why| format!("the console service has no UART: {why}")));
        }
        for compatible in [VIRTIO, EMMC2] {
            let mut found = Vec::new();
            // A tree that is damaged behind what was found is EL2's concern.
            let _ = devices::each(bytes, compatible, |device| found.push(*device));
            found.sort_by_key(|device| device.registers.start);
            for page in found.chunk_by(|a, b| a.registers.start / PAGE_SIZE == b.registers.start / PAGE_SIZE) {
                if let Err(trouble) = devices.add(machine, compatible, page, kinds) {
                    troubles.push(trouble);
                }
            }
        }
        (devices, troubles)
    }

    /// Adds the page that `found` share, if one of the services wants what is in it.
    fn add(
        &mut self,
        machine: &mut Machine,
        compatible: &'static str,
        found: &[Device],
        kinds: &[ServiceKind],
    ) -> Result<(), String> {
        let (Some(first), Some(last)) = (found.first(), found.last()) else { return Ok(()) };
        let base = first.registers.start & !(PAGE_SIZE - 1);
        let pages = last.registers.end().saturating_sub(base).div_ceil(PAGE_SIZE).clamp(1, STRIDE / PAGE_SIZE);
        let trouble = |status: Status| format!("device at {base:#x}: not to be had: {}", status.describe());
        let extent = machine.device(base, pages).map_err(trouble)?;
        let ipa = REGISTERS + self.registers.len() as u64 * STRIDE;
        // Where it is in use already it stays; others are looked at in a place of their own.
        let is_in_use = hvc::extent_info(extent).is_ok_and(|info| info.ipa == Some(ipa));
        let at = if is_in_use { ipa } else { PROBE };
        hv::map_device_here(extent, at).map_err(trouble)?;
        let mut kind = None;
        let mut slots = Vec::new();
        for device in found {
            let offset = device.registers.start - base;
            let Some(serves) = serves(compatible, at + offset) else { continue };
            if kind.is_some_and(|kind| kind != serves) {
                let _ = hv::unmap_here(extent);
                return Err(format!(
                    "devices at {base:#x}: disks and network cards share a page of registers, which cannot be divided; put them on other buses"
                ));
            }
            kind = Some(serves);
            slots.push((offset, device));
        }
        let Some(kind) = kind.filter(|kind| kinds.contains(kind)) else {
            return hv::unmap_here(extent).map_err(trouble);
        };
        hv::map_device_here(extent, ipa).map_err(trouble)?;
        let mut registers =
            Registers { compatible, kind, extent, pages, ipa, slots: Vec::new(), properties: Vec::new() };
        for (offset, device) in slots {
            let trigger = if device.is_edge { Trigger::Edge } else { Trigger::Level };
            let interrupt = match device.interrupt {
                Some(intid) => machine.interrupt(intid, trigger).map_err(|status| match status {
                    Status::Exists => {
                        format!(
                            "device at {base:#x}: its interrupt {intid} is another device's too, and cannot be divided"
                        )
                    }
                    status => trouble(status),
                })?,
                None => Handle::NONE,
            };
            registers.slots.push(Slot { offset, bytes: device.registers.len, interrupt });
        }
        self.registers.push(registers);
        Ok(())
    }

    /// Adds the machine's console UART, which `tree` describes.
    fn add_uart(&mut self, machine: &mut Machine, tree: &[u8], info: &UartInfo) -> Result<(), &'static str> {
        let base = info.registers.start & !(PAGE_SIZE - 1);
        let offset = info.registers.start - base;
        let pages = offset.saturating_add(info.registers.len).div_ceil(PAGE_SIZE).clamp(1, STRIDE / PAGE_SIZE);
        let extent = machine.device(base, pages).map_err(Status::describe)?;
        // One that cannot interrupt can still be polled.
        let interrupt = devices::interrupt_at(tree, info.registers);
        let interrupt = interrupt.and_then(|id| machine.interrupt(id, Trigger::Level).ok());
        let slot = Slot { offset, bytes: info.registers.len, interrupt: interrupt.unwrap_or(Handle::NONE) };
        let mut properties = Vec::new();
        let mut say = |name, value| properties.push((name, value));
        match info.kind {
            UartKind::Pl011 => say(dt::service::UART_KIND, Value::Text(String::from("pl011"))),
            UartKind::Ns16550 { register_shift, wide } => {
                say(dt::service::UART_KIND, Value::Text(String::from("ns16550")));
                say(dt::service::REGISTER_SHIFT, Value::Word(u32::from(register_shift)));
                if wide {
                    say(dt::service::REGISTER_WIDE, Value::Empty);
                }
            }
        }
        self.registers.push(Registers {
            compatible: dt::UART,
            kind: ServiceKind::Console,
            extent,
            pages,
            ipa: REGISTERS + self.registers.len() as u64 * STRIDE,
            slots: vec![slot],
            properties,
        });
        Ok(())
    }

    /// Takes over the memory for devices that the manager's last life lent. What nobody has is given back when no device reaches it any more.
    pub fn adopt(&mut self, machine: &mut Machine, left: &mut Left) {
        for kind in ServiceKind::ALL {
            let is_its = |&mut (_, ipa): &mut (Piece<Handle>, u64)| ipa == dma_of(kind);
            self.dma.extend(left.windows.extract_if(.., is_its).map(|(piece, _)| (kind, piece)));
            for (piece, _) in left.unlent.extract_if(.., is_its) {
                if self.reset(kind) {
                    machine.give_back(piece);
                } else {
                    let _ = hv::unmap_here(piece.extent);
                    machine.lose(piece);
                }
            }
        }
    }

    /// Lends a service everything of its kind, memory for its devices at `dma_ipa`. Returns the nodes of its device tree.
    ///
    /// # Errors
    /// Those of lending, mapping and copying handles; `NoBudget` if there is no memory.
    pub fn assign(
        &mut self,
        machine: &mut Machine,
        kind: ServiceKind,
        domain: Handle,
        dma_ipa: u64,
    ) -> Result<Vec<DeviceNode>, Status> {
        let mut nodes = Vec::new();
        let mut dma_pages = 0;
        for registers in self.registers.iter().filter(|registers| registers.kind == kind) {
            let (extent, pages, ipa) = (registers.extent, registers.pages, registers.ipa);
            machine.lend(extent, pages, domain, ipa, hv::READ_WRITE | attrs::DEVICE)?;
            for slot in &registers.slots {
                let interrupt = match slot.interrupt {
                    Handle::NONE => Handle::NONE,
                    irq => machine.with_budget(domain, || hvc::handle_copy(irq, domain, Rights::BIND, 0))?,
                };
                dma_pages += dma_pages_of(registers);
                let mut properties = vec![(dt::INTERRUPT, Value::Word(interrupt.raw()))];
                properties.extend(registers.properties.iter().cloned());
                nodes.push(DeviceNode {
                    node: "device",
                    compatible: registers.compatible,
                    ipa: ipa + slot.offset,
                    size: slot.bytes,
                    properties,
                });
            }
        }
        if dma_pages > 0 {
            nodes.push(self.lend_dma(machine, kind, domain, dma_ipa, dma_pages)?);
        }
        Ok(nodes)
    }

    fn lend_dma(
        &mut self,
        machine: &mut Machine,
        kind: ServiceKind,
        domain: Handle,
        ipa: u64,
        pages: u64,
    ) -> Result<DeviceNode, Status> {
        let piece = match self.dma.iter().find(|(of, _)| *of == kind) {
            Some((_, piece)) => *piece,
            None => {
                let piece = machine.take(pages).map_err(|_| Status::NoBudget)?;
                // The manager has nothing to do there, but knows it again by that.
                hv::map_here(piece.extent, dma_of(kind), hv::READ_WRITE).inspect_err(|_| machine.give_back(piece))?;
                self.dma.push((kind, piece));
                piece
            }
        };
        hv::scrub_mapped(piece.extent, dma_of(kind))?;
        machine.lend(piece.extent, piece.pages, domain, ipa, hv::READ_WRITE)?;
        Ok(DeviceNode {
            node: "dma",
            compatible: dt::DMA,
            ipa,
            size: piece.pages * PAGE_SIZE,
            properties: vec![(dt::MACHINE_ADDRESS, Value::Long(hvc::extent_address(machine.system, piece.extent)?))],
        })
    }

    /// Pages of memory that devices may reach.
    pub fn held_pages(&self) -> u64 {
        self.dma.iter().map(|(_, piece)| piece.pages).sum()
    }

    /// Stops everything that the devices of a service that has ended still do. `false`: one does not stop, and the memory that
    /// it may reach must not be used again.
    pub fn reset(&self, kind: ServiceKind) -> bool {
        let mut is_quiet = true;
        for registers in self.registers.iter().filter(|registers| registers.kind == kind) {
            if registers.compatible == VIRTIO {
                for slot in &registers.slots {
                    is_quiet &= reset_virtio(registers.ipa + slot.offset);
                }
            }
            // The SD controller moves data by the processor alone.
        }
        is_quiet
    }
}

/// The machine's console UART.
fn uart(bytes: &[u8]) -> Result<UartInfo, &'static str> {
    let mut machine = portico_boards::Machine::default();
    let read = machine.read(bytes);
    // A tree that is odd elsewhere is EL2's concern.
    match (machine.uart, read) {
        (Some(uart), _) => Ok(uart),
        (None, Err(why)) => Err(why),
        (None, Ok(())) => Err("the machine has none that is known here"),
    }
}

/// Where memory for the devices of a service is mapped in the manager.
fn dma_of(kind: ServiceKind) -> u64 {
    place::dma(kind as u16)
}

/// Pages of memory that a device needs: for its queues, and what a network card receives.
fn dma_pages_of(registers: &Registers) -> u64 {
    match (registers.compatible, registers.kind) {
        (VIRTIO, ServiceKind::Net) => 256,
        (VIRTIO, _) => 16,
        _ => 0,
    }
}

/// Which service drives the device whose registers are mapped at `ipa`.
fn serves(compatible: &str, ipa: u64) -> Option<ServiceKind> {
    if compatible == EMMC2 {
        return Some(ServiceKind::Block);
    }
    match (load(ipa + MAGIC), load(ipa + DEVICE_ID)) {
        (0x7472_6976, 1) => Some(ServiceKind::Net),
        (0x7472_6976, 2) => Some(ServiceKind::Block),
        _ => None,
    }
}

/// Resets a virtio device: its status reads 0 when it has stopped. (VIRTIO 1.2, "Device Reset")
fn reset_virtio(ipa: u64) -> bool {
    // SAFETY: the registers are mapped there as device memory, for good; the service that used them has ended.
    unsafe { core::ptr::with_exposed_provenance_mut::<u32>((ipa + STATUS) as usize).write_volatile(0) };
    (0..RESET_LOOKS).any(|_| {
        sync::relax();
        load(ipa + STATUS) == 0
    })
}

fn load(ipa: u64) -> u32 {
    // SAFETY: the registers are mapped there as device memory; those that are read have no side effect.
    unsafe { core::ptr::with_exposed_provenance::<u32>(ipa as usize).read_volatile() }
}
