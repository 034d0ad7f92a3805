//! Ports, for C.

use alloc::boxed::Box;
use alloc::vec::Vec;
use portico_sdk::port::{self, Port};
use portico_sdk::sync::Lock;
use portico_sdk::{Handle, Status, irq};

/// `struct portico_port` of the header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CPort {
    handle: u32,
    vcpu: u32,
    bit: u16,
    _reserved: [u16; 3],
}

impl CPort {
    /// A port of the SDK, as C has it.
    pub fn of(port: &Port) -> CPort {
        CPort { handle: port.handle().raw(), vcpu: port.vcpu(), bit: port.bit(), _reserved: [0; 3] }
    }

    /// The port as the SDK has it. It is bound already.
    fn port(&self) -> Port {
        Port::assume_bound(Handle::from_raw(self.handle), self.vcpu, self.bit)
    }
}

/// A status as C has it.
pub fn status(result: Result<(), Status>) -> i64 {
    result.map_or_else(Status::raw, |()| 0)
}

/// See `portico.h`.
///
/// # Safety
/// `out` points to a writable `struct portico_port`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portico_bind(handle: u32, out: *mut CPort) -> i64 {
    match Port::bind(Handle::from_raw(handle)) {
        Ok(port) => {
            // SAFETY: the caller's promise.
            unsafe { out.write(CPort::of(&port)) };
            0
        }
        Err(status) => status.raw(),
    }
}

/// See `portico.h`.
///
/// # Safety
/// `port` came from `portico_bind`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portico_take(port: *const CPort) -> bool {
    // SAFETY: the caller's promise.
    unsafe { *port }.port().take()
}

/// See `portico.h`.
///
/// # Safety
/// `port` came from `portico_bind`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portico_wait(port: *const CPort, deadline: u64) -> i64 {
    // SAFETY: the caller's promise.
    status(unsafe { *port }.port().wait(deadline))
}

/// See `portico.h`.
///
/// # Safety
/// `port` came from `portico_bind`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portico_mask(port: *const CPort) {
    // SAFETY: the caller's promise.
    unsafe { *port }.port().mask();
}

/// See `portico.h`.
///
/// # Safety
/// `port` came from `portico_bind`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portico_unmask(port: *const CPort) -> bool {
    // SAFETY: the caller's promise.
    unsafe { *port }.port().unmask()
}

/// A C handler and its argument.
struct Handler(extern "C" fn(u16, usize), usize);

impl Handler {
    /// Whether calling one or the other is the same.
    fn is(&self, other: &Handler) -> bool {
        core::ptr::fn_addr_eq(self.0, other.0) && self.1 == other.1
    }
}

/// All that were ever set. They stay, since a handler may run on another vCPU when it is replaced; one that is set again, as with each
/// life of a peer, is found here. Guests set few handlers.
static HANDLERS: Lock<Vec<&'static Handler>> = Lock::new(Vec::new());

/// Where a handler stands for ever.
fn keep(handler: Handler) -> &'static Handler {
    let mut kept = HANDLERS.lock();
    if let Some(known) = kept.iter().find(|known| known.is(&handler)) {
        return known;
    }
    let handler: &'static Handler = Box::leak(Box::new(handler));
    kept.push(handler);
    handler
}

fn call(bit: u16, handler: usize) {
    // SAFETY: what `keep` gave.
    let Handler(function, argument) = *unsafe { &*core::ptr::with_exposed_provenance::<Handler>(handler) };
    function(bit, argument);
}

/// See `portico.h`.
#[unsafe(no_mangle)]
pub extern "C" fn portico_on_notify(bit: u16, handler: extern "C" fn(u16, usize), argument: usize) {
    let handler = core::ptr::from_ref(keep(Handler(handler, argument))).expose_provenance();
    port::set_handler(bit, call, handler);
    // What was pending already has no upcall of its own.
    irq::masked(|| {
        let here = Port::fixed(portico_sdk::vcpu::index(), bit);
        if here.take() {
            call(bit, handler);
        }
    });
}
