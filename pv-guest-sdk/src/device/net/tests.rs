//! An interface against a back-end that the test plays.

use super::{DeviceError, Info, Interface, NetError, Statistics};
use crate::device::frames::{FrameReceiver, FrameSender};
use crate::device::{Event, Link};
use crate::fake::Machine;
use crate::time;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use portico_abi::device::net::{STATISTICS, VERSION, shape_of_window};
use portico_abi::device::{ACCEPT, Offer, kind, refusal};
use portico_abi::ring::HEAD;
use portico_abi::{Call, Status, dt};
use std::sync::{Arc, Mutex};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

fn details(mtu: u16) -> [u8; 32] {
    let mut details = [0; 32];
    details[..6].copy_from_slice(&MAC);
    details[6..8].copy_from_slice(&mtu.to_le_bytes());
    details[8..12].copy_from_slice(&(u32::from(mtu) + 18).to_le_bytes());
    details[12] = 1;
    details
}

/// A back-end that sends every frame back.
struct Echo {
    link: Link,
    rings: Option<(FrameReceiver, FrameSender)>,
    welcomes: u32,
    echoed: u32,
}

impl Echo {
    fn new(machine: &Machine) -> Echo {
        let link = machine.back_end("net0").unwrap();
        link.offer(&Offer { kind: kind::NET, version: VERSION, ..Offer::default() }, &details(1500));
        Echo { link, rings: None, welcomes: 0, echoed: 0 }
    }

    fn step(&mut self) {
        match self.link.step() {
            Event::Peer => {
                let window = self.link.window();
                let shape = shape_of_window(window.len()).unwrap();
                assert_eq!(self.link.read_accept().version, VERSION);
                let receiver = FrameReceiver::start(window, shape.transmit).unwrap();
                self.rings = Some((receiver, FrameSender::start(window, shape.receive).unwrap()));
                self.welcomes += 1;
                self.link.welcome();
            }
            Event::Lost => self.rings = None,
            Event::Nothing | Event::Connected => {}
        }
        let Some((receiver, sender)) = &mut self.rings else { return };
        loop {
            while let Ok(Some(frame)) = receiver.look() {
                self.echoed += u32::from(sender.forward(&frame.head, &frame.span).unwrap());
                receiver.take(&frame.span);
            }
            if receiver.release() | sender.publish() {
                self.link.tell();
            }
            if receiver.arm() != Ok(false) {
                return;
            }
        }
    }
}

fn machine() -> (Machine, Arc<Mutex<Echo>>) {
    let machine = Machine::builder().device(dt::NET, "net0", 9).start();
    let echo = Arc::new(Mutex::new(Echo::new(&machine)));
    let outside = echo.clone();
    machine.on_block(move || outside.lock().unwrap().step());
    (machine, echo)
}

fn soon() -> u64 {
    time::deadline(Duration::from_secs(1))
}

#[test]
fn frames_go_and_come() {
    let (machine, echo) = machine();
    let mut net = Interface::open("net0", soon()).unwrap();
    assert_eq!(net.info(), Info { mac: MAC, mtu: 1500, max_frame: 1518, has_uplink: true, features: 0, max_large: 0 });
    let calls = machine.calls();
    let mut buffer = [0; 1600];
    for round in 0..300_u32 {
        let frame: Vec<u8> = (0..14 + round * 5).map(|byte| (byte + round) as u8).collect();
        net.send(&frame, soon()).unwrap();
        let bytes = loop {
            match net.receive(&mut buffer).unwrap() {
                Some(bytes) => break bytes,
                None => net.wait(soon()).unwrap(),
            }
        };
        assert_eq!(buffer[..bytes], frame);
    }
    assert_eq!((net.lost(), echo.lock().unwrap().echoed), (0, 300));
    assert!(machine.calls() - calls <= 4 * 300, "a notification each way and a block, each round");
    assert_eq!(net.try_send(&[0; 13]), Err(NetError::Size));
    assert_eq!(net.try_send(&[0; 1519]), Err(NetError::Size));
    assert_eq!(Interface::open("net1", soon()).err(), Some(DeviceError::NotFound));
    assert_eq!(Interface::names().collect::<Vec<_>>(), ["net0"]);
}

