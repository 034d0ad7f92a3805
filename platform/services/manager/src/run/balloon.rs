//! Memory that guests give back and take again while they run.
//!
//! The RAM of such a guest is mapped block by block ([`portico_manager::balloon`]). Which block has which memory is not only in this life's head: EL2 says
//! of an extent where it is mapped, not in which domain, so that is kept in a window of the manager's ([`Kept`]). An entry is written before its block is
//! mapped and cleared after it was unmapped, and the next life believes only those entries whose memory is mapped where they say.
//!
//! A guest is heard by its control port. After each request or some blocks of one it is not looked at for a time ([`PACE_NS`]), and its port is masked
//! meanwhile: moving and scrubbing for it has a limit, and so has what its notifications cost.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use portico_abi::call::attrs;
use portico_abi::device::control::memory_result;
use portico_abi::{BLOCK_SIZE, Handle, PAGE_SIZE, dt};
use portico_manager::balloon::{Blocks, Job, MAX_BLOCKS, Op, pages_of};
use portico_manager::memory::{BLOCK_PAGES, MemoryError, Piece};
use portico_manager::table;
use portico_sdk::hvc;
use portico_sdk::window::Window;

use crate::again::Left;
use crate::control::Control;
use crate::guest::{Guest, State};
use crate::hv::{self, Calls, Machine};
use crate::place;
use crate::supervisor::Manager;

/// Blocks that are moved for one guest in one turn.
const BLOCKS_A_TURN: u64 = 4;
/// For so long a guest is not looked at for each block that was moved, and for each request, in nanoseconds: several times what scrubbing a block takes.
const PACE_NS: u64 = 2_000_000;

/// What the next life needs to know of a guest's blocks. It outlives the guest's instances.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    window: Window,
}

impl Kept {
    /// Pages of it.
    pub const PAGES: u64 = 2;
    /// How many blocks the guest began with; 0 if its memory is fixed.
    const COUNT: usize = 0;
    /// How many it should have.
    const TARGET: usize = 4;
    /// First entry: 1 and the number of the machine's block; 0 for none.
    const ENTRIES: usize = 64;

    /// Takes memory for it.
    ///
    /// # Errors
    /// That there is none, or that it cannot be mapped.
    pub fn new(machine: &mut Machine, id: usize) -> Result<Self, portico_abi::Status> {
        hv::shared(machine, Self::PAGES, place::blocks(id))?;
        Self::over(id).ok_or(portico_abi::Status::Invalid)
    }

    /// Takes over what the last life had.
    pub fn adopt(left: &mut Left, id: usize) -> Option<Self> {
        left.window(place::blocks(id), Self::PAGES)?;
        Self::over(id)
    }

    fn over(id: usize) -> Option<Self> {
        const { assert!(Self::ENTRIES + 4 * MAX_BLOCKS <= (Self::PAGES * PAGE_SIZE) as usize) };
        // SAFETY: the extent is mapped there for good, as RAM that no Rust object is in.
        let window = unsafe { Window::new(place::blocks(id), (Self::PAGES * PAGE_SIZE) as usize) }?;
        Some(Self { window })
    }

    /// How many blocks the guest began with.
    pub fn count(&self) -> usize {
        (self.get(Self::COUNT) as usize).min(MAX_BLOCKS)
    }

    /// Forgets all: the guest's memory is fixed.
    pub fn clear(&self) {
        self.set(Self::COUNT, 0);
    }

    fn begin(&self, blocks: &Blocks<Handle>) {
        self.clear();
        for index in 0..blocks.len() {
            self.enter(index, blocks.get(index));
        }
        self.set(Self::TARGET, blocks.target as u32);
        self.set(Self::COUNT, blocks.len() as u32);
    }

    /// Notes what memory a block has.
    fn enter(&self, index: usize, piece: Option<Piece<Handle>>) {
        let entry = piece.map_or(0, |piece| (piece.start / BLOCK_PAGES) as u32 + 1);
        self.set(Self::ENTRIES + 4 * index, entry);
    }

    /// First page of the machine that an entry names.
    fn entry(&self, index: usize) -> Option<u64> {
        Some(u64::from(self.get(Self::ENTRIES + 4 * index).checked_sub(1)?) * BLOCK_PAGES)
    }

    fn get(&self, at: usize) -> u32 {
        self.window.word(at).map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn set(&self, at: usize, value: u32) {
        self.window.word(at).into_iter().for_each(|word| word.store(value, Ordering::Release));
    }
}

/// The memory of an instance of such a guest.
#[derive(Debug)]
pub struct Balloon {
    kept: Kept,
    blocks: Blocks<Handle>,
    job: Option<Job>,
    /// The last request that was answered.
    answered: u32,
    /// Not looked at before, in nanoseconds; until then its port is masked.
    rests_until: Option<u64>,
    /// A last life may have taken the notification.
    is_told: bool,
    /// The operator waits to be told that it has what it should.
    is_asked: bool,
}

fn ipa_of(index: usize) -> u64 {
    dt::RAM_BASE + index as u64 * BLOCK_SIZE
}

impl Balloon {
    /// The memory of an instance that begins with `ram`, all of it blocks, and keeps at least `least_pages`.
    pub fn new(kept: Kept, ram: Vec<Piece<Handle>>, least_pages: u64) -> Self {
        let count = ram.len();
        let blocks = Blocks::new(ram.into_iter().map(Some).collect(), blocks_in(least_pages), count);
        kept.begin(&blocks);
        Self { kept, blocks, job: None, answered: 0, rests_until: None, is_told: false, is_asked: false }
    }

