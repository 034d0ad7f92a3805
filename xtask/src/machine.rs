//! The machines that QEMU plays, and the command line that starts each.

use std::ffi::OsString;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};

use portico_ctl::MachineKind;

/// Processors that a kind of machine has in QEMU, where they cannot be chosen. Fewer are used by telling EL2 so.
fn fixed_cpus(kind: MachineKind) -> Option<u32> {
    (kind == MachineKind::Raspi4b).then_some(4)
}

/// Memory that a kind of machine has in QEMU, where it cannot be chosen, in MiB.
fn fixed_memory_mib(kind: MachineKind) -> Option<u64> {
    (kind == MachineKind::Raspi4b).then_some(2048)
}

/// Slot of the network device among virtio-mmio devices. Eight of these are in one page; the disks have the first eight, so that
/// disks and network can be given to two domains.
const NET_SLOT: usize = 8;
/// Address of the network device.
const NET_MAC: &str = "52:54:00:12:34:56";

/// A disk of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its name: the serial of a virtio disk. The board's card has none.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
}

/// The network device of a machine, at QEMU's user network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Net {
    /// Ports of 127.0.0.1, and where each leads.
    pub forwards: Vec<(u16, SocketAddrV4)>,
    /// Whether nothing outside can be reached.
    pub restricted: bool,
    /// File for all frames, as tcpdump and Wireshark read it.
    pub capture: Option<PathBuf>,
}

/// What a machine is started with.
#[derive(Clone, Debug)]
pub struct Line {
    /// Which machine.
    pub machine: MachineKind,
    /// Processors that EL2 uses.
    pub cpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Flat `Image` of the hypervisor.
    pub kernel: PathBuf,
    /// The bundle.
    pub initrd: Option<PathBuf>,
    /// The board's device tree, where QEMU does not make one.
    pub dtb: Option<PathBuf>,
    /// Arguments for EL2.
    pub bootargs: Vec<String>,
    /// Count instructions: one an nanosecond, the same in every run.
    pub icount: bool,
    /// Let time pass as the host's does while all processors wait and instructions are counted; else it jumps to the next timer. For devices,
    /// which answer in the host's time.
    pub waits: bool,
    /// Wait for a debugger on this TCP port of the local host.
    pub gdb: Option<u16>,
    /// Socket of QEMU's machine protocol.
    pub qmp: Option<PathBuf>,
    /// Its disks, 8 at most; of a board, its card.
    pub disks: Vec<Disk>,
    /// Its network device.
    pub net: Option<Net>,
    /// More arguments, as they are.
    pub extra: Vec<String>,
}

impl Line {
    /// Makes a plain line: no bundle, nothing counted, nobody waited for.
    pub fn new(machine: MachineKind, cpus: u32, memory_mib: u64, kernel: PathBuf) -> Line {
        Line {
            machine,
            cpus,
            memory_mib,
            kernel,
            initrd: None,
            dtb: None,
            bootargs: Vec::new(),
            icount: false,
            waits: false,
            gdb: None,
            qmp: None,
            disks: Vec::new(),
            net: None,
            extra: Vec::new(),
        }
    }

