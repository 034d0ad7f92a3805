//! Accesses that must end the domain: each of them with a fault of its own kind, told to whoever watches.
//!
//! `end=info-write`: the information page is read-only. `end=null`: nothing is mapped at 0, but the guest's own tables say so
//! too, so the guest panics. `end=nowhere`: an IPA without memory.

use portico_sdk::abi::dt;
use portico_sdk::println;

/// Makes the access; returns only if it did not end the domain.
pub fn end(name: &str) {
    println!("conformance: the access `{name}` must end this domain");
    match name {
        "info-write" => write(dt::INFO_PAGE),
        "nowhere" => write(1 << 38),
        "null" => write(0),
        _ => println!("conformance: there is no such ending"),
    }
    println!("not ok 1 - the domain should have ended");
}

fn write(ipa: u64) {
    // SAFETY: none: the access must not succeed.
    unsafe { core::ptr::with_exposed_provenance_mut::<u64>(ipa as usize).write_volatile(1) };
}
