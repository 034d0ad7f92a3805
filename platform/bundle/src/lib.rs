//! The boot bundle: one file that holds everything a Portico machine starts from.
//!
//! A bundle is a standard cpio archive (format "newc"), handed to EL2 as an initrd is handed to Linux. Its
//! entries are named by [`names`]. EL2 knows where the manager is in it; the manager reads the rest, and `portico`
//! writes it.
//!
//! * `cpio`: reader.
//! * `writer`: with feature `write`, writer.
//! * `description`: with feature `description`, the compiled system description.
//!
//! It does not check what is inside the images, and knows nothing of where the bundle lies in memory.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

#[cfg(any(feature = "write", feature = "description", test))]
extern crate alloc;

pub mod cpio;
#[cfg(feature = "description")]
pub mod description;
#[cfg(all(feature = "write", feature = "description"))]
pub mod fuzz;
#[cfg(feature = "write")]
pub mod writer;

/// Names of the entries of a bundle.
pub mod names {
    /// The manager's device tree, of one page: the first entry.
    pub const MANAGER_TREE: &str = "manager.dtb";
    /// The manager, a flat arm64 `Image`: the second.
    pub const MANAGER: &str = "manager";
    /// The compiled system description.
    pub const SYSTEM: &str = "system";
    /// Prefix of the guests' kernels: `image/<name>`, each an ELF file or an arm64 `Image`.
    pub const IMAGE_PREFIX: &str = "image/";
    /// Prefix of the guests' RAM disks: `ramdisk/<name>`.
    pub const RAMDISK_PREFIX: &str = "ramdisk/";
    /// Prefix of the images of services: `service/block`, as a guest's kernel is.
    pub const SERVICE_PREFIX: &str = "service/";
}

/// Alignment of the data of every entry that the writer makes, in bytes: that of a page.
pub const DATA_ALIGN: usize = 4096;
