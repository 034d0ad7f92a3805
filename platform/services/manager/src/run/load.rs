//! Filling a domain's memory, in bounded steps.
//!
//! One guest is filled at a time: its RAM is mapped into the manager at [`WINDOW`], filled, cleaned to the point of coherency (the
//! guest begins with its MMU off and would not see what is only in a cache), unmapped, and mapped into the domain.

use alloc::vec::Vec;
use portico_abi::call::attrs;
use portico_abi::handle::SELF_DOMAIN;
use portico_abi::{Handle, PAGE_SIZE, Status, dt};
use portico_manager::memory::Piece;
use portico_sdk::hvc::{self, Progress};

use crate::place::LOADING as WINDOW;

/// Bytes copied in one step: some tens of microseconds.
const STEP_BYTES: u64 = 256 << 10;

/// Bytes to put somewhere.
#[derive(Clone, Debug)]
pub enum Bytes {
    /// From the bundle.
    Bundle(&'static [u8]),
    /// Made by the manager.
    Own(Vec<u8>),
    /// So many zeros.
    Zero(u64),
}

impl Bytes {
    /// Whether there is nothing to put.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> u64 {
        match self {
            Self::Bundle(bytes) => bytes.len() as u64,
            Self::Own(bytes) => bytes.len() as u64,
            Self::Zero(len) => *len,
        }
    }
}

/// One thing to put at an offset of the guest's RAM.
#[derive(Clone, Debug)]
pub struct Put {
    /// Offset in bytes.
    pub offset: u64,
    /// What.
    pub bytes: Bytes,
}

/// How far the loading is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Maps piece n into the manager.
    MapHere(usize),
    /// Puts thing n, from an offset in it.
    Copy(usize, u64),
    /// Unmaps piece n.
    UnmapHere(usize),
    /// Maps piece n into the domain.
    MapThere(usize),
    /// All is done.
    Done,
}

/// A loading under way.
#[derive(Debug)]
pub struct Load {
    stage: Stage,
    puts: Vec<Put>,
    /// IPA of the first instruction.
    pub entry: u64,
    /// IPA of the device tree.
    pub dtb: u64,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is more to do.
    More,
    /// The domain's memory is ready.
    Done,
    /// The domain's budget lacks so many pages for its tables; raise it and go on.
    NeedsBudget(u64),
}

impl Load {
    /// Prepares to put `puts` into a domain's RAM.
    pub fn new(puts: Vec<Put>, entry: u64, dtb: u64) -> Self {
        Self { stage: Stage::MapHere(0), puts, entry, dtb }
    }

    /// Does one bounded step.
    ///
    /// # Errors
    /// A status that means this guest cannot be built.
    pub fn step(&mut self, ram: &[Piece<Handle>], domain: Handle) -> Result<Step, Status> {
        match self.stage {
            Stage::MapHere(n) => match placed(ram, n) {
                Some((piece, at)) => {
                    let progress = hvc::extent_map(piece.extent, SELF_DOMAIN, WINDOW + at, attrs::READ | attrs::WRITE)?;
                    self.advance(progress, Stage::MapHere(n + 1));
                }
                None => self.stage = Stage::Copy(0, 0),
            },
            Stage::Copy(n, done) => self.stage = self.copy(n, done),
            Stage::UnmapHere(n) => match placed(ram, n) {
                Some((piece, _)) => {
                    let progress = hvc::extent_unmap(piece.extent, SELF_DOMAIN)?;
                    self.advance(progress, Stage::UnmapHere(n + 1));
                }
                None => self.stage = Stage::MapThere(0),
            },
            Stage::MapThere(n) => match placed(ram, n) {
                Some((piece, at)) => {
                    let all = attrs::READ | attrs::WRITE | attrs::EXEC;
                    match hvc::extent_map(piece.extent, domain, dt::RAM_BASE + at, all) {
                        Ok(progress) => self.advance(progress, Stage::MapThere(n + 1)),
                        // Its pages do not stand on blocks: a table for each block, and one more at each end.
                        Err(Status::NoBudget) => return Ok(Step::NeedsBudget(piece.pages.div_ceil(512) + 2)),
                        Err(status) => return Err(status),
                    }
                }
                None => self.stage = Stage::Done,
            },
            Stage::Done => return Ok(Step::Done),
        }
        Ok(Step::More)
    }

    /// Takes back what was mapped into the manager, after a failure.
    pub fn abandon(&self, ram: &[Piece<Handle>]) {
        for piece in ram {
            // Refused for those that are not mapped here.
            let _ = hvc::complete(|| hvc::extent_unmap(piece.extent, SELF_DOMAIN));
        }
    }

