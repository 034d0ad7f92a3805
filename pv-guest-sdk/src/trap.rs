//! Exceptions of the guest itself.
//!
//! A synchronous exception or SError ends the domain with a report, unless the vCPU is inside [`catch`].

/// What [`catch`] caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caught {
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1; meaningful for aborts only.
    pub far: u64,
}

impl Caught {
    /// Exception class. (Arm ARM, ESR_EL1, "EC")
    pub const fn class(&self) -> u64 {
        self.esr >> 26 & 0x3f
    }

    /// Whether it is an undefined instruction.
    pub const fn is_undefined(&self) -> bool {
        self.class() == 0
    }
}

/// Runs `body`, in which one instruction may raise a synchronous exception: it is skipped and reported.
///
/// Meant for probing: a register that may be hidden, an address that may not be there. Only the first
/// exception is forgiven, the second ends the domain.
#[cfg(target_os = "none")]
pub fn catch<T>(body: impl FnOnce() -> T) -> (T, Option<Caught>) {
    use core::sync::atomic::{Ordering, compiler_fence};
    let vcpu = crate::vcpu::current();
    vcpu.catching.store(1, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    let value = body();
    compiler_fence(Ordering::SeqCst);
    let caught = vcpu.catching.swap(0, Ordering::Relaxed) == 2;
    let what = caught
        .then(|| Caught { esr: vcpu.caught_esr.load(Ordering::Relaxed), far: vcpu.caught_far.load(Ordering::Relaxed) });
    (value, what)
}

/// Runs `body`. On a host nothing is caught.
#[cfg(not(target_os = "none"))]
pub fn catch<T>(body: impl FnOnce() -> T) -> (T, Option<Caught>) {
    (body(), None)
}
