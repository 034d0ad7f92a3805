//! Linux as a guest. Not run if not asked for, since a kernel and a root must be made first: `cargo xtask test linux`.
//!
//! | file | what |
//! | --- | --- |
//! | [`small`] | processors, disk and network of guests with a RAM disk: quick |
//! | [`debian`] | what a Debian guest is: login, packages, network, a page for this computer |
//! | [`ends`] | guests that power off, restart and panic, and their file systems |
//! | [`disk`] | verified writing, also while the block service dies |
//! | [`net`] | much data between guests, and to this computer |
//! | [`load`] | what stresses the kernel |
//! | [`latency`] | a guest that must be in time beside one that is in its way |
//! | [`shell`] | typing into guests |

mod debian;
mod disk;
mod ends;
mod latency;
mod load;
mod net;
mod shell;
mod small;

use libtest_mimic::Trial;
use portico_ctl::MachineKind;

use crate::boot::name;
use crate::trial;

/// Machines and their processors.
const MACHINES: [(MachineKind, u32); 4] =
    [(MachineKind::Virt, 2), (MachineKind::Virt, 1), (MachineKind::VirtGicv2, 2), (MachineKind::Raspi4b, 4)];

/// What is tested on a machine.
type Test = fn(MachineKind, u32) -> anyhow::Result<()>;

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    let mut add = |name: String, test: Test, machine, cpus| {
        trials.push(trial(name, move || test(machine, cpus)).with_ignored_flag(true));
    };
    for (machine, cpus) in MACHINES {
        let tests: [(&str, Test); 7] = [
            ("processors", small::processors),
            ("disk", small::disk),
            ("network", small::network),
            ("ends", small::ends),
            ("debian_login", debian::login),
            ("debian_disk", disk::verified),
            ("debian_reboots", ends::reboots),
        ];
        for (part, test) in tests {
            add(format!("linux::{part}_{}_{cpus}", name(machine)), test, machine, cpus);
        }
    }
    // What does not depend on the machine.
    let tests: [(&str, Test); 4] = [
        ("debian_net", net::much),
        ("debian_stress", load::stress),
        ("debian_panics", ends::panics),
        ("debian_latency", latency::beside_a_neighbour),
    ];
    for (part, test) in tests {
        let (machine, cpus) = MACHINES[0];
        add(format!("linux::{part}_{}_{cpus}", name(machine)), test, machine, cpus);
    }
    trials
}
