//! The pool of object pages.
//!
//! The manager gives EL2 blocks of 2 MiB; each is cut into 512 pages, and each page in use has an owner: a
//! domain, or EL2. The pool keeps three counts: pages it has, pages promised to domains as budgets, pages in use.
//! Promises never exceed what it has, so a page within a budget can always be had. It touches no page: who takes one
//! zeroes it. The caller holds the budget lock.
//!
//! The books are one bit and two bytes for each page, in a table of `BLOCKS` blocks; a domain's
//! pages are found by scanning in bounded pieces, which costs time only when a domain dies.

use crate::addr::Pa;
use portico_abi::{BLOCK_SIZE, PAGE_SHIFT, Status};

/// Pages of a block.
pub const BLOCK_PAGES: u32 = 512;

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
    blocks: [Block; BLOCKS],
    pages: u32,
    promised: u32,
    used: u32,
    /// No block before this one has a free page.
    hint: usize,
}

/// One block.
#[derive(Clone, Copy)]
struct Block {
    base: Option<Pa>,
    free: u16,
    /// A set bit is a free page.
    map: [u64; 8],
    owners: [Owner; BLOCK_PAGES as usize],
}

impl Block {
    const ABSENT: Block = Block { base: None, free: 0, map: [0; 8], owners: [Owner::EL2; BLOCK_PAGES as usize] };

