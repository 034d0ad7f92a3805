//! A PV disk as the crate `embedded-sdmmc` wants one.
//!
//! The guest's disk is a partition: the block service has found it, and it begins with the file system. The crate looks for a partition
//! table first, so one is put before it: block 0 is made up, and block n is the disk's n - 1.

use core::cell::RefCell;
use embedded_sdmmc::{Block, BlockCount, BlockDevice, BlockIdx, Error, TimeSource, Timestamp};
use portico_sdk::device::block::{BlockError, Disk};

/// Why files could not be read.
pub type FileError = Error<BlockError>;

/// Of the made up table: where its first entry is, and its parts.
const ENTRY: usize = 446;
const KIND_FAT32_LBA: u8 = 0x0c;
const SIGNATURE: [u8; 2] = [0x55, 0xaa];

/// A disk behind a table of one partition.
pub struct Partition(RefCell<Disk>);

impl Partition {
    /// Puts the table before `disk`.
    pub fn new(disk: Disk) -> Partition {
        Partition(RefCell::new(disk))
    }

    fn table(&self) -> Block {
        let mut block = Block::new();
        let sectors = self.0.borrow().info().sectors as u32;
        if let Some(entry) = block.contents.get_mut(ENTRY..ENTRY + 16) {
            let words = [u32::from(KIND_FAT32_LBA), 1, sectors];
            for (to, word) in entry.chunks_exact_mut(4).skip(1).zip(words) {
                to.copy_from_slice(&word.to_le_bytes());
            }
        }
        if let Some(end) = block.contents.last_chunk_mut() {
            *end = SIGNATURE;
        }
        block
    }
}

impl BlockDevice for Partition {
    type Error = BlockError;

    fn read(&self, blocks: &mut [Block], start: BlockIdx) -> Result<(), BlockError> {
        for (block, number) in blocks.iter_mut().zip(u64::from(start.0)..) {
            match number.checked_sub(1) {
                None => *block = self.table(),
                Some(sector) => self.0.borrow_mut().read_at(sector, &mut block.contents)?,
            }
        }
        Ok(())
    }

    fn write(&self, blocks: &[Block], start: BlockIdx) -> Result<(), BlockError> {
        for (block, number) in blocks.iter().zip(u64::from(start.0)..) {
            if let Some(sector) = number.checked_sub(1) {
                self.0.borrow_mut().write_at(sector, &block.contents)?;
            }
        }
        Ok(())
    }

    fn num_blocks(&self) -> Result<BlockCount, BlockError> {
        Ok(BlockCount((self.0.borrow().info().sectors + 1) as u32))
    }
}

/// The guest knows no date.
pub struct NoClock;

impl TimeSource for NoClock {
    fn get_timestamp(&self) -> Timestamp {
        Timestamp { year_since_1970: 0, zero_indexed_month: 0, zero_indexed_day: 0, hours: 0, minutes: 0, seconds: 0 }
    }
}
