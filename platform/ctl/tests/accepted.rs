//! What is accepted, what is made of it, and the command itself.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kernels;

use kernels::Kernels;
use portico_bundle::cpio::Archive;
use portico_ctl::description::{self, Disk, OnCrash, Part, Reservation, RestartLimit, Vif};
use portico_ctl::{BundleError, Content, Drive, LoadOptions, MachineKind, Report, System, load_text};
use std::path::Path;
use std::process::Command;

const DEVICES: &str = r#"
[system]
name = "shop"

[block]
kernel = "test:good"
trusted-dma = true
memory = "8M"
cpus = "1"
cap = 50
restart = { limit = 100, window = "10s" }

[net]
kernel = "test:image"
trusted-dma = true
reservation = { budget = "100us", period = "1ms" }

[console]
kernel = "test:good"

[[disk]]
name = "sd"
file = "card.img"
partitions = [{ label = "boot", size = "1M" }, { label = "root", size = "16M", files = "" }]

[[bridge]]
name = "lan"

[[bridge]]
name = "dmz"
mtu = 9000

[[forward]]
to = "10.0.2.15:80"
port = 8080

[[forward]]
to = "10.0.2.15:22"

[[guest]]
name = "web"
kernel = "test:good"
memory = "8M"
disk = [
    "sd:1",
    { name = "root", source = "sd:root", mode = "ro", iops = 500, bandwidth = "10M", burst = 64, queues = 2, window = "512K" },
]
vif = ["lan", { name = "front", bridge = "dmz", mac = "02:00:00:00:00:01", rate = "1M", burst = "32K", window = "64K" }]

[[guest]]
name = "db"
kernel = "test:good"
memory = "8M"
disk = [{ source = "sd:2", mode = "ro", iops = 10 }]
vif = [{ bridge = "lan", rate = "10K" }]
"#;

const EVERYTHING: &str = r#"
[system]
name = "shop"
machine = "virt-gicv2"
memory = "512M"
cpus = 2

[manager]
cmdline = "portico.quiet"

[[guest]]
name = "web"
kernel = "test:image"
ramdisk = "test:disk"
cmdline = "console=hvc0 quiet"
memory = 16
memory_min = "8M"
vcpus = 2
cpus = "0-1"
weight = 512
cap = 12.5
on_crash = "restart"
restart = { limit = 3, window = "2s" }
depends = ["db"]
watchdog = "500ms"

[[guest]]
name = "db"
kernel = "test:image"
memory = "8M"
reservation = { budget = "200us", period = "1ms" }
on_crash = "preserve"

[[guest]]
name = "spare"
kernel = "test:good"
memory = "8 MiB"
autostart = false

[[channel]]
name = "sql"
between = ["web", "db"]
size = "128K"

[[channel]]
name = "log"
between = ["db", "spare"]
"#;

