//! Ports: one end of a notification link, seen by its vCPU as a bit.
//!
//! A port that is bound to a vCPU has a number there, its *bit*. When it is notified EL2 stores 1
//! to the bit's pending byte in the vCPU page and, unless the bit's mask byte is non-zero, to its
//! selector byte and to `upcall_pending`, and raises the upcall interrupt. The guest clears what it
//! handles with plain stores. Nobody ever does an atomic read-modify-write on these bytes.

/// Port bits of one vCPU.
pub const PORT_BITS: usize = 1024;
/// Port bits behind one selector byte.
pub const BITS_PER_SELECTOR: usize = 64;
/// Selector bytes in a vCPU page.
pub const SELECTORS: usize = PORT_BITS / BITS_PER_SELECTOR;

/// Bit of the virtual timer (CNTV) on every vCPU; bound from the start.
pub const BIT_TIMER: u16 = 0;
/// Bit that says "something about this domain or one it watches changed"; bound from the start on
/// vCPU 0. See `domain_status`.
pub const BIT_EVENT: u16 = 1;
/// First bit that a guest or its builder may bind.
pub const BIT_FIRST_FREE: u16 = 8;

/// The only notification class in version 1.
pub const CLASS_DEFAULT: u64 = 0;

/// Absolute deadline argument that means "never". Deadlines are values of the guest's CNTVCT_EL0.
pub const DEADLINE_NEVER: u64 = u64::MAX;
