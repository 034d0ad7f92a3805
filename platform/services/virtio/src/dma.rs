//! Memory that a device may reach.

use portico_sdk::window::Window;

/// A range of memory with its machine address.
#[derive(Clone, Copy, Debug)]
pub struct Area {
    /// Where the service sees it.
    pub window: Window,
    /// Where the device sees it.
    pub machine: u64,
}

impl Area {
    /// A part of it. `None` if that is not inside, or does not begin at a multiple of 8.
    pub fn part(&self, offset: usize, bytes: usize) -> Option<Area> {
        Some(Area { window: self.window.part(offset, bytes)?, machine: self.machine.checked_add(offset as u64)? })
    }
}

/// What the manager gave for that, handed out from its beginning on and never taken back: a service's queues live as long as it.
#[derive(Debug)]
pub struct Dma {
    all: Area,
    used: usize,
}

impl Dma {
    /// Begins to hand out `all`.
    pub fn new(all: Area) -> Dma {
        Dma { all, used: 0 }
    }

    /// Takes `bytes` zeroed bytes at a multiple of `align`, a power of two. `None` if there is no room.
    pub fn take(&mut self, bytes: usize, align: usize) -> Option<Area> {
        let start = self.used.checked_next_multiple_of(align.max(8))?;
        let area = self.all.part(start, bytes)?;
        for at in (0..bytes & !7).step_by(8) {
            area.window.store(at, 0)?;
        }
        self.used = start + bytes;
        Some(area)
    }
}

#[cfg(test)]
mod tests {
    use super::{Area, Dma};
    use portico_sdk::window::Window;

    #[test]
    fn hands_out_aligned_pieces_until_there_is_no_more() {
        let mut memory = vec![u64::MAX; 512];
        // SAFETY: `memory` outlives the window and is not touched otherwise meanwhile.
        let window = unsafe { Window::new(memory.as_mut_ptr().expose_provenance() as u64, 4096) }.unwrap();
        let mut dma = Dma::new(Area { window, machine: 0x8000_0000 });
        assert_eq!(dma.take(10, 1).unwrap().machine, 0x8000_0000);
        let second = dma.take(64, 256).unwrap();
        assert_eq!((second.machine, second.window.load(56)), (0x8000_0100, Some(0)));
        assert!(dma.take(4096, 16).is_none());
    }
}
