//! Frames through rings, and peers that lie.

use super::{FrameReceiver, FrameSender, HEAD, Head, Incoming, Span, capacity};
use crate::fake;
use crate::window::Window;
use core::sync::atomic::Ordering;
use portico_abi::device::net::shape;
use portico_abi::ring::{Corrupt, HEAD as HEAD_INDEX, Layout, TAIL};
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use std::collections::VecDeque;

const PAGES: u64 = 2;

fn ring() -> (Window, Layout) {
    let layout = shape(PAGES).unwrap().transmit;
    (fake::window((PAGES as usize + 1) * 4096), layout)
}

fn bytes_of(frame: &Incoming) -> Vec<u8> {
    let mut bytes = vec![0; frame.span.len()];
    assert_eq!(frame.read(&mut bytes), bytes.len());
    bytes
}

fn content(seed: u64, bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|index| (seed.wrapping_mul(31) + index * 7) as u8).collect()
}

proptest! {
    /// Frames of any length come out as they went in, in order, whole, wherever the seam is; by slices, in place, or forwarded.
    #[test]
    fn frames_arrive(frames in proptest::collection::vec((0_usize..2200, 0_u8..3, any::<bool>()), 1..60)) {
        let (window, layout) = ring();
        let mut sender = FrameSender::start(window, layout).unwrap();
        let mut receiver = FrameReceiver::start(window, layout).unwrap();
        let outside = fake::window(4096);
        let mut expected = VecDeque::new();
        for (seed, (bytes, way, drain)) in frames.into_iter().enumerate() {
            let frame = content(seed as u64, bytes);
            let has_room = sender.has_room(bytes as u32).unwrap();
            let put = match way {
                0 => sender.claim(bytes as u32).unwrap().map(|span| span.write(0, &frame).unwrap()).is_some(),
                1 => sender.claim(bytes as u32).unwrap().map(|span| {
                    let (first, second) = span.pieces();
                    let (first, second) = (first.unwrap(), second);
                    first.write(0, &frame[..first.len()]).unwrap();
                    prop_assert_eq!(first.len() + second.map_or(0, |piece| piece.len()), bytes);
                    if let Some(second) = second {
                        second.write(0, &frame[first.len()..]).unwrap();
                    }
                    Ok(())
                }).transpose()?.is_some(),
                _ => {
                    outside.write(12, &frame).unwrap();
                    let span = Span::flat(outside, 12, bytes as u32).unwrap();
                    sender.forward(&Head::of(&span).unwrap(), &span).unwrap()
                }
            };
            prop_assert_eq!(put, has_room);
            if put {
                expected.push_back(frame);
            }
            if drain || !put {
                let _ = sender.publish();
                while let Some(frame) = receiver.look().unwrap() {
                    prop_assert_eq!(&bytes_of(&frame), &expected.pop_front().unwrap());
                    let mut short = [0; 50];
                    let read = frame.read(&mut short);
                    prop_assert_eq!(read, frame.span.len().min(50));
                    receiver.take(&frame.span);
                }
                let _ = receiver.release();
                prop_assert!(expected.is_empty());
            }
        }
    }

    /// From one ring to another, each with its own seam.
    #[test]
    fn frames_are_forwarded(frames in proptest::collection::vec(0_usize..2000, 1..80), skew in 0_u32..64) {
        let ((from, layout), (to, _)) = (ring(), ring());
        let mut source = FrameSender::start(from, layout).unwrap();
        let mut receiver = FrameReceiver::start(from, layout).unwrap();
        let mut sender = FrameSender::start(to, layout).unwrap();
        let mut sink = FrameReceiver::start(to, layout).unwrap();
        for _ in 0..skew {
            sender.claim(10).unwrap().unwrap();
        }
        let _ = sender.publish();
        while let Some(frame) = sink.look().unwrap() {
            sink.take(&frame.span);
        }
        let _ = sink.release();
        for (seed, bytes) in frames.into_iter().enumerate() {
            let frame = content(seed as u64, bytes);
            source.claim(bytes as u32).unwrap().unwrap().write(0, &frame).unwrap();
            let _ = source.publish();
            let incoming = receiver.look().unwrap().unwrap();
            prop_assert!(sender.forward(&incoming.head, &incoming.span).unwrap());
            receiver.take(&incoming.span);
            let _ = receiver.release();
            let _ = sender.publish();
            let arrived = sink.look().unwrap().unwrap();
            prop_assert_eq!(bytes_of(&arrived), frame);
            sink.take(&arrived.span);
            let _ = sink.release();
        }
    }

    /// Whatever the other side writes anywhere in the window: an answer or `Corrupt`, never a panic and never a byte from outside.
    #[test]
    fn lies_are_bounded(lies in proptest::collection::vec((0_usize..8192 / 8, any::<u64>(), 0_u8..5), 1..200)) {
        let (window, layout) = ring();
        let mut receiver = FrameReceiver::start(window, layout).unwrap();
        let mut sender = FrameSender::start(window, layout).unwrap();
        for (at, lie, what) in lies {
            match what {
                0 => window.store(at * 8, lie).unwrap(),
                // Plausible lies: lengths in headers, indices.
                1 => window.store(layout.slot(at as u32), lie % 5000).unwrap(),
                2 => window.word(layout.offset + HEAD_INDEX).unwrap().store(lie as u32 % 80, Ordering::Relaxed),
                3 => window.word(layout.offset + TAIL).unwrap().store(lie as u32 % 80, Ordering::Relaxed),
                _ => {}
            }
            if let Ok(Some(frame)) = receiver.look() {
                prop_assert!(frame.span.len() <= layout.slots as usize * 64);
                prop_assert!(bytes_of(&frame).len() <= capacity(&layout) as usize);
                receiver.take(&frame.span);
                let _ = receiver.release();
            }
            let _ = receiver.arm();
            if let Ok(Some(span)) = sender.claim(lie as u32 % 6000) {
                prop_assert!(span.write(0, &content(lie, span.len())).is_some());
                let _ = sender.publish();
            }
            let _ = sender.arm(lie as u32);
        }
    }
}

