//! The one definition of the Portico ABI, version 1.
//!
//! Everything that crosses the boundary between a guest and EL2, or between two guests that talk
//! by a channel, is defined here and nowhere else: call numbers ([`call`]), statuses ([`status`]),
//! handles and rights ([`handle`]), ports ([`port`]), pages shared with EL2 ([`page`]), records
//! ([`record`]), rings ([`ring`]), channels ([`channel`]), devices ([`device`]) and the device-tree names by which a
//! guest finds them ([`dt`]). The C header and the reference tables of `ABI.md` are generated from it.
//!
//! It holds no code that touches hardware and no policy. It allocates nothing.
#![cfg_attr(not(any(test, loom)), no_std)]
#![forbid(unsafe_code)]

pub mod call;
pub mod channel;
pub mod device;
pub mod dt;
mod enumeration;
pub mod handle;
pub mod page;
pub mod pending;
pub mod port;
pub mod psci;
pub mod record;
pub mod ring;
pub mod status;

pub use call::Call;
pub use handle::{Handle, ObjectType, Rights};
pub use status::Status;

/// Major version of the ABI: it changes when a correct guest could break.
pub const VERSION_MAJOR: u16 = 1;
/// Minor version of the ABI: it grows when something is added.
pub const VERSION_MINOR: u16 = 0;
/// Version of the management calls (numbers from [`call::MANAGEMENT_BASE`]), counted apart.
pub const MANAGEMENT_VERSION: u32 = 1;

/// Size of a page, and the granule of every memory call, in bytes.
pub const PAGE_SIZE: u64 = 4096;
/// `log2` of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// Size of a block, the unit by which memory is given to EL2, in bytes.
pub const BLOCK_SIZE: u64 = 2 << 20;

/// UUID that the SMCCC vendor-hypervisor UID query answers, as the words of x0..x3:
/// `1f7c5e3a-4b8d-4e6f-9c21-7d0a5b92e846`.
pub const UID: [u32; 4] = [0x3a5e_7c1f, 0x6f4e_8d4b, 0x0a7d_219c, 0x46e8_925b];
