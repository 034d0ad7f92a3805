//! The pool of object pages.
//!
//! The manager gives EL2 blocks of 2 MiB; each is cut into 512 pages, and each page in use has an owner: a
//! domain, or EL2. The pool knows three counts: pages it has, pages promised to domains as budgets, pages in use.
//! Promises never exceed what it has, so a page within a budget can always be had. It touches no page: who takes one
//! zeroes it. The caller holds the budget lock.
//!
//! The books are one bit and two bytes for each page; they are in the block's own first page, so that a small pool has small books and what a block
//! costs is in the counts. A domain's pages are found by scanning in bounded pieces, which costs time only when a domain dies.

use crate::addr::Pa;
use portico_abi::{BLOCK_SIZE, PAGE_SHIFT, Status};

/// Pages of a block.
pub const BLOCK_PAGES: u32 = 512;
/// Those that are there for domains: the first has the block's books.
const USABLE_PAGES: u32 = BLOCK_PAGES - 1;

/// Who has a page: the number of a domain plus one, or [`Owner::EL2`], which is zero so that an empty pool takes no room in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Owner(u16);

impl Owner {
    /// EL2 itself.
    pub const EL2: Owner = Owner(0);

    /// A domain.
    pub const fn domain(id: crate::addr::DomainId) -> Self {
        Self(id.raw() + 1)
    }
}

/// What a domain may use and does use, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Pages promised.
    pub limit: u32,
    /// Pages in use.
    pub used: u32,
}

impl Budget {
    /// Pages left.
    pub const fn left(&self) -> u32 {
        self.limit.saturating_sub(self.used)
    }
}

/// The pool, with room for `BLOCKS` blocks.
pub struct Pool<const BLOCKS: usize> {
    blocks: [Option<Block>; BLOCKS],
    pages: u32,
    promised: u32,
    /// No block before this one has a free page.
    hint: usize,
}

/// One block.
struct Block {
    base: Pa,
    books: &'static mut Books,
}

/// The books of one block, of which they have the first page.
pub struct Books {
    free: u16,
    /// A set bit is a free page.
    map: [u64; 8],
    owners: [Owner; BLOCK_PAGES as usize],
}

const _: () = assert!(size_of::<Books>() <= 1 << PAGE_SHIFT);

impl Default for Books {
    fn default() -> Self {
        let mut map = [u64::MAX; 8];
        map[0] -= 1;
        Self { free: USABLE_PAGES as u16, map, owners: [Owner::EL2; BLOCK_PAGES as usize] }
    }
}

impl Books {
    /// Takes a page for `owner`: its number in the block.
    fn take(&mut self, owner: Owner) -> Option<u32> {
        let (word_index, word) = self.map.iter_mut().enumerate().find(|(_, word)| **word != 0)?;
        let page = word_index as u32 * 64 + word.trailing_zeros();
        *word &= *word - 1;
        self.free = self.free.saturating_sub(1);
        *self.owners.get_mut(page as usize)? = owner;
        Some(page)
    }

    /// Frees a page that `owner` has. False if it has not.
    fn give(&mut self, page: u32, owner: Owner) -> bool {
        let Some(word) = self.map.get_mut((page / 64) as usize) else { return false };
        let bit = 1u64 << (page % 64);
        if *word & bit != 0 || self.owners.get(page as usize) != Some(&owner) {
            return false;
        }
        *word |= bit;
        self.free += 1;
        true
    }

    /// Frees every page that `owner` has, and says how many. Of all pieces of work in EL2 this is among the longest.
    #[inline(never)]
    fn give_all(&mut self, owner: Owner) -> u32 {
        let is_theirs = |books: &Self, page| books.owners.get(page as usize) == Some(&owner);
        (0..BLOCK_PAGES).filter(|&page| is_theirs(self, page) && self.give(page, owner)).count() as u32
    }
}

impl<const BLOCKS: usize> Pool<BLOCKS> {
    /// An empty pool.
    pub const fn new() -> Self {
        Self { blocks: [const { None }; BLOCKS], pages: 0, promised: 0, hint: 0 }
    }

    /// Pages in the pool.
    pub const fn pages(&self) -> u32 {
        self.pages
    }

    /// Pages promised as budgets.
    pub const fn promised(&self) -> u32 {
        self.promised
    }

    /// Pages in use.
    pub fn used(&self) -> u32 {
        self.blocks.iter().flatten().map(|block| BLOCK_PAGES - u32::from(block.books.free)).sum()
    }

