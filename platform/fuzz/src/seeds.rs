//! Well-formed input for the targets. Random bytes alone never get past a magic number.

use dtoolkit::model::DeviceTree;
use portico_bundle::description::{
    Bridge, Channel, Disk, Guest, Part, Reservation, RestartLimit, Service, ServiceKind, System, Vif,
};
use portico_bundle::writer::Writer;
use portico_bundle::writer::tree::{node, property};
use std::path::Path;

/// Reads every file with one of these endings in a folder of the project, in order.
fn files(folder: &str, ending: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == ending));
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}

/// Descriptions, good and bad.
pub fn toml() -> Vec<Vec<u8>> {
    let mut seeds = files("platform/systems", "toml");
    seeds.extend(files("platform/ctl/tests/fixtures", "toml"));
    seeds
}

/// Compiled descriptions.
pub fn compiled() -> Vec<Vec<u8>> {
    let guest = |name: &str| Guest {
        name: name.to_owned(),
        image: format!("image/{name}"),
        memory_pages: 2048,
        vcpus: 2,
        weight: 256,
        reservation: Some(Reservation { period_us: 1000, budget_us: 100 }),
        ..Guest::default()
    };
    let mut web = guest("web");
    web.depends = vec![1];
    let channel = Channel { name: String::from("link"), a: 0, b: 1, pages: 16 };
    let part = Part::Range { first: 512, bytes: 1024 };
    web.disks = vec![Disk { name: "root".into(), disk: "data".into(), part, queues: 1, pages: 64, ..Disk::default() }];
    web.vifs = vec![Vif { name: "net0".into(), mac: [2, 0, 0, 0, 0, 1], pages: 32, ..Vif::default() }];
    let service = |kind: ServiceKind| Service {
        kind,
        image: format!("service/{}", kind.name()),
        memory_pages: 1024,
        affinity: 0,
        weight: 256,
        cap_permille: 0,
        reservation: None,
        trusted_dma: true,
        restart: RestartLimit::default(),
    };
    let system = System {
        guests: vec![web, guest("db")],
        channels: vec![channel],
        services: ServiceKind::ALL.map(service).into(),
        bridges: vec![Bridge { name: "lan".into(), uplink: true, mtu: 1500 }],
        ..System::default()
    };
    [System::default(), system].iter().filter_map(|system| system.encode().ok()).collect()
}

/// Boot bundles.
pub fn bundles() -> Vec<Vec<u8>> {
    let mut writer = Writer::new();
    for (name, data) in [("system", b"abc".as_slice()), ("manager", b"defgh"), ("image/web", b"")] {
        // These names are good and the data is short.
        let _ = writer.add(name, data);
    }
    let system = kernels().iter().find_map(|kernel| Writer::with_manager(kernel).ok()).map(Writer::finish);
    vec![writer.finish(), Writer::new().finish(), system.unwrap_or_default()]
}

