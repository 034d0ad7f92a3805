//! Ending the domain.

use portico_abi::call::exit as kind;

/// Ends the domain in an orderly way; `code` 0 is success.
pub fn exit(code: u64) -> ! {
    crate::console::flush();
    crate::hvc::self_exit(kind::EXIT, code)
}

/// Ends the domain as broken.
pub fn panic(code: u64) -> ! {
    crate::console::flush();
    crate::hvc::self_exit(kind::PANIC, code)
}

/// Asks to be started afresh.
pub fn reboot() -> ! {
    crate::console::flush();
    crate::hvc::self_exit(kind::REBOOT, 0)
}

/// Where a vCPU goes that must not run on.
pub(crate) fn halted() -> ! {
    #[cfg(target_os = "none")]
    loop {
        crate::irq::mask();
        crate::irq::wait();
    }
    #[cfg(not(target_os = "none"))]
    crate::fake::ended()
}
