//! What a Debian guest writes to a disk is there, also when its block service dies meanwhile.

use anyhow::Result;
use portico_ctl::MachineKind;
use portico_tests::Scenario;

use super::shell::{log_in, run, sound, up, while_it_dies, while_it_keeps_dying};

/// fio with checks of what it wrote.
const FIO: &str = "fio --name=v --ioengine=libaio --iodepth=16 --direct=1 --bs=4k-64k --verify=crc32c --verify_fatal=1";

/// Writes with fio, which knows what it wrote: to the raw disk, then to a file system on it, each at rest and under deaths of the service.
pub fn verified(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("linux-disk", machine, cpus).seconds(400).boot()?;
    up(&mut running, &["one"])?;
    log_in(&mut running, "one")?;
    run(&mut running, &format!("{FIO} --rw=randwrite --filename=/dev/pvda2 --size=16m --minimal > /tmp/log"))?;
    while_it_dies(
        &mut running,
        ("one", "block"),
        &format!("{FIO} --rw=randwrite --filename=/dev/pvda2 --size=24m --loops=2"),
    )?;
    run(&mut running, "mkfs.ext4 -q -F /dev/pvda2 && mount /dev/pvda2 /mnt")?;
    // Written through the cache, and forced to the disk now and then.
    let buffered = FIO.replace("--direct=1", "--fsync=32").replace("libaio --iodepth=16", "psync");
    run(&mut running, &format!("{buffered} --rw=randwrite --directory=/mnt --size=8m --minimal > /tmp/log"))?;
    while_it_dies(
        &mut running,
        ("one", "block"),
        &format!("{buffered} --rw=randwrite --directory=/mnt --size=12m --loops=2"),
    )?;
    let files = "rm /mnt/v*; for i in 1 2 3 4; do \
                 tar -cf /mnt/$i.tar -C / usr/sbin && sync && cmp /mnt/1.tar /mnt/$i.tar || exit; done";
    while_it_dies(&mut running, ("one", "block"), files)?;
    run(&mut running, "umount /mnt && e2fsck -f -n /dev/pvda2")?;
    sound(&mut running)
}

/// The service is ended as soon as it is there again, or a little later, for as long as a guest writes and compares: its lives are short, and some
/// end in the middle of the handshake.
pub fn deaths(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("linux-disk", machine, cpus).seconds(400).boot()?;
    up(&mut running, &["one"])?;
    log_in(&mut running, "one")?;
    while_it_keeps_dying(
        &mut running,
        ("one", "block"),
        &format!("{FIO} --rw=randwrite --filename=/dev/pvda2 --size=24m --loops=12"),
    )?;
    run(&mut running, "mkfs.ext4 -q -F /dev/pvda2 && mount /dev/pvda2 /mnt")?;
    let files = "tar -cf /mnt/1.tar -C / usr/sbin; for i in $(seq 12); do \
                 tar -cf /mnt/2.tar -C / usr/sbin && sync && cmp /mnt/1.tar /mnt/2.tar || exit; done";
    while_it_keeps_dying(&mut running, ("one", "block"), files)?;
    run(&mut running, "umount /mnt && e2fsck -f -n /dev/pvda2")?;
    sound(&mut running)
}
