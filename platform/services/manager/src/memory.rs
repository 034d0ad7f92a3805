//! Who has which memory: an allocator over extents by split and merge.
//!
//! Every piece is known by its place in a *root*, in pages: enough to find neighbours to merge, and to keep large pieces on 2 MiB boundaries so
//! that EL2 can map them by blocks. The machine's memory is one root, with gaps, in which a place is a machine address: a manager that is begun
//! anew asks EL2 for those and has its books again.
//!
//! The hypervisor's part is behind [`Extents`], so that all this can be tested on a host. Freed memory that a guest
//! has held is *dirty* until it was scrubbed; only clean memory is given out. Scrubbing goes in bounded pieces, by
//! [`Memory::scrub_step`].

use alloc::vec::Vec;
use portico_abi::{BLOCK_SIZE, PAGE_SIZE, Status};

/// Pages in a block.
pub const BLOCK_PAGES: u64 = BLOCK_SIZE / PAGE_SIZE;

/// The extent calls that the allocator needs. `E` names an extent.
pub trait Extents {
    /// Name of an extent.
    type Extent: Copy + PartialEq + core::fmt::Debug;
    /// Cuts an extent at `offset` pages; returns the upper part.
    ///
    /// # Errors
    /// As `extent_split`.
    fn split(&mut self, extent: Self::Extent, offset: u64) -> Result<Self::Extent, Status>;
    /// Joins `second` to the end of `first`.
    ///
    /// # Errors
    /// As `extent_merge`.
    fn merge(&mut self, first: Self::Extent, second: Self::Extent) -> Result<(), Status>;
    /// Does one bounded piece of zeroing. Returns true when the extent is clean.
    ///
    /// # Errors
    /// As `extent_scrub`.
    fn scrub(&mut self, extent: Self::Extent) -> Result<bool, Status>;
}

/// A piece of memory that was given out, or is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<E> {
    /// The extent.
    pub extent: E,
    /// Which root it is cut from.
    pub root: u32,
    /// First page, in the root.
    pub start: u64,
    /// Length in pages.
    pub pages: u64,
}

impl<E> Piece<E> {
    fn end(&self) -> u64 {
        self.start.saturating_add(self.pages)
    }
}

/// Why memory could not be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryError {
    /// Not so much is free.
    Exhausted {
        /// Pages that were asked for.
        wanted: u64,
        /// Pages that are free, clean or dirty.
        free: u64,
    },
    /// Enough will be free when what was given back is scrubbed: try again.
    Scrubbing,
    /// The hypervisor refused.
    Refused(Status),
}

/// The allocator.
#[derive(Debug)]
pub struct Memory<E> {
    /// Clean free pieces, by root and start; neighbours are always merged.
    free: Vec<Piece<E>>,
    /// Freed pieces that still hold a guest's data.
    dirty: Vec<Piece<E>>,
    /// Pieces that could neither be scrubbed nor merged. Never given out.
    lost: Vec<Piece<E>>,
    roots: u32,
    total_pages: u64,
}

impl<E: Copy + PartialEq + core::fmt::Debug> Default for Memory<E> {
    fn default() -> Self {
        Self { free: Vec::new(), dirty: Vec::new(), lost: Vec::new(), roots: 0, total_pages: 0 }
    }
}

impl<E: Copy + PartialEq + core::fmt::Debug> Memory<E> {
    /// Adds a range of memory that the manager owns.
    pub fn add_root(&mut self, extent: E, pages: u64, is_dirty: Cleanliness) {
        let piece = Piece { extent, root: self.roots, start: 0, pages };
        self.roots = self.roots.saturating_add(1);
        self.total_pages = self.total_pages.saturating_add(pages);
        match is_dirty {
            Cleanliness::Clean => self.free.push(piece),
            Cleanliness::Dirty => self.dirty.push(piece),
        }
    }

