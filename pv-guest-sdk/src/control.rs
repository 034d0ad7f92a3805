//! The control page: what the manager asks of the domain, the time of day, and the domain's heartbeat.
//!
//! The functions of this module use the page that the device tree names, and do nothing where there is none. A guest that
//! wants to be asked says so by [`able`], and looks at [`asked`] whenever its [`port`] is notified; or it leaves all that to [`obey`].

use crate::port::Port;
use crate::sync::Lock;
use crate::window::Window;
use crate::{dtb, exit, time};
use core::mem::offset_of;
use core::sync::atomic::Ordering;
use core::time::Duration;
use portico_abi::channel::ChannelHeader;
use portico_abi::device::control::{ABLE, ASK, ASLEEP, BEAT, DEVICE, TAKEN, WALL_NS, WATCHDOG_MS, ask};
use portico_abi::port::DEADLINE_NEVER;
use portico_abi::{Handle, Status, dt};

/// What the manager asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Ask {
    /// Nothing more: to go on after [`Ask::Suspend`].
    Nothing = ask::NOTHING,
    /// To end in order: see [`exit`](fn@crate::exit::exit).
    PowerOff = ask::POWER_OFF,
    /// To end in order and be started afresh: see [`reboot`](crate::exit::reboot).
    Reboot = ask::REBOOT,
    /// To bring its devices to rest, and to [`sleep`].
    Suspend = ask::SUSPEND,
    /// To give up the device that [`device`] names, if nobody uses it.
    Release = ask::RELEASE,
}

impl Ask {
    fn from_word(word: u32) -> Option<Ask> {
        let all = [Ask::Nothing, Ask::PowerOff, Ask::Reboot, Ask::Suspend, Ask::Release];
        all.into_iter().find(|known| *known as u32 == word & 0xff)
    }
}

/// The domain's end of a control page.
#[derive(Clone, Copy, Debug)]
pub struct Control {
    window: Window,
    handle: Handle,
}

static CONTROL: Lock<Option<(Control, Option<Port>)>> = Lock::new(None);

/// Opens the control page that the device tree names.
pub fn init() {
    *CONTROL.lock() = Control::find().map(|control| (control, None));
}

/// Forgets the page: a new machine.
#[cfg(not(target_os = "none"))]
pub(crate) fn reset() {
    *CONTROL.lock() = None;
}

pub(crate) fn page() -> Option<Control> {
    CONTROL.lock().map(|(control, _)| control)
}

/// Tells the manager what the domain does if it is asked for: [`asked`] tells when it is. [`Ask::Nothing`] needs not be told.
pub fn able(asks: &[Ask]) {
    page().inspect(|control| control.able(asks));
}

/// Ends the domain in order when the manager asks for that, in interrupt context: for guests with nothing to bring to an end first.
///
/// # Errors
/// As [`port`].
pub fn obey() -> Result<(), Status> {
    let port = port()?;
    port.on_notify(
        |_, _| match asked() {
            Some(Ask::PowerOff) => exit::exit(0),
            Some(Ask::Reboot) => exit::reboot(),
            _ => {}
        },
        0,
    );
    able(&[Ask::PowerOff, Ask::Reboot]);
    Ok(())
}

/// What the manager asks for and did not before. To be looked at after the [`port`] was notified.
pub fn asked() -> Option<Ask> {
    page()?.asked()
}

/// Tells the manager that the domain sleeps, and blocks until it asks for something else, which is returned: [`Ask::Nothing`] to go on. To be called
/// when nothing is in flight, on the vCPU that bound the [`port`].
///
/// # Errors
/// As [`port`], and those of [`Port::wait`].
pub fn sleep() -> Result<Ask, Status> {
    let port = port()?;
    let control = page().ok_or(Status::NotFound)?;
    control.asleep(true);
    let woken = loop {
        // Looked at before each wait: what is asked in between is pending then.
        if let Some(ask) = control.asked().filter(|ask| *ask != Ask::Suspend) {
            break Ok(ask);
        }
        if let Err(status) = port.wait(DEADLINE_NEVER) {
            break Err(status);
        }
    };
    control.asleep(false);
    woken
}

/// Cookie of the device that [`Ask::Release`] asks for.
pub fn device() -> Option<u64> {
    page()?.window.load(DEVICE)
}

/// The page's port: notified when something is asked for or the time of day was set. Bound by the first call, to a bit of the calling vCPU.
///
/// # Errors
/// `NotFound` without a control page, and those of [`Port::bind`].
pub fn port() -> Result<Port, Status> {
    let mut control = CONTROL.lock();
    let (page, port) = control.as_mut().ok_or(Status::NotFound)?;
    match port {
        Some(port) => Ok(*port),
        None => page.bind().inspect(|bound| *port = Some(*bound)),
    }
}

/// The time of day, since 1970-01-01 00:00 UTC. `None` if the machine does not know.
pub fn wall_time() -> Option<Duration> {
    page()?.wall_time()
}

/// Asks the manager to end the domain as crashed if [`heartbeat`] is not called for `limit`, of 50 ms or more; zero ends that.
pub fn watchdog(limit: Duration) {
    page().inspect(|control| control.watchdog(limit));
}

/// Shows the manager that the guest is alive.
pub fn heartbeat() {
    page().inspect(Control::beat);
}

impl Control {
    /// The page that the device tree names.
    pub fn find() -> Option<Control> {
        let node = dtb::devices(dt::CONTROL).next()?;
        // SAFETY: the manager mapped the page for the life of the domain, and nothing else of the guest is there.
        let window = unsafe { Window::new(node.window.base, node.window.len as usize) }?;
        Self::over(window, Handle::from_raw(node.number(dt::PORT)? as u32))
    }

