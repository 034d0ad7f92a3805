//! Machines as their device trees describe them. Those of QEMU's `virt` were written by QEMU (`-M virt,dumpdtb=`).

use portico_boards::devices::interrupt_at;
use portico_boards::machine::NO_GIC;
use portico_boards::tree::{NO_TREE, Refusal, TRUNCATED, Tree};
use portico_boards::{Gic, Machine, Psci, Range, UartKind, power};
use proptest::prelude::*;

/// A device tree begins at a multiple of 8.
#[repr(align(8))]
struct Aligned<const N: usize>([u8; N]);

static VIRT_GICV2: &[u8] = &Aligned(*include_bytes!("machines/virt-gicv2.dtb")).0;
static VIRT_GICV3: &[u8] = &Aligned(*include_bytes!("machines/virt-gicv3.dtb")).0;
static RPI4: &[u8] = &Aligned(*include_bytes!("machines/rpi4.dtb")).0;
static ODD: &[u8] = &Aligned(*include_bytes!("machines/odd.dtb")).0;

fn read(dtb: &[u8]) -> Result<Machine<'_>, Refusal> {
    let mut machine = Machine::default();
    machine.read(dtb).map(|()| machine)
}

fn range(start: u64, len: u64) -> Range {
    Range { start, len }
}

#[test]
fn virt_with_gicv3() {
    let machine = read(VIRT_GICV3).unwrap();
    assert_eq!(&machine.memory[..], &[range(0x4000_0000, 1 << 30)]);
    assert!(machine.reserved.is_empty());
    assert_eq!(machine.psci, Psci::Smc);
    let mpidrs: Vec<u64> = machine.cpus.iter().map(|cpu| cpu.mpidr).collect();
    assert_eq!(mpidrs, [0, 1, 2, 3]);
    assert!(machine.cpus.iter().all(|cpu| cpu.release_address.is_none()));
    assert_eq!(machine.gic, Some(Gic::V3));
    assert_eq!(&machine.gic_registers[..], &[range(0x800_0000, 0x1_0000), range(0x80a_0000, 0xf6_0000)]);
    let uart = machine.uart.unwrap();
    assert_eq!((uart.kind, uart.registers), (UartKind::Pl011, range(0x900_0000, 0x1000)));
    assert_eq!(interrupt_at(VIRT_GICV3, uart.registers), Some(33));
    assert_eq!(machine.bundle.len, 100_000);
    assert_eq!(machine.bootargs, b"portico.log=debug");
    assert_eq!(machine.rng_seed.len(), 32);
}

#[test]
fn virt_with_gicv2() {
    let machine = read(VIRT_GICV2).unwrap();
    assert_eq!(machine.gic, Some(Gic::V2));
    let starts: Vec<u64> = machine.gic_registers.iter().map(|range| range.start).collect();
    assert_eq!(starts, [0x800_0000, 0x801_0000, 0x803_0000, 0x804_0000]);
}

#[test]
fn raspberry_pi_4() {
    let machine = read(RPI4).unwrap();
    let memory = [range(0, 0x3b40_0000), range(0x4000_0000, 0xbc00_0000), range(1 << 32, 1 << 30)];
    assert_eq!(&machine.memory[..], &memory);
    assert_eq!(&machine.reserved[..], &[range(0, 0x1000), range(0x3e00_0000, 0x1_0000)]);
    assert_eq!(machine.psci, Psci::None);
    let release: Vec<_> = machine.cpus.iter().map(|cpu| cpu.release_address.unwrap()).collect();
    assert_eq!(release, [0xd8, 0xe0, 0xe8, 0xf0]);
    assert_eq!(machine.gic, Some(Gic::V2));
    let [gicd, _, _, gicv] = machine.gic_registers[..] else { panic!("not four parts") };
    assert_eq!((gicd, gicv), (range(0xff84_1000, 0x1000), range(0xff84_6000, 0x2000)));
    let uart = machine.uart.unwrap();
    assert_eq!(uart.kind, UartKind::Ns16550 { register_shift: 2, wide: true });
    assert_eq!((uart.registers.start, interrupt_at(RPI4, uart.registers)), (0xfe21_5040, Some(125)));
    assert_eq!(machine.bundle, range(0x800_0000, 0x10_0000));
    assert_eq!(power::find(RPI4), Some(range(0xfe10_0000, 0x114)));
    assert_eq!(power::find(VIRT_GICV3), None);
}

