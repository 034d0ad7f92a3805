//! The compiled description: round trip, every rule that is checked, and garbage.

use portico_bundle::description::{
    Bridge, Channel, DescriptionError, Disk, Guest, OnCrash, Part, Reservation, RestartLimit, Service, ServiceKind,
    System, VERSION, Vif,
};
use proptest::prelude::*;

fn guest(name: &str) -> Guest {
    Guest {
        name: name.into(),
        image: format!("image/{name}"),
        memory_pages: 1024,
        vcpus: 1,
        weight: 256,
        ..Guest::default()
    }
}

fn service(kind: ServiceKind) -> Service {
    Service {
        kind,
        image: format!("service/{}", kind.name()),
        memory_pages: 1024,
        affinity: 0,
        weight: 256,
        cap_permille: 0,
        reservation: None,
        trusted_dma: true,
        restart: RestartLimit::default(),
    }
}

fn disk(name: &str, part: Part) -> Disk {
    Disk { name: name.into(), disk: "data".into(), part, iops: 500, burst: 64, queues: 2, pages: 64, ..Disk::default() }
}

fn vif(name: &str, last: u8) -> Vif {
    Vif { name: name.into(), bridge: 0, mac: [2, 0, 0, 0, 0, last], bytes_per_s: 10 << 20, burst: 1 << 16, pages: 32 }
}

fn range(first: u64, bytes: u64) -> Part {
    Part::Range { first, bytes }
}

fn system() -> System {
    let mut web = guest("web");
    web.depends = vec![1];
    web.reservation = Some(Reservation { period_us: 1000, budget_us: 200 });
    web.on_crash = OnCrash::Restart;
    web.restart = RestartLimit { count: 3, window_s: 10 };
    web.ramdisk = Some("ramdisk/web".into());
    web.disks = vec![disk("disk0", Part::Number(1)), disk("disk1", range(512, 1024))];
    web.vifs = vec![vif("net0", 1)];
    let mut db = guest("db");
    db.disks = vec![disk("disk0", Part::Label("root".into()))];
    db.vifs = vec![vif("net0", 2)];
    System {
        name: "demo".into(),
        manager_cmdline: "portico.quiet".into(),
        guests: vec![web, db],
        channels: vec![Channel { name: "link".into(), a: 0, b: 1, pages: 16 }],
        services: ServiceKind::ALL.map(service).into(),
        bridges: vec![
            Bridge { name: "lan".into(), uplink: true, mtu: 1500 },
            Bridge { name: "dmz".into(), uplink: false, mtu: 9000 },
        ],
    }
}

#[test]
fn round_trip() {
    let bytes = system().encode().unwrap();
    assert_eq!(System::decode(&bytes), Ok(system()));
    assert_eq!(system().order(), Some(vec![1, 0]));
}

