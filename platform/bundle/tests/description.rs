//! The compiled description: round trip, every rule that is checked, and garbage.

use portico_bundle::description::{
    Channel, DescriptionError, Guest, OnCrash, Reservation, RestartLimit, System, VERSION,
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

fn system() -> System {
    let mut web = guest("web");
    web.depends = vec![1];
    web.reservation = Some(Reservation { period_us: 1000, budget_us: 200 });
    web.on_crash = OnCrash::Restart;
    web.restart = RestartLimit { count: 3, window_s: 10 };
    web.ramdisk = Some("ramdisk/web".into());
    System {
        name: "demo".into(),
        manager_cmdline: "portico.quiet".into(),
        guests: vec![web, guest("db")],
        channels: vec![Channel { name: "link".into(), a: 0, b: 1, pages: 16 }],
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
    ];
    for (breaks, text) in cases {
        let mut broken = system();
        breaks(&mut broken);
        assert_eq!(broken.encode(), Err(DescriptionError::Inconsistent(text)));
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(body in prop::collection::vec(any::<u8>(), 0..400)) {
        portico_bundle::fuzz::description(&body);
        portico_bundle::fuzz::description(&[b"PSYS\x01\x00".as_slice(), &body].concat());
    }

    #[test]
    fn damage_never_panics(hits in prop::collection::vec((0usize..200, any::<u8>()), 1..8)) {
        let mut bytes = system().encode().unwrap();
        for (at, value) in hits {
            let length = bytes.len();
            bytes[at % length] = value;
        }
        portico_bundle::fuzz::description(&bytes);
    }
}