    fn advance(&mut self, progress: Progress, next: Stage) {
        if matches!(progress, Progress::Done(_)) {
            self.stage = next;
        }
    }

    fn copy(&self, n: usize, done: u64) -> Stage {
        let Some(put) = self.puts.get(n) else {
            portico_sdk::mem::invalidate_instructions();
            return Stage::UnmapHere(0);
        };
        let step = put.bytes.len().saturating_sub(done).min(STEP_BYTES);
        let to = WINDOW + put.offset + done;
        let range = done as usize..(done + step) as usize;
        match &put.bytes {
            Bytes::Bundle(bytes) => copy_clean(to, bytes.get(range).unwrap_or_default()),
            Bytes::Own(bytes) => copy_clean(to, bytes.get(range).unwrap_or_default()),
            Bytes::Zero(_) => zero_clean(to, step),
        }
        if done + step >= put.bytes.len() { Stage::Copy(n + 1, 0) } else { Stage::Copy(n, done + step) }
    }
}

/// Piece n and its offset in the guest's RAM in bytes.
fn placed(ram: &[Piece<Handle>], n: usize) -> Option<(&Piece<Handle>, u64)> {
    let before: u64 = ram.iter().take(n).map(|piece| piece.pages).sum();
    Some((ram.get(n)?, before * PAGE_SIZE))
}

/// Bytes of one turn of the copying loops: a cache line of every core that this runs on, or several.
const LINE: usize = 64;

/// Copies and cleans to the point of coherency, in one pass: this is most of what starting a guest costs.
///
/// The plan keeps every target inside the guest's RAM, which is mapped at [`WINDOW`].
fn copy_clean(to: u64, from: &[u8]) {
    let target = core::ptr::with_exposed_provenance_mut::<u8>(to as usize);
    let whole = from.len() / LINE * LINE;
    if whole > 0 {
        // SAFETY: `whole` bytes of the source are read and of the target written. The target is RAM of a guest that does not
        // run yet, mapped here and holding no Rust object; the source is the bundle or the manager's heap, neither of which
        // overlaps it. Cleaning changes no value; a line shorter than 64 bytes is caught by the clean below.
        unsafe {
            core::arch::asm!(
                "2: ldp {a}, {b}, [{from}]",
                "ldp {c}, {d}, [{from}, #16]",
                "stp {a}, {b}, [{to}]",
                "stp {c}, {d}, [{to}, #16]",
                "ldp {a}, {b}, [{from}, #32]",
                "ldp {c}, {d}, [{from}, #48]",
                "stp {a}, {b}, [{to}, #32]",
                "stp {c}, {d}, [{to}, #48]",
                "dc cvac, {to}",
                "add {from}, {from}, #64",
                "add {to}, {to}, #64",
                "subs {left}, {left}, #64",
                "b.ne 2b",
                a = out(reg) _, b = out(reg) _, c = out(reg) _, d = out(reg) _,
                from = inout(reg) from.as_ptr() => _,
                to = inout(reg) target => _,
                left = inout(reg) whole => _,
                options(nostack),
            );
        }
    }
    let rest = from.get(whole..).unwrap_or_default();
    // SAFETY: as above.
    unsafe { core::ptr::copy_nonoverlapping(rest.as_ptr(), target.add(whole), rest.len()) };
    finish_clean(to, from.len(), whole);
}

fn zero_clean(to: u64, len: u64) {
    let target = core::ptr::with_exposed_provenance_mut::<u8>(to as usize);
    // SAFETY: as in `copy_clean`.
    unsafe { core::ptr::write_bytes(target, 0, len as usize) };
    portico_sdk::mem::clean(to as usize, len as usize);
}

/// Cleans what the loop did not: the end, and everything if lines do not begin where the loop's turns did.
fn finish_clean(to: u64, len: usize, done: usize) {
    let is_aligned = (to as usize).is_multiple_of(LINE) && line_is_at_least_64();
    let from = if is_aligned { done } else { 0 };
    portico_sdk::mem::clean(to as usize + from, len - from);
}

/// CTR_EL0.DminLine, in words of 4 bytes as a power of two, is at least 4. (Arm DDI 0487, "CTR_EL0, Cache Type Register")
fn line_is_at_least_64() -> bool {
    let ctr: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack, preserves_flags)) };
    ctr >> 16 & 0xf >= 4
}
