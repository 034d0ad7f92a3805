//! Calls to the hypervisor: one typed function for each call of the ABI.
//!
//! [`raw`] makes a call by register; the functions of the files beside this one, one file for each group of calls,
//! name and type the arguments. None of them allocates or takes a lock, so all can be used in an interrupt or panic
//! handler. What each call does and which statuses it has is documented in `ABI.md` and at [`portico_abi::call::Call`].
//!
//! Restartable calls return [`Progress`]; [`complete`] repeats one until it is done.
//!
//! On a host the call layer is replaced by [`crate::fake`].

mod domains;
mod extents;
mod handles;
mod irqs;
mod ports;
mod system;
mod this;
mod vcpus;

pub use domains::*;
pub use extents::*;
pub use handles::*;
pub use irqs::*;
pub use ports::*;
pub use system::*;
pub use this::*;
pub use vcpus::*;

use portico_abi::{Call, Handle, Status};

/// What a restartable call did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All is done; the value is the call's result.
    Done(u64),
    /// A piece is done: call again with the same arguments. The value says how far it got.
    Again(u64),
}

/// Makes a call by registers: function id in w0, `arguments` in x1..x6. Returns x0..x3.
#[cfg(target_os = "none")]
#[inline(always)]
pub fn raw(function: u64, arguments: [u64; 6]) -> [u64; 4] {
    let [a1, a2, a3, a4, a5, a6] = arguments;
    let (r0, r1, r2, r3): (u64, u64, u64, u64);
    // SAFETY: the ABI lets a call change x0 to x3 and memory that the caller gave to it, nothing else.
    unsafe {
        core::arch::asm!(
            "hvc #0",
            inlateout("x0") function => r0,
            inlateout("x1") a1 => r1,
            inlateout("x2") a2 => r2,
            inlateout("x3") a3 => r3,
            in("x4") a4,
            in("x5") a5,
            in("x6") a6,
            options(nostack),
        );
    }
    [r0, r1, r2, r3]
}

/// Makes a call by registers, to the fake hypervisor.
#[cfg(not(target_os = "none"))]
pub fn raw(function: u64, arguments: [u64; 6]) -> [u64; 4] {
    crate::fake::call(function, arguments)
}

/// Makes a call of the ABI and decodes its status.
///
/// # Errors
/// Every status but `Ok` and `Again`; a status that this version does not know is `NotSupported`.
#[inline(always)]
pub fn call(call: Call, arguments: [u64; 6]) -> Result<[u64; 3], Status> {
    let [status, r1, r2, r3] = raw(u64::from(call.function_id()), arguments);
    if status == 0 {
        return Ok([r1, r2, r3]);
    }
    Err(Status::from_raw(status.cast_signed()).unwrap_or(Status::NotSupported))
}

/// Makes a restartable call once.
///
/// # Errors
/// As [`call`], but `Again` is not an error.
#[inline]
pub fn call_piece(call: Call, arguments: [u64; 6]) -> Result<Progress, Status> {
    let [status, r1, _, _] = raw(u64::from(call.function_id()), arguments);
    match Status::from_raw(status.cast_signed()) {
        Some(Status::Ok) => Ok(Progress::Done(r1)),
        Some(Status::Again) => Ok(Progress::Again(r1)),
        Some(error) => Err(error),
        None => Err(Status::NotSupported),
    }
}

/// Repeats a restartable call until it is done, and returns its result.
///
/// # Errors
/// The first error of the call.
pub fn complete(mut piece: impl FnMut() -> Result<Progress, Status>) -> Result<u64, Status> {
    loop {
        if let Progress::Done(value) = piece()? {
            return Ok(value);
        }
    }
}

fn unit(which: Call, arguments: [u64; 6]) -> Result<(), Status> {
    call(which, arguments).map(|_| ())
}

fn value(which: Call, arguments: [u64; 6]) -> Result<u64, Status> {
    call(which, arguments).map(|[r1, _, _]| r1)
}

fn handle(which: Call, arguments: [u64; 6]) -> Result<Handle, Status> {
    value(which, arguments).map(from_register)
}

/// Takes a handle out of a register.
fn from_register(register: u64) -> Handle {
    Handle::from_raw((register & 0xffff_ffff) as u32)
}

fn h(handle: Handle) -> u64 {
    u64::from(handle.raw())
}
