//! What a Debian guest is: somebody logs in, packages are known, guests and this computer reach each other.

use std::process::Command;

use anyhow::{Result, ensure};
use portico_ctl::MachineKind;
use portico_tests::Scenario;

use super::shell::{ask, leave, log_in, run, sound, up};

/// Logs in to both guests, and tries what an operator would.
pub fn login(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("linux", machine, cpus).seconds(200).boot()?;
    up(&mut running, &["one", "two"])?;
    // A guest on the SDK asks FreeRTOS beside them.
    running.wait(r"^\[ping\] ping \d+: answer")?;
    log_in(&mut running, "one")?;
    ask(&mut running, "id -un; tty", "^/dev/hvc0$")?;
    ask(&mut running, "echo $(hostname) has $(nproc)", "^one has 2$")?;
    // The root has grown to its partition of 320 MiB, whatever the image had.
    ask(&mut running, "df -m / | awk 'NR == 2 { print ($2 > 250) ? \"gro\" \"wn\" : $2 }'", "^grown$")?;
    // dpkg knows the packages, and their files are as they came.
    let known = "dpkg -l | awk '/^ii/ { n++ } END { print (n > 150) ? \"kno\" \"wn\" : n }'";
    ask(&mut running, known, "^known$")?;
    run(&mut running, "dpkg -V coreutils bash fio login | grep -v '^missing.*/usr/share/' | grep . && false || true")?;
    run(&mut running, "dpkg --audit && dpkg -S /usr/bin/fio | grep -q ^fio:")?;
    run(&mut running, "awk 'BEGIN { exit 0 }' && which fio && echo a | less -E > /dev/null && runuser -u nobody true")?;
    run(&mut running, "ping -c 3 -W 5 two")?;
    run(&mut running, "curl -sf http://two/ | grep -q 'guest two of Portico'")?;
    if machine.has_net() {
        let port = running.port("10.0.2.15:80")?;
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "30"]).arg(format!("http://127.0.0.1:{port}/"));
        let output = command.output()?;
        let page = String::from_utf8_lossy(&output.stdout);
        ensure!(page.contains("guest one of Portico"), "{page}{}", String::from_utf8_lossy(&output.stderr));
    }
    sound(&mut running)?;
    // Who is gone does not leave the door open.
    ask(&mut running, "exit", "^Debian GNU/Linux 12 one hvc0")?;
    leave(&mut running)?;
    log_in(&mut running, "two")?;
    sound(&mut running)
}
