//! Stage-2 translation: Armv8.0, 4 KiB granule, IPA of 32 to 39 bits, one root table at level 1.
//!
//! [`descriptor`] is the encoding, [`walk`] reads tables, [`plan`] changes them in bounded pieces. Tables are
//! reached only through [`walk::Tables`]; invalidation is the caller's, at the points that `plan` names.

pub mod descriptor;
pub mod plan;
#[cfg(test)]
mod tests;
pub mod walk;

pub use descriptor::{Attrs, ENTRIES};
pub use plan::{map, tail, unmap};
pub use walk::{Tables, Translation, lookup};
