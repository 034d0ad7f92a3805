//! Guest code on the fake hypervisor: what a porter's own unit tests look like.

use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use portico_sdk::abi::call::exit;
use portico_sdk::channel::{Channel, ChannelError};
use portico_sdk::fake::Machine;
use portico_sdk::port::{self, Port};
use portico_sdk::{Status, console, dtb, hvc, irq, println, time};

#[test]
fn device_tree_is_read() {
    let machine = Machine::builder().bootargs("quiet loglevel=debug rate=5").channel("link", 2).start();
    assert_eq!(dtb::name(), "test");
    assert_eq!(dtb::bootarg("rate"), Some("5"));
    assert_eq!(dtb::bootarg("quiet"), Some(""));
    assert_eq!(dtb::bootarg("rat"), None);
    assert_eq!(dtb::memory().map(|range| (range.base, range.len)).collect::<Vec<_>>(), [(0x4000_0000, 64 << 20)]);
    assert_eq!(dtb::cpus().collect::<Vec<_>>(), [0]);
    assert_eq!(dtb::channels().map(|node| node.name).collect::<Vec<_>>(), ["link"]);
    assert!(dtb::console().is_some() && dtb::bundle().is_none() && dtb::initrd().is_none());
    log::debug!("seen");
    assert!(machine.output().contains("DEBUG"));
}

#[test]
fn prints_on_both_consoles() {
    let machine = Machine::start();
    for line in 0..2000 {
        println!("line {line}");
    }
    assert_eq!(machine.output().lines().count(), 2000);
    drop(machine);
    let machine = Machine::builder().no_console().start();
    println!("a line that is longer than the forty bytes of one early_write call");
    assert_eq!(machine.output(), "a line that is longer than the forty bytes of one early_write call\n");
}

#[test]
fn input_wakes_the_reader() {
    let machine = Machine::start();
    let mut bytes = [0; 16];
    assert_eq!(console::read(&mut bytes), 0);
    assert_eq!(console::read_wait(&mut bytes, time::deadline(Duration::from_secs(1))), Err(Status::TimedOut));
    machine.type_in("ls\n");
    assert_eq!(console::read_wait(&mut bytes, time::deadline(Duration::from_secs(1))), Ok(3));
    assert_eq!(&bytes[..3], b"ls\n");
}

#[test]
fn exits_are_told() {
    let machine = Machine::start();
    assert_eq!(machine.run(|| 3).code, 3);
    let end = machine.run(|| portico_sdk::exit::panic(9));
    assert_eq!((end.kind, end.code), (exit::PANIC, 9));
}

#[test]
fn sleeping_and_the_timer() {
    static FIRED: AtomicUsize = AtomicUsize::new(0);
    let machine = Machine::start();
    let begin = time::now();
    time::sleep(Duration::from_millis(20));
    assert!((20_000_000..20_010_000).contains(&(time::now() - begin)));
    time::timer_port().on_notify(
        |_, argument| {
            FIRED.fetch_add(argument, Ordering::SeqCst);
        },
        5,
    );
    time::arm(time::deadline(Duration::from_millis(1)));
    time::sleep(Duration::from_millis(2));
    assert_eq!(FIRED.load(Ordering::SeqCst), 5);
    time::arm(0);
    assert_eq!(FIRED.load(Ordering::SeqCst), 10, "a deadline in the past fires at once");
    time::arm(time::deadline(Duration::from_millis(1)));
    time::disarm();
    time::sleep(Duration::from_millis(2));
    assert_eq!(FIRED.load(Ordering::SeqCst), 10);
    assert!(machine.elapsed() < Duration::from_secs(1));
}

#[test]
fn ports_mask_and_pend() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let _machine = Machine::start();
    let (a, b) = port::pair().unwrap();
    let port = Port::bind(b).unwrap();
    assert_eq!(hvc::port_bind(a, 0, 7), Err(Status::Invalid), "a reserved bit");
    assert!(!port.take());
    hvc::port_notify(a).unwrap();
    assert!(port.take() && !port.take());
    port.on_notify(
        |_, _| {
            CALLS.fetch_add(1, Ordering::SeqCst);
        },
        0,
    );
    hvc::port_notify(a).unwrap();
    assert_eq!(CALLS.load(Ordering::SeqCst), 1);
    port.mask();
    hvc::port_notify(a).unwrap();
    hvc::port_notify(a).unwrap();
    assert_eq!(CALLS.load(Ordering::SeqCst), 1);
    assert!(port.is_pending());
    port.unmask();
    assert_eq!(CALLS.load(Ordering::SeqCst), 2);
    irq::masked(|| {
        hvc::port_notify(a).unwrap();
        assert_eq!(CALLS.load(Ordering::SeqCst), 2);
    });
    assert_eq!(CALLS.load(Ordering::SeqCst), 3);
    port.unbind().unwrap();
    hvc::port_notify(a).unwrap();
    let port = Port::bind(b).unwrap();
    assert!(port.take(), "a notification while unbound is remembered");
}

