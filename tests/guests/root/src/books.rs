//! What this domain has, counted: nothing may be missing at the end.

use portico_sdk::abi::call::{attrs, extent_flags, info};
use portico_sdk::abi::handle::SELF_DOMAIN;
use portico_sdk::abi::{Handle, Status};
use portico_sdk::hvc;

/// IPA at which extents are mapped here.
pub const WINDOW: u64 = 0x10_0000_0000;
/// Attributes of memory mapped here.
pub const READ_WRITE: u64 = attrs::READ | attrs::WRITE;

/// The machine's handle, and free memory.
pub struct Books {
    /// System.
    pub system: Handle,
    /// The largest free extent; pieces are cut from its end.
    pub memory: Handle,
    /// Pages of it.
    pub pages: u64,
    /// Pages that a test keeps for a while.
    pub spare: Handle,
}

/// A count of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// Pages in EL2's pool, promised and in use.
    pool: (u64, u64, u64),
    /// Pages of extents in the own table, and how many of them carry data of others.
    extents: (u64, u64),
    /// Handles in the own table.
    handles: u64,
}

impl Books {
    /// Finds the machine's handle and the largest free extent.
    pub fn open() -> Option<Books> {
        let system = hvc::self_info(info::SYSTEM_HANDLE, 0).ok()?;
        let system = Handle::from_raw(system as u32);
        let mut best: Option<(Handle, u64)> = None;
        each_handle(|handle| {
            if let Ok(extent) = hvc::extent_info(handle)
                && extent.flags == 0
                && best.is_none_or(|(_, pages)| extent.pages > pages)
            {
                best = Some((handle, extent.pages));
            }
        });
        let (memory, pages) = best?;
        Some(Books { system, memory, pages, spare: Handle::NONE })
    }

    /// Cuts a piece off.
    ///
    /// # Errors
    /// Those of `extent_split`.
    pub fn take(&mut self, pages: u64) -> Result<Handle, Status> {
        let piece = hvc::extent_split(self.memory, self.pages.saturating_sub(pages))?;
        self.pages -= pages;
        Ok(piece)
    }

    /// Scrubs a piece and joins it again. Pieces come back in the reverse order.
    ///
    /// # Errors
    /// Those of `extent_scrub` and `extent_merge`.
    pub fn give(&mut self, piece: Handle) -> Result<(), Status> {
        let pages = hvc::extent_info(piece)?.pages;
        hvc::complete(|| hvc::extent_scrub(piece))?;
        hvc::extent_merge(self.memory, piece)?;
        self.pages += pages;
        Ok(())
    }

    /// Counts everything.
    pub fn balance(&self) -> Balance {
        let mut balance =
            Balance { pool: hvc::pool_info(self.system).unwrap_or_default(), extents: (0, 0), handles: 0 };
        each_handle(|handle| {
            balance.handles += 1;
            if let Ok(extent) = hvc::extent_info(handle) {
                balance.extents.0 += extent.pages;
                balance.extents.1 += u64::from(extent.flags & extent_flags::DIRTY != 0);
            }
        });
        balance
    }

    /// What is not as it was; `None` if all is.
    pub fn differs(&self, before: Balance) -> Option<(Balance, Balance)> {
        let now = self.balance();
        (now != before).then_some((before, now))
    }

    /// Extents of others that fell to this domain: tainted, unmapped and not the memory it knows.
    pub fn inherited(&self) -> Option<Handle> {
        let mut found = None;
        each_handle(|handle| {
            if handle != self.memory
                && let Ok(extent) = hvc::extent_info(handle)
                && extent.flags == extent_flags::DIRTY
            {
                found = Some(handle);
            }
        });
        found
    }
}

/// Calls `each` with every handle of the own table.
pub fn each_handle(mut each: impl FnMut(Handle)) {
    let mut cursor = 0;
    while let Ok((handle, next)) = hvc::handle_next(SELF_DOMAIN, cursor) {
        each(handle);
        cursor = next;
    }
}

/// Maps an extent here.
///
/// # Errors
/// Those of `extent_map`.
pub fn map_here(extent: Handle, ipa: u64) -> Result<(), Status> {
    hvc::complete(|| hvc::extent_map(extent, SELF_DOMAIN, ipa, READ_WRITE)).map(drop)
}

/// Ends [`map_here`].
///
/// # Errors
/// Those of `extent_unmap`.
pub fn unmap_here(extent: Handle) -> Result<(), Status> {
    hvc::complete(|| hvc::extent_unmap(extent, SELF_DOMAIN)).map(drop)
}

/// Reads a word of what is mapped here.
pub fn peek(ipa: u64) -> u64 {
    // SAFETY: callers mapped it.
    unsafe { core::ptr::with_exposed_provenance::<u64>(ipa as usize).read_volatile() }
}

/// Writes a word of what is mapped here.
pub fn poke(ipa: u64, value: u64) {
    // SAFETY: callers mapped it, and no Rust object is there.
    unsafe { core::ptr::with_exposed_provenance_mut::<u64>(ipa as usize).write_volatile(value) }
}