fn load(text: &str, change: impl FnOnce(&mut LoadOptions<'_>)) -> Result<System, Report> {
    let kernels = Kernels::new();
    let resolver = kernels.resolver();
    let mut options = LoadOptions { resolver: Some(&resolver), ..LoadOptions::default() };
    change(&mut options);
    load_text(text, Path::new("dir/shop.toml"), &options)
}

#[test]
fn every_key_arrives() {
    let system = load(EVERYTHING, |_| {}).unwrap();
    assert_eq!((system.machine.kind, system.machine.cpus), (MachineKind::VirtGicv2, 2));
    assert_eq!(system.machine.memory_bytes, 512 << 20);
    let description = &system.description;
    assert_eq!((description.name.as_str(), description.manager_cmdline.as_str()), ("shop", "portico.quiet"));
    let [web, db, spare] = description.guests.as_slice() else { panic!("three guests") };
    let expected = description::Guest {
        name: "web".into(),
        image: "image/image".into(),
        ramdisk: Some("ramdisk/disk".into()),
        cmdline: "console=hvc0 quiet".into(),
        memory_pages: 4096,
        memory_min_pages: 2048,
        vcpus: 2,
        affinity: 3,
        weight: 512,
        cap_permille: 125,
        reservation: None,
        on_crash: OnCrash::Restart,
        restart: RestartLimit { count: 3, window_s: 2 },
        depends: vec![1],
        watchdog_ms: 500,
        autostart: true,
        disks: Vec::new(),
        vifs: Vec::new(),
    };
    assert_eq!(web, &expected);
    assert_eq!(db.reservation, Some(Reservation { period_us: 1000, budget_us: 200 }));
    assert_eq!((db.on_crash, db.image.as_str(), db.affinity), (OnCrash::Preserve, "image/image", 0));
    assert_eq!((spare.autostart, spare.on_crash, spare.weight), (false, OnCrash::Destroy, 256));
    let channels: Vec<_> = description.channels.iter().map(|c| (c.name.as_str(), c.a, c.b, c.pages)).collect();
    assert_eq!(channels, [("sql", 0, 1, 32), ("log", 1, 2, 16)]);
}

#[test]
fn every_device_arrives() {
    let system = load(DEVICES, |_| {}).unwrap();
    let description = &system.description;
    let [web, db] = description.guests.as_slice() else { panic!("two guests") };
    let disk = |name: &str, part: Part| Disk {
        name: name.into(),
        disk: "sd".into(),
        part,
        queues: 1,
        pages: 64,
        ..Disk::default()
    };
    let root = Disk {
        read_only: true,
        iops: 500,
        bytes_per_s: 10 << 20,
        burst: 64,
        queues: 2,
        pages: 128,
        ..disk("root", Part::Label("root".into()))
    };
    assert_eq!(web.disks, [disk("disk0", Part::Number(1)), root]);
    assert_eq!(db.disks, [Disk { read_only: true, iops: 10, burst: 32, ..disk("disk0", Part::Number(2)) }]);
    let front = Vif {
        name: "front".into(),
        bridge: 1,
        mac: [2, 0, 0, 0, 0, 1],
        bytes_per_s: 1 << 20,
        burst: 32 << 10,
        pages: 16,
    };
    assert_eq!((web.vifs[0].name.as_str(), web.vifs[0].bridge, web.vifs[0].pages), ("net0", 0, 128));
    assert_eq!(web.vifs[1], front);
    assert_eq!((db.vifs[0].bytes_per_s, db.vifs[0].burst), (10 << 10, 64 << 10));
    let [block, net, console] = description.services.as_slice() else { panic!("three services") };
    let entries = [block, net, console].map(|service| service.image.as_str());
    assert_eq!(entries, ["service/block", "service/net", "service/console"]);
    assert_eq!((block.memory_pages, block.affinity, block.cap_permille, block.weight), (2048, 2, 500, 1024));
    assert_eq!((block.restart, block.trusted_dma), (RestartLimit { count: 100, window_s: 10 }, true));
    assert_eq!(net.reservation, Some(Reservation { period_us: 1000, budget_us: 100 }));
    assert_eq!((net.memory_pages, console.memory_pages, console.trusted_dma), (1024, 256, false));
    let bridges: Vec<_> = description.bridges.iter().map(|b| (b.name.as_str(), b.uplink, b.mtu)).collect();
    assert_eq!(bridges, [("lan", true, 1500), ("dmz", false, 9000)]);
    let [drive] = system.drives.as_slice() else { panic!("one disk") };
    assert_eq!((drive.file.as_deref(), drive.bytes), (Some(Path::new("dir/card.img")), Some(19 << 20)));
    assert_eq!(drive.layout(), [(1 << 20, 1 << 20), (2 << 20, 16 << 20)]);
    assert_eq!(drive.partitions[1].content, Content::Readme);
    let forwards: Vec<_> = system.forwards.iter().map(|forward| (forward.to.to_string(), forward.port)).collect();
    assert_eq!(forwards, [("10.0.2.15:80".into(), Some(8080)), ("10.0.2.15:22".into(), None)]);
    assert!(system.notes.is_empty());
    let bundle = system.bundle(&kernels::image(1 << 20)).unwrap();
    assert!(Archive::new(&bundle).find("service/net").unwrap().is_some());
    let shown = system.summary();
    for line in [
        "web: disk root = sd:root, read-only, 500 requests/s, 10M/s, 64 at once, 2 queues of 512K",
        "web: vif front at dmz, 02:00:00:00:00:01, 1M/s, 32K at once, window 64K",
        "bridge lan: with the uplink, MTU 1500",
        "service block: 8M, cpus 1, weight 1024, cap 50 %, restart (100 in 10 s), trusted with all memory",
        "disk sd: dir/card.img, 19M; 1 boot 1M, 2 root 16M",
        "forward: port 8080 to 10.0.2.15:80",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
    }
}

#[test]
fn a_machine_uses_what_it_has_of_devices() {
    let on_a_board =
        load(&DEVICES.replace("trusted-dma = true", ""), |options| options.machine = Some("raspi4b".into()));
    let system = on_a_board.unwrap();
    assert!(system.forwards.is_empty() && !system.description.bridges.iter().any(|bridge| bridge.uplink));
    assert_eq!(system.notes, ["bridge \"lan\" is without uplink: machine `raspi4b` has no network device"]);
    assert!(system.summary().contains("note: bridge \"lan\" is without uplink"));
    // Without the device nothing must be trusted with it.
    let without = load(&DEVICES.replacen("trusted-dma = true", "", 2), |options| options.uplink = false).unwrap_err();
    assert_eq!(without.diagnostics.len(), 1, "{without}");
    // Of a file that is asked for nothing is known.
    let text = DEVICES.replace("sd:root", "sd:data").replace("sd:2", "sd:9");
    assert_eq!(load(&text, |_| {}).unwrap_err().diagnostics.len(), 2);
    let system = load(&text, |options| options.disks = vec!["sd".into(), "more".into()]).unwrap();
    let named = |name: &str| Drive { name: name.into(), ..Drive::default() };
    assert_eq!(system.drives, [named("sd"), named("more")]);
    let said = load(DEVICES, |options| {
        (options.machine, options.disks) = (Some("raspi4b".into()), vec!["data".into()]);
    });
    assert_eq!(
        said.unwrap_err().to_string(),
        "dir/shop.toml: machine `raspi4b` has one disk, the card `sd`, and `data` was asked for: ask for `sd`"
    );
}

#[test]
fn bundle_holds_each_file_once_and_is_reproducible() {
    let system = load(EVERYTHING, |_| {}).unwrap();
    let manager = kernels::image(1 << 20);
    let bundle = system.bundle(&manager).unwrap();
    assert_eq!(bundle, system.bundle(&manager).unwrap());
    let archive = Archive::new(&bundle);
    let entries: Vec<&str> = archive.entries().map(|entry| entry.unwrap().name).collect();
    assert_eq!(
        entries,
        ["manager.dtb", "manager", "system", "image/image", "ramdisk/disk", "image/good", "service/console"]
    );
    let encoded = archive.find("system").unwrap().unwrap().data;
    assert_eq!(description::System::decode(encoded).unwrap(), system.description);
    assert!(matches!(system.bundle(b"\x7fELF"), Err(BundleError::Manager)));
}

#[test]
fn options_stand_above_the_description() {
    let system = load(EVERYTHING, |options| {
        options.machine = Some("raspi4b".into());
        options.manager_cmdline = "portico.exit_when_idle".into();
    });
    let system = system.unwrap();
    assert_eq!((system.machine.kind, system.machine.cpus), (MachineKind::Raspi4b, 2));
    assert_eq!(system.description.manager_cmdline, "portico.quiet portico.exit_when_idle");
    let system = load(EVERYTHING, |options| (options.cpus, options.memory_bytes) = (Some(4), Some(1 << 30))).unwrap();
    assert_eq!((system.machine.cpus, system.machine.memory_bytes), (4, 1 << 30));
    let said = |change: fn(&mut LoadOptions<'_>)| load(EVERYTHING, change).unwrap_err().to_string();
    assert_eq!(
        said(|options| options.machine = Some("vrit".into())),
        "dir/shop.toml: unknown machine `vrit` was asked for: ask for `virt`"
    );
    assert_eq!(
        said(|options| options.cpus = Some(9)),
        "dir/shop.toml: machine `virt-gicv2` has at most 8 processors: ask for 1 to 8"
    );
    assert_eq!(
        said(|options| { (options.machine, options.memory_bytes) = (Some("raspi4b".into()), Some(1 << 30)) }),
        "dir/shop.toml: machine `raspi4b` always has 2G of memory: ask for no other"
    );
    assert!(said(|options| options.cpus = Some(1)).contains("`cpus` names 1, the machine has 0"));
    assert!(said(|options| options.memory_bytes = Some(40 << 20)).contains("too much memory"));
}

#[test]
fn without_images_nothing_is_read_and_nothing_is_bundled() {
    let options = LoadOptions { read_images: false, ..LoadOptions::default() };
    let system = load_text(EVERYTHING, Path::new("shop.toml"), &options).unwrap();
    assert!(matches!(system.bundle(&kernels::image(0)), Err(BundleError::ImagesNotRead)));
}

#[test]
fn descriptions_of_the_project_are_good() {
    let options = LoadOptions { read_images: false, ..LoadOptions::default() };
    let mut count = 0;
    for entry in std::fs::read_dir("../systems").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            if let Err(report) = portico_ctl::load(&path, &options) {
                panic!("{report}");
            }
            count += 1;
        }
    }
    assert!(count > 0);
}