#[test]
fn many_frames_take_few_notifications() {
    let (machine, _echo) = machine();
    let mut net = Interface::open("net0", soon()).unwrap();
    let (calls, mut received) = (machine.calls(), 0);
    let mut buffer = [0; 1600];
    for _ in 0..100 {
        for _ in 0..50 {
            assert_eq!(net.try_send_with(100, |span| span.write(0, &[3; 100]).unwrap()), Ok(true));
        }
        net.wait(soon()).unwrap();
        while net.receive(&mut buffer).unwrap().is_some() {
            received += 1;
        }
    }
    assert_eq!(received, 5000);
    assert!(machine.calls() - calls <= 600, "{} calls", machine.calls() - calls);
}

#[test]
fn a_full_ring_is_waited_for() {
    let (_machine, echo) = machine();
    let mut net = Interface::open("net0", soon()).unwrap();
    while net.try_send(&[1; 1000]).unwrap() {}
    assert_eq!(net.has_room(1000), Ok(false));
    net.wait_for_room(1000, soon()).unwrap();
    assert_eq!(net.try_send(&[1; 1000]), Ok(true));
    echo.lock().unwrap().rings = None;
    while net.try_send(&[1; 1000]).unwrap() {}
    assert_eq!(net.send(&[1; 1000], soon()), Err(NetError::Device(DeviceError::TimedOut)));
}

#[test]
fn a_back_end_comes_back() {
    let (machine, echo) = machine();
    let mut net = Interface::open("net0", soon()).unwrap();
    for life in 1..20 {
        net.try_send(&[7; 60]).unwrap();
        machine.replug("net0").unwrap();
        *echo.lock().unwrap() = Echo::new(&machine);
        let mut buffer = [0; 64];
        let deadline = time::deadline(Duration::from_secs(5));
        net.connect(deadline).unwrap();
        while net.lost() < life {
            let _ = net.receive(&mut buffer).unwrap();
            let _ = net.wait(time::deadline(Duration::from_millis(300)));
        }
        net.connect(deadline).unwrap();
        net.send(&[life as u8; 60], deadline).unwrap();
        while net.receive(&mut buffer).unwrap().is_none() {
            net.wait(deadline).unwrap();
        }
        assert_eq!(buffer[..60], [life as u8; 60]);
        assert_eq!((net.lost(), echo.lock().unwrap().welcomes), (life, 1));
    }
}

#[test]
fn a_back_end_that_lies_is_left() {
    let (_machine, echo) = machine();
    let mut net = Interface::open("net0", soon()).unwrap();
    let shape = shape_of_window(net.link.window().len()).unwrap();
    let mut buffer = [0; 64];
    for (at, lie) in [(0, 5_000_u32), (0, 1), (64, 77)] {
        let window = net.link.window();
        let lost = net.lost();
        // The back-end's indices: far ahead, one slot whose header is rubbish, ahead of what was sent.
        window.store(shape.receive.slot(0), u64::MAX).unwrap();
        let ring = if at == 0 { shape.receive } else { shape.transmit };
        window.word(ring.offset + HEAD + at).unwrap().store(lie, Ordering::Relaxed);
        assert_eq!((net.receive(&mut buffer), net.has_room(60)), (Ok(None), Ok(false)));
        assert_eq!(net.lost(), lost + 1);
        net.connect(soon()).unwrap();
        net.send(&[9; 60], soon()).unwrap();
        while net.receive(&mut buffer).unwrap().is_none() {
            net.wait(soon()).unwrap();
        }
        assert_eq!(buffer[..60], [9; 60]);
    }
    assert_eq!(echo.lock().unwrap().welcomes, 4);
}

