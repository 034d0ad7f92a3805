//! The SD card of a board: requests wait in a queue and are done one after the other, in their order.

use crate::disk::{Abilities, Tag, Work};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use portico_abi::device::block::{MAX_SEGMENTS, Segment, op, status};
use portico_block::sd::card::BLOCK;
use portico_block::sd::controller::{Direction, Error};
use portico_block::sd::registers::{BYTES, Io, Register};
use portico_block::sd::transfer::{Blocks, Reader, Transfer};
use portico_sdk::window::Window;
use portico_sdk::{println, sync, time};
use portico_service::machine::{Interrupt, MachineDevice};

/// How descriptions name the card of a board.
const NAME: &str = "sd";
/// Requests that wait or are done and not taken.
const DEPTH: usize = 64;
/// Blocks that are moved in a turn of the main loop: 4 KiB.
const PER_TURN: u32 = 8;
/// How long a read may take while the service begins.
const PATIENCE: core::time::Duration = core::time::Duration::from_secs(1);

/// The registers of the controller.
#[derive(Debug)]
struct Registers(usize);

impl Io for Registers {
    #[inline]
    fn read(&self, register: Register) -> u32 {
        let at = core::ptr::with_exposed_provenance::<u32>(self.0 + register as usize);
        // SAFETY: `SdCard::open` checked that the registers are there, mapped as device memory for the life of the domain.
        unsafe { at.read_volatile() }
    }

    #[inline]
    fn write(&mut self, register: Register, value: u32) {
        let at = core::ptr::with_exposed_provenance_mut::<u32>(self.0 + register as usize);
        // SAFETY: as above; the controller is told to do nothing by itself, and cannot reach memory.
        unsafe { at.write_volatile(value) };
    }

    fn now_us(&self) -> u64 {
        time::now_ns() / 1000
    }
}

#[derive(Debug)]
struct Request {
    tag: Tag,
    transfer: Transfer,
    window: Window,
    segments: Vec<Segment>,
}

/// The blocks of a request, in the window of a guest. All its segments are inside, which was checked; what would not be is lost.
struct InWindow<'a> {
    window: Window,
    segments: &'a [Segment],
    at: usize,
}

impl Blocks for InWindow<'_> {
    fn begin(&mut self, block: u32) {
        let mut skip = block as usize * BLOCK;
        self.at = usize::MAX;
        for segment in self.segments {
            let bytes = segment.bytes as usize;
            if skip < bytes {
                self.at = segment.offset as usize + skip;
                return;
            }
            skip -= bytes;
        }
    }

    #[inline]
    fn store(&mut self, word: usize, value: u64) {
        let _ = self.at.checked_add(8 * word).and_then(|at| self.window.store(at, value));
    }

    #[inline]
    fn load(&mut self, word: usize) -> u64 {
        self.at.checked_add(8 * word).and_then(|at| self.window.load(at)).unwrap_or(0)
    }
}

/// Blocks of the service itself, which are read.
struct InSlice<'a>(&'a mut [u8], usize);

impl Blocks for InSlice<'_> {
    fn begin(&mut self, block: u32) {
        self.1 = block as usize * BLOCK;
    }

    fn store(&mut self, word: usize, value: u64) {
        let bytes = self.0.iter_mut().skip(self.1 + 8 * word);
        bytes.zip(value.to_le_bytes()).for_each(|(to, byte)| *to = byte);
    }

    fn load(&mut self, _word: usize) -> u64 {
        0
    }
}

/// The card.
#[derive(Debug)]
pub struct SdCard {
    reader: Reader<Registers>,
    interrupt: Interrupt,
    /// The first is being done, unless the reader is idle.
    waiting: VecDeque<Request>,
    done: VecDeque<(Tag, u32)>,
    /// Lists of segments that nothing uses.
    spare: Vec<Vec<Segment>>,
    /// Errors that were told of.
    told: u32,
    has_failed: bool,
}

impl SdCard {
    /// Starts the controller and the card in it.
    ///
    /// # Errors
    /// Any of [`Error`].
    pub fn open(device: &MachineDevice) -> Result<SdCard, Error> {
        let registers = device.registers;
        if registers.len < BYTES as u64 || !registers.base.is_multiple_of(4) {
            return Err(Error::Absent);
        }
        let reader = Reader::open(Registers(registers.base as usize))?;
        // Without interrupt it is of no use.
        let interrupt = Interrupt::bind(device.interrupt).map_err(|_| Error::Stuck)?;
        Ok(SdCard {
            reader,
            interrupt,
            waiting: VecDeque::with_capacity(DEPTH),
            done: VecDeque::with_capacity(DEPTH),
            spare: (0..DEPTH).map(|_| Vec::with_capacity(MAX_SEGMENTS)).collect(),
            told: 0,
            has_failed: false,
        })
    }

