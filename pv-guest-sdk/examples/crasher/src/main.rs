//! Runs for a second and then writes where no memory is: a stage-2 fault, which ends this domain and no other.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::time::Duration;
use portico_sdk::{println, time};

/// An IPA that the identity map of the SDK reaches and that EL2 has not mapped: the last GiB.
const NOWHERE: usize = (1 << 39) - (1 << 30);

portico_sdk::entry!(crasher);

fn crasher() -> u64 {
    println!("running for a second");
    time::sleep(Duration::from_secs(1));
    println!("now writing to {NOWHERE:#x}");
    // SAFETY: none: this is the crash that the example is about.
    unsafe { core::ptr::with_exposed_provenance_mut::<u64>(NOWHERE).write_volatile(1) };
    println!("still here: the write should have ended this domain");
    1
}
