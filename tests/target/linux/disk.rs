//! What a Debian guest writes to a disk is there, also when its block service dies meanwhile.

use std::time::Duration;

use anyhow::Result;
use portico_ctl::MachineKind;
use portico_tests::{Machine, Random, Scenario};

use super::shell::{focus, leave, log_in, run, sound, up};

/// How often the block service is ended while something is written.
const DEATHS: usize = 4;

/// Writes with fio, which knows what it wrote: to the raw disk, then to a file system on it, each at rest and under deaths of the service.
pub fn verified(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("linux-disk", machine, cpus).seconds(240).boot()?;
    up(&mut running, &["one"])?;
    log_in(&mut running, "one")?;
    let fio = "fio --name=v --ioengine=libaio --iodepth=16 --direct=1 --bs=4k-64k --verify=crc32c --verify_fatal=1";
    run(&mut running, &format!("{fio} --rw=randwrite --filename=/dev/pvda2 --size=16m --minimal > /tmp/log"))?;
    while_it_dies(&mut running, &format!("{fio} --rw=randwrite --filename=/dev/pvda2 --size=24m --loops=2"))?;
    run(&mut running, "mkfs.ext4 -q -F /dev/pvda2 && mount /dev/pvda2 /mnt")?;
    // Written through the cache, and forced to the disk now and then.
    let buffered = fio.replace("--direct=1", "--fsync=32").replace("libaio --iodepth=16", "psync");
    run(&mut running, &format!("{buffered} --rw=randwrite --directory=/mnt --size=8m --minimal > /tmp/log"))?;
    while_it_dies(&mut running, &format!("{buffered} --rw=randwrite --directory=/mnt --size=12m --loops=2"))?;
    let files = "rm /mnt/v*; for i in 1 2 3 4; do \
                 tar -cf /mnt/$i.tar -C / usr/sbin && sync && cmp /mnt/1.tar /mnt/$i.tar || exit; done";
    while_it_dies(&mut running, files)?;
    run(&mut running, "umount /mnt && e2fsck -f -n /dev/pvda2")?;
    sound(&mut running)
}

/// Runs a command that must end well and write nothing of its own mind, and ends the block service again and again meanwhile.
fn while_it_dies(running: &mut Machine, command: &str) -> Result<()> {
    run(running, "sync; dmesg --clear > /dev/null 2>&1; rm -f /tmp/status")?;
    let begun = running.mark();
    running.send(&format!("({command}) > /tmp/log 2>&1; echo $? > /tmp/status; echo load-en''ded\r"))?;
    leave(running)?;
    let mut random = Random(0x5eed);
    for _ in 0..DEATHS {
        running.take_for(Duration::from_millis(300 + random.below(2500)));
        let mark = running.mark();
        running.send("reboot block\r")?;
        running.wait_after(mark, r#"guest "block": rebooted by the operator"#)?;
    }
    running.wait_after(begun, r"load-ended$")?;
    focus(running, "one")?;
    run(running, "cat /tmp/log | tail -20; test $(cat /tmp/status) = 0")
}