    /// What it can do.
    pub fn abilities(&self) -> Abilities {
        let card = self.reader.card();
        Abilities {
            sectors: card.sectors,
            block_bytes: BLOCK as u32,
            is_read_only: card.is_read_only,
            features: 0,
            max_segments: MAX_SEGMENTS as u32,
            max_discard: 0,
            max_zeroes: 0,
        }
    }

    /// Whether its name is `name`.
    pub fn is_named(&self, name: &str) -> bool {
        name == NAME
    }

    /// Takes a request. `false`: there is no room now.
    pub fn submit(&mut self, work: &Work<'_>, tag: Tag) -> bool {
        if self.waiting.len() + self.done.len() >= DEPTH {
            return false;
        }
        let direction = match work.op {
            op::READ => Direction::Read,
            op::WRITE => Direction::Write,
            _ => {
                self.done.push_back((tag, status::UNSUPPORTED));
                return true;
            }
        };
        let Some(mut segments) = self.spare.pop() else { return false };
        segments.clear();
        segments.extend_from_slice(work.segments);
        let transfer = Transfer { direction, sector: work.sector, blocks: work.sectors };
        self.waiting.push_back(Request { tag, transfer, window: work.window, segments });
        true
    }

    /// Does what can be done now, a bounded piece. Returns whether anything was done.
    pub fn turn(&mut self) -> bool {
        let mut budget = PER_TURN;
        let mut is_busy = false;
        while budget > 0 {
            let Some(request) = self.waiting.front() else { break };
            if self.reader.is_idle() {
                self.reader.begin(request.transfer);
                is_busy = true;
            }
            let mut blocks = InWindow { window: request.window, segments: &request.segments, at: usize::MAX };
            let Some(ended) = self.reader.turn(&mut blocks, &mut budget) else { break };
            if let Some(Request { tag, segments, .. }) = self.waiting.pop_front() {
                self.spare.push(segments);
                self.done.push_back((tag, if ended.is_ok() { status::OK } else { status::IO }));
            }
            if let Err(error) = ended {
                self.tell_failure(error);
            }
            is_busy = true;
        }
        is_busy || budget < PER_TURN
    }

    /// Says once that the card fails: a card that is gone fails all requests.
    #[cold]
    fn tell_failure(&mut self, error: Error) {
        if !core::mem::replace(&mut self.has_failed, true) {
            println!("the SD card fails: {error:?}");
        }
    }

    /// Takes a request that has ended, with one of [`status`].
    pub fn pop(&mut self) -> Option<(Tag, u32)> {
        self.done.pop_front()
    }

    /// Takes the interrupt, if there was one. What has happened is looked at in each turn; here the controller only lets go of its line.
    pub fn take_interrupt(&mut self) {
        if self.interrupt.take() {
            self.reader.ignore();
            self.interrupt.complete();
        }
    }

    /// Asks for interrupts. `true`: there is nothing to do now, and the caller may sleep.
    pub fn arm(&mut self) -> bool {
        let mended = self.reader.mended();
        if self.told != mended && mended.is_power_of_two() {
            println!("errors of the SD card that were mended: {mended}");
        }
        self.told = mended;
        self.done.is_empty() && self.reader.is_idle() == self.waiting.is_empty() && self.reader.listen()
    }

    /// Asks for no interrupts.
    pub fn disarm(&mut self) {
        self.reader.ignore();
    }

    /// Reads sectors while the service begins. `None` if the card fails.
    pub fn read(&mut self, sector: u64, to: &mut [u8]) -> Option<()> {
        let blocks = u32::try_from(to.len().div_ceil(BLOCK)).ok()?;
        self.reader.begin(Transfer { direction: Direction::Read, sector, blocks });
        let mut blocks = InSlice(to, 0);
        let mut budget = u32::MAX;
        let limit = time::deadline(PATIENCE);
        while !time::passed(limit) {
            if let Some(ended) = self.reader.turn(&mut blocks, &mut budget) {
                return ended.ok();
            }
            sync::relax();
        }
        None
    }
}