#[test]
fn what_does_not_fit_is_refused() {
    let machine = Machine::builder().device(dt::NET, "net0", 9).device(dt::NET, "odd", 8).start();
    assert_eq!(Interface::open("odd", soon()).err(), Some(DeviceError::BadWindow));
    let echo = Arc::new(Mutex::new(Echo::new(&machine)));
    let offer = Offer { kind: kind::BLOCK, version: VERSION, ..Offer::default() };
    echo.lock().unwrap().link.offer(&offer, &details(1500));
    let outside = echo.clone();
    machine.on_block(move || outside.lock().unwrap().step());
    assert_eq!(Interface::open("net0", soon()).err(), Some(DeviceError::Incompatible));
}

#[test]
fn a_refusal_is_told_to_whom_it_concerns() {
    let machine = Machine::builder().device(dt::NET, "net0", 9).start();
    let mut link = machine.back_end("net0").unwrap();
    // The guest's earlier life broke the protocol.
    let offer = Offer { kind: kind::NET, version: VERSION, refusal: refusal::PROTOCOL, ..Offer::default() };
    link.offer(&offer, &details(9000));
    machine.on_block(move || {
        if link.step() == Event::Peer {
            link.refuse(refusal::VERSION);
        }
    });
    let node = crate::dtb::devices(dt::NET).next().unwrap();
    let mut net = Interface::new(&node).unwrap();
    assert_eq!(net.connect(soon()), Err(DeviceError::Refused(refusal::VERSION)));
    assert_eq!(net.connect(soon()), Err(DeviceError::TimedOut));
    assert_eq!((net.mtu(), net.link.window().load(ACCEPT)), (9000, Some(u64::from(VERSION))));
    assert_eq!(DeviceError::from(Status::PeerGone), DeviceError::Call(Status::PeerGone));
}

#[test]
fn statistics_are_read() {
    let machine = Machine::builder().device(dt::NET, "net0", 9).start();
    let net = Interface::new(&crate::dtb::devices(dt::NET).next().unwrap()).unwrap();
    let window = machine.back_end("net0").unwrap().window();
    window.store(STATISTICS + 40, 12).unwrap();
    assert_eq!(net.statistics(), Statistics { spoofed: 12, ..Statistics::default() });
}

/// Looks in `time` by a front-end that is asked all the time, where each look takes `look`.
fn looks_in(time: Duration, look: Duration) -> u64 {
    let machine = Machine::builder().device(dt::NET, "net0", 9).start();
    let looks = Arc::new(AtomicU64::new(0));
    let counted = looks.clone();
    machine.on_call(Call::HandleNext, move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        time::sleep(look);
        [Status::NotFound.raw().cast_unsigned(), 0, 0, 0]
    });
    let node = crate::dtb::devices(dt::NET).next().unwrap();
    // SAFETY: the machine keeps the window.
    let mut front = unsafe { Link::new(&node) }.unwrap();
    let end = time::deadline(time);
    while !time::passed(end) {
        assert_eq!(front.step(), Event::Nothing);
        time::sleep(Duration::from_micros(100));
    }
    let seen = looks.load(Ordering::Relaxed);
    // A back-end was told that there is something to find.
    let mut back = machine.back_end("net0").unwrap();
    for _ in 0..3 {
        back.step();
    }
    assert_eq!(looks.load(Ordering::Relaxed), seen + 3);
    seen
}

#[test]
fn looking_for_a_back_end_takes_little_of_the_time() {
    let ms = Duration::from_millis;
    assert!((220..=251).contains(&looks_in(ms(500), Duration::ZERO)));
    // A look and 16 times as long.
    assert!((27..=30).contains(&looks_in(ms(500), ms(1))));
    // But not for ever.
    assert!((3..=4).contains(&looks_in(ms(500), ms(50))));
}
