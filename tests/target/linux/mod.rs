//! Linux as a guest. The quick part is a step of the whole suite; the rest takes long, and is run by `cargo xtask test linux` or `--all`.
//!
//! | file | what |
//! | --- | --- |
//! | [`small`] | processors, disk and network of guests with a RAM disk: quick |
//! | [`drivers`] | what the drivers do beside carrying data: queues, sleep, memory that moves, what the manager asks |
//! | [`debian`] | what a Debian guest is: login, packages, network, a page for this computer |
//! | [`ends`] | guests that power off, restart and panic, and their file systems |
//! | [`disk`] | verified writing, also while the block service dies |
//! | [`net`] | much data between guests, and to this computer |
//! | [`load`] | what stresses the kernel |
//! | [`selftests`] | the kernel's own tests |
//! | [`latency`] | a guest that must be in time beside one that is in its way |
//! | [`shell`] | typing into guests |

mod debian;
mod disk;
mod drivers;
mod ends;
mod latency;
mod load;
mod net;
mod selftests;
mod shell;
mod small;

use libtest_mimic::Trial;
use portico_ctl::MachineKind;

use crate::attacks;
use crate::boot::name;
use crate::trial;

/// Machines and their processors.
const MACHINES: [(MachineKind, u32); 4] =
    [(MachineKind::Virt, 2), (MachineKind::Virt, 1), (MachineKind::VirtGicv2, 2), (MachineKind::Raspi4b, 4)];

/// What is tested on a machine.
type Test = fn(MachineKind, u32) -> anyhow::Result<()>;

/// What the step `linux` of the whole suite runs, with a RAM disk: a kernel is built for it, but no root.
const QUICK: [(&str, Test); 13] = [
    ("processors", small::processors),
    ("disk", small::disk),
    ("network", small::network),
    ("offload", small::offload),
    ("ends", small::ends),
    ("hypervisor", drivers::hypervisor),
    ("queues", drivers::queues),
    ("suspend", drivers::suspend),
    ("sleep", drivers::sleep),
    ("time", drivers::time_of_day),
    ("watchdog", drivers::watchdog),
    ("requests", drivers::requests),
    ("balloon", drivers::balloon),
];

/// What else is tested on every machine.
const LONG: [(&str, Test); 5] = [
    ("hibernate", drivers::hibernate),
    ("hotplug", drivers::hotplug),
    ("debian_login", debian::login),
    ("debian_disk", disk::verified),
    ("debian_reboots", ends::reboots),
];

/// What does not depend on the machine.
const ONCE: [(&str, Test); 12] = [
    ("lying_console", attacks::console_on_linux),
    ("debian_net", net::much),
    ("debian_net_windows", net::windows),
    ("debian_net_deaths", net::deaths),
    ("debian_stress", load::stress),
    ("selftests", selftests::untimed),
    ("selftests_timed", selftests::timed),
    ("selftests_long", selftests::long),
    ("debian_panics", ends::panics),
    ("debian_hangs", ends::hangs),
    ("debian_disk_deaths", disk::deaths),
    ("debian_latency", latency::beside_a_neighbour),
];

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    let mut add = |tests: &[(&str, Test)], machine, cpus, is_quick| {
        let quick = if is_quick { "quick::" } else { "" };
        for &(part, test) in tests {
            // It has no network device, so there is no uplink to look at.
            // And more memory than guests want that are made of some.
            if matches!(part, "offload" | "balloon") && machine == MachineKind::Raspi4b {
                continue;
            }
            let name = format!("linux::{quick}{part}_{}_{cpus}", name(machine));
            trials.push(trial(name, move || test(machine, cpus)).with_ignored_flag(true));
        }
    };
    for (machine, cpus) in MACHINES {
        add(&QUICK, machine, cpus, (machine, cpus) == MACHINES[0]);
        add(&LONG, machine, cpus, false);
    }
    let (machine, cpus) = MACHINES[0];
    add(&ONCE, machine, cpus, false);
    trials
}
