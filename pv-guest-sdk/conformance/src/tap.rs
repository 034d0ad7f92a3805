//! Test Anything Protocol, version 13: one line for each check, the plan at the end.

use core::fmt::Debug;
use portico_sdk::println;

/// Counts and prints checks.
pub struct Tap {
    number: u32,
    failed: u32,
}

impl Tap {
    /// Begins.
    pub fn new() -> Tap {
        println!("TAP version 13");
        Tap { number: 0, failed: 0 }
    }

    /// A check that holds or not.
    pub fn holds(&mut self, what: &str, holds: bool) {
        self.number += 1;
        if holds {
            println!("ok {} - {what}", self.number);
        } else {
            self.failed += 1;
            println!("not ok {} - {what}", self.number);
        }
    }

    /// A check that something is as it must be.
    pub fn is<T: PartialEq + Debug>(&mut self, what: &str, got: T, wanted: T) {
        let holds = got == wanted;
        self.holds(what, holds);
        if !holds {
            println!("# got {got:x?}, wanted {wanted:x?}");
        }
    }

    /// A check that cannot be made here.
    pub fn skip(&mut self, what: &str, reason: &str) {
        self.number += 1;
        println!("ok {} - {what} # SKIP {reason}", self.number);
    }

    /// Prints the plan; returns the number of failed checks.
    pub fn finish(self) -> u64 {
        println!("1..{}", self.number);
        println!("# conformance: {} passed, {} failed", self.number - self.failed, self.failed);
        u64::from(self.failed)
    }
}