    /// The memory of an instance that the last life built. `None` if that is fixed.
    pub fn adopt(machine: &mut Machine, kept: Kept, control: &Control, least_pages: u64) -> Option<Self> {
        let find = |index| {
            let piece = kept.entry(index).and_then(|start| machine.take_given(start, BLOCK_PAGES, ipa_of(index)));
            if piece.is_none() {
                kept.enter(index, None);
            }
            piece
        };
        let pieces: Vec<_> = (0..kept.count()).map(find).collect();
        if pieces.is_empty() {
            return None;
        }
        let blocks = Blocks::new(pieces, blocks_in(least_pages), kept.get(Kept::TARGET) as usize);
        let answered = control.answered();
        Some(Self { kept, blocks, job: None, answered, rests_until: None, is_told: true, is_asked: false })
    }

    /// Pages that it has, should have, keeps, and has at most.
    pub fn pages(&self) -> Sizes {
        let pages = |blocks| u64::from(pages_of(blocks));
        Sizes {
            present: pages(self.blocks.present()),
            target: pages(self.blocks.target),
            least: pages(self.blocks.least()),
            most: pages(self.blocks.len()),
        }
    }

    /// All its memory.
    pub fn into_pieces(self) -> impl Iterator<Item = Piece<Handle>> {
        self.blocks.into_pieces()
    }

    /// When it is to be looked at, in nanoseconds.
    pub fn deadline(&self) -> Option<u64> {
        self.rests_until
    }

    /// Shows the guest how much it has and should have.
    pub fn show(&self, control: &Control) {
        control.set_memory(pages_of(self.blocks.present()), pages_of(self.blocks.target));
    }

    /// Does some of what the guest asks for. Returns whether that brought it to where it should be.
    fn step(&mut self, machine: &mut Machine, control: &Control, domain: Handle, now: u64) -> bool {
        if self.rests_until.is_some_and(|until| now < until) {
            return false;
        }
        if self.rests_until.take().is_some() {
            control.unmask();
        }
        let is_told = control.take() || core::mem::take(&mut self.is_told);
        if self.job.is_none() && !is_told {
            return false;
        }
        let moved = self.work(machine, control, domain);
        self.rests_until = Some(now.saturating_add(PACE_NS.saturating_mul(moved.max(1))));
        control.mask();
        let is_there = self.blocks.present() == self.blocks.target && self.job.is_none();
        is_there && core::mem::take(&mut self.is_asked)
    }

    /// Works at the request that there is. Returns how many blocks were moved.
    fn work(&mut self, machine: &mut Machine, control: &Control, domain: Handle) -> u64 {
        if self.job.is_none() {
            let words = control.memory_request();
            if words.request == self.answered {
                return 0;
            }
            self.job = Job::new(words, self.blocks.len());
            if self.job.is_none() {
                self.answer(control, words.request, memory_result::INVALID, 0);
                return 0;
            }
        }
        let Some(mut job) = self.job.take() else { return 0 };
        let mut moved = 0;
        let result = loop {
            let Some(index) = job.next() else { break memory_result::OK };
            match self.blocks.check(job.op, index) {
                Ok(false) => {}
                Ok(true) if moved == BLOCKS_A_TURN => {
                    self.job = Some(job);
                    return moved;
                }
                Ok(true) => match self.move_block(machine, domain, job.op, index) {
                    Ok(()) => moved += 1,
                    // What was given back is being scrubbed.
                    Err(MemoryError::Scrubbing) => {
                        self.job = Some(job);
                        return moved;
                    }
                    Err(MemoryError::Exhausted { .. } | MemoryError::Refused(_)) => break memory_result::EXHAUSTED,
                },
                Err(result) => break result,
            }
            job.advance();
        };
        self.answer(control, job.request, result, job.done_pages());
        moved
    }

    fn answer(&mut self, control: &Control, request: u32, result: u32, done_pages: u32) {
        self.answered = request;
        self.show(control);
        control.answer(request, result, done_pages);
    }

