//! Making requests.

use super::{BlockError, Buffer, Disk, PAGE, Pending, Ticket};
use alloc_crate::vec::Vec;
use core::ops::Range;
use portico_abi::device::block::{INLINE_SEGMENTS, MAX_SEGMENTS, Request, SECTOR, Segment, op};

/// A part of the data of a request: bytes of one of its buffers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which of the buffers.
    pub buffer: usize,
    /// Its bytes: whole sectors.
    pub range: Range<usize>,
}

/// What a request of several pieces does with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// Fills them from the disk.
    Read,
    /// Writes them to the disk.
    Write,
}

impl Disk {
    /// Begins to read `bytes` bytes from `sector` on into a buffer. Nothing is told to the back-end before [`Disk::publish`].
    ///
    /// # Errors
    /// `Full` or `Shape`, with the buffer.
    #[inline]
    pub fn submit_read(&mut self, sector: u64, buffer: Buffer, bytes: usize) -> Result<Ticket, (BlockError, Buffer)> {
        self.submit_data(op::READ, sector, buffer, bytes)
    }

    /// Begins to write the first `bytes` bytes of a buffer at `sector`.
    ///
    /// # Errors
    /// `Full` or `Shape`, with the buffer.
    #[inline]
    pub fn submit_write(&mut self, sector: u64, buffer: Buffer, bytes: usize) -> Result<Ticket, (BlockError, Buffer)> {
        self.submit_data(op::WRITE, sector, buffer, bytes)
    }

    #[inline]
    fn submit_data(
        &mut self,
        op: u8,
        sector: u64,
        buffer: Buffer,
        bytes: usize,
    ) -> Result<Ticket, (BlockError, Buffer)> {
        let sectors = (bytes as u64 / SECTOR) as u32;
        if bytes == 0
            || !bytes.is_multiple_of(SECTOR as usize)
            || bytes > buffer.len()
            || sectors > self.info.max_sectors
        {
            return Err((BlockError::Shape, buffer));
        }
        let offset = self.offset_of(&buffer, 0);
        let mut segment = [Segment::default(); INLINE_SEGMENTS];
        if let Some(first) = segment.first_mut() {
            *first = Segment { offset, bytes: bytes as u32 };
        }
        let request = Request { op, segments: 1, sector, sectors, segment, ..Request::default() };
        let Some(id) = self.free.pop() else { return Err((BlockError::Full, buffer)) };
        Ok(self.submit(id, request, Some(buffer), Vec::new()))
    }

    /// Begins a read or write whose data is in several pieces, in the order of `pieces`; together they are at most `max_sectors` long and
    /// there are at most `max_segments`. More than five need a page of the window for themselves while the request is in flight.
    ///
    /// # Errors
    /// `Full` or `Shape`, with the buffers.
    pub fn submit_pieces(
        &mut self,
        transfer: Transfer,
        sector: u64,
        buffers: Vec<Buffer>,
        pieces: &[Piece],
    ) -> Result<Ticket, (BlockError, Vec<Buffer>)> {
        match self.describe(transfer, sector, &buffers, pieces) {
            Ok((id, request, table)) => {
                let mut buffers = buffers;
                buffers.extend(table);
                Ok(self.submit(id, request, None, buffers))
            }
            Err(error) => Err((error, buffers)),
        }
    }

    /// Makes a request of pieces, without changing anything if it cannot be made.
    fn describe(
        &mut self,
        transfer: Transfer,
        sector: u64,
        buffers: &[Buffer],
        pieces: &[Piece],
    ) -> Result<(u32, Request, Option<Buffer>), BlockError> {
        if pieces.is_empty() || pieces.len() > self.info.max_segments as usize {
            return Err(BlockError::Shape);
        }
        let mut segments = [Segment::default(); MAX_SEGMENTS];
        let mut bytes = 0;
        for (segment, piece) in segments.iter_mut().zip(pieces) {
            *segment = self.segment(buffers, piece).ok_or(BlockError::Shape)?;
            bytes += u64::from(segment.bytes);
        }
        let sectors = bytes / SECTOR;
        if sectors > u64::from(self.info.max_sectors) {
            return Err(BlockError::Shape);
        }
        let table = if pieces.len() > INLINE_SEGMENTS { Some(self.buffer(PAGE)?) } else { None };
        let Some(id) = self.free.pop() else {
            table.into_iter().for_each(|table| self.free(table));
            return Err(BlockError::Full);
        };
        let op = match transfer {
            Transfer::Read => op::READ,
            Transfer::Write => op::WRITE,
        };
        let mut request =
            Request { op, segments: pieces.len() as u16, sector, sectors: sectors as u32, ..Request::default() };
        match &table {
            Some(table) => {
                for (offset, segment) in (0..).step_by(8).zip(segments.iter().take(pieces.len())) {
                    let _ = table.window().store(offset, segment.to_word());
                }
                request.table = self.offset_of(table, 0);
            }
            None => {
                if let Some(first) = segments.first_chunk() {
                    request.segment = *first;
                }
            }
        }
        Ok((id, request, table))
    }

    fn segment(&self, buffers: &[Buffer], piece: &Piece) -> Option<Segment> {
        let buffer = buffers.get(piece.buffer)?;
        let Range { start, end } = piece.range;
        let is_whole = start.is_multiple_of(SECTOR as usize) && end.is_multiple_of(SECTOR as usize);
        if !is_whole || start >= end || end > buffer.len() {
            return None;
        }
        Some(Segment { offset: self.offset_of(buffer, start), bytes: (end - start) as u32 })
    }

    /// Offset of a buffer's byte in the window.
    fn offset_of(&self, buffer: &Buffer, at: usize) -> u32 {
        (self.shape.data + buffer.first_page() * PAGE + at) as u32
    }

    /// Begins to make everything durable that was answered before.
    ///
    /// # Errors
    /// `Full`.
    pub fn submit_flush(&mut self) -> Result<Ticket, BlockError> {
        let id = self.free.pop().ok_or(BlockError::Full)?;
        Ok(self.submit(id, Request { op: op::FLUSH, ..Request::default() }, None, Vec::new()))
    }

    /// Begins to discard sectors, or to fill them with zeros.
    ///
    /// # Errors
    /// `Full`; `Shape` if that is not offered or more than the disk takes at once.
    pub fn submit_range(&mut self, zeroes: bool, sector: u64, sectors: u32) -> Result<Ticket, BlockError> {
        let (op, limit) =
            if zeroes { (op::WRITE_ZEROES, self.info.max_zeroes) } else { (op::DISCARD, self.info.max_discard) };
        if sectors == 0 || sectors > limit {
            return Err(BlockError::Shape);
        }
        let id = self.free.pop().ok_or(BlockError::Full)?;
        Ok(self.submit(id, Request { op, sector, sectors, ..Request::default() }, None, Vec::new()))
    }

    /// Begins a request of which everything was checked, under a number from the free ones.
    #[inline]
    fn submit(&mut self, id: u32, mut request: Request, buffer: Option<Buffer>, buffers: Vec<Buffer>) -> Ticket {
        request.id = id;
        let order = self.next_order;
        self.next_order += 1;
        if let (Some(kept), Some(pending)) = (self.requests.get_mut(id as usize), self.pending.get_mut(id as usize)) {
            *kept = request;
            *pending = Some(Pending { buffer, buffers, order });
        }
        self.in_flight += 1;
        self.put(&request);
        Ticket(id)
    }
}
