//! The back-end of the `log` crate: one line on the console for each record.

use log::{LevelFilter, Log, Metadata, Record};

struct Console;

impl Log for Console {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            crate::println!("{:<5} {}: {}", record.level(), record.target(), record.args());
        }
    }

    fn flush(&self) {
        crate::console::flush();
    }
}

/// Makes the `log` macros print. `loglevel=off|error|warn|info|debug|trace` in the boot arguments chooses; default info.
pub fn init() {
    let level = crate::dtb::bootarg("loglevel").and_then(|text| text.parse().ok()).unwrap_or(LevelFilter::Info);
    // A logger that the guest set before stays.
    let _ = log::set_logger(&Console);
    log::set_max_level(level);
}
