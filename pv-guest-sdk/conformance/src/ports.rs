//! ABI.md, "The upcall and ports": pending, mask, selector, binding, waiting.

use crate::tap::Tap;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use portico_sdk::abi::pending;
use portico_sdk::abi::port::{BITS_PER_SELECTOR, PORT_BITS};
use portico_sdk::port::{self, Port};
use portico_sdk::{Handle, Status, hvc, irq, time, vcpu};

static CALLS: AtomicU32 = AtomicU32::new(0);

fn count(_bit: u16, _argument: usize) {
    CALLS.fetch_add(1, Ordering::SeqCst);
}

/// All checks.
pub fn check(tap: &mut Tap) {
    let Ok((sender, receiver)) = port::pair() else {
        tap.holds("ports: a pair", false);
        return;
    };
    binding(tap, sender, receiver);
    // High, so that another selector than the first is used.
    let Ok(port) = Port::bind_at(receiver, 0, 1000) else {
        tap.holds("ports: bind at bit 1000", false);
        return;
    };
    tap.holds("ports: bind at bit 1000", true);
    bytes(tap, sender, port);
    upcalls(tap, sender, port);
    waiting(tap, sender, port);
    let _ = hvc::handle_close(sender);
    let _ = hvc::handle_close(receiver);
}

fn binding(tap: &mut Tap, sender: Handle, receiver: Handle) {
    let limit = PORT_BITS as u16;
    tap.is("ports: no bind to a reserved bit", hvc::port_bind(receiver, 0, 7), Err(Status::Invalid));
    tap.is("ports: no bind behind the last bit", hvc::port_bind(receiver, 0, limit), Err(Status::Invalid));
    tap.is("ports: no bind to a vCPU that is not there", hvc::port_bind(receiver, 1000, 100), Err(Status::NotFound));
    tap.holds("ports: notify while unbound", hvc::port_notify(sender).is_ok());
    let _guard = irq::Guard::new();
    let bound = hvc::port_bind(receiver, 0, 100);
    let port = Port::assume_bound(receiver, 0, 100);
    tap.holds("ports: it is pending as soon as it is bound", bound.is_ok() && port.take());
    tap.holds("ports: once", !port.take());
    tap.holds("ports: unbind", hvc::port_unbind(receiver).is_ok());
    let _ = hvc::port_notify(sender);
    tap.holds("ports: nothing is pending after unbind", !port.take());
    let bound = hvc::port_bind(receiver, 0, 101);
    let moved = Port::assume_bound(receiver, 0, 101);
    tap.holds("ports: bound again at another bit, pending there", bound.is_ok() && moved.take() && !port.take());
    port::scan();
}

fn bytes(tap: &mut Tap, sender: Handle, port: Port) {
    let _guard = irq::Guard::new();
    let Some(page) = vcpu::current().page() else { return };
    // The whole protocol: the SDK leaves the selectors alone where no bit has a handler.
    pending::scan(page, |_| {});
    let _ = port.take();
    let selector = page.selector(usize::from(port.bit()) / BITS_PER_SELECTOR);
    let three = || {
        let bytes = [page.pending(port.bit()), selector, page.upcall_pending()];
        bytes.map(|byte| byte.load(Ordering::SeqCst))
    };
    tap.is("ports: all bytes are 0 before", three(), [0; 3]);
    tap.holds("ports: notify", hvc::port_notify(sender).is_ok());
    tap.is("ports: pending, selector and upcall_pending are 1", three(), [1; 3]);
    tap.is("ports: notify of a pending port succeeds", hvc::port_notify(sender), Ok(()));
    let _ = port.take();
    port::scan();
    port.mask();
    tap.is("ports: notify of a masked port succeeds", hvc::port_notify(sender), Ok(()));
    let two = || [three()[0], three()[2]];
    tap.is("ports: masked, pending is 1 and upcall_pending is 0", two(), [1, 0]);
    tap.holds("ports: unmask tells that it is pending", port.unmask());
    tap.holds("ports: and EL2 did nothing by itself", two() == [1, 0] && port.take());
    port::scan();
    let _ = hvc::port_notify(sender);
    tap.is("ports: after that it notifies as before", three(), [1; 3]);
    let _ = port.take();
    port::scan();
}

fn upcalls(tap: &mut Tap, sender: Handle, port: Port) {
    CALLS.store(0, Ordering::SeqCst);
    port.on_notify(count, 0);
    for _ in 0..100 {
        let _ = hvc::port_notify(sender);
    }
    tap.is("upcall: a hundred notifications to oneself, a hundred upcalls", CALLS.load(Ordering::SeqCst), 100);
    irq::masked(|| {
        for _ in 0..100 {
            let _ = hvc::port_notify(sender);
        }
    });
    settle();
    tap.is("upcall: a hundred with interrupts masked are one", CALLS.load(Ordering::SeqCst), 101);
    irq::masked(|| {
        let _ = hvc::port_notify(sender);
        port::scan();
    });
    settle();
    tap.is("upcall: an empty scan is legal", CALLS.load(Ordering::SeqCst), 102);
    port.mask();
    let _ = hvc::port_notify(sender);
    settle();
    tap.is("upcall: none while masked", CALLS.load(Ordering::SeqCst), 102);
    port.unmask();
    tap.is("upcall: unmask runs the handler", CALLS.load(Ordering::SeqCst), 103);
    port::clear_handler(port.bit());
}

/// Gives an upcall that is on its way the time to come.
fn settle() {
    let end = time::deadline(Duration::from_micros(50));
    while !time::passed(end) {
        core::hint::spin_loop();
    }
}

fn waiting(tap: &mut Tap, sender: Handle, port: Port) {
    let soon = || time::deadline(Duration::from_millis(2));
    let begin = time::now();
    let deadline = soon();
    tap.is("block: TimedOut at the deadline", port.wait(deadline), Err(Status::TimedOut));
    tap.holds("block: not before", time::now() >= deadline && deadline > begin);
    let past = irq::masked(|| hvc::vcpu_block(1));
    tap.is("block: a deadline in the past is TimedOut at once", past, Err(Status::TimedOut));
    let pending = irq::masked(|| {
        let _ = hvc::port_notify(sender);
        hvc::vcpu_block(u64::MAX)
    });
    tap.is("block: returns at once if something is pending", pending, Ok(()));
    tap.holds("block: and leaves it pending", port.take());
    irq::masked(port::scan);
    let both = irq::masked(|| hvc::port_notify_wait(sender, u64::MAX));
    tap.is("notify_wait: to oneself returns at once", both, Ok(()));
    tap.holds("notify_wait: and it is pending", port.take());
    irq::masked(port::scan);
    let wrong = hvc::port_notify_wait(Handle::new(0x7ff0, 3), u64::MAX);
    tap.is("notify_wait: with a wrong port does not block", wrong, Err(Status::BadHandle));
}