    /// Adds a piece of memory of which the place is known, all in one root, and joins it with what is there.
    pub fn add<H>(&mut self, calls: &mut H, extent: E, start: u64, pages: u64, is_dirty: Cleanliness)
    where
        H: Extents<Extent = E>,
    {
        let piece = Piece { extent, root: 0, start, pages };
        self.roots = self.roots.max(1);
        self.total_pages = self.total_pages.saturating_add(pages);
        match is_dirty {
            Cleanliness::Clean => self.put_clean(calls, piece),
            Cleanliness::Dirty => self.dirty.push(piece),
        }
    }

    /// Counts pages that are in use.
    pub fn count_used(&mut self, pages: u64) {
        self.total_pages = self.total_pages.saturating_add(pages);
    }

    /// Pages that can be given out now.
    pub fn free_pages(&self) -> u64 {
        self.free.iter().map(|piece| piece.pages).sum()
    }

    /// Pages that wait to be scrubbed.
    pub fn dirty_pages(&self) -> u64 {
        self.dirty.iter().map(|piece| piece.pages).sum()
    }

    /// All pages that the manager was ever given.
    pub fn total_pages(&self) -> u64 {
        self.total_pages
    }

    /// Free pieces: 1 for each root when nothing is in use.
    pub fn fragments(&self) -> usize {
        self.free.len()
    }

    /// Gives one contiguous piece. A length of at least a block is placed on a block boundary, from the low end;
    /// a smaller one from the high end of the smallest piece that has it, so that large pieces stay whole.
    ///
    /// # Errors
    /// [`MemoryError`]; nothing was given.
    pub fn take<H>(&mut self, calls: &mut H, pages: u64) -> Result<Piece<E>, MemoryError>
    where
        H: Extents<Extent = E>,
    {
        if pages == 0 {
            return Err(MemoryError::Refused(Status::Invalid));
        }
        let Some((index, start)) = self.best(pages) else {
            let free = self.free_pages().saturating_add(self.dirty_pages());
            let may_come = !self.dirty.is_empty() && free >= pages;
            return Err(if may_come { MemoryError::Scrubbing } else { MemoryError::Exhausted { wanted: pages, free } });
        };
        self.carve(calls, index, start, pages).map_err(MemoryError::Refused)
    }

    /// Gives `pages` pages in as few pieces as it can, all on block boundaries but perhaps the last.
    ///
    /// # Errors
    /// [`MemoryError`]; nothing was given.
    pub fn take_many<H>(&mut self, calls: &mut H, pages: u64) -> Result<Vec<Piece<E>>, MemoryError>
    where
        H: Extents<Extent = E>,
    {
        let mut taken: Vec<Piece<E>> = Vec::new();
        let mut left = pages;
        while left > 0 {
            let step = self.largest_step(left);
            match self.take(calls, step) {
                Ok(piece) => {
                    taken.push(piece);
                    left -= piece.pages.min(left);
                }
                Err(error) => {
                    // Untouched so far, so they go back clean.
                    for piece in taken {
                        self.put_clean(calls, piece);
                    }
                    return Err(match error {
                        MemoryError::Exhausted { .. } => {
                            MemoryError::Exhausted { wanted: pages, free: self.free_pages() + self.dirty_pages() }
                        }
                        other => other,
                    });
                }
            }
        }
        Ok(taken)
    }

    /// As [`Memory::take_many`], each piece a block; `pages` is a number of whole blocks.
    ///
    /// # Errors
    /// As [`Memory::take_many`].
    pub fn take_blocks<H>(&mut self, calls: &mut H, pages: u64) -> Result<Vec<Piece<E>>, MemoryError>
    where
        H: Extents<Extent = E>,
    {
        let mut blocks: Vec<Piece<E>> = Vec::new();
        let mut failed = None;
        for mut rest in self.take_many(calls, pages)? {
            while rest.pages > BLOCK_PAGES && failed.is_none() {
                match calls.split(rest.extent, BLOCK_PAGES) {
                    Ok(upper) => {
                        blocks.push(Piece { pages: BLOCK_PAGES, ..rest });
                        let start = rest.start + BLOCK_PAGES;
                        rest = Piece { extent: upper, start, pages: rest.pages - BLOCK_PAGES, ..rest };
                    }
                    Err(status) => failed = Some(status),
                }
            }
            blocks.push(rest);
        }
        let Some(status) = failed else { return Ok(blocks) };
        for piece in blocks {
            self.put_clean(calls, piece);
        }
        Err(MemoryError::Refused(status))
    }

