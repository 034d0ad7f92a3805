//! What Linux's drivers do beside carrying data: queues, suspending, hibernating, what the hypervisor says of itself. Run by `cargo xtask test linux`.

use std::time::Duration;

use anyhow::{Result, ensure};
use portico_ctl::MachineKind;
use portico_tests::{Machine, Scenario};

use super::shell::{ask, focus, hand_over, leave, shells};

/// The kernel found nothing wrong with itself. What is written to a disk that is read-only fails as it should, so that is not looked for.
fn sound(running: &mut Machine) -> Result<()> {
    let wrong = "WARNING|BUG:|Oops|Call trace|rcu_sched|broke the protocol|cannot be";
    let answer = ask(running, &format!(r#"echo "wrong: $(dmesg | grep -cE '{wrong}')""#), r"^wrong: \d+$")?;
    ensure!(answer == "wrong: 0", "{}the kernel complains", running.last_lines());
    Ok(())
}

fn boot(machine: MachineKind, cpus: u32) -> Result<Machine> {
    shells("linux-drivers", [2, 1], machine, cpus)
}

/// The kernel says where it runs, and takes its random numbers from there.
pub fn hypervisor(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = boot(machine, cpus)?;
    let upcall = if machine == MachineKind::Virt { "gicv3" } else { "gicv2" };
    let facts = [
        ("type", "portico"),
        ("name", "one"),
        ("uid", "1f7c5e3a-4b8d-4e6f-9c21-7d0a5b92e846"),
        ("version/major", "1"),
        ("properties/upcall", upcall),
    ];
    for (file, answer) in facts {
        ask(&mut running, &format!("cat /sys/hypervisor/{file}"), &format!("^{answer}$"))?;
    }
    ask(&mut running, "cat /sys/class/misc/hw_random/rng_current", "^smccc_trng$")?;
    let numbers = r#"a=$(head -c 32 /dev/hwrng | md5sum); b=$(head -c 32 /dev/hwrng | md5sum); [ "$a" != "$b" ] && echo oth''ers"#;
    ask(&mut running, numbers, "^others$")?;
    sound(&mut running)
}

/// Each processor has a queue of its own, and both outlive the service. What is read-only cannot be written.
pub fn queues(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = boot(machine, cpus)?;
    ask(&mut running, "ls /sys/block/pvda/mq | xargs", "^0 1$")?;
    ask(&mut running, "ls /sys/block/pvdb/mq | xargs", "^0$")?;
    ask(&mut running, "cat /sys/block/pvdc/ro /sys/block/pvda/ro | xargs", "^1 0$")?;
    ask(&mut running, "cat /sys/block/pvda/queue/write_cache", "^write back$")?;
    ask(&mut running, "cat /sys/block/pvdc/queue/write_cache", "^write through$")?;
    ask(&mut running, "dd if=/dev/zero of=/dev/pvdc count=1 2>/dev/null || echo refu''sed", "^refused$")?;

    ask(&mut running, "dd if=/dev/urandom of=/tmp/a bs=64k count=96 2>/dev/null; echo ma''de", "^made$")?;
    let write = |cpu: u32| {
        let place = cpu * 128;
        format!(
            "taskset -c {cpu} dd if=/tmp/a of=/dev/pvda bs=64k seek={place} oflag=direct conv=notrunc,fsync 2>/dev/null"
        )
    };
    let load = format!("for i in 1 2 3; do {} & {}; wait; done; echo writ''ten", write(0), write(1));
    let mark = running.mark();
    running.send(&format!("{load}\r"))?;
    leave(&mut running)?;
    for _ in 0..3 {
        let mark = running.mark();
        running.send("reboot block\r")?;
        running.wait_after(mark, r#"guest "block": rebooted by the operator"#)?;
    }
    running.wait_after(mark, "written$")?;
    focus(&mut running, "one")?;
    let compare = "for i in 0 128; do dd if=/dev/pvda bs=64k skip=$i count=96 iflag=direct 2>/dev/null | cmp - /tmp/a && echo same; done | grep -c same";
    ask(&mut running, compare, "^2$")?;
    ask(&mut running, "dmesg | grep -ci 'i/o error'", "^0$")?;
    // A queue's answers come to its processor.
    let spread = r#"awk '/block/ && $3 > 20 && $2 < $3 { print "spr" "ead" }' /proc/interrupts"#;
    ask(&mut running, spread, "^spread$")?;

    let discard =
        "[ $(cat /sys/block/pvda/queue/discard_max_bytes) = 0 ] && echo does not; blkdiscard /dev/pvda; echo rc-$?";
    let answer = ask(&mut running, discard, r"^(rc-\d+|does not)$")?;
    ensure!(answer != "rc-1", "{}a discard that is offered fails", running.last_lines());
    sound(&mut running)
}

/// Disk, network and both processors do what they did.
fn works(running: &mut Machine) -> Result<()> {
    ask(running, "cat /sys/devices/system/cpu/online", "^0-1$")?;
    let network = "until ping -c 1 -W 1 10.0.2.16 >/dev/null; do :; done; echo rea''ched";
    ask(running, network, "^reached$")?;
    let disk = "dd if=/tmp/a of=/dev/pvda oflag=direct 2>/dev/null; dd if=/dev/pvda iflag=direct bs=64k count=16 2>/dev/null | cmp - /tmp/a && echo sa''me";
    ask(running, disk, "^same$")?;
    let spread = "for i in 0 1; do taskset -c $i sh -c 'dd if=/dev/pvda of=/dev/null iflag=direct bs=64k count=4 2>/dev/null'; done; echo bo''th";
    ask(running, spread, "^both$")?;
    sound(running)
}

/// The guest goes to sleep to each depth and comes back, with its devices busy; and whoever types wakes it.
pub fn suspend(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = boot(machine, cpus)?;
    ask(&mut running, "dd if=/dev/urandom of=/tmp/a bs=64k count=16 2>/dev/null; echo ma''de", "^made$")?;
    let busy = "while :; do dd if=/dev/pvda of=/dev/null bs=64k count=64 iflag=direct 2>/dev/null; done & ping 10.0.2.16 >/dev/null & echo bu''sy";
    ask(&mut running, busy, "^busy$")?;
    ask(&mut running, "echo 1 > /sys/module/suspend/parameters/pm_test_delay; echo short''er", "^shorter$")?;
    let depths = [
        ("freezer", "freeze"),
        ("devices", "freeze"),
        ("platform", "freeze"),
        ("devices", "mem"),
        ("processors", "mem"),
        ("core", "mem"),
        ("core", "disk"),
    ];
    for (depth, state) in depths {
        let sleep =
            format!("echo {depth} > /sys/power/pm_test; echo {state} > /sys/power/state; echo {depth}-{state}-$?");
        ask(&mut running, &sleep, &format!("^{depth}-{state}-0$"))?;
        works(&mut running)?;
    }
    ask(&mut running, "echo none > /sys/power/pm_test; echo no''ne", "^none$")?;
    for (round, state) in ["freeze", "mem"].into_iter().enumerate() {
        fall_asleep(&mut running, state, round)?;
        running.send("\r")?;
        running.wait(&format!("^awake-{round}-0$"))?;
        works(&mut running)?;
    }
    // What the manager tells wakes it too.
    fall_asleep(&mut running, "mem", 2)?;
    leave(&mut running)?;
    running.send("clock 2030-01-02T03:04:05\r")?;
    running.wait(r"^\[one\] awake-2-0$")?;
    focus(&mut running, "one")?;
    works(&mut running)?;
    ask(&mut running, "cat /sys/power/suspend_stats/fail", "^0$").map(drop)
}

/// Lets the guest sleep, and sees that it does so for a while.
fn fall_asleep(running: &mut Machine, state: &str, round: usize) -> Result<()> {
    let mark = running.mark();
    running.send(&format!("echo {state} > /sys/power/state; echo awake-{round}-$?\r"))?;
    running.wait_after(mark, "PM: suspend entry")?;
    running.take_for(Duration::from_secs(3));
    running.never(&format!(r"awake-{round}-\d"))
}

/// The guest writes itself to a disk and ends, and goes on in its next life, which has other ports: as one that is restored.
pub fn hibernate(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = boot(machine, cpus)?;
    ask(&mut running, "dd if=/dev/urandom of=/tmp/a bs=64k count=16 2>/dev/null; echo ma''de", "^made$")?;
    ask(&mut running, "mkswap /dev/pvdb >/dev/null && swapon /dev/pvdb && echo swap''ping", "^swapping$")?;
    for life in 1..=2 {
        ask(&mut running, &format!("kept=$$-{life}; echo ke''pt"), "^kept$")?;
        let mark = running.mark();
        running.send("echo shutdown > /sys/power/disk; echo disk > /sys/power/state; echo again-$?-$kept-$$\r")?;
        running.wait_after(mark, r#"guest "one": powered off"#)?;
        running.wait_after(mark, "keyboard of the manager")?;
        let mark = running.mark();
        running.send("reboot one\r")?;
        running.wait_after(mark, r#"guest "one": "#)?;
        hand_over(&mut running, "one")?;
        let line = running.wait_after(mark, r"again-\d+-\d+-\d+-\d+$")?;
        let words: Vec<_> = line.rsplit('-').collect();
        let [now, round, then, status, ..] = words.as_slice() else { anyhow::bail!("{line}") };
        ensure!(*status == "0" && *round == life.to_string() && now == then, "another shell: {line}");
        works(&mut running)?;
    }
    Ok(())
}

/// The guest's clock is that of the machine, or what the operator says.
pub fn time_of_day(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = boot(machine, cpus)?;
    if machine == MachineKind::Raspi4b {
        ask(&mut running, "cat /sys/class/rtc/rtc0/since_epoch || echo unkn''own", "^unknown$")?;
    } else {
        ask(&mut running, "cat /sys/class/rtc/rtc0/hctosys", "^1$")?;
        ask(&mut running, "date -u +%Y", r"^20[2-9]\d$")?;
    }
    leave(&mut running)?;
    let mark = running.mark();
    running.send("clock 2030-01-02T03:04:05\r")?;
    running.wait_after(mark, "^2030-01-02 03:04:05 UTC$")?;
    focus(&mut running, "one")?;
    // That second, and up to some minutes of it.
    ask(&mut running, "cat /sys/class/rtc/rtc0/since_epoch", r"^18935534[4-9]\d|1893553[5-9]\d\d$")?;
    ask(&mut running, "hwclock -s -u; date -u +%Y-%m-%d", "^2030-01-02$")?;
    sound(&mut running)
}

/// A guest whose watchdog is not triggered any more is ended; one that stops it is not.
pub fn watchdog(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = boot(machine, cpus)?;
    ask(&mut running, "cat /sys/class/watchdog/watchdog0/identity", "^Portico watchdog$")?;
    let trigger = "watchdog -F -T 2 -t 1 /dev/watchdog & sleep 5; echo ali''ve";
    ask(&mut running, trigger, "^alive$")?;
    ask(&mut running, "cat /sys/class/watchdog/watchdog0/timeout", "^2$")?;
    operate(&mut running, "info one", "^watchdog +2000 ms$")?;
    // Its file is closed in order.
    ask(&mut running, "kill -TERM $!; sleep 5; echo still-ali''ve", "^still-alive$")?;
    ask(&mut running, trigger, "^alive$")?;
    ask(&mut running, "kill -STOP $!", r#"guest "one": watchdog expired"#).map(drop)
}

/// The operator asks the guest to start afresh and to stop; its user land does so in order, and the manager hears of it.
pub fn requests(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = boot(machine, cpus)?;
    leave(&mut running)?;
    for _ in 0..2 {
        let mark = running.mark();
        running.send("restart one\r")?;
        running.wait_after(mark, r#"guest "one": asked to be rebooted"#)?;
        running.wait_after(mark, r"^\[one\] Linux 6\.12\.\d+ on 2 vCPUs, \d+ MiB: one$")?;
    }
    let mark = running.mark();
    running.send("stop one\r")?;
    running.wait_after(mark, r#"guest "one": powered off"#)?;
    ends(&mut running)
}

/// What nobody asked for comes to the same, in order or not; and a guest that panics says so.
fn ends(running: &mut Machine) -> Result<()> {
    for command in ["reboot", "reboot -f"] {
        focus(running, "two")?;
        let mark = running.mark();
        ask(running, command, r#"guest "two": asked to be rebooted"#)?;
        let begun = running.wait_after(mark, r"^(\[two\] )?Linux 6\.12\.\d+ on 1 vCPUs, \d+ MiB: two$")?;
        // It keeps the keyboard and the screen if its next life was there soon enough.
        if !begun.starts_with("[two]") {
            leave(running)?;
        }
    }
    focus(running, "two")?;
    let mark = running.mark();
    ask(running, "echo c > /proc/sysrq-trigger", r#"guest "two": panicked"#)?;
    running.wait_after(mark, "keyboard of the manager").map(drop)
}

/// The operator lets the guest sleep and wakes it, with its devices busy; it says what it does, also when it sleeps by itself.
pub fn sleep(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = boot(machine, cpus)?;
    ask(&mut running, "dd if=/dev/urandom of=/tmp/a bs=64k count=16 2>/dev/null; echo ma''de", "^made$")?;
    let busy = "while :; do dd if=/dev/pvda of=/dev/null bs=64k count=64 iflag=direct 2>/dev/null; done & ping 10.0.2.16 >/dev/null & echo bu''sy";
    ask(&mut running, busy, "^busy$")?;
    leave(&mut running)?;
    for _ in 0..2 {
        let mark = running.mark();
        running.send("suspend one\r")?;
        running.wait_after(mark, r#"guest "one": asleep"#)?;
        ask(&mut running, "list", r"^one +\d+ +asleep ")?;
        // It stays so: its devices, which were busy, wake nobody.
        running.take_for(Duration::from_secs(1));
        ask(&mut running, "info one", "^guest +one, asleep$")?;
        ask(&mut running, "wake one", r#"guest "one": awake"#)?;
        focus(&mut running, "one")?;
        works(&mut running)?;
        leave(&mut running)?;
    }
    focus(&mut running, "one")?;
    fall_asleep(&mut running, "mem", 7)?;
    leave(&mut running)?;
    ask(&mut running, "list", r"^one +\d+ +asleep ")?;
    // What else is asked of it wakes it.
    ask(&mut running, "stop one", r#"guest "one": powered off"#).map(drop)
}

/// The operator takes memory of a guest that works, makes another guest of it, and gives it back. The guest loses nothing and does not complain.
pub fn balloon(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = Scenario::system("linux-balloon", machine, cpus).seconds(240).boot()?;
    running.wait(r"^\[one\] Linux 6\.12\.\d+ on 2 vCPUs, \d+ MiB: one$")?;
    ask(&mut running, "memory one 40M", "`one` can have from 48M to 160M of memory")?;
    ask(&mut running, "create other image=neighbour memory=96M", r#""other": cannot start: it needs 96M"#)?;
    focus(&mut running, "one")?;
    let before = total(&mut running)?;
    // What the guest may not lose, and programs that need memory and fill it with what they read.
    let kept = "dd if=/dev/urandom of=/tmp/a bs=64k count=128 2>/dev/null; md5sum </tmp/a >/tmp/sum; echo ma''de";
    ask(&mut running, kept, "^made$")?;
    let busy = "while :; do dd if=/dev/pvda of=/dev/null bs=64k; sort /init /init | md5sum; done >/dev/null 2>&1 & echo bu''sy";
    ask(&mut running, busy, "^busy$")?;

    let same = "md5sum </tmp/a | cmp - /tmp/sum && echo sa''me";
    for _ in 0..2 {
        operate(&mut running, "memory one 64M", r#"guest "one": has 64M/160M of memory now$"#)?;
        let less = total(&mut running)?;
        ensure!(less + 96 == before, "{before} MiB became {less} MiB");
        ask(&mut running, same, "^same$")?;
        // What it gave back is another guest's, and it waits until that is gone.
        operate(&mut running, "create other", r"^\[other\] healthy \d")?;
        leave(&mut running)?;
        running.send("memory one 160M\r")?;
        running.take_for(Duration::from_secs(2));
        ask(&mut running, "destroy other", r#"guest "one": has 160M/160M of memory now$"#)?;
        focus(&mut running, "one")?;
        let again = total(&mut running)?;
        ensure!(again == before, "{before} MiB became {again} MiB");
        // More than it had in between can be used, and is what it was made to be.
        let filled = "dd if=/dev/zero of=/tmp/b bs=1M count=48 2>/dev/null; tr -d '\\0' </tmp/b | wc -c; rm /tmp/b";
        ask(&mut running, filled, "^0$")?;
        ask(&mut running, same, "^same$")?;
    }
    ask(&mut running, "dmesg | grep -ciE 'out of memory|oom-kill|allocation failure'", "^0$")?;
    sound(&mut running)
}

/// Memory that the guest's kernel says it has, in MiB.
fn total(running: &mut Machine) -> Result<u32> {
    let line = ask(running, "awk '/MemTotal/ { print \"total-\" int($2 / 1024) }' /proc/meminfo", r"^total-\d+$")?;
    Ok(line.trim_start_matches("total-").parse()?)
}

/// Waits until the disk that is added can be read: the kernel makes its file in `/dev` first, its link in `/sys/block` next, and lets nobody open it before.
const APPEARS: &str = "until [ -e /sys/block/pvdd/ro ] && dd if=/dev/pvdd of=/dev/null count=1 2>/dev/null; do :; done";

/// A disk is added to the guest and taken away, in order and by surprise, while the block service dies.
pub fn hotplug(machine: MachineKind, cpus: u32) -> Result<()> {
    let mut running = boot(machine, cpus)?;
    ask(&mut running, "ls /sys/block | grep -c pvdd", "^0$")?;
    ask(
        &mut running,
        "dd if=/dev/urandom of=/tmp/b bs=64k count=64 2>/dev/null; dd if=/tmp/b of=/tmp/a bs=64k count=16 2>/dev/null; echo ma''de",
        "^made$",
    )?;
    operate(&mut running, "disk add one spare=sd:spare", r#"guest "one": disk spare \(sd:spare, rw\) was added"#)?;
    ask(&mut running, &format!("{APPEARS}; cat /sys/block/pvdd/size"), "^32768$")?;

    // It is written with deaths of the service, and what was written is there.
    let write = "for i in 1 2 3; do dd if=/tmp/b of=/dev/pvdd bs=64k oflag=direct conv=fsync 2>/dev/null; dd if=/dev/pvdd bs=64k count=64 iflag=direct 2>/dev/null | cmp - /tmp/b || echo dif''fers; done; echo writ''ten";
    let mark = running.mark();
    running.send(&format!("{write}\r"))?;
    leave(&mut running)?;
    for command in ["reboot block", "panic", "reboot block"] {
        running.take_for(Duration::from_millis(300));
        running.send(&format!("{command}\r"))?;
    }
    running.wait_after(mark, "written$")?;
    ensure!(!running.lines_after(mark).iter().any(|line| line.contains("differs")), "another thing was read");

    // One that is in use is kept.
    focus(&mut running, "one")?;
    ask(&mut running, "exec 9</dev/pvdd; echo op''en", "^open$")?;
    operate(&mut running, "disk remove one spare 2", r#"guest "one": has not given disk spare up within 2 s"#)?;
    ask(
        &mut running,
        "dd if=/dev/pvdd bs=64k count=64 iflag=direct 2>/dev/null | cmp - /tmp/b && echo sa''me",
        "^same$",
    )?;
    ask(&mut running, "exec 9<&-; echo clo''sed", "^closed$")?;
    operate(&mut running, "disk remove one spare", r#"guest "one": disk spare \(sd:spare, rw\) was removed"#)?;
    ask(&mut running, "while [ -b /dev/pvdd ]; do :; done; ls /sys/block | grep -c pvdd", "^0$")?;

    // Another one in its place, read-only, which goes while it is read: that fails, and nothing hangs.
    operate(&mut running, "disk add one spare=sd:other ro", "was added")?;
    ask(&mut running, &format!("{APPEARS}; cat /sys/block/pvdd/size /sys/block/pvdd/ro | xargs"), "^16384 1$")?;
    let mark = running.mark();
    running.send("while dd if=/dev/pvdd of=/dev/null bs=64k iflag=direct 2>/dev/null; do :; done; echo fai''led\r")?;
    operate_leaving(&mut running, "disk remove one spare now", "was removed")?;
    running.wait_after(mark, "failed$")?;
    focus(&mut running, "one")?;
    ask(&mut running, "while [ -b /dev/pvdd ]; do :; done; ls /sys/block | grep -c pvdd", "^0$")?;
    ask(&mut running, "dmesg | grep -c 'pvdd was removed'", "^1$")?;
    works(&mut running)
}

/// Types a command to the manager, while the first guest has the keyboard, and gives it back.
fn operate(running: &mut Machine, command: &str, answer: &str) -> Result<()> {
    operate_leaving(running, command, answer)?;
    focus(running, "one")
}

/// As [`operate`], and leaves the keyboard with the manager. What the guest has to see first it may not have seen yet.
fn operate_leaving(running: &mut Machine, command: &str, answer: &str) -> Result<()> {
    leave(running)?;
    for _ in 0..50 {
        let line = ask(running, command, &format!("{answer}|^error: "))?;
        if !line.starts_with("error: ") {
            return Ok(());
        }
        ensure!(line.contains("try again"), "{line}");
        running.take_for(Duration::from_millis(200));
    }
    anyhow::bail!("{}`{command}` is refused", running.last_lines())
}