#[test]
fn every_cut_is_refused() {
    let bytes = system().encode().unwrap();
    for length in 0..bytes.len() {
        assert!(System::decode(&bytes[..length]).is_err(), "{length}");
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert_eq!(System::decode(&longer), Err(DescriptionError::Malformed));
}

#[test]
fn another_version_is_named() {
    let mut bytes = system().encode().unwrap();
    bytes[4] = (VERSION + 1) as u8;
    assert_eq!(System::decode(&bytes), Err(DescriptionError::BadVersion(VERSION + 1)));
    bytes[0] = b'X';
    assert_eq!(System::decode(&bytes), Err(DescriptionError::BadMagic));
}

#[test]
fn every_rule_is_checked() {
    type Case = (fn(&mut System), &'static str);
    let cases: &[Case] = &[
        (|s| s.guests[0].name = "db".into(), "two guests of one name"),
        (|s| s.guests[0].name = "a b".into(), "bad name of a guest"),
        (|s| s.guests[0].name = String::new(), "bad name of a guest"),
        (|s| s.guests[0].name = "x".repeat(17), "bad name of a guest"),
        (|s| s.guests[0].vcpus = 0, "number of vCPUs out of range"),
        (|s| s.guests[0].vcpus = 49, "number of vCPUs out of range"),
        (|s| s.guests[0].memory_pages = 0, "memory out of range"),
        (|s| s.guests[0].memory_pages = u64::MAX, "memory out of range"),
        (|s| s.guests[0].weight = 0, "weight out of range"),
        (|s| s.guests[0].cap_permille = u32::MAX, "cap out of range"),
        (|s| s.guests[0].reservation = Some(Reservation { period_us: 1, budget_us: 2 }), "reservation out of range"),
        (|s| s.guests[0].depends = vec![2], "depends on an unknown guest"),
        (|s| s.guests[0].depends = vec![1; 1000], "too many dependencies"),
        (|s| s.guests[1].depends = vec![0], "guests depend on each other in a circle"),
        (|s| s.guests[1].depends = vec![1], "guests depend on each other in a circle"),
        (|s| s.channels[0].a = 1, "channel between unknown guests"),
        (|s| s.channels[0].b = 9, "channel between unknown guests"),
        (|s| s.channels[0].pages = 0, "channel size out of range"),
        (|s| s.channels[0].name = "\n".into(), "bad name of a channel"),
        (|s| s.channels.push(s.channels[0].clone()), "two channels of one name at one guest"),
        (|s| s.services.push(s.services[0].clone()), "two services of one kind"),
        (|s| s.services[0].image = "image/block".into(), "image of a service is not an entry of services"),
        (|s| s.services[0].image = "service/".into(), "image of a service is not an entry of services"),
        (|s| s.services[0].memory_pages = 0, "memory of a service out of range"),
        (|s| s.services[0].weight = 0, "weight of a service out of range"),
        (|s| s.services[0].cap_permille = 1001, "cap of a service out of range"),
        (
            |s| s.services[0].reservation = Some(Reservation { period_us: 1, budget_us: 0 }),
            "reservation of a service out of range",
        ),
        (|s| s.services.retain(|service| service.kind != ServiceKind::Block), "disks without block service"),
        (|s| s.services.retain(|service| service.kind != ServiceKind::Net), "network interfaces without net service"),
        (|s| s.bridges[1].uplink = true, "two bridges with the uplink"),
        (|s| s.bridges[1].name = "lan".into(), "two bridges of one name"),
        (|s| s.bridges[1].name = "l a n".into(), "bad name of a bridge"),
        (|s| s.bridges[1].mtu = 575, "MTU out of range"),
        (|s| s.bridges[1].mtu = 9001, "MTU out of range"),
        (|s| s.bridges = vec![s.bridges[1].clone(); 65], "too many bridges"),
        (|s| s.guests[0].disks = vec![disk("a", Part::Number(9)); 17], "too many disks"),
        (|s| s.guests[0].disks[0].name = String::new(), "bad name of a disk"),
        (|s| s.guests[0].disks[0].name = "disk1".into(), "two channels or devices of one name at one guest"),
        (|s| s.guests[0].disks[0].name = "link".into(), "two channels or devices of one name at one guest"),
        (|s| s.guests[0].disks[0].disk = "a/b".into(), "bad name of the machine's disk"),
        (|s| s.guests[0].disks[0].queues = 0, "number of queues out of range"),
        (|s| s.guests[0].disks[0].queues = 9, "number of queues out of range"),
        (|s| s.guests[0].disks[0].pages = 7, "window of a disk out of range"),
        (|s| s.guests[0].disks[0].pages = 4097, "window of a disk out of range"),
        (|s| s.guests[0].disks[0].part = Part::Number(0), "part of a disk out of range"),
        (|s| s.guests[0].disks[0].part = Part::Number(129), "part of a disk out of range"),
        (|s| s.guests[0].disks[0].part = Part::Label(String::new()), "part of a disk out of range"),
        (|s| s.guests[0].disks[0].part = Part::Label("x".repeat(37)), "part of a disk out of range"),
        (|s| s.guests[0].disks[0].part = range(0, 0), "part of a disk out of range"),
        (|s| s.guests[0].disks[0].part = range(1, 512), "part of a disk out of range"),
        (|s| s.guests[0].disks[0].part = range(512, 511), "part of a disk out of range"),
        (|s| s.guests[0].disks[0].part = range(u64::MAX - 511, 512), "part of a disk out of range"),
        (|s| s.guests[0].vifs = vec![vif("a", 9); 17], "too many network interfaces"),
        (|s| s.guests[0].vifs[0].name = "\n".into(), "bad name of a network interface"),
        (|s| s.guests[0].vifs[0].name = "disk0".into(), "two channels or devices of one name at one guest"),
        (|s| s.guests[0].vifs[0].bridge = 2, "network interface at an unknown bridge"),
        (|s| s.guests[0].vifs[0].mac = [1, 0, 0, 0, 0, 9], "bad MAC address"),
        (|s| s.guests[0].vifs[0].mac = [0; 6], "bad MAC address"),
        (|s| s.guests[0].vifs[0].mac[5] = 2, "two network interfaces of one MAC address"),
        (|s| s.guests[0].vifs[0].pages = 0, "window of a network interface out of range"),
        (|s| s.guests[0].disks[0].part = Part::Whole, "a guest can write to another guest's disk"),
    ];
    for (breaks, text) in cases {
        let mut broken = system();
        breaks(&mut broken);
        assert_eq!(broken.encode(), Err(DescriptionError::Inconsistent(text)));
    }
}

#[test]
fn only_readers_share_what_overlaps() {
    let parts = [Part::Whole, Part::Number(1), Part::Label("root".into()), range(512, 1024), range(1024, 512)];
    let apart = [(1, 2), (1, 3), (1, 4), (2, 3), (2, 4)];
    for (a, first) in parts.iter().enumerate() {
        for (b, second) in parts.iter().enumerate() {
            let overlap = !apart.contains(&(a.min(b), a.max(b)));
            for (first_only_read, second_only_read) in [(false, false), (false, true), (true, true)] {
                let mut system = system();
                let set = |part: &Part, read_only| vec![Disk { read_only, ..disk("d", part.clone()) }];
                system.guests[0].disks = set(first, first_only_read);
                system.guests[1].disks = set(second, second_only_read);
                let both_read = first_only_read && second_only_read;
                assert_eq!(system.check().is_ok(), both_read || !overlap, "{first:?} {second:?} {both_read}");
                system.guests[1].disks[0].disk = "other".into();
                assert_eq!(system.check(), Ok(()));
            }
        }
    }
    assert!(!range(0, 512).overlaps(&range(512, 512)) && range(0, u64::MAX - 511).overlaps(&range(1 << 40, 512)));
    // What a guest does with its own disks is its own affair.
    let mut system = system();
    system.guests[0].disks = vec![disk("a", range(0, 512)), disk("b", range(0, 512))];
    assert_eq!(system.check(), Ok(()));
}

proptest! {
    #[test]
    fn garbage_never_panics(body in prop::collection::vec(any::<u8>(), 0..400)) {
        portico_bundle::fuzz::description(&body);
        portico_bundle::fuzz::description(&[b"PSYS\x02\x00".as_slice(), &body].concat());
    }

    #[test]
    fn damage_never_panics(hits in prop::collection::vec((0usize..400, any::<u8>()), 1..8)) {
        let mut bytes = system().encode().unwrap();
        for (at, value) in hits {
            let length = bytes.len();
            bytes[at % length] = value;
        }
        portico_bundle::fuzz::description(&bytes);
    }
}