    /// Adds a block; `map` makes its first page accessible, with fresh books in it.
    ///
    /// # Errors
    /// `Invalid` if `base` is not 2 MiB aligned, `Exists` if the pool has it, `Limit` if its table is full or `map` fails.
    pub fn add_block(&mut self, base: Pa, map: impl FnOnce() -> Option<&'static mut Books>) -> Result<(), Status> {
        if !base.is_aligned(BLOCK_SIZE) {
            return Err(Status::Invalid);
        }
        if self.find(base).is_some() {
            return Err(Status::Exists);
        }
        let entry = self.blocks.iter_mut().find(|entry| entry.is_none()).ok_or(Status::Limit)?;
        *entry = Some(Block { base, books: map().ok_or(Status::Limit)? });
        self.pages += BLOCK_PAGES;
        self.promised += BLOCK_PAGES - USABLE_PAGES;
        self.hint = 0;
        Ok(())
    }

    /// Takes a wholly free block out; `None` if there is none, or the promises need it.
    pub fn remove_free_block(&mut self) -> Option<Pa> {
        if self.pages - self.promised < USABLE_PAGES {
            return None;
        }
        let is_free = |block: &mut Block| u32::from(block.books.free) == USABLE_PAGES;
        // The last one, since pages are taken from the first.
        let block = self.blocks.iter_mut().rev().find_map(|entry| entry.take_if(is_free))?;
        self.pages -= BLOCK_PAGES;
        self.promised -= BLOCK_PAGES - USABLE_PAGES;
        Some(block.base)
    }

    /// Changes a budget and the promise behind it.
    ///
    /// # Errors
    /// `NoBudget` if the pool lacks the pages, or more than `limit` are in use.
    pub fn set_limit(&mut self, budget: &mut Budget, limit: u32) -> Result<(), Status> {
        let others = self.promised.saturating_sub(budget.limit);
        if limit < budget.used || limit > self.pages - others {
            return Err(Status::NoBudget);
        }
        self.promised = others + limit;
        budget.limit = limit;
        Ok(())
    }

    /// Takes a page for `owner`, charged to its budget.
    ///
    /// # Errors
    /// `NoBudget` if the budget is used up.
    pub fn alloc(&mut self, owner: Owner, budget: &mut Budget) -> Result<Pa, Status> {
        if budget.left() == 0 {
            return Err(Status::NoBudget);
        }
        for slot in self.hint..BLOCKS {
            if let Some(Some(block)) = self.blocks.get_mut(slot)
                && let Some(page) = block.books.take(owner)
            {
                self.hint = slot;
                budget.used += 1;
                return Ok(Pa::new(block.base.raw() + (u64::from(page) << PAGE_SHIFT)));
            }
        }
        Err(Status::NoBudget)
    }

    /// Gives one page of `owner` back. False, and nothing done, if it is not that owner's.
    pub fn free(&mut self, pa: Pa, owner: Owner, budget: &mut Budget) -> bool {
        let base = Pa::new(pa.raw() & !(BLOCK_SIZE - 1));
        let page = ((pa.raw() & (BLOCK_SIZE - 1)) >> PAGE_SHIFT) as u32;
        let Some((slot, block)) = self.find(base) else { return false };
        let done = block.books.give(page, owner);
        if done {
            self.hint = self.hint.min(slot);
            budget.used = budget.used.saturating_sub(1);
        }
        done
    }

    /// Gives the pages of `owner` in block number `slot` back. False if the pool has no room for so many blocks: then all were seen.
    pub fn free_owner(&mut self, owner: Owner, budget: &mut Budget, slot: usize) -> bool {
        let Some(entry) = self.blocks.get_mut(slot) else { return false };
        if let Some(Block { books, .. }) = entry {
            let freed = books.give_all(owner);
            if freed != 0 {
                self.hint = self.hint.min(slot);
                budget.used = budget.used.saturating_sub(freed);
            }
        }
        true
    }