    fn move_block(&mut self, machine: &mut Machine, domain: Handle, op: Op, index: usize) -> Result<(), MemoryError> {
        match op {
            Op::Release => {
                let Some(piece) = self.blocks.get(index) else { return Ok(()) };
                hvc::complete(|| hvc::extent_unmap(piece.extent, domain)).map_err(MemoryError::Refused)?;
                self.blocks.set(index, None);
                self.kept.enter(index, None);
                machine.memory.put_dirty(piece);
            }
            Op::Populate => {
                let piece = machine.take(BLOCK_PAGES)?;
                self.kept.enter(index, Some(piece));
                let all = attrs::READ | attrs::WRITE | attrs::EXEC;
                let map = || hvc::complete(|| hvc::extent_map(piece.extent, domain, ipa_of(index), all));
                if let Err(status) = machine.with_budget(domain, map) {
                    self.kept.enter(index, None);
                    machine.memory.put_clean(&mut Calls, piece);
                    return Err(MemoryError::Refused(status));
                }
                self.blocks.set(index, Some(piece));
            }
        }
        Ok(())
    }
}

/// How much memory a guest has, and may have, in pages.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// It has.
    pub present: u64,
    /// It should have.
    pub target: u64,
    /// It keeps.
    pub least: u64,
    /// It can have in this life.
    pub most: u64,
}

fn blocks_in(pages: u64) -> usize {
    usize::try_from(pages / BLOCK_PAGES).unwrap_or(usize::MAX)
}

impl Guest {
    /// How much memory its instance has, if that can change.
    pub fn sizes(&self) -> Option<Sizes> {
        Some(self.instance.as_ref()?.balloon.as_ref()?.pages())
    }

    /// The memory of its instance, if it runs and that can change.
    pub fn balloon(&self) -> Option<&Balloon> {
        let instance = self.instance.as_ref().filter(|_| matches!(self.state, State::Running));
        instance?.balloon.as_ref()
    }

    /// Whether it has something to say of its memory that would be heard now.
    pub fn is_balloon_told(&self) -> bool {
        let is_awake = self.balloon().is_some_and(|balloon| balloon.deadline().is_none());
        is_awake && self.control.as_ref().is_some_and(Control::is_told)
    }

    /// Pages of RAM that its instance has.
    pub fn ram_pages(&self) -> u64 {
        let instance = self.instance.as_ref();
        self.sizes().map_or_else(|| instance.map_or(0, |instance| instance.memory_pages), |sizes| sizes.present)
    }

    /// Its memory for a table: what it has, and of how much if that can change.
    pub fn memory_text(&self) -> String {
        match self.sizes() {
            Some(sizes) => format!("{}/{}", table::pages(sizes.present), table::pages(sizes.most)),
            None => table::pages(self.description.memory_pages),
        }
    }
}

impl Manager {
    /// Does some of what guests ask for of their memory.
    pub fn step_balloons(&mut self, now: u64) {
        for id in 0..self.guests.len() {
            let Some(guest) = self.guests.get_mut(id).filter(|guest| matches!(guest.state, State::Running)) else {
                continue;
            };
            let (Some(instance), Some(control)) = (guest.instance.as_mut(), guest.control.as_ref()) else { continue };
            let Some(balloon) = instance.balloon.as_mut() else { continue };
            if balloon.step(&mut self.machine, control, instance.domain, now) {
                let text = format!("guest \"{}\": has {} of memory now", guest.name(), guest.memory_text());
                self.event(&text);
            }
        }
    }

    /// Wakes guests that may have more memory than they have: there is some.
    pub fn offer_memory(&self) {
        for guest in &self.guests {
            if guest.sizes().is_some_and(|sizes| sizes.present < sizes.target) {
                guest.control.as_ref().inspect(|control| control.notify());
            }
        }
    }

    /// Sets how much memory a guest should have, or tells.
    ///
    /// # Errors
    /// A message if that cannot be.
    pub fn resize(&mut self, name: &str, bytes: Option<u64>) -> Result<String, String> {
        let id = self.named(name)?;
        let guest = self.guests.get_mut(id).ok_or_else(String::new)?;
        let Some(sizes) = guest.sizes() else {
            return Err(match guest.description.is_elastic() {
                true => format!("guest `{name}` does not run ({})", guest.state.word()),
                false => format!("the memory of `{name}` is fixed; `memory_min` in its description lets it change"),
            });
        };
        let (Some(instance), Some(control)) = (guest.instance.as_mut(), guest.control.as_ref()) else {
            return Ok(String::new());
        };
        let (Some(balloon), Some(kept)) = (instance.balloon.as_mut(), guest.kept) else { return Ok(String::new()) };
        let Some(bytes) = bytes else {
            let [present, target, least, most] =
                [sizes.present, sizes.target, sizes.least, sizes.most].map(table::pages);
            return Ok(format!("{present} now, {target} asked for, {least} at least, {most} at most"));
        };
        let pages = bytes.div_ceil(BLOCK_SIZE) * BLOCK_PAGES;
        if !(sizes.least..=sizes.most).contains(&pages) {
            let (least, most) = (table::pages(sizes.least), table::pages(sizes.most));
            return Err(format!("`{name}` can have from {least} to {most} of memory"));
        }
        balloon.blocks.target = blocks_in(pages);
        kept.set(Kept::TARGET, blocks_in(pages) as u32);
        balloon.is_asked = true;
        balloon.is_told = true;
        balloon.show(control);
        control.notify();
        Ok(String::new())
    }
}
