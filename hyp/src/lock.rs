//! EL2's spin lock: a ticket lock that waits with `yield`.
//!
//! Interrupts are always masked in EL2, so a holder is never preempted there. Fair: a pCPU waits for at most one
//! critical section of each other. A thin layer over [`spin`]'s ticket mutex whose relaxation strategy is `yield`.

use spin::mutex::{TicketMutex, TicketMutexGuard};
use spin::relax::RelaxStrategy;

/// Waits with `yield`, which lets another pCPU go on under emulation and under SMT.
pub struct Yield;

impl RelaxStrategy for Yield {
    #[inline(always)]
    fn relax() {
        portico_arch::cpu::relax();
    }
}

/// A lock. See the module's documentation.
pub struct Lock<T>(TicketMutex<T, Yield>);

/// Holding it is holding the lock.
pub type Guard<'a, T> = TicketMutexGuard<'a, T, Yield>;

impl<T> Lock<T> {
    /// Wraps a value.
    pub const fn new(value: T) -> Self {
        Self(TicketMutex::new(value))
    }

    /// Waits for the lock and takes it.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        self.0.lock()
    }

    /// Takes the lock if it is free.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        self.0.try_lock()
    }
}
