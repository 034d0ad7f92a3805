//! Memory in which the manager keeps for its next life what EL2 does not know of its guests.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;
use portico_abi::{PAGE_SIZE, Status};
use portico_manager::saved::{Doom, HEADER, Saved};
use portico_sdk::time;
use portico_sdk::window::Window;

use crate::again::{Left, record};
use crate::guest::{Guest, State};
use crate::hv::{self, Machine};
use crate::supervisor::Manager;
use crate::{alarm, place};

/// Bytes of each of the two slots.
const SLOT: usize = 64 << 10;
/// Pages of both.
const PAGES: u64 = 2 * SLOT as u64 / PAGE_SIZE;
/// How long a manager waits that was begun anew too often: longer than EL2 wants between two restarts.
const WAIT: Duration = Duration::from_millis(1100);

/// The memory.
#[derive(Debug)]
pub struct Keeper {
    window: Window,
    /// Of what was kept last.
    number: u64,
    /// When the manager was begun anew lately, in nanoseconds.
    began: Vec<u64>,
    /// What a tester wants of the next lives.
    pub doom: Option<Doom>,
}

impl Keeper {
    /// Takes over the memory that the last life left, with what is in it.
    pub fn take_over(machine: &mut Machine, left: &mut Left) -> Option<(Keeper, Option<Saved>)> {
        let piece = left.window(place::STATE, PAGES)?;
        machine.memory.forget(&piece);
        let mut keeper = Self::over()?;
        let [even, odd] = [0, SLOT].map(|offset| keeper.read(offset).unwrap_or_default());
        let (number, saved) = Saved::newest([&even, &odd]).unzip();
        keeper.number = number.unwrap_or(0);
        Some((keeper, saved))
    }

    /// Takes memory for it.
    ///
    /// # Errors
    /// That there is none, or that it cannot be mapped.
    pub fn new(machine: &mut Machine) -> Result<Keeper, Status> {
        let piece = hv::shared(machine, PAGES, place::STATE)?;
        machine.memory.forget(&piece);
        Self::over().ok_or(Status::Invalid)
    }

    fn over() -> Option<Keeper> {
        // SAFETY: the extent is mapped there for good, as RAM that no Rust object is in.
        let window = unsafe { Window::new(place::STATE, 2 * SLOT) }?;
        Some(Keeper { window, number: 0, began: Vec::new(), doom: None })
    }

    /// Copies what is kept in the slot at `offset`, if it looks like something.
    fn read(&self, offset: usize) -> Option<Vec<u8>> {
        let mut header = [0; HEADER];
        self.window.read(offset, &mut header)?;
        let mut slot = vec![0; Saved::len(&header).filter(|&len| len <= SLOT)?];
        self.window.read(offset, &mut slot)?;
        Some(slot)
    }

    /// Notes that the manager was begun anew, and waits if that was so too often: it will do what it died of again, and guests need the
    /// processors meanwhile.
    pub fn note_restart(&mut self, saved: &mut Saved) {
        let must_wait = saved.note_restart(time::now_ns());
        let end_us = Doom::next(&mut saved.doom);
        self.began.clone_from(&saved.began);
        self.doom = saved.doom;
        self.write(saved);
        if must_wait {
            time::sleep(WAIT);
        }
        alarm::begin();
        if let Some(us) = end_us {
            alarm::end_after(Duration::from_micros(us));
        }
    }

    fn write(&mut self, saved: &Saved) -> bool {
        let number = self.number.wrapping_add(1);
        let Some(bytes) = saved.encode(number, SLOT) else { return false };
        let is_written = self.window.write((number % 2) as usize * SLOT, &bytes).is_some();
        if is_written {
            self.number = number;
        }
        is_written
    }
}

impl Manager {
    /// Keeps what the next life needs to know. To be called before a handle is used by what has changed. `false`: there is no room for it, and
    /// the last state is kept.
    pub fn save(&mut self) -> bool {
        let Some(keeper) = self.keeper.as_mut() else { return true };
        let is_moving = |guest: &Guest| matches!(guest.state, State::Loading(_) | State::Destroying(_));
        let is_filling = self.guests.iter().any(is_moving) || !self.machine.memory_is_settled();
        let guests = self.guests.iter().map(record).collect();
        keeper.write(&Saved {
            is_filling,
            ending: self.ending,
            leaving: self.leaving,
            wall_ns: self.clock.at_zero_ns().filter(|_| self.clock.is_set),
            began: keeper.began.clone(),
            doom: keeper.doom,
            disks: self.channels.changed(),
            guests,
        })
    }
}
