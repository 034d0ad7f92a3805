//! The time of day: from the machine's clock where it has one, or from the operator. Guests are told by their control pages.

use alloc::string::String;
use portico_abi::PAGE_SIZE;
use portico_boards::rtc;
use portico_manager::calendar::{self, SECOND_NS};
use portico_sdk::{dtb, mem, time};

use crate::hv::{self, Machine};
use crate::supervisor::Manager;

/// Where the clock's registers are mapped: behind those of the power controller.
const IPA: u64 = mem::DEVICES.start + PAGE_SIZE;

/// What is known of the time of day.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    at_zero_ns: Option<u64>,
    /// An operator set it.
    pub is_set: bool,
}

impl Clock {
    /// Takes the time that an operator set in an earlier life, or else the machine's.
    pub fn begin(machine: &Machine, set: Option<u64>) -> Clock {
        let at_zero_ns = set.or_else(|| {
            let seconds = u64::from(read(machine)?);
            (seconds * SECOND_NS).checked_sub(time::now_ns())
        });
        Clock { at_zero_ns, is_set: set.is_some() }
    }

    /// Time of day at which the manager's counter was 0, in nanoseconds since 1970.
    pub fn at_zero_ns(&self) -> Option<u64> {
        self.at_zero_ns
    }
}

/// Reads the machine's clock, if it has one.
fn read(machine: &Machine) -> Option<u32> {
    let registers = dtb::machine().and_then(rtc::find)?;
    let first = registers.start & !(PAGE_SIZE - 1);
    let extent = machine.device(first, 1).ok()?;
    hv::map_device_here(extent, IPA).ok()?;
    let base = IPA + (registers.start - first);
    // SAFETY: the registers, whose first word is in that page, were just mapped there; that range is device memory in stage 1.
    Some(unsafe { rtc::read(base as usize) })
}

impl Manager {
    /// Sets the time of day, if it is to be set, and shows it.
    pub fn clock(&mut self, set: Option<u64>) -> String {
        if let Some(wall_ns) = set {
            let at_zero_ns = wall_ns.wrapping_sub(time::now_ns());
            self.clock = Clock { at_zero_ns: Some(at_zero_ns), is_set: true };
            self.save();
            for guest in &self.guests {
                if let (Some(control), Some(instance)) = (&guest.control, &guest.instance) {
                    control.set_wall(at_zero_ns.wrapping_add(instance.born_ns));
                }
            }
        }
        match self.clock.at_zero_ns() {
            Some(at_zero_ns) => calendar::show(at_zero_ns.wrapping_add(time::now_ns())),
            None => String::from("the machine has no clock; `clock YYYY-MM-DDTHH:MM:SS` sets the time of day, in UTC"),
        }
    }
}
