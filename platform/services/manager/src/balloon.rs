//! Memory that a domain gives back and takes again while it runs: which blocks it has, and what it may ask for.
//!
//! A block is [`BLOCK_PAGES`] pages, and an extent of its own from the domain's beginning on, so that giving one back is one unmapping. A request comes from
//! a page that the domain can write at any time: its words are copied once, and only the copy is checked and used. It says how a range is to be, so
//! doing one twice, or again after the manager was begun anew in the middle, is the same as doing it once.

use alloc::vec::Vec;
use core::ops::Range;
use portico_abi::device::control::{memory_op, memory_result};
use portico_abi::{PAGE_SIZE, dt};

use crate::memory::{BLOCK_PAGES, Piece};

/// Most blocks of a domain whose memory can change.
pub const MAX_BLOCKS: usize = portico_bundle::description::MAX_ELASTIC_PAGES as usize / BLOCK_PAGES as usize;

/// A request's words, copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// IPA of the first page.
    pub first: u64,
    /// Pages.
    pub pages: u32,
    /// Operation and number.
    pub request: u32,
}

/// What is to be done with blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Take them.
    Release,
    /// Give them.
    Populate,
}

/// A request under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The word to answer.
    pub request: u32,
    /// What is to be done.
    pub op: Op,
    /// Blocks that are not done.
    left: Range<usize>,
    begin: usize,
}

impl Job {
    /// Checks a request of a domain that began with `blocks` blocks. `None` if there is no such range or operation.
    pub fn new(words: Words, blocks: usize) -> Option<Self> {
        let op = match words.request & 0xff {
            memory_op::RELEASE => Op::Release,
            memory_op::POPULATE => Op::Populate,
            _ => return None,
        };
        let offset = words.first.checked_sub(dt::RAM_BASE).filter(|offset| offset.is_multiple_of(PAGE_SIZE))?;
        let (first, pages) = (offset / PAGE_SIZE, u64::from(words.pages));
        if pages == 0 || !first.is_multiple_of(BLOCK_PAGES) || !pages.is_multiple_of(BLOCK_PAGES) {
            return None;
        }
        let begin = usize::try_from(first / BLOCK_PAGES).ok()?;
        let end = begin.checked_add(usize::try_from(pages / BLOCK_PAGES).ok()?).filter(|&end| end <= blocks)?;
        Some(Self { request: words.request, op, left: begin..end, begin })
    }

    /// The block that comes next.
    pub fn next(&self) -> Option<usize> {
        (!self.left.is_empty()).then_some(self.left.start)
    }

    /// That one is done.
    pub fn advance(&mut self) {
        self.left.start = self.left.start.saturating_add(1).min(self.left.end);
    }

    /// Pages that are as the request asks.
    pub fn done_pages(&self) -> u32 {
        (self.left.start.saturating_sub(self.begin) as u64 * BLOCK_PAGES) as u32
    }
}

/// The blocks of a domain.
#[derive(Debug)]
pub struct Blocks<E> {
    pieces: Vec<Option<Piece<E>>>,
    present: usize,
    /// It may not have fewer.
    least: usize,
    /// It may not have more.
    pub target: usize,
}

impl<E: Copy> Blocks<E> {
    /// The blocks of a domain, by place; it keeps `least` of them.
    pub fn new(pieces: Vec<Option<Piece<E>>>, least: usize, target: usize) -> Self {
        let present = pieces.iter().flatten().count();
        Self { target: target.min(pieces.len()), present, least: least.min(pieces.len()), pieces }
    }

    /// How many it began with: the most that it can have.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Whether it began with none.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// How many it has.
    pub fn present(&self) -> usize {
        self.present
    }

    /// The fewest that it keeps.
    pub fn least(&self) -> usize {
        self.least
    }

    /// Whether there is something to do with a block.
    ///
    /// # Errors
    /// The `memory_result` that refuses it.
    pub fn check(&self, op: Op, index: usize) -> Result<bool, u32> {
        let is_there = self.pieces.get(index).ok_or(memory_result::INVALID)?.is_some();
        match op {
            Op::Release if !is_there => Ok(false),
            Op::Release if self.present <= self.least => Err(memory_result::MINIMUM),
            Op::Populate if is_there => Ok(false),
            Op::Populate if self.present >= self.target => Err(memory_result::TARGET),
            Op::Release | Op::Populate => Ok(true),
        }
    }

