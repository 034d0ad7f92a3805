//! The hypervisor as the manager's decisions see it.

use alloc::format;
use alloc::string::String;
use portico_abi::handle::SELF_DOMAIN;
use portico_manager::memory::{Cleanliness, Extents, Memory, MemoryError, Piece};
use portico_sdk::abi::call::{attrs, extent_flags};
use portico_sdk::abi::{Handle, ObjectType, Status};
use portico_sdk::hvc::{self, Progress};

/// Attributes of memory that the manager maps for itself.
pub const READ_WRITE: u64 = attrs::READ | attrs::WRITE;

/// Pages by which a budget is raised that turns out too small.
const BUDGET_STEP: u64 = 8;

/// Makes the extent calls.
#[derive(Clone, Copy, Debug)]
pub struct Calls;

impl Extents for Calls {
    type Extent = Handle;

    fn split(&mut self, extent: Handle, offset: u64) -> Result<Handle, Status> {
        hvc::extent_split(extent, offset)
    }

    fn merge(&mut self, first: Handle, second: Handle) -> Result<(), Status> {
        hvc::extent_merge(first, second)
    }

    fn scrub(&mut self, extent: Handle) -> Result<bool, Status> {
        hvc::extent_scrub(extent).map(|progress| matches!(progress, Progress::Done(_)))
    }
}

/// What of the machine belongs to the manager: its right to it, and its memory.
#[derive(Debug)]
pub struct Machine {
    /// The System handle.
    pub system: Handle,
    /// Free memory.
    pub memory: Memory<Handle>,
    /// Pages that were free at the start, those in EL2's pool included.
    free_at_start: u64,
}

impl Machine {
    /// Finds the System handle and all free memory in the manager's handle table.
    ///
    /// # Errors
    /// The status of the query, if this domain is not the manager.
    pub fn find() -> Result<Self, Status> {
        let system = hvc::self_info(portico_abi::call::info::SYSTEM_HANDLE, 0)?;
        let system = Handle::from_raw((system & 0xffff_ffff) as u32);
        let mut machine = Self { system, memory: Memory::default(), free_at_start: 0 };
        let mut cursor = 0;
        while let Ok((handle, next)) = hvc::handle_next(SELF_DOMAIN, cursor) {
            cursor = next;
            machine.consider(handle);
        }
        machine.free_at_start = machine.free_with_pool();
        Ok(machine)
    }

    /// Whether no memory waits to be scrubbed.
    pub fn memory_is_settled(&self) -> bool {
        self.memory.dirty_pages() == 0
    }

    /// Compares free memory with that at the start: when no guest is left, what is missing is `held`.
    pub fn balance(&self, held: u64) -> String {
        let (free, all) = (self.free_with_pool(), self.free_at_start);
        format!("{free} of {all} pages are free again, {held} are those of services and consoles")
    }

    fn free_with_pool(&self) -> u64 {
        let pool = hvc::pool_info(self.system).map_or(0, |(pages, ..)| pages);
        self.memory.free_pages().saturating_add(self.memory.dirty_pages()).saturating_add(pool)
    }

    /// Takes a handle as free memory if it is that.
    fn consider(&mut self, handle: Handle) {
        let is_extent = hvc::handle_info(handle).is_ok_and(|info| info.object == Some(ObjectType::Extent));
        let Some(info) = is_extent.then(|| hvc::extent_info(handle).ok()).flatten() else { return };
        let used = extent_flags::GRANT | extent_flags::DEVICE | extent_flags::MAPPED | extent_flags::LENT;
        if info.flags & used != 0 || info.pages == 0 {
            return;
        }
        let state = match info.flags & extent_flags::DIRTY {
            0 => Cleanliness::Clean,
            _ => Cleanliness::Dirty,
        };
        self.memory.add_root(handle, info.pages, state);
    }

    /// Takes one piece of clean memory.
    ///
    /// # Errors
    /// As [`Memory::take`].
    pub fn take(&mut self, pages: u64) -> Result<Piece<Handle>, MemoryError> {
        self.memory.take(&mut Calls, pages)
    }

    /// Creates a domain, and gives the pool another block if it lacks pages.
    ///
    /// # Errors
    /// Those of `domain_create`; `NoBudget` if there is no block to give.
    pub fn create_domain(&mut self, budget: u64, max_vcpus: u32, ipa_bits: u32, cookie: u64) -> Result<Handle, Status> {
        loop {
            match hvc::domain_create(budget, max_vcpus, ipa_bits, cookie) {
                Err(Status::NoBudget) => self.grow_pool()?,
                other => return other,
            }
        }
    }

