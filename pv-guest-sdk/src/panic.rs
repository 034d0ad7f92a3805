//! What happens when a guest panics: it says so on its console and to whoever watches it.

use core::panic::PanicInfo;

/// Exit code of a panic.
const PANICKED: u64 = 1;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    crate::irq::mask();
    crate::console::print_urgently(format_args!("{info}\n"));
    crate::exit::panic(PANICKED)
}
