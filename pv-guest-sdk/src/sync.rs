//! Locks for code that runs on several vCPUs and in interrupt handlers.

use crate::irq;
use core::ops::{Deref, DerefMut};

/// Tells the processor that this is a spin, so that a sibling can use its time.
#[inline(always)]
pub fn relax() {
    #[cfg(target_os = "none")]
    // SAFETY: a hint.
    unsafe {
        core::arch::asm!("yield", options(nomem, nostack, preserves_flags));
    }
    #[cfg(not(target_os = "none"))]
    std::thread::yield_now();
}

/// How locks spin: with `yield`, since `core`'s spin hint is an `isb` on this architecture.
pub struct Relax;

impl spin::RelaxStrategy for Relax {
    #[inline(always)]
    fn relax() {
        relax();
    }
}

/// A spin lock that masks interrupts while it is held.
pub struct Lock<T>(spin::mutex::SpinMutex<T, Relax>);

/// Access to what a [`Lock`] protects.
pub struct LockGuard<'a, T> {
    // Dropped in this order: the lock is given back before interrupts come in.
    inner: spin::mutex::SpinMutexGuard<'a, T, Relax>,
    irq: irq::Guard,
}

impl<T> Lock<T> {
    /// Makes a lock.
    pub const fn new(value: T) -> Self {
        Self(spin::mutex::SpinMutex::new(value))
    }

    /// Takes the lock.
    #[inline]
    pub fn lock(&self) -> LockGuard<'_, T> {
        let irq = irq::Guard::new();
        LockGuard { inner: self.0.lock(), irq }
    }

    /// Takes the lock if it is free.
    #[inline]
    pub fn try_lock(&self) -> Option<LockGuard<'_, T>> {
        let irq = irq::Guard::new();
        Some(LockGuard { inner: self.0.try_lock()?, irq })
    }
}

impl<T> LockGuard<'_, T> {
    /// Whether interrupts were masked before the lock was taken.
    pub fn was_masked(&self) -> bool {
        self.irq.was_masked()
    }
}

impl<T> Deref for LockGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for LockGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}
