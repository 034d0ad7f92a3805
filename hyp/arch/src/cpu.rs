//! Small things that a pCPU does to itself.

pub use crate::barrier::halt;

/// Lets another pCPU go on while this one waits: a spin without it burns a whole slice under emulation.
#[inline(always)]
pub fn relax() {
    crate::barrier::yield_now();
}

/// Stops until an interrupt is pending, masked or not. Stores are complete first.
#[inline(always)]
pub fn wait_for_interrupt() {
    crate::barrier::dsb_sy();
    crate::barrier::wfi();
}
