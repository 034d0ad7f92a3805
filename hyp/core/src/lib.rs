//! Pure logic of the hypervisor: no hardware, no unsafe code, no allocation.
//!
//! Each module is a piece of EL2 whose rules can be checked on the host: it takes values, returns
//! decisions, and reaches memory only through a trait or a slice that its caller supplies. Locks, time
//! and addresses of objects belong to the callers in `hyp/src`.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod addr;
pub mod bundle;
pub mod entropy;
pub mod esr;
pub mod extent;
pub mod handle;
pub mod idregs;
pub mod pool;
pub mod ratelimit;
pub mod runq;
pub mod stage2;
pub mod sysreg;
pub mod time;
pub mod trace;
pub mod vmid;
