//! Finds the guests, and lies to all of them at once.

use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use core::time::Duration;

use portico_console::layout;
use portico_sdk::abi::ObjectType;
use portico_sdk::abi::dt;
use portico_sdk::abi::handle::SELF_DOMAIN;
use portico_sdk::window::Window;
use portico_sdk::{dtb, hvc, irq, time};
use portico_service::control::Control;
use test_kit::Random;

use crate::screen::{LIES, Lie, Screen};

/// How long it serves well between two lies.
const SERVES: Duration = Duration::from_millis(200);
/// Between two turns, but for lies that race.
const NAP: Duration = Duration::from_millis(1);

/// Serves.
pub fn serve() -> u64 {
    // It polls; no handler is ever run.
    irq::mask();
    let Some(mut control) = Control::open() else { return 1 };
    let Some(terminal) = Terminal::open() else { return 1 };
    // SAFETY: the manager lends it for the life of the domain, and nothing else is there.
    let Some(desk) = (unsafe { Window::new(layout::DESK_IPA, layout::DESK_BYTES) }) else { return 1 };
    control.ready();
    let mut screens: Vec<Option<Screen>> = Vec::new();
    // Not before all are up to be lied to.
    while screens.iter().flatten().filter(|screen| screen.is_up).count() < GUESTS {
        control.beat();
        let _ = control.has_changed();
        find(&desk, &mut screens);
        serve_for(NAP, &mut control, &mut screens, &terminal);
    }
    let mut random = Random::new(1);
    serve_for(SERVES, &mut control, &mut screens, &terminal);
    for (lie, lasts) in LIES {
        terminal.print(&alloc::format!("lie: {lie:?}"));
        let end = time::deadline(lasts);
        while !time::passed(end) {
            control.beat();
            for screen in screens.iter_mut().flatten() {
                screen.lie(lie, &mut random);
            }
            if !matches!(lie, Lie::TailFlips | Lie::Storms | Lie::Wants) {
                time::sleep(NAP);
            }
        }
        terminal.print(&alloc::format!("served after {lie:?}"));
        screens.iter_mut().flatten().for_each(Screen::mend);
        serve_for(SERVES, &mut control, &mut screens, &terminal);
    }
    terminal.print("no more lies");
    loop {
        serve_for(SERVES, &mut control, &mut screens, &terminal);
    }
}

/// Guests that the system has.
const GUESTS: usize = 3;

/// Keeps to everything for a while.
fn serve_for(time: Duration, control: &mut Control, screens: &mut [Option<Screen>], terminal: &Terminal) {
    let end = time::deadline(time);
    while !time::passed(end) {
        control.beat();
        for screen in screens.iter_mut().flatten() {
            screen.serve(|name, line| {
                terminal.print(&alloc::format!("[{name}] {}", String::from_utf8_lossy(line)));
            });
        }
        time::sleep(NAP);
    }
}

/// Finds guests that are new in the manager's table, and the ports of all.
fn find(desk: &Window, screens: &mut Vec<Option<Screen>>) {
    screens.resize_with(layout::MAX_SOURCES, || None);
    for (source, screen) in screens.iter_mut().enumerate().filter(|(_, screen)| screen.is_none()) {
        let at = layout::TABLE + source * layout::ENTRY_BYTES;
        if desk.word(at + layout::ENTRY_KIND).is_none_or(|kind| kind.load(Ordering::Acquire) != layout::GUEST) {
            continue;
        }
        let mut name = [0; layout::NAME_BYTES];
        let _ = desk.read(at, &mut name);
        *screen = Screen::open(source, String::from_utf8_lossy(&name).trim_end_matches('\0').into());
        if let Some(screen) = screen {
            screen.mend();
        }
    }
    let mut cursor = 0;
    while let Ok((handle, next)) = hvc::handle_next(SELF_DOMAIN, cursor) {
        cursor = next;
        let Ok(info) = hvc::handle_info(handle) else { continue };
        let source = layout::source_of(info.cookie).filter(|_| info.object == Some(ObjectType::Port));
        if let Some(screen) = source.and_then(|source| screens.get_mut(source)?.as_mut()) {
            screen.port = Some(handle);
        }
    }
}

/// The data register of a PL011, which is the first. In QEMU it takes whatever it is given.
struct Terminal(*mut u32);

impl Terminal {
    fn open() -> Option<Terminal> {
        let node = dtb::devices(dt::UART).next()?;
        Some(Terminal(core::ptr::with_exposed_provenance_mut(node.window.base as usize)))
    }

    fn print(&self, line: &str) {
        for byte in line.bytes().chain(*b"\r\n") {
            // SAFETY: the manager mapped the UART's registers, for the life of the domain.
            unsafe { self.0.write_volatile(u32::from(byte)) };
        }
    }
}
