//! The conformance guest: numbered checks of what `ABI.md` promises, printed as TAP (Test Anything Protocol).
//!
//! It needs nothing but the ABI, so any implementation can be held to it. Checks of several vCPUs are skipped on one.
//! The exit code is the number of failed checks. With the boot argument `end=NAME` it makes, instead, one access that
//! must end the domain: see [`endings`].
#![cfg_attr(target_os = "none", no_std, no_main)]
#![cfg_attr(not(target_os = "none"), allow(dead_code, unused_imports, reason = "a guest for the target only"))]

#[cfg(target_os = "none")]
mod calls;
#[cfg(target_os = "none")]
mod cpu;
#[cfg(target_os = "none")]
mod endings;
#[cfg(target_os = "none")]
mod ports;
#[cfg(target_os = "none")]
mod smp;
#[cfg(target_os = "none")]
mod standards;
mod tap;
#[cfg(target_os = "none")]
mod timer;

portico_sdk::entry!(conformance);

#[cfg(target_os = "none")]
fn conformance() -> u64 {
    if let Some(name) = portico_sdk::dtb::bootarg("end") {
        endings::end(name);
        return 1;
    }
    let mut tap = tap::Tap::new();
    calls::check(&mut tap);
    standards::check(&mut tap);
    ports::check(&mut tap);
    timer::check(&mut tap);
    cpu::check(&mut tap);
    smp::check(&mut tap);
    tap.finish()
}

/// On a host there is nothing to hold to the ABI.
#[cfg(not(target_os = "none"))]
fn conformance() -> u64 {
    0
}
