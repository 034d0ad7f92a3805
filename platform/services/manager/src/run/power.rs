//! The end of the machine.

use core::time::Duration;
use portico_abi::call::{attrs, power};
use portico_abi::{Handle, PAGE_SIZE, Status};
use portico_boards::power::{self as board, PowerController};
use portico_sdk::{dtb, hvc, mem, time};

use crate::hv;

/// Where its registers are mapped: before those of devices for services.
const IPA: u64 = mem::DEVICES.start;
/// How long the controller may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Powers the machine off or starts it again, as `op` of [`power`] says: by the firmware, or where that does not know
/// how, by the board's controller. Returns only if that cannot be.
pub fn end(system: Handle, op: u64) -> Status {
    match hvc::system_off(system, op) {
        Err(Status::NotSupported) => by_controller(system, op).err().unwrap_or(Status::TimedOut),
        Err(status) => status,
        Ok(()) => Status::NotSupported,
    }
}

fn by_controller(system: Handle, op: u64) -> Result<(), Status> {
    let registers = dtb::machine().and_then(board::find).ok_or(Status::NotSupported)?;
    let first = registers.start & !(PAGE_SIZE - 1);
    let extent = hvc::device_extent(system, first, 1, 0)?;
    hv::map_here(extent, IPA, hv::READ_WRITE | attrs::DEVICE)?;
    let base = IPA + (registers.start - first);
    // SAFETY: the registers, which lie in one page, were just mapped there for good; that range is device memory in stage 1.
    let controller = unsafe { PowerController::new(base as usize) };
    if op == power::OFF {
        controller.off()
    } else {
        controller.reset()
    }
    time::sleep(PATIENCE);
    Ok(())
}
