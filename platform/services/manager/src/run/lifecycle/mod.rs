//! The lives of guests: how one is built, watched and taken down, a piece at a time, so that nothing waits for long.
//!
//! | file | what |
//! | --- | --- |
//! | [`prepare`] | its domain with vCPUs, console, control page and channels; its memory is taken |
//! | [`launch`] | its memory is filled, and its first vCPU started |
//! | [`end`] | it ended: by itself, by a fault, by its watchdog, by its operator; what its policy says; its domain destroyed |

mod end;
mod launch;
mod prepare;

use portico_bundle::description::Guest as Description;
use portico_console::layout;

use crate::guest::{Guest, Next, State};
use crate::supervisor::Manager;

pub use prepare::sched_of;

/// Most guests that the manager knows, dead ones included.
pub const MAX_GUESTS: usize = layout::MAX_SOURCES;

impl Manager {
    /// Adds a guest that does not exist yet. Returns its number.
    pub fn add_guest(&mut self, description: Description, index: Option<u16>) -> usize {
        self.guests.push(Guest::new(description, index));
        self.guests.len() - 1
    }

    /// Lets a guest start as soon as it can: one that is being taken down, when that is done.
    pub fn start(&mut self, id: usize, now: u64) {
        if let Some(guest) = self.guests.get_mut(id) {
            guest.restarts.reset();
            guest.last_end = None;
            guest.state = match guest.state {
                State::Destroying(_) => State::Destroying(Next::StartAt(now)),
                _ => State::Due(now),
            };
        }
        self.save();
    }

    /// Creates the domains of all guests that are due, so that their channels have both ends before the first starts.
    pub fn prepare_all(&mut self, now: u64) {
        for id in 0..self.guests.len() {
            if matches!(self.guests.get(id).map(|guest| &guest.state), Some(State::Due(_))) {
                self.try_prepare(id, now);
            }
        }
    }

    /// Does a piece of whatever each guest is going through. Returns whether there is more to do at once.
    pub fn step_guests(&mut self, now: u64) -> bool {
        let mut is_busy = false;
        // One at a time: they share the window, and start in order.
        let mut is_loading = self.guests.iter().any(|guest| matches!(guest.state, State::Loading(_)));
        for id in 0..self.guests.len() {
            let Some(guest) = self.guests.get(id) else { continue };
            match guest.state {
                State::Due(at) if now >= at => {
                    // One that was not prepared is being taken down: what there is of it must not run.
                    let is_prepared = guest.instance.is_some() || self.try_prepare(id, now);
                    if is_prepared && !is_loading {
                        is_loading = self.try_load(id);
                        is_busy |= is_loading;
                    }
                }
                State::Loading(_) => {
                    is_busy = true;
                    self.step_load(id, now);
                }
                State::Destroying(next) => is_busy |= self.step_destroy(id, next),
                _ => {}
            }
        }
        is_busy
    }
}

fn guest_state(manager: &mut Manager, id: usize, state: State) {
    if let Some(guest) = manager.guests.get_mut(id) {
        guest.state = state;
    }
    manager.save();
}