fn portico(arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_portico")).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_command_checks_shows_and_bundles() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    std::fs::write(path("kernel"), kernels::image(0)).unwrap();
    std::fs::create_dir(path("service")).unwrap();
    std::fs::write(path("service/console"), kernels::image(0)).unwrap();
    let images = folder.path().to_string_lossy();
    let text = "[[guest]]\nname = \"web\"\nkernel = \"kernel\"\nmemory = \"8M\"\n";
    std::fs::write(path("good.toml"), text).unwrap();
    std::fs::write(path("bad.toml"), text.replace("memory", "memroy")).unwrap();

    let (good, out, err) = portico(&["check", &path("good.toml"), "--images", &images]);
    assert!(good && out.ends_with("good.toml: good, 1 guest\n") && err.is_empty(), "{out}{err}");
    let (good, out, err) = portico(&["check", &path("bad.toml"), "--images", &images]);
    assert!(!good && out.is_empty());
    assert!(
        err.ends_with("bad.toml:4: guest \"web\": unknown key `memroy`: write `memory`\nportico: 1 mistake\n"),
        "{err}"
    );
    let (good, out, _) = portico(&["check", "--json", &path("bad.toml"), "--images", &images]);
    let list: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(!good && list[0]["line"] == 4 && list[0]["help"] == "write `memory`");
    let (good, out, _) = portico(&["show", &path("good.toml"), "--images", &images]);
    assert!(good && out.contains("web    8M"), "{out}");
    let (good, out, _) = portico(&["show", "--json", &path("good.toml"), "--images", &images]);
    let shown: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(good && shown["system"]["guests"][0]["memory_pages"] == 2048);
    let (good, _, err) = portico(&[
        "bundle",
        &path("good.toml"),
        "--images",
        &images,
        "--manager",
        &path("kernel"),
        "-o",
        &path("out.cpio"),
    ]);
    assert!(good, "{err}");
    let bundle = std::fs::read(path("out.cpio")).unwrap();
    assert!(Archive::new(&bundle).find("image/kernel").unwrap().is_some());
    let (good, out, _) = portico(&["--help"]);
    assert!(good && out.contains("check") && out.contains("bundle") && out.contains("show"));
}