    fn take(&mut self, owner: Owner) -> Option<Pa> {
        let base = self.base?;
        let (word_index, word) = self.map.iter_mut().enumerate().find(|(_, word)| **word != 0)?;
        let page = word_index as u32 * 64 + word.trailing_zeros();
        *word &= *word - 1;
        self.free = self.free.saturating_sub(1);
        *self.owners.get_mut(page as usize)? = owner;
        Some(Pa::new(base.raw() + (u64::from(page) << PAGE_SHIFT)))
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

    /// Frees every page that `owner` has. Of all pieces of work in EL2 this is among the longest.
    #[inline(never)]
    fn give_all(&mut self, owner: Owner) {
        for page in 0..BLOCK_PAGES {
            if self.owners.get(page as usize) == Some(&owner) {
                self.give(page, owner);
            }
        }
    }
}

impl<const BLOCKS: usize> Pool<BLOCKS> {
    /// An empty pool.
    pub const fn new() -> Self {
        Self { blocks: [Block::ABSENT; BLOCKS], pages: 0, promised: 0, used: 0, hint: 0 }
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
    pub const fn used(&self) -> u32 {
        self.used
    }

    /// Adds a block.
    ///
    /// # Errors
    /// `Invalid` if `base` is not 2 MiB aligned, `Exists` if the pool has it, `Limit` if its table is full.
    pub fn add_block(&mut self, base: Pa) -> Result<(), Status> {
        if !base.is_aligned(BLOCK_SIZE) {
            return Err(Status::Invalid);
        }
        if self.blocks.iter().any(|block| block.base == Some(base)) {
            return Err(Status::Exists);
        }
        let slot = self.blocks.iter().position(|block| block.base.is_none()).ok_or(Status::Limit)?;
        if let Some(block) = self.blocks.get_mut(slot) {
            block.base = Some(base);
            block.free = BLOCK_PAGES as u16;
            block.map = [u64::MAX; 8];
        }
        self.pages += BLOCK_PAGES;
        self.hint = self.hint.min(slot);
        Ok(())
    }

    /// Takes a wholly free block out; `None` if there is none, or the promises need it.
    pub fn remove_free_block(&mut self) -> Option<Pa> {
        if self.promised > self.pages.checked_sub(BLOCK_PAGES)? {
            return None;
        }
        // The last one, since pages are taken from the first.
        let block = self.blocks.iter_mut().rev().find(|b| b.base.is_some() && u32::from(b.free) == BLOCK_PAGES)?;
        let base = block.base.take();
        block.free = 0;
        block.map = [0; 8];
        self.pages -= BLOCK_PAGES;
        base
    }

    /// Promises `pages` more pages.
    ///
    /// # Errors
    /// `NoBudget` if the pool lacks them.
    pub fn promise(&mut self, pages: u32) -> Result<(), Status> {
        let promised = self.promised.checked_add(pages).ok_or(Status::NoBudget)?;
        if promised > self.pages {
            return Err(Status::NoBudget);
        }
        self.promised = promised;
        Ok(())
    }

    /// Takes a promise of `pages` pages back.
    pub fn unpromise(&mut self, pages: u32) {
        self.promised = self.promised.saturating_sub(pages);
    }

    /// Changes a budget and the promise behind it.
    ///
    /// # Errors
    /// `NoBudget` if the pool lacks the pages, or more than `limit` are in use.
    pub fn set_limit(&mut self, budget: &mut Budget, limit: u32) -> Result<(), Status> {
        if limit < budget.used {
            return Err(Status::NoBudget);
        }
        if limit > budget.limit {
            self.promise(limit - budget.limit)?;
        } else {
            self.unpromise(budget.limit - limit);
        }
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
        let first = self.hint;
        for slot in first..BLOCKS {
            let Some(block) = self.blocks.get_mut(slot) else { break };
            if let Some(pa) = block.take(owner) {
                self.hint = slot;
                budget.used += 1;
                self.used += 1;
                return Ok(pa);
            }
        }
        Err(Status::NoBudget)
    }

    /// Gives one page of `owner` back. False, and nothing done, if it is not that owner's.
    pub fn free(&mut self, pa: Pa, owner: Owner, budget: &mut Budget) -> bool {
        let base = Pa::new(pa.raw() & !(BLOCK_SIZE - 1));
        let page = ((pa.raw() & (BLOCK_SIZE - 1)) >> PAGE_SHIFT) as u32;
        let Some(slot) = self.blocks.iter().position(|block| block.base == Some(base)) else { return false };
        let done = self.blocks.get_mut(slot).is_some_and(|block| block.give(page, owner));
        if done {
            self.hint = self.hint.min(slot);
            self.used = self.used.saturating_sub(1);
            budget.used = budget.used.saturating_sub(1);
        }
        done
    }

    /// Gives all pages of `owner` back, scanning one block a call. `cursor` starts at 0; returns the next cursor,
    /// `None` when all blocks were seen.
    pub fn free_owner(&mut self, owner: Owner, budget: &mut Budget, cursor: u32) -> Option<u32> {
        let slot = cursor as usize;
        let block = self.blocks.get_mut(slot)?;
        if block.base.is_some() {
            let before = block.free;
            block.give_all(owner);
            let freed = u32::from(block.free - before);
            if freed != 0 {
                self.hint = self.hint.min(slot);
                self.used = self.used.saturating_sub(freed);
                budget.used = budget.used.saturating_sub(freed);
            }
        }
        if slot + 1 < BLOCKS { Some(cursor + 1) } else { None }
    }

    /// Says whether an address lies in a block of the pool.
    pub fn contains(&self, pa: Pa) -> bool {
        let base = Pa::new(pa.raw() & !(BLOCK_SIZE - 1));
        self.blocks.iter().any(|block| block.base == Some(base))
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_PAGES, Budget, Owner, Pool};
    use crate::addr::{DomainId, Pa};
    use portico_abi::Status;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const A: Owner = Owner::domain(DomainId::new(0));

    fn base(block: u64) -> Pa {
        Pa::new(0x4000_0000 + block * (2 << 20))
    }

    #[test]
    fn refusals() {
        let mut pool = Pool::<2>::new();
        assert_eq!(pool.add_block(Pa::new(0x1000)), Err(Status::Invalid));
        assert_eq!(pool.promise(1), Err(Status::NoBudget));
        pool.add_block(base(0)).unwrap();
        assert_eq!(pool.add_block(base(0)), Err(Status::Exists));
        pool.add_block(base(1)).unwrap();
        assert_eq!(pool.add_block(base(2)), Err(Status::Limit));
        assert_eq!(pool.promise(1025), Err(Status::NoBudget));
        assert_eq!(pool.promise(u32::MAX), Err(Status::NoBudget));
        let mut budget = Budget::default();
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
                    0 => { let _ = pool.add_block(base(u64::from(number % 5))); }
                    1 => { let _ = pool.set_limit(budget, number); }
                    2 => for _ in 0..number {
                        match pool.alloc(owner, budget) {
                            Ok(pa) => prop_assert!(model.insert(pa.raw(), domain).is_none() && pool.contains(pa)),
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
                        let mut cursor = Some(0);
                        while let Some(at) = cursor { cursor = pool.free_owner(owner, budget, at); }
                        model.retain(|_, o| *o != domain);
                        prop_assert_eq!(budget.used, 0);
                    }
                    _ => if let Some(block) = pool.remove_free_block() {
                        prop_assert!(model.keys().all(|pa| pa & !0x1f_ffff != block.raw()));
                    }
                }
                prop_assert_eq!(pool.used() as usize, model.len());
                prop_assert_eq!(pool.promised(), budgets.iter().map(|b| b.limit).sum::<u32>());
                prop_assert!(pool.promised() <= pool.pages() && pool.pages().is_multiple_of(BLOCK_PAGES));
                for (index, budget) in budgets.iter().enumerate() {
                    prop_assert_eq!(budget.used as usize, model.values().filter(|o| usize::from(**o) == index).count());
                }
            }
        }
    }
}
