//! The on-target tests. `cargo xtask test target -- PART` runs those whose name contains PART.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

mod attacks;
mod balloon;
mod block;
mod boot;
mod console;
mod devices_c;
mod freertos;
mod guests;
mod hostile;
mod hotplug;
mod linux;
mod manager;
mod net;
mod requests;
mod root;
mod sched;
mod sd;
mod systems;
mod tools;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Machines of several processors share those of the host: more than two at once only slow each other down.
    arguments.test_threads = arguments.test_threads.or(Some(2));
    let trials = [
        attacks::trials(),
        balloon::trials(),
        boot::trials(),
        block::trials(),
        console::trials(),
        devices_c::trials(),
        freertos::trials(),
        systems::trials(),
        guests::trials(),
        hostile::trials(),
        hotplug::trials(),
        linux::trials(),
        manager::trials(),
        net::trials(),
        requests::trials(),
        root::trials(),
        sched::trials(),
        sd::trials(),
        tools::trials(),
    ];
    libtest_mimic::run(&arguments, trials.concat_trials()).exit_code()
}

/// Joins lists of trials, which cannot be copied.
trait Concat {
    fn concat_trials(self) -> Vec<Trial>;
}

impl<const N: usize> Concat for [Vec<Trial>; N] {
    fn concat_trials(self) -> Vec<Trial> {
        self.into_iter().flatten().collect()
    }
}

/// Makes a trial of a function that reports what went wrong.
fn trial(name: impl Into<String>, run: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || run().map_err(|error| format!("{error:#}").into()))
}