#[test]
fn unusual_but_legal() {
    let machine = read(ODD).unwrap();
    let uart = machine.uart.unwrap();
    assert_eq!((uart.registers, interrupt_at(ODD, uart.registers)), (range(0x1090_0100, 0x100), Some(37)));
    assert_eq!(uart.kind, UartKind::Ns16550 { register_shift: 2, wide: true });
    assert_eq!(machine.psci, Psci::Hvc);
    assert_eq!(machine.cpus[0].mpidr, 0x1_0000_0203);
    assert_eq!(machine.gic, Some(Gic::V3));
    assert_eq!(&machine.gic_registers[1..], &[range(0x2f10_0000, 0x4_0000), range(0x2f20_0000, 0x8_0000)]);
}

#[test]
fn refusals() {
    assert_eq!(read(&[]).unwrap_err(), TRUNCATED);
    assert_eq!(read(&[0; 64]).unwrap_err(), NO_TREE);
    assert_eq!(read(&RPI4[..100]).unwrap_err(), TRUNCATED);
    // Without its interrupt controller, a machine still has a console to complain on.
    let mut bytes = RPI4.to_vec();
    let at = bytes.windows(11).position(|window| window == b"arm,gic-400").unwrap();
    bytes[at] = b'x';
    let mut machine = Machine::default();
    assert_eq!(machine.read(&bytes).unwrap_err(), NO_GIC);
    assert!(machine.uart.is_some());
}

/// Names, `compatible` and untranslated `reg` of all nodes agree with what the `fdt` crate reads.
#[test]
fn agrees_with_another_reader() {
    for bytes in [VIRT_GICV2, VIRT_GICV3, RPI4, ODD] {
        let mut ours = Vec::new();
        Tree::new(bytes)
            .unwrap()
            .walk(&mut |node| {
                let compatible: Vec<u8> = node.property(b"compatible").unwrap_or_default().to_vec();
                let reg = node.raw_reg(0).filter(|_| node.property(b"reg").is_some());
                ours.push((node.depth(), node.name().to_vec(), compatible, reg.map(|reg| (reg.start, reg.len))));
            })
            .unwrap();
        let theirs: Vec<_> = fdt::Fdt::new_unaligned_fallible(bytes)
            .unwrap()
            .all_nodes()
            .unwrap()
            .map(|entry| {
                let (depth, node) = entry.unwrap();
                let name = node.name().unwrap();
                let name = match name.unit_address {
                    Some(unit) => format!("{}@{unit}", name.name),
                    None => name.name.to_owned(),
                };
                let compatible =
                    node.raw_property("compatible").unwrap().map_or(Vec::new(), |value| value.value.to_vec());
                let reg = node.reg().unwrap().and_then(|reg| reg.iter::<u64, u64>().next()?.ok());
                (depth, name.into_bytes(), compatible, reg.map(|reg| (reg.address, reg.len)))
            })
            .collect();
        // The other reader leaves the root out.
        assert_eq!(ours.len(), theirs.len() + 1);
        assert_eq!(ours[1..], theirs[..]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Damaged trees are read without a panic.
    #[test]
    fn survives_damage(which in 0usize..4, hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20)) {
        let mut bytes = [VIRT_GICV2, VIRT_GICV3, RPI4, ODD][which].to_vec();
        for (index, value) in hits {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        let _ = read(&bytes);
        let _ = power::find(&bytes);
    }
}