    /// Makes QEMU's arguments. The serial port is the standard input and output of the process.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments = Arguments::default();
        let fixed = fixed_cpus(self.machine);
        match self.machine {
            MachineKind::Virt | MachineKind::VirtGicv2 => {
                let gic = if self.machine == MachineKind::Virt { 3 } else { 2 };
                arguments.pair("-M", format!("virt,virtualization=on,gic-version={gic}"));
                let frequency = if self.icount { ",cntfrq=1000000000" } else { "" };
                arguments.pair("-cpu", format!("cortex-a72{frequency}"));
                arguments.pair("-nic", "none");
            }
            MachineKind::Raspi4b => {
                arguments.pair("-M", "raspi4b");
                // The board's device tree names the second UART as the console.
                arguments.pair("-serial", "null");
            }
        }
        arguments.pair("-smp", fixed.unwrap_or(self.cpus).to_string());
        let memory = fixed_memory_mib(self.machine).unwrap_or(self.memory_mib);
        arguments.pair("-m", format!("{memory}M"));
        for word in ["-nodefaults", "-no-reboot"] {
            arguments.word(word);
        }
        arguments.pair("-display", "none");
        arguments.pair("-serial", "stdio");
        if self.icount {
            arguments.pair("-icount", if self.waits { "shift=0,sleep=on" } else { "shift=0,sleep=off" });
            // With a fixed seed `rng-seed` in the device tree is the same in every run.
            arguments.pair("-seed", "1");
            arguments.pair("-rtc", "base=2026-01-01,clock=vm");
        }
        arguments.pair("-kernel", &self.kernel);
        if let Some(initrd) = &self.initrd {
            arguments.pair("-initrd", initrd);
        }
        if let Some(dtb) = &self.dtb {
            arguments.pair("-dtb", dtb);
        }
        let mut bootargs = self.bootargs.clone();
        if fixed.is_some_and(|fixed| fixed != self.cpus) {
            bootargs.push(format!("portico.cpus={}", self.cpus));
        }
        if !bootargs.is_empty() {
            arguments.pair("-append", bootargs.join(" "));
        }
        if let Some(port) = self.gdb {
            arguments.pair("-gdb", format!("tcp:127.0.0.1:{port}"));
            arguments.word("-S");
        }
        if let Some(socket) = &self.qmp {
            arguments.pair("-qmp", format!("unix:{},server=on,wait=off", socket.display()));
        }
        self.add_devices(&mut arguments);
        for word in &self.extra {
            arguments.word(word);
        }
        arguments.0
    }

    /// Adds disks and network device.
    fn add_devices(&self, arguments: &mut Arguments) {
        if self.machine == MachineKind::Raspi4b {
            // `if=sd` would put the card behind the controller of the wireless network, not behind EMMC2 where the board has it.
            for disk in &self.disks {
                let file = escape(&disk.file);
                arguments
                    .pair("-drive", format!("if=none,id=card,file={file},format=raw,cache=writeback,discard=unmap"));
                arguments.pair("-device", "sd-card,drive=card,bus=/generic-sdhci");
            }
            return;
        }
        if !self.disks.is_empty() || self.net.is_some() {
            arguments.pair("-global", "virtio-mmio.force-legacy=false");
        }
        for (slot, Disk { name, file }) in self.disks.iter().enumerate() {
            let file = escape(file);
            arguments
                .pair("-drive", format!("if=none,id=disk{slot},file={file},format=raw,cache=writeback,discard=unmap"));
            let device = format!("virtio-blk-device,drive=disk{slot},serial={name},bus=virtio-mmio-bus.{slot}");
            arguments.pair("-device", device);
        }
        if let Some(net) = &self.net {
            let restrict = if net.restricted { "on" } else { "off" };
            let mut netdev = format!("user,id=uplink,restrict={restrict}");
            for (port, to) in &net.forwards {
                netdev += &format!(",hostfwd=tcp:127.0.0.1:{port}-{to}");
            }
            arguments.pair("-netdev", netdev);
            let device = format!("virtio-net-device,netdev=uplink,mac={NET_MAC},bus=virtio-mmio-bus.{NET_SLOT}");
            arguments.pair("-device", device);
            if let Some(capture) = &net.capture {
                arguments.pair("-object", format!("filter-dump,id=capture,netdev=uplink,file={}", escape(capture)));
            }
        }
    }

    /// Writes the command as a shell would take it.
    pub fn shell(&self) -> String {
        let mut line = crate::qemu::PROGRAM.to_string();
        for argument in self.arguments() {
            let argument = argument.to_string_lossy();
            let plain = argument.chars().all(|c| c.is_ascii_alphanumeric() || "-_=,./:+".contains(c));
            if plain && !argument.is_empty() {
                line += &format!(" {argument}");
            } else {
                line += &format!(" '{}'", argument.replace('\'', r"'\''"));
            }
        }
        line
    }
}

/// A path within an option of QEMU, in which commas separate.
fn escape(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// A list of arguments in the making.
#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    /// Adds one.
    fn word(&mut self, word: impl Into<OsString>) {
        self.0.push(word.into());
    }

    /// Adds an option and its value.
    fn pair(&mut self, option: &str, value: impl Into<OsString>) {
        self.word(option);
        self.word(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_gic_memory_and_processors() {
        let line = Line { icount: true, ..Line::new(MachineKind::Virt, 2, 512, "k".into()) };
        let shell = line.shell();
        for part in ["gic-version=3", "-smp 2", "-m 512M", "cntfrq=1000000000", "-icount shift=0,sleep=off"] {
            assert!(shell.contains(part), "{part} in {shell}");
        }
    }

    #[test]
    fn disks_and_network_have_slots_in_different_pages() {
        let disk = |name: &str| Disk { name: name.into(), file: format!("a,{name}.img").into() };
        let net = Net {
            forwards: vec![(8080, "10.0.2.15:80".parse().unwrap())],
            restricted: true,
            capture: Some("x.pcap".into()),
        };
        let disks = vec![disk("one"), disk("two")];
        let line = Line { disks: disks.clone(), net: Some(net), ..Line::new(MachineKind::Virt, 1, 512, "k".into()) };
        let shell = line.shell();
        for part in [
            "-global virtio-mmio.force-legacy=false",
            "-drive if=none,id=disk1,file=a,,two.img,format=raw,cache=writeback,discard=unmap",
            "-device virtio-blk-device,drive=disk1,serial=two,bus=virtio-mmio-bus.1",
            "-netdev user,id=uplink,restrict=on,hostfwd=tcp:127.0.0.1:8080-10.0.2.15:80",
            "-device virtio-net-device,netdev=uplink,mac=52:54:00:12:34:56,bus=virtio-mmio-bus.8",
            "-object filter-dump,id=capture,netdev=uplink,file=x.pcap",
        ] {
            assert!(shell.contains(part), "{part} in {shell}");
        }
        let board = Line { disks, ..Line::new(MachineKind::Raspi4b, 4, 2048, "k".into()) };
        assert!(
            board.shell().contains("-drive if=none,id=card,file=a,,one.img,format=raw,cache=writeback,discard=unmap")
        );
        assert!(!Line::new(MachineKind::Virt, 1, 512, "k".into()).shell().contains("virtio"));
    }

    #[test]
    fn a_board_keeps_its_processors_and_tells_el2_how_many_to_use() {
        let line = Line::new(MachineKind::Raspi4b, 1, 1, "k".into());
        let shell = line.shell();
        assert!(shell.contains("-smp 4 -m 2048M"), "{shell}");
        assert!(shell.contains("-append portico.cpus=1"), "{shell}");
    }
}
