//! The machines that a description can name.

use crate::LoadOptions;
use crate::diagnostic::{Sink, closest, one_of};
use crate::section::{Keys, Section};
use crate::value::{self, SIZE_HELP, format_size};
use serde::Serialize;

/// Most pCPUs that EL2 drives.
pub const MAX_PCPUS: u32 = 8;

/// What EL2 and the manager need of a machine's memory, in bytes: 16 MiB for the manager, the rest for EL2's image and its
/// pool.
pub const RESERVED_BYTES: u64 = 32 << 20;

/// A kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MachineKind {
    /// QEMU `virt` with GICv3.
    Virt,
    /// QEMU `virt` with GICv2.
    VirtGicv2,
    /// Raspberry Pi 4, by QEMU or the board itself.
    Raspi4b,
}

impl MachineKind {
    /// Every kind.
    pub const ALL: [MachineKind; 3] = [MachineKind::Virt, MachineKind::VirtGicv2, MachineKind::Raspi4b];

    /// Its name in a description and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            MachineKind::Virt => "virt",
            MachineKind::VirtGicv2 => "virt-gicv2",
            MachineKind::Raspi4b => "raspi4b",
        }
    }

    /// Finds the kind of this name.
    pub fn from_name(name: &str) -> Option<MachineKind> {
        MachineKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Its memory in bytes, for a board that has what it has.
    const fn fixed_memory(self) -> Option<u64> {
        match self {
            MachineKind::Virt | MachineKind::VirtGicv2 => None,
            MachineKind::Raspi4b => Some(2 << 30),
        }
    }

    /// Memory in bytes that its firmware keeps for itself, at most.
    pub(crate) const fn firmware_bytes(self) -> u64 {
        match self {
            MachineKind::Virt | MachineKind::VirtGicv2 => 0,
            MachineKind::Raspi4b => 80 << 20,
        }
    }

    /// Most disks that it has.
    pub const fn max_disks(self) -> usize {
        match self {
            MachineKind::Virt | MachineKind::VirtGicv2 => 8,
            MachineKind::Raspi4b => 1,
        }
    }

    /// The name of its disk, for a board that has one of its own.
    pub const fn fixed_disk(self) -> Option<&'static str> {
        match self {
            MachineKind::Virt | MachineKind::VirtGicv2 => None,
            MachineKind::Raspi4b => Some("sd"),
        }
    }

    /// Whether its disks are bus masters that no IOMMU holds back. The card of a Raspberry Pi is read by the processor.
    pub const fn disk_reaches_memory(self) -> bool {
        match self {
            MachineKind::Virt | MachineKind::VirtGicv2 => true,
            MachineKind::Raspi4b => false,
        }
    }

    /// Whether it has a network device that is driven. Where there is one, it is a bus master that no IOMMU holds back.
    pub const fn has_net(self) -> bool {
        match self {
            MachineKind::Virt | MachineKind::VirtGicv2 => true,
            MachineKind::Raspi4b => false,
        }
    }

    /// Most processors that it has and EL2 drives.
    const fn max_cpus(self) -> u32 {
        match self {
            MachineKind::Virt | MachineKind::VirtGicv2 => MAX_PCPUS,
            MachineKind::Raspi4b => 4,
        }
    }
}

/// The machine that a system is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Its kind.
    pub kind: MachineKind,
    /// Its number of pCPUs.
    pub cpus: u32,
    /// Its memory, in bytes.
    pub memory_bytes: u64,
}

impl Machine {
    /// The mask of all its pCPUs.
    pub const fn cpu_mask(&self) -> u64 {
        u64::MAX >> (64 - self.cpus)
    }
}

pub(crate) const SYSTEM_KEYS: Keys = Keys {
    known: &["name", "machine", "memory", "cpus"],
    aliases: &[("board", "machine"), ("ram", "memory"), ("mem", "memory"), ("smp", "cpus"), ("vcpus", "cpus")],
    foreign: &[],
    tables: &[],
};

/// Reads the machine from `[system]`; options stand above it, defaults below.
pub(crate) fn read(system: Option<&Section<'_>>, options: &LoadOptions<'_>, sink: &mut Sink<'_>) -> Machine {
    let kind = read_kind(system, options, sink);
    let memory = system.and_then(|s| s.parsed(sink, "memory", SIZE_HELP, value::size));
    let cpus = system.and_then(|s| s.integer(sink, "cpus", 1..=u64::from(MAX_PCPUS)));
    let name = kind.name();
    if let Some(most) = kind.fixed_memory() {
        let message = format!("machine `{name}` always has {} of memory", format_size(most));
        // What is asked for on the command line replaces what the description says.
        match (options.memory_bytes, &memory, system) {
            (Some(asked), ..) if asked != most => sink.add_whole(message, "ask for no other"),
            (None, Some(memory), Some(section)) if memory.value != most && options.machine.is_none() => {
                sink.add(&memory.span, &section.subject, message, "leave `memory` out");
            }
            _ => {}
        }
    }
    let most = kind.max_cpus();
    let written = cpus.as_ref().and_then(|cpus| u32::try_from(cpus.value).ok());
    let message = format!("machine `{name}` has at most {most} processors");
    match (options.cpus, &cpus, system) {
        (Some(asked), ..) if !(1..=most).contains(&asked) => sink.add_whole(message, format!("ask for 1 to {most}")),
        (None, Some(cpus), Some(section)) if cpus.value > u64::from(most) => {
            sink.add(&cpus.span, &section.subject, message, format!("write a number from 1 to {most}"));
        }
        _ => {}
    }
    let memory = options.memory_bytes.or(memory.map(|memory| memory.value)).unwrap_or(1 << 30);
    Machine {
        kind,
        cpus: options.cpus.or(written).unwrap_or(4).clamp(1, most),
        memory_bytes: kind.fixed_memory().unwrap_or(memory),
    }
}

fn read_kind(system: Option<&Section<'_>>, options: &LoadOptions<'_>, sink: &mut Sink<'_>) -> MachineKind {
    let names = || MachineKind::ALL.iter().map(|kind| kind.name());
    let help = |name: &str| match name {
        // A name that people will try, too far from ours for the spelling check.
        "rpi4" | "rpi4b" | "raspi4" => String::from("write `raspi4b`"),
        _ => match closest(name, names()) {
            Some(near) => format!("write `{near}`"),
            None => format!("write {}", one_of(names())),
        },
    };
    let written = system.and_then(|s| {
        let found = s.string(sink, "machine", &format!("write {}", one_of(names())))?;
        let kind = MachineKind::from_name(found.value);
        if kind.is_none() {
            sink.add(&found.span, &s.subject, format!("unknown machine `{}`", found.value), help(found.value));
        }
        kind
    });
    let asked = options.machine.as_deref().map(|name| (name, MachineKind::from_name(name)));
    if let Some((name, None)) = asked {
        sink.add_whole(format!("unknown machine `{name}` was asked for"), help(name).replace("write", "ask for"));
    }
    asked.and_then(|(_, kind)| kind).or(written).unwrap_or(MachineKind::Virt)
}