    fn find(&mut self, base: Pa) -> Option<(usize, &mut Block)> {
        let mut blocks = self.blocks.iter_mut().enumerate();
        blocks.find_map(|(slot, entry)| Some((slot, entry.as_mut().filter(|block| block.base == base)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_PAGES, Books, Budget, Owner, Pool};
    use crate::addr::{DomainId, Pa};
    use portico_abi::Status;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const A: Owner = Owner::domain(DomainId::new(0));

    fn base(block: u64) -> Pa {
        Pa::new(0x4000_0000 + block * (2 << 20))
    }

    fn books() -> Option<&'static mut Books> {
        Some(Box::leak(Box::default()))
    }

    #[test]
    fn refusals() {
        let mut pool = Pool::<2>::new();
        assert_eq!(pool.add_block(Pa::new(0x1000), books), Err(Status::Invalid));
        let mut budget = Budget::default();
        assert_eq!(pool.set_limit(&mut budget, 1), Err(Status::NoBudget));
        assert_eq!(pool.add_block(base(0), || None), Err(Status::Limit));
        assert_eq!((pool.pages(), pool.promised(), pool.used()), (0, 0, 0));
        pool.add_block(base(0), books).unwrap();
        assert_eq!(pool.add_block(base(0), || unreachable!("it is there")), Err(Status::Exists));
        pool.add_block(base(1), books).unwrap();
        assert_eq!(pool.add_block(base(2), || unreachable!("there is no room")), Err(Status::Limit));
        // Each block's books have a page of it.
        assert_eq!((pool.pages(), pool.promised(), pool.used()), (1024, 2, 2));
        assert_eq!(pool.set_limit(&mut budget, 1023), Err(Status::NoBudget));
        assert_eq!(pool.set_limit(&mut budget, u32::MAX), Err(Status::NoBudget));
        assert_eq!(pool.alloc(A, &mut budget), Err(Status::NoBudget));
        pool.set_limit(&mut budget, 600).unwrap();
        assert_eq!(pool.remove_free_block(), None);
        let page = pool.alloc(A, &mut budget).unwrap();
        assert!(!pool.free(page, Owner::EL2, &mut budget));
        assert!(!pool.free(Pa::new(0), A, &mut budget));
        assert_eq!(pool.set_limit(&mut budget, 0), Err(Status::NoBudget));
        pool.set_limit(&mut budget, 1).unwrap();
        assert_eq!(pool.remove_free_block(), Some(base(1)));
        assert_eq!(pool.remove_free_block(), None);
        assert!(pool.free(page, A, &mut budget) && !pool.free(page, A, &mut budget));
        pool.set_limit(&mut budget, 0).unwrap();
        assert_eq!(pool.remove_free_block(), Some(base(0)));
        assert_eq!((pool.pages(), pool.promised(), pool.used()), (0, 0, 0));
    }

    proptest! {
        #[test]
        fn like_the_model(steps in prop::collection::vec((0u8..6, 0u16..4, 0u32..700), 1..300)) {
            let mut pool = Pool::<4>::new();
            let mut budgets = [Budget::default(); 4];
            let mut model: HashMap<u64, u16> = HashMap::new();
            for (op, domain, number) in steps {
                let owner = Owner::domain(DomainId::new(domain));
                let budget = &mut budgets[usize::from(domain)];
                match op {
                    0 => { let _ = pool.add_block(base(u64::from(number % 5)), books); }
                    1 => { let _ = pool.set_limit(budget, number); }
                    2 => for _ in 0..number {
                        match pool.alloc(owner, budget) {
                            Ok(pa) => {
                                prop_assert!(model.insert(pa.raw(), domain).is_none());
                                prop_assert!(pool.find(Pa::new(pa.raw() & !0x1f_ffff)).is_some());
                                prop_assert!(!pa.is_aligned(2 << 20), "the page of the books");
                            }
                            // A promise is always kept.
                            Err(_) => { prop_assert_eq!(budget.left(), 0); break; }
                        }
                    },
                    3 => if let Some(pa) = model.keys().copied().min() {
                        let done = pool.free(Pa::new(pa), owner, budget);
                        prop_assert_eq!(done, model[&pa] == domain);
                        if done { model.remove(&pa); }
                    },
                    4 => {
                        let mut blocks = 0..;
                        while pool.free_owner(owner, budget, blocks.next().unwrap()) {}
                        model.retain(|_, o| *o != domain);
                        prop_assert_eq!(budget.used, 0);
                    }
                    _ => if let Some(block) = pool.remove_free_block() {
                        prop_assert!(model.keys().all(|pa| pa & !0x1f_ffff != block.raw()));
                    }
                }
                let blocks = pool.pages() / BLOCK_PAGES;
                prop_assert_eq!(pool.used(), model.len() as u32 + blocks);
                prop_assert_eq!(pool.promised(), budgets.iter().map(|b| b.limit).sum::<u32>() + blocks);
                prop_assert!(pool.promised() <= pool.pages() && pool.pages().is_multiple_of(BLOCK_PAGES));
                for (index, budget) in budgets.iter().enumerate() {
                    prop_assert_eq!(budget.used as usize, model.values().filter(|o| usize::from(**o) == index).count());
                }
            }
        }
    }
}
