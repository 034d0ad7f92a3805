//! A load without end that notices anything wrong: many requests in flight, each block of what generation it must be.
//!
//! `mode=load`: on every disk of the guest, and on each of its queues by a vCPU of its own. Twice a second it prints `load: N done, L lost`: how many
//! requests were answered and verified, and how often the service was lost. An error ends the guest with `FAIL`.

use crate::{PATIENCE, number, sector};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use portico_sdk::abi::device::ACCEPT;
use portico_sdk::device::block::{BlockError, Buffer, Completion, Disk, Piece, Ticket, Transfer, feature};
use portico_sdk::sync::Lock;
use portico_sdk::window::Window;
use portico_sdk::{control, dtb, println, smp, time};
use test_kit::Random;

/// Sectors of a block, the unit in which the load remembers.
const BLOCK: u64 = 8;
/// Bytes of a block.
const BLOCK_BYTES: usize = BLOCK as usize * sector::BYTES;
/// Blocks of the largest request.
const MOST: u64 = 4;
/// Blocks that each queue works on.
const BLOCKS: u64 = 256;
/// How often a line is printed.
const EVERY: Duration = Duration::from_millis(500);

/// What a block must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Must {
    /// It was discarded, or never written: anything.
    Anything,
    Zeros,
    Generation(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    Write(u64),
    Zero,
    Discard,
    Flush,
}

struct Flight {
    ticket: Ticket,
    kind: Kind,
    first: u64,
    count: u64,
    /// Its data is in a buffer for each block, in pieces.
    is_scattered: bool,
}

/// What all queues count together.
#[derive(Default)]
struct Totals {
    done: AtomicU64,
    lost: AtomicU64,
    told: AtomicU64,
    has_failed: AtomicBool,
}

static TOTALS: Totals = Totals {
    done: AtomicU64::new(0),
    lost: AtomicU64::new(0),
    told: AtomicU64::new(0),
    has_failed: AtomicBool::new(false),
};
/// Why it failed.
static FAILURE: Lock<String> = Lock::new(String::new());

/// One queue under load.
struct Load {
    disk: Disk,
    name: &'static str,
    /// First sector of its blocks.
    base: u64,
    must: Vec<Must>,
    is_busy: Vec<bool>,
    flights: Vec<Flight>,
    random: Random,
    generation: u64,
    depth: usize,
    done: u64,
    lost: u64,
    told: u64,
    /// The service was lost, and has answered nothing since.
    is_waiting: bool,
    /// It says when it is served again.
    is_first: bool,
}

/// A queue that another vCPU shall open.
struct Order {
    name: &'static str,
    queue: u32,
}

/// Runs until something is wrong.
///
/// # Errors
/// What is wrong.
pub fn run() -> Result<(), String> {
    if dtb::bootarg("fresh").is_some() {
        check_fresh()?;
    }
    let mut loads = Vec::new();
    let mut vcpu = 1;
    for node in dtb::devices(portico_sdk::abi::dt::BLOCK) {
        let queue = node.number(portico_sdk::abi::dt::QUEUE).unwrap_or(0) as u32;
        if queue == 0 {
            loads.push(Load::new(node.name, 0)?);
            continue;
        }
        let order = Box::leak(Box::new(Order { name: node.name, queue }));
        smp::start(vcpu, other_queue, core::ptr::from_ref(order).expose_provenance())
            .map_err(|error| format!("vCPU {vcpu}: {error:?}"))?;
        vcpu += 1;
    }
    let mut next_line = time::deadline(EVERY);
    loop {
        for load in &mut loads {
            load.turn()?;
        }
        if TOTALS.has_failed.load(Ordering::Acquire) {
            return Err(FAILURE.lock().clone());
        }
        if time::passed(next_line) {
            next_line = time::deadline(EVERY);
            control::heartbeat();
            let count = |total: &AtomicU64| total.load(Ordering::Relaxed);
            println!("load: {} done, {} lost, {} told", count(&TOTALS.done), count(&TOTALS.lost), count(&TOTALS.told));
        }
    }
}

/// Nothing that the last life of the guest left may be in the windows, but what was in flight then and landed late.
fn check_fresh() -> Result<(), String> {
    for node in dtb::devices(portico_sdk::abi::dt::BLOCK) {
        // SAFETY: the manager mapped the window for the life of the domain, and nothing else of the guest is there.
        let window = unsafe { Window::new(node.window.base, node.window.len as usize) };
        let Some(window) = window else { return Err(format!("{}: no window", node.name)) };
        let stale = (ACCEPT..window.len()).step_by(8).find(|at| window.load(*at) != Some(0));
        if let Some(at) = stale {
            println!("load: {}: stale bytes at {at:#x} of the window", node.name);
            return Ok(());
        }
    }
    println!("load: nothing stale");
    Ok(())
}