    fn over(window: Window, handle: Handle) -> Option<Control> {
        let magic = window.word(offset_of!(ChannelHeader, magic))?.load(Ordering::Acquire);
        (magic == ChannelHeader::MAGIC).then_some(Control { window, handle })
    }

    /// The page.
    pub fn window(&self) -> Window {
        self.window
    }

    /// Binds its port to a bit of the calling vCPU.
    ///
    /// # Errors
    /// Those of [`Port::bind`].
    pub fn bind(&self) -> Result<Port, Status> {
        Port::bind(self.handle)
    }

    /// See [`able`].
    pub fn able(&self, asks: &[Ask]) {
        self.set(ABLE, asks.iter().fold(0, |bits, ask| bits | 1 << *ask as u32));
    }

    /// See [`asked`].
    pub fn asked(&self) -> Option<Ask> {
        let word = self.get(ASK);
        if word == self.get(TAKEN) {
            return None;
        }
        self.set(TAKEN, word);
        Ask::from_word(word)
    }

    /// Tells whether the domain sleeps: see [`sleep`].
    pub fn asleep(&self, is_asleep: bool) {
        self.set(ASLEEP, u32::from(is_asleep));
    }

    /// See [`wall_time`].
    pub fn wall_time(&self) -> Option<Duration> {
        let at_zero = self.window.load(WALL_NS).filter(|ns| *ns != 0)?;
        Some(Duration::from_nanos(at_zero.wrapping_add(time::now_ns())))
    }

    /// See [`watchdog`].
    pub fn watchdog(&self, limit: Duration) {
        self.set(WATCHDOG_MS, u32::try_from(limit.as_millis()).unwrap_or(u32::MAX));
    }

    /// Shows that the domain lives.
    pub fn beat(&self) {
        self.set(BEAT, self.get(BEAT).wrapping_add(1));
    }

    pub(crate) fn get(&self, at: usize) -> u32 {
        self.window.word(at).map_or(0, |word| word.load(Ordering::Acquire))
    }

    pub(crate) fn set(&self, at: usize, value: u32) {
        if let Some(word) = self.window.word(at) {
            word.store(value, Ordering::Release);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Ask, Control};
    use crate::fake::Machine;
    use crate::window::Window;
    use core::sync::atomic::Ordering;
    use core::time::Duration;
    use portico_abi::channel::ChannelHeader;
    use portico_abi::device::control::{ABLE, ASK, ASLEEP, BEAT, TAKEN, WALL_NS, WATCHDOG_MS, ask};
    use portico_abi::{Handle, PAGE_SIZE};

    fn page() -> Window {
        let words = Vec::leak(vec![0_u64; PAGE_SIZE as usize / 8]);
        let base = words.as_mut_ptr().expose_provenance() as u64;
        // SAFETY: leaked above.
        unsafe { Window::new(base, PAGE_SIZE as usize) }.expect("aligned")
    }

    pub(crate) fn get(page: Window, at: usize) -> u32 {
        page.word(at).expect("inside").load(Ordering::Relaxed)
    }

    pub(crate) fn set(page: Window, at: usize, value: u32) {
        page.word(at).expect("inside").store(value, Ordering::Relaxed);
    }

    /// A page with its domain's end.
    pub(crate) fn control() -> (Window, Control) {
        let page = page();
        set(page, 0, ChannelHeader::MAGIC);
        (page, Control::over(page, Handle::NONE).expect("a page"))
    }

    #[test]
    fn a_request_is_taken_once() {
        let page = page();
        assert!(Control::over(page, Handle::NONE).is_none(), "no page of the manager's");
        set(page, 0, ChannelHeader::MAGIC);
        let control = Control::over(page, Handle::NONE).expect("a page");
        control.able(&[Ask::PowerOff, Ask::Reboot]);
        assert_eq!(get(page, ABLE), 0b110);
        assert_eq!(control.asked(), None);
        set(page, ASK, 1 << 8 | ask::POWER_OFF);
        assert_eq!(control.asked(), Some(Ask::PowerOff));
        assert_eq!((control.asked(), get(page, TAKEN)), (None, 1 << 8 | ask::POWER_OFF));
        // The same again is another number.
        set(page, ASK, 2 << 8 | ask::POWER_OFF);
        assert_eq!(control.asked(), Some(Ask::PowerOff));
        // What is not known is taken, and not done.
        set(page, ASK, 3 << 8 | 77);
        assert_eq!((control.asked(), get(page, TAKEN)), (None, 3 << 8 | 77));
        set(page, ASK, 4 << 8);
        assert_eq!(control.asked(), Some(Ask::Nothing));
    }

    #[test]
    fn the_time_of_day_may_be_unknown() {
        // It has the counter.
        let _machine = Machine::start();
        let page = page();
        set(page, 0, ChannelHeader::MAGIC);
        let control = Control::over(page, Handle::NONE).expect("a page");
        assert_eq!(control.wall_time(), None);
        page.store(WALL_NS, 1_700_000_000_000_000_000).expect("inside");
        assert!(control.wall_time().is_some_and(|time| time >= Duration::from_secs(1_700_000_000)));
    }

    #[test]
    fn the_heartbeat_is_seen() {
        let page = page();
        set(page, 0, ChannelHeader::MAGIC);
        let control = Control::over(page, Handle::NONE).expect("a page");
        control.asleep(true);
        assert_eq!(get(page, ASLEEP), 1);
        control.asleep(false);
        assert_eq!(get(page, ASLEEP), 0);
        control.watchdog(Duration::from_secs(2));
        control.beat();
        control.beat();
        assert_eq!((get(page, WATCHDOG_MS), get(page, BEAT)), (2000, 2));
        control.watchdog(Duration::MAX);
        assert_eq!(get(page, WATCHDOG_MS), u32::MAX);
    }
}
