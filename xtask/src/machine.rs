//! The machines that QEMU plays, and the command line that starts each.

use std::ffi::OsString;
use std::path::PathBuf;

use portico_ctl::MachineKind;

/// Processors that a kind of machine has in QEMU, where they cannot be chosen. Fewer are used by telling EL2 so.
fn fixed_cpus(kind: MachineKind) -> Option<u32> {
    (kind == MachineKind::Raspi4b).then_some(4)
}

/// Memory that a kind of machine has in QEMU, where it cannot be chosen, in MiB.
fn fixed_memory_mib(kind: MachineKind) -> Option<u64> {
    (kind == MachineKind::Raspi4b).then_some(2048)
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
    /// Wait for a debugger on this TCP port of the local host.
    pub gdb: Option<u16>,
    /// Socket of QEMU's machine protocol.
    pub qmp: Option<PathBuf>,
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
            gdb: None,
            qmp: None,
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
            arguments.pair("-icount", "shift=0,sleep=off");
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
        for word in &self.extra {
            arguments.word(word);
        }
        arguments.0
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
    fn a_board_keeps_its_processors_and_tells_el2_how_many_to_use() {
        let line = Line::new(MachineKind::Raspi4b, 1, 1, "k".into());
        let shell = line.shell();
        assert!(shell.contains("-smp 4 -m 2048M"), "{shell}");
        assert!(shell.contains("-append portico.cpus=1"), "{shell}");
    }
}