/// Loads the queue that `order` names, on the calling vCPU.
fn other_queue(order: usize) {
    // SAFETY: leaked by `run` for this vCPU.
    let order = unsafe { &*core::ptr::with_exposed_provenance::<Order>(order) };
    let ended = Load::new(order.name, order.queue).and_then(|mut load| {
        loop {
            load.turn()?;
        }
    });
    if let Err::<(), String>(why) = ended {
        *FAILURE.lock() = format!("vCPU {}: {why}", portico_sdk::vcpu::index());
        TOTALS.has_failed.store(true, Ordering::Release);
    }
}

impl Load {
    fn new(name: &'static str, queue: u32) -> Result<Load, String> {
        let disk =
            Disk::open_queue(name, queue, time::deadline(PATIENCE)).map_err(|e| format!("{name}.{queue}: {e:?}"))?;
        let base = u64::from(queue) * BLOCKS * BLOCK;
        let blocks = BLOCKS.min(disk.info().sectors.saturating_sub(base) / BLOCK);
        if blocks < 2 * MOST {
            return Err(format!("{name}.{queue}: too small"));
        }
        let depth = number("depth", u64::from(disk.depth())).min(u64::from(disk.depth())) as usize;
        Ok(Load {
            disk,
            name,
            base,
            must: (0..blocks).map(|_| Must::Anything).collect(),
            is_busy: (0..blocks).map(|_| false).collect(),
            flights: Vec::with_capacity(depth),
            random: Random::new(number("seed", 1) + u64::from(queue)),
            generation: time::now(),
            depth,
            done: 0,
            lost: 0,
            told: 0,
            is_waiting: false,
            is_first: queue == 0 && Disk::names().next() == Some(name),
        })
    }

    /// Fills the queue, waits for an answer, takes what else has ended.
    fn turn(&mut self) -> Result<(), String> {
        while self.flights.len() < self.depth && self.make()? {}
        let wish = self.random.below(self.flights.len().max(1) as u64) as u32 / 2 + 1;
        // A service that does not come back is a failure, a slow machine is none.
        let mut next = Some(self.disk.wait_for(wish, time::deadline(PATIENCE * 3)).map_err(|e| self.wrong(e))?);
        while let Some(completion) = next {
            self.end(completion)?;
            next = self.disk.reap().map_err(|e| self.wrong(e))?;
        }
        let (lost, told) = (self.disk.lost(), self.disk.told());
        self.is_waiting |= lost != self.lost;
        TOTALS.lost.fetch_add(lost - core::mem::replace(&mut self.lost, lost), Ordering::Relaxed);
        TOTALS.told.fetch_add(told - core::mem::replace(&mut self.told, told), Ordering::Relaxed);
        Ok(())
    }

    fn wrong(&self, error: impl core::fmt::Debug) -> String {
        format!("{}: {error:?} after {} requests", self.name, self.done)
    }

    /// Makes a request on blocks that no other is about. `false`: there is no room now.
    fn make(&mut self) -> Result<bool, String> {
        let count = 1 + self.random.below(MOST);
        let first = self.random.below(self.must.len() as u64 - count + 1);
        let blocks = first as usize..(first + count) as usize;
        if self.is_busy.get(blocks.clone()).is_none_or(|busy| busy.contains(&true)) {
            // Few are free: rather wait than search.
            return Ok(self.flights.len() < self.depth / 2);
        }
        let info = self.disk.info();
        let roll = self.random.below(100);
        let is_scattered = roll.is_multiple_of(3);
        let kind = match roll {
            0..4 => Kind::Flush,
            4..7 if info.features & feature::DISCARD != 0 && !info.is_read_only => Kind::Discard,
            7..12 if info.features & feature::WRITE_ZEROES != 0 && !info.is_read_only => Kind::Zero,
            12..55 if !info.is_read_only => {
                self.generation += 1;
                Kind::Write(self.generation)
            }
            _ => Kind::Read,
        };
        let made = match kind {
            Kind::Flush => self.disk.submit_flush(),
            Kind::Zero | Kind::Discard => {
                let sectors = (count * BLOCK) as u32;
                self.disk.submit_range(kind == Kind::Zero, self.sector_of(first), sectors)
            }
            Kind::Read | Kind::Write(_) if is_scattered => self.scatter(kind, first, count),
            Kind::Read | Kind::Write(_) => self.contiguous(kind, first, count),
        };
        let ticket = match made {
            Ok(ticket) => ticket,
            Err(BlockError::Full) => return Ok(false),
            Err(error) => return Err(self.wrong(error)),
        };
        if kind != Kind::Flush {
            self.is_busy.get_mut(blocks).unwrap_or_default().fill(true);
        }
        self.flights.push(Flight { ticket, kind, first, count, is_scattered });
        Ok(true)
    }