    /// The memory of a block.
    pub fn get(&self, index: usize) -> Option<Piece<E>> {
        self.pieces.get(index).copied().flatten()
    }

    /// Notes what memory a block has now. Returns what it had.
    pub fn set(&mut self, index: usize, piece: Option<Piece<E>>) -> Option<Piece<E>> {
        let slot = self.pieces.get_mut(index)?;
        let before = core::mem::replace(slot, piece);
        self.present = self.present + usize::from(piece.is_some()) - usize::from(before.is_some());
        before
    }

    /// All its memory.
    pub fn into_pieces(self) -> impl Iterator<Item = Piece<E>> {
        self.pieces.into_iter().flatten()
    }
}

/// Pages of so many blocks, as the control page has them.
pub fn pages_of(blocks: usize) -> u32 {
    (blocks as u64 * BLOCK_PAGES) as u32
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_PAGES, Blocks, Job, Op, Words};
    use crate::memory::Piece;
    use portico_abi::device::control::{memory_op, memory_result};
    use portico_abi::{BLOCK_SIZE, dt};
    use proptest::prelude::*;

    fn words(op: u32, block: u64, blocks: u64) -> Words {
        Words { first: dt::RAM_BASE + block * BLOCK_SIZE, pages: (blocks * BLOCK_PAGES) as u32, request: 7 << 8 | op }
    }

    fn piece(start: u64) -> Piece<u32> {
        Piece { extent: start as u32, root: 0, start, pages: BLOCK_PAGES }
    }

    #[test]
    fn only_whole_blocks_of_its_own_memory_are_taken() {
        let job = Job::new(words(memory_op::RELEASE, 2, 3), 8);
        assert!(job.is_some_and(|job| job.op == Op::Release && job.next() == Some(2) && job.done_pages() == 0));
        assert!(Job::new(words(memory_op::POPULATE, 0, 8), 8).is_some());
        let good = words(memory_op::RELEASE, 2, 3);
        let bad = [
            words(memory_op::RELEASE, 2, 0),
            words(memory_op::RELEASE, 2, 7),
            words(memory_op::RELEASE, 8, 1),
            words(0, 2, 1),
            words(99, 2, 1),
            Words { first: good.first + 4096, ..good },
            Words { first: good.first + 1, ..good },
            Words { first: dt::RAM_BASE - BLOCK_SIZE, ..good },
            Words { first: 0, ..good },
            Words { first: u64::MAX - BLOCK_SIZE + 1, ..good },
            Words { pages: 1, ..good },
            Words { pages: u32::MAX, ..good },
            Words { pages: u32::MAX - 511, ..good },
            Words { pages: 1 << 31, ..good },
        ];
        for words in bad {
            assert_eq!(Job::new(words, 8), None, "{words:?}");
        }
    }

    #[test]
    fn it_keeps_the_least_and_gets_no_more_than_the_target() {
        let mut blocks = Blocks::new((0..4).map(|at| Some(piece(at * BLOCK_PAGES))).collect(), 2, 4);
        assert_eq!(blocks.check(Op::Populate, 0), Ok(false));
        for index in [0, 3] {
            assert_eq!(blocks.check(Op::Release, index), Ok(true));
            assert!(blocks.set(index, None).is_some());
            assert_eq!(blocks.check(Op::Release, index), Ok(false), "again");
        }
        assert_eq!((blocks.present(), blocks.check(Op::Release, 1)), (2, Err(memory_result::MINIMUM)));
        blocks.target = 3;
        assert_eq!(blocks.check(Op::Populate, 3), Ok(true));
        assert_eq!(blocks.set(3, Some(piece(0))), None);
        assert_eq!(blocks.check(Op::Populate, 0), Err(memory_result::TARGET));
        assert_eq!(blocks.check(Op::Populate, 4), Err(memory_result::INVALID));
        assert_eq!((blocks.present(), blocks.into_pieces().count()), (3, 3));
    }

    proptest! {
        #[test]
        fn no_words_reach_beyond_its_memory(first: u64, pages: u32, request: u32, blocks in 0usize..2000) {
            if let Some(mut job) = Job::new(Words { first, pages, request }, blocks) {
                let mut turns = 0;
                while let Some(block) = job.next() {
                    prop_assert!(block < blocks && turns <= blocks);
                    job.advance();
                    turns += 1;
                }
                prop_assert_eq!(job.done_pages(), pages);
            }
        }
    }
}
