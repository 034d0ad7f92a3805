//! The kernel objects, one file each.

pub mod bind;
pub mod domain;
pub mod extent;
pub mod handle;
pub mod irq;
pub mod port;
pub mod slab;
pub mod system;
pub mod vcpu;