#[test]
fn a_peer_answers_over_a_channel() {
    let machine = Machine::builder().channel("link", 4).start();
    let peer: &'static Channel = Box::leak(Box::new(machine.peer("link").unwrap()));
    let (mut sender, mut receiver) = peer.queues::<16>().unwrap();
    machine.on_block(move || {
        if peer.try_connect() {
            while let Ok(Some(mut message)) = receiver.try_receive() {
                message[0] ^= 0xff;
                assert_eq!(sender.try_send(&message), Ok(true));
            }
            receiver.arm().unwrap();
        }
    });
    let exit = machine.run(|| {
        let link = Channel::open("link").unwrap();
        let (mut sender, mut receiver) = link.queues::<16>().unwrap();
        let soon = || time::deadline(Duration::from_secs(1));
        link.connect(soon()).unwrap();
        for number in 0..1000_u32 {
            let mut message = [0; 16];
            message[..4].copy_from_slice(&number.to_le_bytes());
            sender.send(&message, soon()).unwrap();
            let answer = receiver.receive(soon()).unwrap();
            assert_eq!(answer[0], message[0] ^ 0xff);
            assert_eq!(answer[1..], message[1..]);
        }
        0
    });
    assert_eq!(exit.code, 0);
}

#[test]
fn a_channel_is_used_without_waiting() {
    let machine = Machine::builder().channel("link", 4).start();
    assert_eq!(Channel::try_open("nowhere").err(), Some(ChannelError::NotFound));
    let link = Channel::try_open("link").unwrap();
    let (mut sender, mut receiver) = link.queues::<1024>().unwrap();
    assert!(!link.try_connect(), "nobody is there yet");
    let peer = machine.peer("link").unwrap();
    let (_, mut theirs) = peer.queues::<1024>().unwrap();
    let _ = link.port().take();
    assert!(!peer.try_connect());
    assert!(link.port().take(), "who comes is announced");
    assert!(link.try_connect() && peer.try_connect());
    assert!(receiver.try_receive() == Ok(None) && receiver.arm() == Ok(true));
    let mut sent = 0_u8;
    while sender.try_send(&[sent; 1024]).unwrap() {
        sent += 1;
    }
    assert!(sent > 0 && sender.arm() == Ok(true));
    let _ = link.port().take();
    assert_eq!(theirs.try_receive(), Ok(Some([0; 1024])));
    assert!(link.port().take(), "room is announced");
    assert_eq!(sender.try_send(&[sent; 1024]), Ok(true));
}

#[test]
fn what_there_is_room_for_is_written() {
    let machine = Machine::start();
    let long: Vec<u8> = (0..40_000_u32).map(|at| b'a' + (at % 26) as u8).collect();
    let mut written = 0;
    while written < long.len() {
        let count = console::write_some(&long[written..]);
        written += count;
        assert!(count <= 16384, "more than the ring holds");
        // Which makes room.
        assert_eq!(machine.output().len(), written);
    }
    assert_eq!(machine.output().as_bytes(), long);
    drop(machine);
    let machine = Machine::builder().no_console().start();
    assert_eq!(console::write_some(&long[..100]), 100);
    assert_eq!(machine.output().len(), 100);
}

#[test]
fn a_lost_or_lying_peer_is_noticed() {
    let machine = Machine::builder().channel("link", 4).start();
    let peer = machine.peer("link").unwrap();
    let link = Channel::open("link").unwrap();
    let (mut sender, mut receiver) = link.queues::<16>().unwrap();
    assert!(!peer.try_connect());
    link.connect(time::deadline(Duration::from_secs(1))).unwrap();
    // The peer says that it wrote more than fits.
    let ring = portico_sdk::abi::ring::QueuePair::fitting(4 * 4096, 16, 16).unwrap().requests;
    peer.window().word(ring.offset).unwrap().store(ring.slots + 1, Ordering::SeqCst);
    assert_eq!(receiver.try_receive(), Err(ChannelError::Corrupt));
    assert_eq!(link.check(), Ok(()));
    machine.lose_peer("link");
    assert_eq!(link.tell(), Err(ChannelError::Lost));
    peer.close();
    assert_eq!(link.check(), Err(ChannelError::Lost));
    assert_eq!(sender.try_send(&[0; 16]), Err(ChannelError::Lost), "notifying a peer that is gone");
}

#[test]
fn unknown_channels_and_calls_are_errors() {
    let machine = Machine::start();
    assert_eq!(Channel::open("nowhere").err(), Some(ChannelError::NotFound));
    assert_eq!(hvc::domain_run(portico_sdk::Handle::new(9, 9), 0), Err(Status::NotSupported));
    machine.on_call(portico_sdk::abi::Call::DomainRun, |arguments| [0, arguments[0], 0, 0]);
    assert_eq!(hvc::domain_run(portico_sdk::Handle::new(9, 9), 0), Ok(()));
}

#[test]
#[should_panic(expected = "blocks for ever")]
fn a_deadlock_fails_the_test() {
    let _machine = Machine::start();
    let _ = port::wait(u64::MAX);
}