    fn sector_of(&self, block: u64) -> u64 {
        self.base + block * BLOCK
    }

    fn contiguous(&mut self, kind: Kind, first: u64, count: u64) -> Result<Ticket, BlockError> {
        let bytes = count as usize * BLOCK_BYTES;
        let sector = self.sector_of(first);
        let buffer = self.disk.buffer(bytes)?;
        let made = match kind {
            Kind::Write(generation) => {
                for at in 0..count * BLOCK {
                    sector::fill(&buffer.window(), at as usize * sector::BYTES, sector + at, generation);
                }
                self.disk.submit_write(sector, buffer, bytes)
            }
            _ => self.disk.submit_read(sector, buffer, bytes),
        };
        made.map_err(|(error, buffer)| {
            self.disk.free(buffer);
            error
        })
    }

    /// As pieces: each block in a buffer of its own, from one to eight pieces of each.
    fn scatter(&mut self, kind: Kind, first: u64, count: u64) -> Result<Ticket, BlockError> {
        let sector = self.sector_of(first);
        let mut buffers = Vec::new();
        for _ in 0..count {
            match self.disk.buffer(BLOCK_BYTES) {
                Ok(buffer) => buffers.push(buffer),
                Err(error) => {
                    self.free_all(buffers);
                    return Err(error);
                }
            }
        }
        let sectors = 1 << self.random.below(4);
        let step = sectors * sector::BYTES;
        let mut pieces = Vec::new();
        for buffer in 0..count as usize {
            pieces.extend((0..BLOCK_BYTES).step_by(step).map(|at| Piece { buffer, range: at..at + step }));
        }
        let transfer = match kind {
            Kind::Write(generation) => {
                for at in 0..count * BLOCK {
                    let Some(buffer) = buffers.get((at / BLOCK) as usize) else { break };
                    sector::fill(&buffer.window(), (at % BLOCK) as usize * sector::BYTES, sector + at, generation);
                }
                Transfer::Write
            }
            _ => Transfer::Read,
        };
        self.disk.submit_pieces(transfer, sector, buffers, &pieces).map_err(|(error, buffers)| {
            self.free_all(buffers);
            error
        })
    }

    fn free_all(&mut self, buffers: Vec<Buffer>) {
        for buffer in buffers {
            self.disk.free(buffer);
        }
    }

    /// Takes the end of a request.
    fn end(&mut self, completion: Completion) -> Result<(), String> {
        let Some(at) = self.flights.iter().position(|flight| flight.ticket == completion.ticket) else {
            return Err(self.wrong("an answer to nothing"));
        };
        let flight = self.flights.swap_remove(at);
        completion.result.map_err(|error| self.wrong((flight.kind, flight.first, error)))?;
        let must = match flight.kind {
            Kind::Flush | Kind::Read => None,
            Kind::Write(generation) => Some(Must::Generation(generation)),
            Kind::Zero => Some(Must::Zeros),
            Kind::Discard => Some(Must::Anything),
        };
        if flight.kind == Kind::Read {
            self.verify(&flight, &completion)?;
        }
        if flight.kind != Kind::Flush {
            for block in flight.first as usize..(flight.first + flight.count) as usize {
                if let (Some(busy), Some(is)) = (self.is_busy.get_mut(block), self.must.get_mut(block)) {
                    *busy = false;
                    *is = must.unwrap_or(*is);
                }
            }
        }
        self.free_all(completion.buffer.into_iter().chain(completion.buffers).collect());
        if core::mem::take(&mut self.is_waiting) && self.is_first {
            println!("load: served again");
        }
        self.done += 1;
        TOTALS.done.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn verify(&self, flight: &Flight, completion: &Completion) -> Result<(), String> {
        for at in 0..flight.count * BLOCK {
            let block = flight.first + at / BLOCK;
            let sector = self.sector_of(flight.first) + at;
            let (buffer, offset) = if flight.is_scattered {
                (completion.buffers.get((at / BLOCK) as usize), (at % BLOCK) as usize * sector::BYTES)
            } else {
                (completion.buffer.as_ref(), at as usize * sector::BYTES)
            };
            let Some(window) = buffer.map(Buffer::window) else { return Err(self.wrong("no buffer came back")) };
            let checked = match self.must.get(block as usize) {
                Some(Must::Generation(generation)) => sector::check(&window, offset, sector, *generation),
                Some(Must::Zeros) => sector::check_zero(&window, offset),
                Some(Must::Anything) | None => Ok(()),
            };
            if let Err((word, got, wanted)) = checked {
                return Err(self.wrong(format!("sector {sector}, word {word} is {got:#x}, not {wanted:#x}")));
            }
        }
        Ok(())
    }
}