    /// Raises a domain's budget by `pages`.
    ///
    /// # Errors
    /// As [`Machine::create_domain`].
    pub fn raise_budget(&mut self, domain: Handle, pages: u64) -> Result<(), Status> {
        let status = hvc::domain_status(domain)?;
        let wanted = u64::from(status.budget_pages).saturating_add(pages);
        loop {
            match hvc::domain_budget(domain, wanted) {
                Err(Status::NoBudget) => self.grow_pool()?,
                other => return other,
            }
        }
    }

    /// Makes a call that the budget of `domain` pays, and raises that if it is too small.
    ///
    /// # Errors
    /// Those of the call, and as [`Machine::create_domain`].
    pub fn with_budget<T>(&mut self, domain: Handle, call: impl FnMut() -> Result<T, Status>) -> Result<T, Status> {
        self.with_budgets([domain], call)
    }

    /// As [`Machine::with_budget`], for a call that several pay.
    ///
    /// # Errors
    /// As [`Machine::with_budget`].
    pub fn with_budgets<T, const N: usize>(
        &mut self,
        domains: [Handle; N],
        mut call: impl FnMut() -> Result<T, Status>,
    ) -> Result<T, Status> {
        match call() {
            Err(Status::NoBudget) => {}
            other => return other,
        }
        for domain in domains {
            self.raise_budget(domain, BUDGET_STEP)?;
        }
        call()
    }

    /// Lends a whole extent to a domain and maps it there with `attributes`; raises its budget as that needs.
    ///
    /// # Errors
    /// Those of `extent_lend` and `extent_map`, and as [`Machine::create_domain`].
    pub fn lend(
        &mut self,
        extent: Handle,
        pages: u64,
        domain: Handle,
        ipa: u64,
        attributes: u64,
    ) -> Result<(), Status> {
        let grant = self.with_budget(domain, || hvc::extent_lend(extent, domain, 0, pages, attributes))?;
        let map = || hvc::complete(|| hvc::grant_map(grant, domain, ipa, attributes));
        self.with_budget(domain, map).map(|_| ())
    }

    fn grow_pool(&mut self) -> Result<(), Status> {
        use portico_manager::memory::BLOCK_PAGES;
        let piece = self.take(BLOCK_PAGES).map_err(|_| Status::NoBudget)?;
        match hvc::pool_add(self.system, piece.extent) {
            Ok(()) => {
                self.memory.forget(&piece);
                Ok(())
            }
            Err(status) => {
                self.memory.put_clean(&mut Calls, piece);
                Err(status)
            }
        }
    }
}

/// Maps an extent of the manager's into the manager.
///
/// # Errors
/// Those of `extent_map`.
pub fn map_here(extent: Handle, ipa: u64, attributes: u64) -> Result<(), Status> {
    hvc::complete(|| hvc::extent_map(extent, SELF_DOMAIN, ipa, attributes)).map(|_| ())
}

/// Ends [`map_here`].
///
/// # Errors
/// Those of `extent_unmap`.
pub fn unmap_here(extent: Handle) -> Result<(), Status> {
    hvc::complete(|| hvc::extent_unmap(extent, SELF_DOMAIN)).map(|_| ())
}

/// Takes memory for a window that outlives whoever it is lent to: the manager lends it to itself too, so that at no time nobody has it, and what
/// one borrower wrote is there for the next.
///
/// # Errors
/// `NoBudget` if there is no memory; those of `extent_lend`.
pub fn shared(machine: &mut Machine, pages: u64) -> Result<Piece<Handle>, Status> {
    let piece = machine.take(pages).map_err(|_| Status::NoBudget)?;
    let lent = hvc::extent_lend(piece.extent, SELF_DOMAIN, 0, pages, READ_WRITE);
    lent.map(|_| piece).inspect_err(|_| machine.memory.put_dirty(piece))
}

/// Lends a whole extent to a domain and maps it there.
///
/// # Errors
/// Those of `extent_lend` and `extent_map`.
pub fn lend(extent: Handle, pages: u64, domain: Handle, ipa: u64) -> Result<(), Status> {
    let grant = hvc::extent_lend(extent, domain, 0, pages, READ_WRITE)?;
    hvc::complete(|| hvc::grant_map(grant, domain, ipa, READ_WRITE)).map(|_| ())
}

/// Scrubs an extent that is mapped at `ipa` in the manager, if a guest has written to it: otherwise it could not be
/// lent to the guest's next instance, which is another domain.
///
/// # Errors
/// Those of unmapping, scrubbing and mapping.
pub fn scrub_mapped(extent: Handle, ipa: u64) -> Result<(), Status> {
    if hvc::extent_info(extent)?.flags & extent_flags::DIRTY == 0 {
        return Ok(());
    }
    unmap_here(extent)?;
    hvc::complete(|| hvc::extent_scrub(extent))?;
    map_here(extent, ipa, READ_WRITE)
}
