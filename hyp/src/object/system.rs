//! The machine as an object: who has its handle rules the pool, the pCPUs, the devices and the power.

use core::ptr::NonNull;

use crate::graph::{Link, Ref};
use crate::object::handle::HandleChain;

/// The machine.
pub struct System {
    /// Its handles.
    pub handles: HandleChain,
}

static SYSTEM: System = System { handles: Link::new(None) };

/// The one machine.
pub fn system() -> Ref<System> {
    // SAFETY: what is static is never freed.
    unsafe { Ref::new(NonNull::from_ref(&SYSTEM)) }
}