/// Kernels: an ELF file of two segments and an `Image`.
pub fn kernels() -> Vec<Vec<u8>> {
    let mut elf = vec![0; 0xb0];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(target) = elf.get_mut(at..at + bytes.len()) {
            target.copy_from_slice(bytes);
        }
    };
    put(0, &[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    put(16, &[2, 0, 183, 0, 1]);
    put(24, &0x4000_0000u64.to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(52, &[64, 0, 56, 0, 2, 0]);
    for (at, address, memory) in [(64, 0x4000_0000u64, 0x2000u64), (120, 0x4000_4000, 0x1000)] {
        put(at, &[1, 0, 0, 0, 5]);
        put(at + 16, &address.to_le_bytes());
        put(at + 24, &address.to_le_bytes());
        put(at + 32, &16u64.to_le_bytes());
        put(at + 40, &memory.to_le_bytes());
    }
    let mut image = vec![0; 128];
    if let Some(fields) = image.get_mut(16..18) {
        fields.copy_from_slice(&[0, 0x10]);
    }
    if let Some(magic) = image.get_mut(56..60) {
        magic.copy_from_slice(b"ARM\x64");
    }
    vec![elf, image]
}

/// Device trees: those of the boards' tests, and a small one like that of QEMU `virt`.
pub fn device_trees() -> Vec<Vec<u8>> {
    let mut seeds = files("platform/boards/tests", "dtb");
    let mut tree = DeviceTree::new();
    tree.root = node(
        "",
        [property("#address-cells", 2u32), property("#size-cells", 2u32), property("interrupt-parent", 1u32)],
        [
            node(
                "memory@40000000",
                [property("device_type", "memory"), property("reg", [0u32, 0x4000_0000, 0, 0x4000_0000])],
                [],
            ),
            node(
                "cpus",
                [property("#address-cells", 1u32), property("#size-cells", 0u32)],
                [node(
                    "cpu@0",
                    [property("device_type", "cpu"), property("enable-method", "psci"), property("reg", 0u32)],
                    [],
                )],
            ),
            node("psci", [property("compatible", "arm,psci-1.0"), property("method", "smc")], []),
            node(
                "timer",
                [
                    property("compatible", "arm,armv8-timer"),
                    property("interrupts", [1u32, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4]),
                ],
                [],
            ),
            node(
                "intc@8000000",
                [
                    property("compatible", "arm,gic-v3"),
                    property("interrupt-controller", &b""[..]),
                    property("#interrupt-cells", 3u32),
                    property("phandle", 1u32),
                    property("reg", [0u32, 0x0800_0000, 0, 0x1_0000, 0, 0x080a_0000, 0, 0xf6_0000]),
                    property("interrupts", [1u32, 9, 4]),
                ],
                [],
            ),
            node(
                "pl011@9000000",
                [
                    property("compatible", "arm,pl011"),
                    property("reg", [0u32, 0x0900_0000, 0, 0x1000]),
                    property("interrupts", [0u32, 1, 4]),
                ],
                [],
            ),
            node(
                "chosen",
                [
                    property("bootargs", "portico.cpus=2 portico.log=off"),
                    property("stdout-path", "/pl011@9000000"),
                    property("linux,initrd-start", 0x4800_0000u64),
                    property("linux,initrd-end", 0x4810_0000u64),
                ],
                [],
            ),
        ],
    );
    seeds.push(tree.to_dtb());
    seeds
}

/// Lines for the manager's prompt, and keys.
pub fn command_lines() -> Vec<Vec<u8>> {
    let lines = [
        "help create",
        "list",
        "top",
        "create web memory=64M vcpus=2",
        "destroy web",
        "pause web",
        "resume web",
        "reboot web",
        "console web",
        "info web",
        "log web 20",
        "sched web weight=512 cap=25",
        "shutdown",
        "li\tst\r",
        "\u{1b}[A\u{1b}[B\u{3}\u{1d}\u{1e}",
        "\u{d6}sterreich \u{0}\u{7f}\u{8}",
    ];
    lines.iter().map(|line| line.as_bytes().to_vec()).collect()
}

/// Slots of a disk's request ring: plain, with a table, and without data.
pub fn block_requests() -> Vec<Vec<u8>> {
    use portico_abi::device::block::{Request, Segment, op};
    let mut plain = Request { id: 1, op: op::WRITE, segments: 2, sector: 8, sectors: 16, ..Request::default() };
    plain.segment[0] = Segment { offset: 8192, bytes: 4096 };
    plain.segment[1] = Segment { offset: 16384, bytes: 4096 };
    let table = Request { op: op::READ, segments: 8, sectors: 8, table: 8192, ..Request::default() };
    let discard = Request { op: op::DISCARD, sector: 64, sectors: 64, ..Request::default() };
    let mut with_table = table.to_bytes().to_vec();
    for index in 0..8 {
        with_table.extend(Segment { offset: 12288 + index * 512, bytes: 512 }.to_word().to_le_bytes());
    }
    vec![plain.to_bytes().to_vec(), with_table, discard.to_bytes().to_vec()]
}

/// A header and four entries, of which one is a partition of the name `data`.
pub fn partition_tables() -> Vec<Vec<u8>> {
    let mut table = vec![0; 512 + 512];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(target) = table.get_mut(at..at + bytes.len()) {
            target.copy_from_slice(bytes);
        }
    };
    put(0, b"EFI PART");
    put(12, &92_u32.to_le_bytes());
    for (at, value) in [(40, 34_u64), (48, 300), (72, 2)] {
        put(at, &value.to_le_bytes());
    }
    put(80, &4_u32.to_le_bytes());
    put(84, &128_u32.to_le_bytes());
    put(512, &[1]);
    put(512 + 32, &34_u64.to_le_bytes());
    put(512 + 40, &99_u64.to_le_bytes());
    put(512 + 56, b"d\0a\0t\0a\0");
    vec![table]
}

/// Steps of a handshake that goes well, and of one in which words are changed.
pub fn handshakes() -> Vec<Vec<u8>> {
    vec![[0, 0, 1, 0].repeat(8), vec![0, 0, 1, 0, 0x0c, 2, 0, 0, 1, 0, 0x8, 0, 1, 0, 0x3c, 255, 0, 0, 1, 0]]
}

/// Steps of ends of a network interface: what each means is in `frames`. Without damage; with damaged indices; with damaged headers and offers.
pub fn frames() -> Vec<Vec<u8>> {
    let traffic: [[u8; 4]; 6] = [[6, 1, 40, 0], [4, 0, 0, 0], [5, 0, 0, 0], [8, 1, 200, 0], [7, 0, 0, 0], [9, 0, 0, 0]];
    let steps = |damage: &[[u8; 4]]| -> Vec<u8> {
        let mix = damage.iter().flat_map(|one| [&[*one], &traffic[..]].concat());
        traffic.into_iter().chain(mix).flatten().collect()
    };
    vec![
        steps(&[]),
        steps(&[[0, 13, 200, 0], [0, 15, 5, 1], [0, 17, 130, 1], [1, 19, 9, 3]]),
        steps(&[[2, 0, 255, 2], [2, 24, 20, 12], [3, 1, 0, 255], [0, 8, 3, 0], [1, 7, 1, 2]]),
        steps(&[[0, 0, 0, 0], [0, 1, 1, 1], [1, 4, 1, 1], [0, 3, 0, 0], [1, 11, 9, 2]]),
    ]
}
