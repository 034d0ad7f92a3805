//! Guided fuzzing of `block_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portico_fuzz::run("block_request", bytes));
