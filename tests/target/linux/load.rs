//! What stresses the kernel: each of stress-ng's for a short time, with its own checks, and no word of the kernel against it.

use anyhow::Result;
use portico_ctl::MachineKind;
use portico_tests::Scenario;

use super::shell::{log_in, run, sound, up};

/// Stressors, and what they are told.
const STRESSORS: [&str; 12] = [
    "cpu 2 --cpu-method fft",
    "vm 2 --vm-bytes 16m",
    "timer 2",
    "hrtimers 2",
    "clock 2",
    "switch 2",
    "futex 2",
    "membarrier 2",
    "mmapfork 1",
    "fault 2",
    "sigsuspend 2",
    "affinity 2",
];
/// Seconds for each.
const SECONDS: u32 = 4;

/// Runs them one after the other, then some together while a processor comes and goes.
pub fn stress(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("linux-disk", machine, cpus).seconds(200).boot()?;
    up(&mut running, &["one"])?;
    log_in(&mut running, "one")?;
    for stressor in STRESSORS {
        run(
            &mut running,
            &format!("stress-ng --verify -t {SECONDS} --{stressor} > /tmp/log 2>&1 || (cat /tmp/log; false)"),
        )?;
    }
    let switching = "cpu=/sys/devices/system/cpu/cpu1/online; \
                     stress-ng -t 10 --switch 2 --timer 1 --pipe 1 > /tmp/log 2>&1 & \
                     for i in 1 2 3 4; do sleep 1; echo 0 > $cpu; sleep 1; echo 1 > $cpu; done; wait $!";
    run(&mut running, switching)?;
    sound(&mut running)
}
