//! Test Anything Protocol: a line for each point, the plan at the end.

use core::fmt::Debug;
use portico_sdk::println;

/// Counts and prints points.
#[derive(Debug, Default)]
pub struct Tap {
    number: u32,
    failed: u32,
}

impl Tap {
    /// Begins.
    pub fn new() -> Tap {
        Tap::default()
    }

    /// A point that holds or not.
    pub fn holds(&mut self, what: &str, holds: bool) {
        self.number += 1;
        if holds {
            println!("ok {} - {what}", self.number);
        } else {
            self.failed += 1;
            println!("not ok {} - {what}", self.number);
        }
    }

    /// A point that something is as it must be.
    pub fn is<T: PartialEq + Debug>(&mut self, what: &str, got: T, wanted: T) {
        self.number += 1;
        if got == wanted {
            println!("ok {} - {what}", self.number);
        } else {
            self.failed += 1;
            println!("not ok {} - {what}: got {got:x?}, wanted {wanted:x?}", self.number);
        }
    }

    /// A point that failed or not by a list of complaints: the first is told.
    pub fn none(&mut self, what: &str, complaint: Option<impl Debug>) {
        self.number += 1;
        match complaint {
            None => println!("ok {} - {what}", self.number),
            Some(complaint) => {
                self.failed += 1;
                println!("not ok {} - {what}: {complaint:x?}", self.number);
            }
        }
    }

    /// Prints the plan; returns the number of failed points.
    pub fn finish(self) -> u64 {
        println!("1..{}", self.number);
        u64::from(self.failed)
    }
}
