//! The manager's heap, which grows with what there is to do.
//!
//! EL2 gives the manager memory for its image and a small heap. Before more could be needed than is left, a piece of free memory is mapped into the
//! manager and added to it. None is given back: the next life takes all over before it allocates anything, as it will need as much as the last.
//!
//! *Rejected*: taking a piece when an allocation fails. The books of free memory are in use at such a moment, and they allocate themselves.

use core::fmt;
use portico_abi::handle::SELF_DOMAIN;
use portico_abi::{PAGE_SIZE, Status};
use portico_sdk::{alloc, hvc};

use crate::hv::{self, Machine};
use crate::place;

/// Bytes that are free before anything is begun: more than a turn of the manager's loop allocates.
pub const ROOM: usize = 64 << 10;
/// Bytes of a piece at least.
const PIECE: usize = 128 << 10;

/// What was added to the heap that EL2 gave.
#[derive(Debug, Default)]
pub struct Heap {
    bytes: u64,
}

impl Heap {
    /// Takes over what the last life has added. It is known by its place.
    pub fn take_over() -> Self {
        let mut heap = Self::default();
        let mut cursor = 0;
        while let Ok((handle, next)) = hvc::handle_next(SELF_DOMAIN, cursor) {
            cursor = next;
            let Ok(info) = hvc::extent_info(handle) else { continue };
            let Some(ipa) = info.ipa.filter(|&ipa| place::is_heap(ipa)) else { continue };
            // The last life may have ended while it mapped it; it is in a bad state for that if it is mapped whole.
            if let Ok(()) | Err(Status::BadState) = hv::map_here(handle, ipa, hv::READ_WRITE) {
                heap.add(ipa, info.pages * PAGE_SIZE);
            }
        }
        heap
    }

    /// Pages that were added.
    pub fn pages(&self) -> u64 {
        self.bytes / PAGE_SIZE
    }

    fn add(&mut self, ipa: u64, bytes: u64) {
        // SAFETY: memory of the manager's, mapped there for good, in which no object of this life is.
        unsafe { alloc::add(ipa as usize, (ipa + bytes) as usize) };
        self.bytes += bytes;
    }
}

impl fmt::Display for Heap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (all, used) = alloc::usage();
        write!(f, "{}K of {}K heap used", used.div_ceil(1024), all / 1024)
    }
}

impl Machine {
    /// Sees to it that `bytes` can be allocated, and [`ROOM`] is left then. If there is no memory for that, what there is has to do.
    pub fn make_room(&mut self, bytes: usize) {
        let wanted = bytes.saturating_add(ROOM);
        let (all, used) = alloc::usage();
        if all.saturating_sub(used) >= wanted {
            return;
        }
        // The heap hands out powers of two.
        let bytes = wanted.max(PIECE).next_power_of_two() as u64;
        let Some(ipa) = place::heap(self.heap.bytes, bytes) else { return };
        let Ok(piece) = self.take(bytes / PAGE_SIZE) else { return };
        match hv::map_here(piece.extent, ipa, hv::READ_WRITE) {
            Ok(()) => self.heap.add(ipa, bytes),
            Err(_) => self.give_back(piece),
        }
    }
}
