//! The hypervisor as the manager's decisions see it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use portico_abi::PAGE_SIZE;
use portico_abi::handle::SELF_DOMAIN;
use portico_manager::memory::{Cleanliness, Extents, Memory, MemoryError, Piece};
use portico_sdk::abi::call::{attrs, extent_flags};
use portico_sdk::abi::{Handle, ObjectType, Status};
use portico_sdk::hvc::{self, Progress, Trigger};

use crate::again::Left;
use crate::heap::Heap;
use crate::{cookie, place};

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
    /// What of it is the manager's heap.
    pub heap: Heap,
    /// Pages that were free at the start, those in EL2's pool included.
    free_at_start: u64,
    /// Pages that the manager's last life had given to somebody, and those that were free.
    given: Vec<Piece<Handle>>,
    idle: Vec<(Piece<Handle>, Cleanliness)>,
    /// Device memory that the last life made handles of, with its address.
    devices: Vec<(Handle, u64)>,
    /// Interrupts, with their cookies.
    interrupts: Vec<(Handle, u64)>,
}

impl Machine {
    /// Finds the System handle and everything else in the manager's handle table, which has `heap`. Free memory is there after
    /// [`Machine::begin`].
    ///
    /// # Errors
    /// The status of the query, if this domain is not the manager.
    pub fn find(heap: Heap) -> Result<(Self, Left), Status> {
        let system = hvc::self_info(portico_abi::call::info::SYSTEM_HANDLE, 0)?;
        let system = Handle::from_raw((system & 0xffff_ffff) as u32);
        let mut machine = Self {
            system,
            memory: Memory::default(),
            heap,
            free_at_start: 0,
            given: Vec::new(),
            idle: Vec::new(),
            devices: Vec::new(),
            interrupts: Vec::new(),
        };
        let mut left = Left::default();
        let mut cursor = 0;
        while let Ok((handle, next)) = hvc::handle_next(SELF_DOMAIN, cursor) {
            cursor = next;
            let Ok(info) = hvc::handle_info(handle) else { continue };
            let list = match info.object {
                Some(ObjectType::Extent) => {
                    machine.consider(handle, info.cookie, &mut left);
                    continue;
                }
                Some(ObjectType::Domain) => &mut left.domains,
                Some(ObjectType::Vcpu) => &mut left.vcpus,
                Some(ObjectType::Port) => &mut left.ports,
                Some(ObjectType::Irq) => &mut machine.interrupts,
                Some(ObjectType::System) | None => continue,
            };
            list.push((handle, info.cookie));
        }
        Ok((machine, left))
    }

    /// Takes the free memory that was found. Of what is not known to be clean, all is scrubbed.
    pub fn begin(&mut self, is_known_clean: bool) {
        for (piece, found) in core::mem::take(&mut self.idle) {
            let state = if is_known_clean { found } else { Cleanliness::Dirty };
            self.memory.add(&mut Calls, piece.extent, piece.start, piece.pages, state);
        }
    }

    /// Ends the beginning: what is there now is what must be free again at the end.
    pub fn balance_begins(&mut self) {
        self.free_at_start = self.memory.total_pages().saturating_add(self.pool_pages());
    }

    /// Takes back what the last life had given to somebody who is gone; never to be used again if something may still reach it.
    pub fn reclaim(&mut self, is_safe: bool) {
        let used = extent_flags::MAPPED | extent_flags::LENT;
        let gone =
            self.given.extract_if(.., |piece| hvc::extent_info(piece.extent).is_ok_and(|info| info.flags & used == 0));
        let gone: Vec<_> = gone.collect();
        for piece in gone {
            if is_safe {
                self.memory.put_dirty(piece);
            } else {
                self.lose(piece);
            }
        }
    }

    /// Takes a piece that the last life had given to a guest, if it is mapped at `ipa`.
    pub fn take_given(&mut self, start: u64, pages: u64, ipa: u64) -> Option<Piece<Handle>> {
        let is_it = |piece: &Piece<Handle>| piece.start == start && piece.pages == pages;
        let at = self.given.iter().position(is_it)?;
        let piece = self.given.get(at)?;
        let is_there = hvc::extent_info(piece.extent).is_ok_and(|info| info.ipa == Some(ipa));
        is_there.then(|| self.given.swap_remove(at))
    }

    /// Never uses a piece again: a device may still reach it. It is lent to the manager itself, so that the next life does not take it for free.
    pub fn lose(&mut self, piece: Piece<Handle>) {
        let _ = hvc::extent_lend(piece.extent, SELF_DOMAIN, 0, piece.pages, attrs::READ);
        self.memory.put_lost(piece);
    }

    /// Takes back a window of the manager's, whoever has it.
    pub fn give_back(&mut self, piece: Piece<Handle>) {
        let _ = hvc::complete(|| hvc::extent_revoke(piece.extent));
        let _ = unmap_here(piece.extent);
        self.memory.put_dirty(piece);
    }