    /// Whole blocks that can be given out now.
    pub fn free_blocks(&self) -> u64 {
        self.free.iter().map(Self::blocks_in).sum()
    }

    fn blocks_in(piece: &Piece<E>) -> u64 {
        let start = piece.start.checked_next_multiple_of(BLOCK_PAGES).unwrap_or(u64::MAX);
        piece.end().saturating_sub(start) / BLOCK_PAGES
    }

    /// Takes back a piece that no guest has written: it is merged and free at once.
    pub fn put_clean<H>(&mut self, calls: &mut H, mut piece: Piece<E>)
    where
        H: Extents<Extent = E>,
    {
        if let Some(at) = self.free.iter().position(|other| other.root == piece.root && other.end() == piece.start)
            && let Some(lower) = self.free.get(at).copied()
            && calls.merge(lower.extent, piece.extent).is_ok()
        {
            self.free.swap_remove(at);
            piece = Piece { pages: lower.pages + piece.pages, ..lower };
        }
        if let Some(at) = self.free.iter().position(|other| other.root == piece.root && other.start == piece.end())
            && let Some(upper) = self.free.get(at).copied()
            && calls.merge(piece.extent, upper.extent).is_ok()
        {
            self.free.swap_remove(at);
            piece.pages += upper.pages;
        }
        self.free.push(piece);
    }

    /// Takes back a piece that a guest has held. It must be unmapped and no longer lent.
    pub fn put_dirty(&mut self, piece: Piece<E>) {
        self.dirty.push(piece);
    }

    /// Takes back a piece that cannot be made usable again, so that the books still balance.
    pub fn put_lost(&mut self, piece: Piece<E>) {
        self.lost.push(piece);
    }

    /// Records that a piece left the manager for good (it was given to EL2's pool).
    pub fn forget(&mut self, piece: &Piece<E>) {
        self.total_pages = self.total_pages.saturating_sub(piece.pages);
    }

    /// Scrubs one bounded piece. Returns true while there is more to do.
    pub fn scrub_step<H>(&mut self, calls: &mut H) -> bool
    where
        H: Extents<Extent = E>,
    {
        let Some(piece) = self.dirty.last().copied() else { return false };
        match calls.scrub(piece.extent) {
            Ok(false) => {}
            Ok(true) => {
                self.dirty.pop();
                self.put_clean(calls, piece);
            }
            Err(_) => {
                self.dirty.pop();
                self.put_lost(piece);
            }
        }
        !self.dirty.is_empty()
    }

    /// Best free piece for a length, and the first page to take of it.
    fn best(&self, pages: u64) -> Option<(usize, u64)> {
        let fits = |piece: &Piece<E>| -> Option<u64> {
            if pages < BLOCK_PAGES {
                return (piece.pages >= pages).then(|| piece.end() - pages);
            }
            let start = piece.start.checked_next_multiple_of(BLOCK_PAGES)?;
            let end = start.checked_add(pages)?;
            (end <= piece.end()).then_some(start)
        };
        self.free
            .iter()
            .enumerate()
            .filter_map(|(index, piece)| Some((index, fits(piece)?, piece.pages)))
            .min_by_key(|&(_, _, length)| length)
            .map(|(index, start, _)| (index, start))
    }

    /// Most pages of `left` that one piece can have.
    fn largest_step(&self, left: u64) -> u64 {
        if self.best(left).is_some() {
            return left;
        }
        let most = self.free.iter().map(|piece| Self::blocks_in(piece) * BLOCK_PAGES).max().unwrap_or(0);
        if most == 0 { left } else { most.min(left) }
    }

