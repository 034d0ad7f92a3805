//! Ports: exhausted, misbound, in storms. (Rows 7, 22 to 26 of the list of attacks.)

use alloc::vec::Vec;
use portico_sdk::abi::call::info;
use portico_sdk::abi::handle::SELF_DOMAIN;
use portico_sdk::abi::{Handle, Status};
use portico_sdk::{hvc, irq, port, time, vcpu};
use test_kit::{Random, Tap};

pub fn attempts(tap: &mut Tap) {
    tap.none("wild vCPUs and bits are refused", wild_binds());
    tap.none("all ports are taken, given back and taken again, and nothing is lost", exhaust());
    tap.none("a port whose peer is gone says so", peer_gone());
    tap.none("bind, unbind, move and notify in every order", orders());
    tap.none("a storm of notifications is answered", storm());
    tap.none("a wait with a deadline in the past ends at once", past_deadlines());
}

fn pair() -> Result<(Handle, Handle), Status> {
    hvc::port_pair_create(SELF_DOMAIN, SELF_DOMAIN, 0, 0)
}

fn close((a, b): (Handle, Handle)) {
    let _ = (hvc::handle_close(a), hvc::handle_close(b));
}

fn wild_binds() -> Option<(u64, u64, Result<(), Status>)> {
    let Ok(pair) = pair() else { return Some((0, 0, Ok(()))) };
    let bind = |vcpu: u64, bit: u64| {
        let got = hvc::call(portico_sdk::abi::Call::PortBind, [u64::from(pair.0.raw()), vcpu, bit, 0, 0, 0]);
        got.map(|_| ())
    };
    let mut result = None;
    for (vcpu, bit) in [
        (0, 1024),
        (0, 1 << 16),
        (0, 1 << 32),
        (0, u64::MAX),
        (48, 100),
        (255, 100),
        (256, 100),
        (1 << 32, 100),
        (u64::MAX, 100),
        (0, 0),
        (0, 1),
        (0, 7),
    ] {
        let got = bind(vcpu, bit);
        if got.is_ok() {
            result = Some((vcpu, bit, got));
        }
    }
    close(pair);
    result
}

fn exhaust() -> Option<(&'static str, u64)> {
    let mut counts = Vec::new();
    let mut left = Vec::new();
    for _ in 0..3 {
        let mut pairs = Vec::new();
        let why = loop {
            match pair() {
                Ok(pair) => pairs.push(pair),
                Err(status) => break status,
            }
            if pairs.len() > 100_000 {
                return Some(("no end of ports", 0));
            }
        };
        if !matches!(why, Status::NoBudget | Status::Limit) {
            return Some(("another status", why.raw() as u64));
        }
        // The last ones work as the first ones do.
        for (a, b) in pairs.iter().take(3).chain(pairs.iter().rev().take(3)) {
            if hvc::port_notify(*a).is_err() || hvc::port_notify(*b).is_err() {
                return Some(("a port does not notify", u64::from(a.raw())));
            }
        }
        counts.push(pairs.len());
        for pair in pairs {
            if hvc::handle_close(pair.0).is_err() || hvc::handle_close(pair.1).is_err() {
                return Some(("a port does not close", u64::from(pair.0.raw())));
            }
        }
        left.push(hvc::self_info(info::BUDGET_LEFT, 0).unwrap_or(0));
    }
    let same =
        counts.iter().all(|count| Some(count) == counts.get(1)) && left.iter().all(|pages| Some(pages) == left.get(1));
    (!same).then(|| ("other counts in another round", counts.first().copied().unwrap_or(0) as u64))
}

fn peer_gone() -> Option<(&'static str, Option<Status>)> {
    let Ok((a, b)) = pair() else { return Some(("a pair", None)) };
    if let Err(status) = hvc::handle_close(b) {
        return Some(("close", Some(status)));
    }
    let notified = hvc::port_notify(a);
    let waited = hvc::port_notify_wait(a, 0);
    let state = hvc::handle_info(a).map(|info| info.state);
    let _ = hvc::handle_close(a);
    if notified != Err(Status::PeerGone) {
        return Some(("notify", notified.err()));
    }
    if waited != Err(Status::PeerGone) {
        return Some(("notify and wait", waited.err()));
    }
    (state != Ok(1)).then_some(("its state", None))
}

/// A bit that neither the SDK nor the console uses.
const BITS: [u16; 4] = [700, 701, 900, 1023];

fn orders() -> Option<(&'static str, u16)> {
    let Ok((a, b)) = pair() else { return Some(("a pair", 0)) };
    let page = vcpu::current().page()?;
    let mut random = Random::new(22);
    let mut bound: Option<u16> = None;
    let mut expected = false;
    let result = irq::masked(|| {
        for _ in 0..20_000 {
            match random.below(4) {
                0 => {
                    let bit = random.pick(&BITS, 700);
                    if hvc::port_bind(a, 0, bit).is_err() {
                        return Some(("bind", bit));
                    }
                    bound = Some(bit);
                }
                1 => {
                    let _ = hvc::port_unbind(a);
                    bound = None;
                }
                2 => {
                    if hvc::port_notify(b).is_err() {
                        return Some(("notify", 0));
                    }
                    expected = true;
                }
                _ => {
                    let Some(bit) = bound else { continue };
                    let got = page.pending(bit).load(core::sync::atomic::Ordering::SeqCst) != 0;
                    if expected && !got {
                        // It was set where the port was bound then: a bit that was moved away from keeps its byte.
                        let elsewhere =
                            BITS.iter().any(|&bit| page.pending(bit).load(core::sync::atomic::Ordering::SeqCst) != 0);
                        if !elsewhere {
                            return Some(("a notification was lost", bit));
                        }
                    }
                    for bit in BITS {
                        page.pending(bit).store(0, core::sync::atomic::Ordering::SeqCst);
                    }
                    expected = false;
                }
            }
        }
        None
    });
    close((a, b));
    result
}

fn storm() -> Option<(&'static str, u64)> {
    let Ok((a, b)) = pair() else { return Some(("a pair", 0)) };
    let Ok(port) = port::Port::bind(a) else { return Some(("bind", 0)) };
    let mut seen = 0_u64;
    for round in 0..100_000_u64 {
        if hvc::port_notify(b).is_err() {
            return Some(("notify", round));
        }
        seen += u64::from(port.take());
    }
    // Masked: nothing comes up, and nothing is lost.
    port.mask();
    for round in 0..50_000_u64 {
        if hvc::port_notify(b).is_err() {
            return Some(("notify masked", round));
        }
    }
    let kept = port.unmask() && port.take();
    let _ = port.unbind();
    close((a, b));
    if seen != 100_000 {
        return Some(("notifications seen", seen));
    }
    (!kept).then_some(("the masked one was lost", 0))
}

fn past_deadlines() -> Option<(u64, Result<(), Status>)> {
    let now = time::now();
    for deadline in [0, 1, now.saturating_sub(1), now / 2] {
        // An upcall that is pending ends the wait as well.
        let mut got = Ok(());
        for _ in 0..3 {
            got = hvc::vcpu_block(deadline);
            if got.is_err() {
                break;
            }
        }
        if got != Err(Status::TimedOut) {
            return Some((deadline, got));
        }
    }
    None
}
