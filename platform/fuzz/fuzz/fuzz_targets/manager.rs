//! Guided fuzzing of `manager`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portico_fuzz::run("manager", bytes));