    /// Cuts `pages` from `start` out of the free piece at `index`.
    fn carve<H>(&mut self, calls: &mut H, index: usize, start: u64, pages: u64) -> Result<Piece<E>, Status>
    where
        H: Extents<Extent = E>,
    {
        let mut piece = self.free.get(index).copied().ok_or(Status::NotFound)?;
        if start > piece.start {
            let upper = calls.split(piece.extent, start - piece.start)?;
            let lower = Piece { pages: start - piece.start, ..piece };
            piece = Piece { extent: upper, start, pages: piece.end() - start, ..piece };
            if let Some(slot) = self.free.get_mut(index) {
                *slot = lower;
            }
        } else {
            self.free.swap_remove(index);
        }
        if piece.pages > pages {
            match calls.split(piece.extent, pages) {
                Ok(rest) => {
                    self.free.push(Piece {
                        extent: rest,
                        start: piece.start + pages,
                        pages: piece.pages - pages,
                        ..piece
                    });
                    piece.pages = pages;
                }
                Err(status) => {
                    self.put_clean(calls, piece);
                    return Err(status);
                }
            }
        }
        Ok(piece)
    }
}

/// Whether memory still holds what a guest wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanliness {
    /// It does not.
    Clean,
    /// It does, or may.
    Dirty,
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_PAGES, Cleanliness, Extents, Memory, MemoryError, Piece};
    use alloc::collections::BTreeMap;
    use alloc::vec::Vec;
    use portico_abi::Status;
    use proptest::prelude::*;

    /// Keeps every extent as (start, pages), dirt, and the pieces of scrubbing left.
    #[derive(Default)]
    struct Fake {
        extents: BTreeMap<u32, (u64, u64)>,
        next: u32,
        scrubs: u32,
    }

    impl Fake {
        fn root(&mut self, start: u64, pages: u64) -> u32 {
            self.next += 1;
            self.extents.insert(self.next, (start, pages));
            self.next
        }
    }

    impl Extents for Fake {
        type Extent = u32;
        fn split(&mut self, extent: u32, offset: u64) -> Result<u32, Status> {
            let (start, pages) = self.extents[&extent];
            assert!(offset > 0 && offset < pages, "split outside");
            self.extents.insert(extent, (start, offset));
            Ok(self.root(start + offset, pages - offset))
        }
        fn merge(&mut self, first: u32, second: u32) -> Result<(), Status> {
            let (a, b) = (self.extents[&first], self.extents[&second]);
            assert_eq!(a.0 + a.1, b.0, "not neighbours");
            self.extents.insert(first, (a.0, a.1 + b.1));
            self.extents.remove(&second);
            Ok(())
        }
        fn scrub(&mut self, _: u32) -> Result<bool, Status> {
            self.scrubs += 1;
            Ok(self.scrubs.is_multiple_of(3))
        }
    }

    #[test]
    fn large_pieces_stand_on_blocks_and_small_ones_stay_out_of_the_way() {
        let (mut fake, mut memory) = (Fake::default(), Memory::default());
        memory.add_root(fake.root(0, 8 * BLOCK_PAGES), 8 * BLOCK_PAGES, Cleanliness::Clean);
        memory.add_root(fake.root(1 << 30, 100), 100, Cleanliness::Clean);
        let small = memory.take(&mut fake, 5).expect("small");
        assert_eq!((small.root, small.start), (1, 95));
        let large = memory.take(&mut fake, BLOCK_PAGES + 3).expect("large");
        assert_eq!((large.root, large.start), (0, 0));
        let next = memory.take(&mut fake, BLOCK_PAGES).expect("next");
        assert_eq!((next.root, next.start), (0, 2 * BLOCK_PAGES));
        for piece in [small, large, next] {
            memory.put_clean(&mut fake, piece);
        }
        assert_eq!(memory.fragments(), 2);
        assert_eq!(memory.free_pages(), 8 * BLOCK_PAGES + 100);
    }

    #[test]
    fn dirty_memory_is_promised_but_not_given() {
        let (mut fake, mut memory) = (Fake::default(), Memory::default());
        memory.add_root(fake.root(0, BLOCK_PAGES), BLOCK_PAGES, Cleanliness::Clean);
        let piece = memory.take(&mut fake, BLOCK_PAGES).expect("all");
        assert!(matches!(memory.take(&mut fake, 1), Err(MemoryError::Exhausted { wanted: 1, free: 0 })));
        memory.put_dirty(piece);
        assert_eq!(memory.take(&mut fake, 1), Err(MemoryError::Scrubbing));
        while memory.scrub_step(&mut fake) {}
        assert!(memory.take(&mut fake, 1).is_ok());
    }

    #[test]
    fn blocks_are_cut_apart_and_join_again() {
        let (mut fake, mut memory) = (Fake::default(), Memory::default());
        for n in 0..2 {
            memory.add_root(fake.root(n << 30, 3 * BLOCK_PAGES + 7), 3 * BLOCK_PAGES + 7, Cleanliness::Clean);
        }
        assert_eq!(memory.free_blocks(), 6);
        let mut blocks = memory.take_blocks(&mut fake, 5 * BLOCK_PAGES).expect("five blocks");
        assert_eq!((blocks.len(), memory.free_blocks()), (5, 1));
        assert!(blocks.iter().all(|piece| piece.pages == BLOCK_PAGES && piece.start.is_multiple_of(BLOCK_PAGES)));
        assert!(memory.take_blocks(&mut fake, 2 * BLOCK_PAGES).is_err());
        blocks.swap(0, 3);
        for piece in blocks {
            memory.put_clean(&mut fake, piece);
        }
        assert_eq!((memory.fragments(), memory.free_blocks()), (2, 6));
    }

    #[test]
    fn a_fragmented_machine_gives_several_pieces_or_nothing() {
        let (mut fake, mut memory) = (Fake::default(), Memory::default());
        for n in 0..3 {
            memory.add_root(fake.root(n << 30, 2 * BLOCK_PAGES), 2 * BLOCK_PAGES, Cleanliness::Clean);
        }
        let pieces = memory.take_many(&mut fake, 5 * BLOCK_PAGES).expect("five blocks");
        assert_eq!(pieces.iter().map(|piece| piece.pages).sum::<u64>(), 5 * BLOCK_PAGES);
        assert!(memory.take_many(&mut fake, 2 * BLOCK_PAGES).is_err());
        assert_eq!(memory.free_pages(), BLOCK_PAGES);
        for piece in pieces {
            memory.put_clean(&mut fake, piece);
        }
        assert_eq!(memory.fragments(), 3);
    }

    proptest! {
        #[test]
        fn any_sequence_gives_all_memory_back(sizes in prop::collection::vec((1u64..1500, any::<bool>()), 1..60)) {
            let (mut fake, mut memory) = (Fake::default(), Memory::default());
            memory.add_root(fake.root(0, 20 * BLOCK_PAGES), 20 * BLOCK_PAGES, Cleanliness::Clean);
            memory.add_root(fake.root(1 << 30, 77), 77, Cleanliness::Dirty);
            let mut held: Vec<Piece<u32>> = Vec::new();
            for (pages, give_back) in sizes {
                if give_back && !held.is_empty() {
                    memory.put_dirty(held.swap_remove(pages as usize % held.len()));
                    memory.scrub_step(&mut fake);
                } else if let Ok(pieces) = memory.take_many(&mut fake, pages) {
                    for piece in &pieces {
                        prop_assert!(held.iter().all(|h| h.root != piece.root
                            || h.start + h.pages <= piece.start || piece.start + piece.pages <= h.start));
                    }
                    held.extend(pieces);
                }
                let in_use: u64 = held.iter().map(|piece| piece.pages).sum();
                prop_assert_eq!(in_use + memory.free_pages() + memory.dirty_pages(), memory.total_pages());
            }
            for piece in held {
                memory.put_dirty(piece);
            }
            while memory.scrub_step(&mut fake) {}
            prop_assert_eq!(memory.free_pages(), memory.total_pages());
            prop_assert_eq!(memory.fragments(), 2);
        }
    }
}
