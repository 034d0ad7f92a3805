//! Pages of the window, as buffers for data.

use super::{BlockError, Disk, PAGE};
use crate::device::DeviceError;
use crate::window::Window;

/// Pages of the window, one behind the other. Given back by [`Disk::free`].
#[derive(Debug)]
pub struct Buffer {
    window: Window,
    page: u16,
    pages: u16,
}

impl Buffer {
    /// Its bytes, as a window of their own: shared with the back-end.
    pub fn window(&self) -> Window {
        self.window
    }

    /// Its first page in the data area.
    pub(super) fn first_page(&self) -> usize {
        usize::from(self.page)
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.window.len()
    }

    /// Whether it has no bytes: never.
    pub fn is_empty(&self) -> bool {
        false
    }
}

impl Disk {
    /// Takes pages of the window for a transfer of so many bytes.
    ///
    /// # Errors
    /// `Full` if there are none, `Shape` if there can never be.
    pub fn buffer(&mut self, bytes: usize) -> Result<Buffer, BlockError> {
        let pages = bytes.div_ceil(PAGE).max(1);
        let all = self.shape.data_bytes / PAGE;
        if pages > all {
            return Err(BlockError::Shape);
        }
        let page = self.find_run(pages, all).ok_or(BlockError::Full)?;
        self.mark(page, pages, true);
        let window = self.link.window().part(self.shape.data + page * PAGE, pages * PAGE);
        let window = window.ok_or(BlockError::Device(DeviceError::BadWindow))?;
        Ok(Buffer { window, page: page as u16, pages: pages as u16 })
    }

    fn find_run(&self, pages: usize, all: usize) -> Option<usize> {
        if pages == 1 {
            let (index, word) = self.used.iter().enumerate().find(|(_, word)| **word != u64::MAX)?;
            let page = index * 64 + word.trailing_ones() as usize;
            return (page < all).then_some(page);
        }
        let is_used = |page: usize| self.used.get(page / 64).is_none_or(|word| word >> (page % 64) & 1 != 0);
        let mut start = 0;
        while start + pages <= all {
            match (start..start + pages).rev().find(|&page| is_used(page)) {
                Some(page) => start = page + 1,
                None => return Some(start),
            }
        }
        None
    }

    fn mark(&mut self, first: usize, pages: usize, is_used: bool) {
        for page in first..first + pages {
            if let Some(word) = self.used.get_mut(page / 64) {
                let bit = 1_u64 << (page % 64);
                *word = if is_used { *word | bit } else { *word & !bit };
            }
        }
    }

    /// Gives a buffer back.
    pub fn free(&mut self, buffer: Buffer) {
        self.mark(buffer.first_page(), usize::from(buffer.pages), false);
    }
}