    /// Device memory, by the handle that there is already if there is one.
    ///
    /// # Errors
    /// Those of `device_extent`.
    pub fn device(&self, address: u64, pages: u64) -> Result<Handle, Status> {
        match self.devices.iter().find(|&&(_, of)| of == address) {
            Some(&(extent, _)) => Ok(extent),
            None => hvc::device_extent(self.system, address, pages, 0),
        }
    }

    /// An interrupt, by the handle that there is already if there is one.
    ///
    /// # Errors
    /// Those of `irq_create`.
    pub fn interrupt(&mut self, intid: u32, trigger: Trigger) -> Result<Handle, Status> {
        let cookie = cookie::interrupt(intid);
        // Once only: two devices cannot share one.
        match self.interrupts.iter().position(|&(_, of)| of == cookie) {
            Some(at) => Ok(self.interrupts.swap_remove(at).0),
            None => hvc::irq_create(self.system, intid, trigger, cookie),
        }
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
        self.memory.free_pages().saturating_add(self.memory.dirty_pages()).saturating_add(self.pool_pages())
    }

    fn pool_pages(&self) -> u64 {
        hvc::pool_info(self.system).map_or(0, |(pages, ..)| pages)
    }

    /// Looks what an extent is for.
    fn consider(&mut self, extent: Handle, cookie: u64, left: &mut Left) {
        let (Ok(mut info), Ok(address)) = (hvc::extent_info(extent), hvc::extent_address(self.system, extent)) else {
            return;
        };
        if info.flags & extent_flags::DEVICE != 0 {
            self.devices.push((extent, address));
            return;
        }
        // EL2 gave those that the manager itself is in a cookie.
        if cookie != 0 || info.pages == 0 {
            return;
        }
        // What was begun is brought to its end.
        if info.ipa.is_some_and(place::is_loading) && unmap_here(extent).is_ok() {
            (info.ipa, info.flags) = (None, info.flags & !extent_flags::MAPPED);
        }
        if info.flags & extent_flags::REVOKING != 0 && hvc::complete(|| hvc::extent_revoke(extent)).is_ok() {
            info.flags &= !(extent_flags::REVOKING | extent_flags::LENT);
        }
        let piece = Piece { extent, root: 0, start: address / PAGE_SIZE, pages: info.pages };
        if info.flags & (extent_flags::MAPPED | extent_flags::LENT) == 0 {
            let is_clean = info.flags & extent_flags::DIRTY == 0;
            self.idle.push((piece, if is_clean { Cleanliness::Clean } else { Cleanliness::Dirty }));
            return;
        }
        self.memory.count_used(info.pages);
        match info.ipa.filter(|&ipa| place::is_own(ipa)) {
            Some(ipa) if place::is_heap(ipa) => {}
            Some(ipa) if info.flags & extent_flags::LENT != 0 => left.windows.push((piece, ipa)),
            Some(ipa) => left.unlent.push((piece, ipa)),
            None => self.given.push(piece),
        }
    }

    /// Takes one piece of clean memory.
    ///
    /// # Errors
    /// As [`Memory::take`].
    pub fn take(&mut self, pages: u64) -> Result<Piece<Handle>, MemoryError> {
        self.memory.take(&mut Calls, pages)
    }

    /// As [`Machine::take`], and scrubs if there is no clean memory now: for small pieces without which nothing goes on.
    fn take_waiting(&mut self, pages: u64) -> Result<Piece<Handle>, MemoryError> {
        loop {
            match self.take(pages) {
                Err(MemoryError::Scrubbing) => {
                    self.memory.scrub_step(&mut Calls);
                }
                other => return other,
            }
        }
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

/// Maps registers of a device into the manager, unless they are there already.
///
/// # Errors
/// Those of `extent_unmap` and `extent_map`.
pub fn map_device_here(extent: Handle, ipa: u64) -> Result<(), Status> {
    match hvc::extent_info(extent)?.ipa {
        Some(at) if at == ipa => return Ok(()),
        Some(_) => unmap_here(extent)?,
        None => {}
    }
    map_here(extent, ipa, READ_WRITE | attrs::DEVICE)
}

/// Ends [`map_here`].
///
/// # Errors
/// Those of `extent_unmap`.
pub fn unmap_here(extent: Handle) -> Result<(), Status> {
    hvc::complete(|| hvc::extent_unmap(extent, SELF_DOMAIN)).map(|_| ())
}

/// Takes memory for a window that outlives whoever it is lent to, and maps it at `ipa`: the manager lends it to itself too, so that at no time
/// nobody has it, and what one borrower wrote is there for the next.
///
/// # Errors
/// `NoBudget` if there is no memory; those of `extent_map` and `extent_lend`.
pub fn shared(machine: &mut Machine, pages: u64, ipa: u64) -> Result<Piece<Handle>, Status> {
    let piece = machine.take_waiting(pages).map_err(|_| Status::NoBudget)?;
    // In this order: one that is not lent was not finished, should this life end between.
    let mapped = map_here(piece.extent, ipa, READ_WRITE);
    let lent = mapped.and_then(|()| hvc::extent_lend(piece.extent, SELF_DOMAIN, 0, pages, READ_WRITE));
    lent.map(|_| piece).inspect_err(|_| machine.give_back(piece))
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