#[test]
fn spans_have_ends() {
    let window = fake::window(256);
    assert!(Span::flat(window, 200, 57).is_none() && Span::flat(window, usize::MAX, 1).is_none());
    let span = Span::flat(window, 12, 100).unwrap();
    let mut bytes = [0; 20];
    assert!(span.read(80, &mut bytes).is_some() && span.read(81, &mut bytes).is_none());
    assert!(span.write(81, &bytes).is_none() && span.read(usize::MAX, &mut bytes).is_none());
    assert!(span.copy_to(0, &Span::flat(window, 120, 99).unwrap()).is_none());
    window.write(12, &content(5, 100)).unwrap();
    let (head, to) = (Head::of(&span).unwrap(), fake::window(128));
    window.write(12, &[0; HEAD]).unwrap();
    assert!(head.write_to(&to, 16, &span).is_some() && head.write_to(&to, 32, &span).is_none());
    let mut bytes = [0; 100];
    to.read(16, &mut bytes).unwrap();
    assert_eq!(bytes.to_vec(), content(5, 100), "the copied head, and the rest");
}

#[test]
fn a_header_that_changes_is_not_looked_at_again() {
    let (window, layout) = ring();
    let mut sender = FrameSender::start(window, layout).unwrap();
    let mut receiver = FrameReceiver::start(window, layout).unwrap();
    sender.claim(100).unwrap().unwrap().write(0, &content(1, 100)).unwrap();
    let _ = sender.publish();
    let frame = receiver.look().unwrap().unwrap();
    // Length and first bytes.
    window.store(layout.slot(0), 4000).unwrap();
    window.store(layout.slot(0) + 16, 0).unwrap();
    assert_eq!((frame.span.len(), frame.head.bytes().to_vec()), (100, content(1, HEAD)));
    assert_eq!(bytes_of(&frame), content(1, 100));
    receiver.take(&frame.span);
    assert!(!receiver.has_more());
}

#[test]
fn frames_that_are_not_all_there_are_lies() {
    let (window, layout) = ring();
    let mut sender = FrameSender::start(window, layout).unwrap();
    let mut receiver = FrameReceiver::start(window, layout).unwrap();
    sender.claim(48).unwrap().unwrap();
    let _ = sender.publish();
    window.store(layout.slot(0), 49).unwrap();
    assert_eq!(receiver.look().map(|frame| frame.is_some()), Err(Corrupt));
    window.store(layout.slot(0), u64::from(u32::MAX)).unwrap();
    assert_eq!(receiver.look().map(|frame| frame.is_some()), Err(Corrupt));
    window.store(layout.slot(0), 1 << 32 | 48).unwrap();
    assert_eq!(receiver.look().map(|frame| frame.is_some()), Err(Corrupt));
    window.store(layout.slot(0), 48).unwrap();
    assert_eq!(receiver.look().map(|frame| frame.is_some()), Ok(true));
}

#[test]
fn notifications_come_when_they_are_wanted() {
    let (window, layout) = ring();
    let mut sender = FrameSender::start(window, layout).unwrap();
    let mut receiver = FrameReceiver::start(window, layout).unwrap();
    assert!(!sender.publish(), "nothing was put in");
    assert_eq!(receiver.arm(), Ok(true));
    sender.claim(60).unwrap().unwrap();
    assert!(sender.publish());
    sender.claim(60).unwrap().unwrap();
    assert!(!sender.publish(), "the receiver is at work");
    while sender.claim(60).unwrap().is_some() {}
    let _ = sender.publish();
    assert_eq!(sender.arm(60), Ok(true));
    let mut wanted = 0;
    for _ in 0..layout.slots / 2 {
        let frame = receiver.look().unwrap().unwrap();
        receiver.take(&frame.span);
        wanted += u32::from(receiver.release());
    }
    assert_eq!(wanted, 1, "once, when a quarter is free");
}
