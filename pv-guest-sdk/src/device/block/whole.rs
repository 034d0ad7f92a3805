//! Whole transfers, one after the other: for who waits for each.

use super::{BlockError, Buffer, Disk, Ticket};
use portico_abi::device::block::SECTOR;

impl Disk {
    /// Waits for one request; others that end meanwhile are dropped, so there should be none.
    fn finish(&mut self, ticket: Ticket) -> Result<Option<Buffer>, (BlockError, Option<Buffer>)> {
        loop {
            match self.wait(portico_abi::port::DEADLINE_NEVER) {
                Ok(done) if done.ticket == ticket => {
                    return match done.result {
                        Ok(()) => Ok(done.buffer),
                        Err(error) => Err((error, done.buffer)),
                    };
                }
                Ok(done) => {
                    if let Some(buffer) = done.buffer {
                        self.free(buffer);
                    }
                }
                Err(error) => return Err((error.into(), None)),
            }
        }
    }

    fn piece(&self, left: usize) -> usize {
        let most = self.info.max_sectors as usize * SECTOR as usize;
        left.min(most).min(self.shape.data_bytes / 2)
    }

    /// Reads whole sectors from `sector` on, and waits for that. To be used with nothing else in flight.
    ///
    /// # Errors
    /// Any of [`BlockError`].
    pub fn read_at(&mut self, sector: u64, to: &mut [u8]) -> Result<(), BlockError> {
        let mut done = 0;
        while done < to.len() {
            let bytes = self.piece(to.len() - done);
            let buffer = self.buffer(bytes)?;
            let ticket = match self.submit_read(sector + done as u64 / SECTOR, buffer, bytes) {
                Ok(ticket) => ticket,
                Err((error, buffer)) => return self.give_back(error, Some(buffer)),
            };
            match self.finish(ticket) {
                Ok(Some(buffer)) => {
                    if let Some(to) = to.get_mut(done..done + bytes) {
                        let _ = buffer.window().read(0, to);
                    }
                    self.free(buffer);
                }
                Ok(None) => {}
                Err((error, buffer)) => return self.give_back(error, buffer),
            }
            done += bytes;
        }
        Ok(())
    }

    /// Writes whole sectors at `sector`, and waits for that. To be used with nothing else in flight.
    ///
    /// # Errors
    /// Any of [`BlockError`].
    pub fn write_at(&mut self, sector: u64, from: &[u8]) -> Result<(), BlockError> {
        let mut done = 0;
        while done < from.len() {
            let bytes = self.piece(from.len() - done);
            let buffer = self.buffer(bytes)?;
            if let Some(from) = from.get(done..done + bytes) {
                let _ = buffer.window().write(0, from);
            }
            let ticket = match self.submit_write(sector + done as u64 / SECTOR, buffer, bytes) {
                Ok(ticket) => ticket,
                Err((error, buffer)) => return self.give_back(error, Some(buffer)),
            };
            match self.finish(ticket) {
                Ok(Some(buffer)) => self.free(buffer),
                Ok(None) => {}
                Err((error, buffer)) => return self.give_back(error, buffer),
            }
            done += bytes;
        }
        Ok(())
    }

    fn give_back(&mut self, error: BlockError, buffer: Option<Buffer>) -> Result<(), BlockError> {
        if let Some(buffer) = buffer {
            self.free(buffer);
        }
        Err(error)
    }

    /// Makes everything durable that was written before, and waits for that.
    ///
    /// # Errors
    /// Any of [`BlockError`].
    pub fn flush(&mut self) -> Result<(), BlockError> {
        let ticket = self.submit_flush()?;
        self.finish(ticket).map(drop).map_err(|(error, _)| error)
    }

    /// Says that sectors are not needed, and waits for that.
    ///
    /// # Errors
    /// Any of [`BlockError`].
    pub fn discard(&mut self, sector: u64, sectors: u32) -> Result<(), BlockError> {
        let ticket = self.submit_range(false, sector, sectors)?;
        self.finish(ticket).map(drop).map_err(|(error, _)| error)
    }

    /// Fills sectors with zeros, and waits for that.
    ///
    /// # Errors
    /// Any of [`BlockError`].
    pub fn write_zeroes(&mut self, sector: u64, sectors: u32) -> Result<(), BlockError> {
        let ticket = self.submit_range(true, sector, sectors)?;
        self.finish(ticket).map(drop).map_err(|(error, _)| error)
    }
}
