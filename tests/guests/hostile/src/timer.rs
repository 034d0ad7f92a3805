//! The timer: wild values and storms. (Row 36 of the list of attacks.)

use core::arch::asm;
use core::time::Duration;
use portico_sdk::abi::Status;
use portico_sdk::{hvc, irq, time};
use test_kit::Tap;

pub fn attempts(tap: &mut Tap) {
    tap.none("a deadline near 2^64 never comes", far_deadlines());
    tap.none("a deadline in the past comes at once", past_deadlines());
    tap.none("a storm of deadlines in the past", storm());
    tap.none("a block to a wild deadline ends with the timer", wild_blocks());
    tap.none("TVAL at its ends", wild_tvals());
}

fn fires(cval: u64, patience: Duration) -> bool {
    let port = time::timer_port();
    irq::masked(|| {
        let _ = port.take();
        time::arm(cval);
    });
    let fired = port.wait(time::deadline(patience)).is_ok();
    time::disarm();
    fired
}

fn far_deadlines() -> Option<u64> {
    let far = [u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) - 1, u64::MAX - time::now(), 1 << 56, (1 << 56) - 1];
    far.into_iter().find(|&cval| fires(cval, Duration::from_millis(3)))
}

fn past_deadlines() -> Option<u64> {
    [0, 1, time::now() - 1, time::now() / 2].into_iter().find(|&cval| !fires(cval, Duration::from_secs(2)))
}

fn storm() -> Option<u64> {
    let port = time::timer_port();
    let mut seen = 0;
    let end = time::deadline(Duration::from_millis(150));
    while !time::passed(end) {
        time::arm(0);
        seen += u64::from(port.take());
    }
    time::disarm();
    (seen == 0).then_some(seen)
}

fn wild_blocks() -> Option<(u64, Result<(), Status>)> {
    let wild = [u64::MAX - 1, u64::MAX - time::now(), 1 << 63, u64::MAX];
    wild.into_iter().find_map(|deadline| {
        irq::masked(|| {
            let _ = time::timer_port().take();
            time::arm(time::deadline(Duration::from_millis(2)));
            let got = hvc::vcpu_block(deadline);
            time::disarm();
            (got != Ok(())).then_some((deadline, got))
        })
    })
}

fn wild_tvals() -> Option<u64> {
    let port = time::timer_port();
    for tval in [0xffff_ffff_u64, 0xffff_fc00, 0] {
        irq::masked(|| {
            let _ = port.take();
            // SAFETY: the virtual timer belongs to the guest.
            unsafe {
                asm!("msr cntv_tval_el0, {}", "msr cntv_ctl_el0, {}", "isb", in(reg) tval, in(reg) 1_u64, options(nostack))
            };
        });
        // All of them lie in the past or are now.
        let fired = port.wait(time::deadline(Duration::from_secs(2))).is_ok();
        time::disarm();
        if !fired {
            return Some(tval);
        }
    }
    None
}
