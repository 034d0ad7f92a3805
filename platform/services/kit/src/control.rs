//! The service's end of its control page.

use core::mem::size_of;
use core::sync::atomic::Ordering;
use core::time::Duration;
use portico_abi::device::control::{CHANGES, COUNTERS, Counters, MAX_DEVICES, READY};
use portico_sdk::port::Port;
use portico_sdk::window::Window;
use portico_sdk::{control, time};

/// How often a service shows that its main loop turns.
pub const BEAT_EVERY: Duration = Duration::from_millis(500);

/// The control page.
#[derive(Debug)]
pub struct Control {
    page: control::Control,
    window: Window,
    port: Port,
    /// Changes that were taken.
    seen: u32,
    /// When the next beat is due, a value of CNTVCT_EL0.
    beat_at: u64,
}

impl Control {
    /// Opens the control page that the device tree names. `None` if there is none: the program was not started as a service.
    pub fn open() -> Option<Control> {
        let page = control::Control::find()?;
        let window = page.window();
        let port = page.bind().ok()?;
        let seen = window.word(CHANGES)?.load(Ordering::Acquire);
        Some(Control { page, window, port, seen, beat_at: 0 })
    }

    /// Says that the service serves.
    pub fn ready(&self) {
        self.set(READY, 1);
        let _ = self.port.notify();
    }

    /// Notifies the manager.
    pub fn notify(&self) {
        let _ = self.port.notify();
    }

    /// Whether ports of its devices have changed since the last call: links that are unplugged may find one now.
    pub fn has_changed(&mut self) -> bool {
        if !self.port.take() {
            return false;
        }
        let now = self.window.word(CHANGES).map_or(0, |word| word.load(Ordering::Acquire));
        core::mem::replace(&mut self.seen, now) != now
    }

    /// Shows that the main loop turns, if that is due; then it is `true`. To be called in each turn.
    #[inline]
    pub fn beat(&mut self) -> bool {
        let is_due = time::passed(self.beat_at);
        if is_due {
            self.beat_at = time::deadline(BEAT_EVERY);
            self.page.beat();
        }
        is_due
    }

    /// When the main loop must turn again, a value of CNTVCT_EL0.
    pub fn deadline(&self) -> u64 {
        self.beat_at
    }

    /// Shows what device number `index` of the device tree has moved.
    pub fn count(&self, index: usize, counters: &Counters) {
        if index >= MAX_DEVICES {
            return;
        }
        let at = COUNTERS + index * size_of::<Counters>();
        let words = [counters.requests, counters.bytes_in, counters.bytes_out, counters.failed, counters.notified];
        for (offset, word) in (at..).step_by(8).zip(words) {
            let _ = self.window.store(offset, word);
        }
    }

    fn set(&self, at: usize, value: u32) {
        if let Some(word) = self.window.word(at) {
            word.store(value, Ordering::Release);
        }
    }
}
